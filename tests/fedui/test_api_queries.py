"""Queries over REST and by the form: who may ask, what is refused, what is written down."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client as Browser

from fedui.accounts.models import User
from fedui.analytics.columns import MAX_LISTED, open_columns
from fedui.analytics.models import Query, QueryStatus
from fedui.analytics.services import MAX_ACTIVE
from fedui.audit.models import AuditEvent
from fedui.clients.models import Client, ClientStatus
from fedui.federations.models import Federation, Role
from tests.support.domain import a_client, a_member, an_app

URL = "/api/v1/federations/hearts/queries"
ONE = "/api/v1/queries"


@pytest.fixture
def open_federation(federation: Federation) -> Federation:
    """Two clients, whose app opens the column "age"; one carries a label."""
    an_app(federation)
    opening(a_client(federation), "age", labels={"region": "north"})
    opening(a_client(federation), "age")
    return federation


def opening(client: Client, *columns: str, app: str = "digits-mlp", **changes: Any) -> Client:
    """The client, whose agent has offered an app with these columns."""
    client.apps = [{"name": app, "version": "1", "framework": "", "problem": "", "columns": list(columns)}]
    for name, value in changes.items():
        setattr(client, name, value)
    client.save()
    return client


def signed_in(user: User) -> Browser:
    browser = Browser()
    browser.force_login(user)
    return browser


def body(**config: Any) -> dict[str, Any]:
    config = {"column": "age", "statistics": ["mean"]} | config
    return {"app": "digits-mlp", "app_version": "1", "config": config}


def post(user: User, content: Any, url: str = URL) -> Any:
    return signed_in(user).post(url, content, content_type="application/json")


def test_an_owner_asks_looks_and_cancels(open_federation: Federation, owner: User) -> None:
    created = post(owner, body())
    assert created.status_code == 201, created.json()
    number = created.json()["id"]
    seen = signed_in(owner).get(f"{ONE}/{number}").json()
    assert (seen["status"], seen["column"], seen["config"]["min_clients"]) == ("queued", "age", 2)
    assert [q["id"] for q in signed_in(owner).get(URL).json()["results"]] == [number]
    cancelled = post(owner, {}, f"{ONE}/{number}/cancel").json()
    assert (cancelled["status"], cancelled["reason"]) == ("cancelled", "Cancelled by owner.")
    assert post(owner, {}, f"{ONE}/{number}/cancel").status_code == 409
    actions = AuditEvent.objects.filter(action__startswith="query.").order_by("pk").values_list("action", flat=True)
    assert list(actions) == ["query.created", "query.cancelled"]
    assert AuditEvent.objects.get(action="query.created").details["column"] == "age"


@pytest.mark.parametrize(("role", "code"), [(Role.OPERATOR, 201), (Role.RESEARCHER, 201), (Role.AUDITOR, 403)])
def test_who_may_start_runs_may_ask(open_federation: Federation, role: Role, code: int) -> None:
    member = a_member(open_federation, role)
    assert post(member, body()).status_code == code
    assert signed_in(member).get(URL).status_code == 200


def test_an_auditor_cancels_nothing(open_federation: Federation, owner: User) -> None:
    number = post(owner, body()).json()["id"]
    assert post(a_member(open_federation, Role.AUDITOR), {}, f"{ONE}/{number}/cancel").status_code == 403
    assert Query.objects.get().status == QueryStatus.QUEUED


def test_a_stranger_learns_nothing(open_federation: Federation, owner: User, stranger: User) -> None:
    number = post(owner, body()).json()["id"]
    assert post(stranger, body()).status_code == 404
    assert post(stranger, {}, f"{ONE}/{number}/cancel").status_code == 404
    assert signed_in(stranger).get(f"{ONE}/{number}").status_code == 404
    assert signed_in(stranger).get(URL).status_code == 404
    assert Browser().get(URL).status_code in (401, 403)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (body(column="income"), 422),
        (body(min_clients=3), 422),
        (body(labels={"region": "north"}), 422),
        (body(statistics=[]), 400),
        (body(min_clients=1), 400),
        (body(low=1), 400),
        (body(bins="many"), 400),
        (body() | {"config": 5}, 400),
        (body() | {"padding": "x" * 70_000}, 413),
        (body() | {"app": "other"}, 404),
        ({}, 400),
        ([], 400),
    ],
)
def test_what_makes_no_sense_is_refused(open_federation: Federation, owner: User, content: Any, code: int) -> None:
    response = post(owner, content)
    assert response.status_code == code, response.content
    assert response.headers["Content-Type"] == "application/problem+json"
    assert not Query.objects.exists()


@pytest.mark.parametrize("change", [{"status": ClientStatus.REVOKED}, {"status": ClientStatus.SUSPENDED}, {"apps": []}])
def test_only_clients_that_can_answer_count(open_federation: Federation, owner: User, change: dict[str, Any]) -> None:
    Client.objects.filter(pk=open_federation.clients.latest("number").pk).update(**change)
    problem = post(owner, body()).json()
    assert problem["code"] == "query_refused"
    assert problem["detail"] == "Column 'age' of digits-mlp 1 is open at 1 client; the query needs 2 answers."
    assert open_columns(open_federation) == []


def test_a_federation_has_few_queries_at_a_time(open_federation: Federation, owner: User) -> None:
    numbers = [post(owner, body()).json()["id"] for _ in range(MAX_ACTIVE)]
    response = post(owner, body())
    assert response.status_code == 422
    assert response.json()["hint"] == "Wait until one has ended, or cancel one."
    assert signed_in(owner).post("/f/hearts/queries/new/", form(open_federation)).status_code == 422
    assert Query.objects.count() == MAX_ACTIVE
    post(owner, {}, f"{ONE}/{numbers[0]}/cancel")
    assert post(owner, body()).status_code == 201


def test_columns_are_listed_by_app_those_of_most_clients_first(open_federation: Federation) -> None:
    an_app(open_federation, "another")
    for _ in range(2):
        opening(a_client(open_federation), "height", "weight", "weight", app="another")
    opening(a_client(open_federation), "income", "age")
    opening(a_client(open_federation), "income")
    listed = [(column.app.name, column.name, column.num_clients) for column in open_columns(open_federation)]
    assert listed == [
        ("another", "height", 2), ("another", "weight", 2), ("digits-mlp", "age", 3), ("digits-mlp", "income", 2)
    ]  # fmt: skip


def test_no_agent_decides_how_long_the_list_of_columns_is(open_federation: Federation, owner: User) -> None:
    for _ in range(2):
        opening(a_client(open_federation), *map(str, range(MAX_LISTED + 50)))
    opening(open_federation.clients.earliest("number"), "age", "0")
    names = [column.name for column in open_columns(open_federation)]
    assert len(names) == MAX_LISTED
    assert names[0] == "0"
    assert "The 500 columns that most clients open" in signed_in(owner).get("/f/hearts/queries/new/").content.decode()


def test_columns_of_an_app_that_is_gone_are_not_listed(open_federation: Federation) -> None:
    open_federation.apps.all().delete()
    assert open_columns(open_federation) == []


def form(federation: Federation, **changes: Any) -> dict[str, Any]:
    return {
        "column": f"{an_app(federation).pk}:age", "statistics": ["count", "histogram"], "bins": "20", "low": "", "high": "",
        "quantiles": "0.5", "min_clients": "2", "labels": "", "deadline_seconds": "30",
    } | changes  # fmt: skip


def test_the_form_asks(open_federation: Federation, owner: User) -> None:
    open_federation.clients.update(labels={"region": "north"})
    response = signed_in(owner).post("/f/hearts/queries/new/", form(open_federation, labels="region:north"))
    query = Query.objects.get()
    assert response.status_code == 302
    assert response.headers["Location"] == f"/f/hearts/queries/{query.pk}/"
    assert (query.parsed.labels, query.parsed.deadline_seconds) == ({"region": "north"}, 30.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"statistics": []}, "Choose at least one."),
        ({"bins": "5000"}, "less than or equal to 1000"),
        ({"quantiles": "half"}, "Write shares between 0 and 1"),
        ({"quantiles": "2"}, "less than 1"),
        ({"low": "3", "high": "1"}, "low must be below high"),
        ({"low": "nan", "high": "1"}, "Enter a number."),
        ({"min_clients": "1"}, "greater than or equal to 2"),
        ({"min_clients": "3"}, "is open at 2 clients; the query needs 3 answers."),
        ({"labels": "north"}, "is not a label"),
        ({"column": "9:x"}, "Select a valid choice"),
    ],
)
def test_the_form_says_what_is_wrong_beside_the_field(
    open_federation: Federation, owner: User, changes: dict[str, Any], message: str
) -> None:
    response = signed_in(owner).post("/f/hearts/queries/new/", form(open_federation, **changes))
    assert response.status_code == 422
    assert message in response.content.decode()
    assert not Query.objects.exists()
