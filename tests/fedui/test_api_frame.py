"""What holds for every address of the API: it names who may call, its schema is clean and kept, its documents are complete."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from django.test import Client as Browser
from django.urls import URLPattern, URLResolver, get_resolver
from drf_spectacular.generators import SchemaGenerator
from pytest_django import Settings

from fedui.accounts.models import User
from fedui.api.access import Access
from fedui.api.catalogue import CATALOGUE
from fedui.api.management.commands.api_documents import documents
from fedui.api.meta import Redoc, SchemaView, Swagger, nowhere
from fedui.api.serializers import Gives
from fedui.api.views import UNSAFE, ApiView
from fedui.clients.models import Client
from fedui.errors import ErrorCode
from fedui.federations.models import Act, Federation
from fedui.runs.commands import Order, pause
from fedui.runs.models import ModelVersion, Participation
from fedui.runs.outs import CommandOut, EventOut, ModelOut, ParticipationOut, RoundOut, RunClientOut, RunOut, Told
from fedui.runs.panels_outs import SnapshotOut
from fedui.runs.snapshot import snapshot_of
from tests.support.api import as_user
from tests.support.domain import a_client, a_run, with_rounds

DOCS = Path(__file__).parent.parent.parent / "docs"
OPEN = {SchemaView, Redoc, Swagger}
"""Documents of the API itself, which say nothing of anybody."""


def views(patterns: list[URLPattern | URLResolver]) -> Iterator[type[Any]]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            yield from views(pattern.url_patterns)
        elif pattern.callback is not nowhere:
            yield pattern.callback.cls  # type: ignore[attr-defined]  # Django's as_view sets it


VIEWS = sorted(set(views(get_resolver("fedui.api.urls").url_patterns)) - OPEN, key=lambda view: view.__qualname__)


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.__qualname__)
def test_every_method_names_who_may_call_it(view: type[ApiView]) -> None:
    methods = {name.upper() for name in ("get", *UNSAFE) if hasattr(view, name)}
    assert methods == set(view.acts)
    assert all(isinstance(access, (Act, Access)) for access in view.acts.values())
    assert {method for method in methods if method in ("POST", "PUT", "PATCH")} == set(view.takes)
    assert all(isinstance(gives, Gives) for gives in view.gives.values())


def test_a_method_without_an_act_is_closed(federation: Federation, owner: User, monkeypatch: Any) -> None:
    from fedui.runs.api import RunList

    monkeypatch.setattr(RunList, "acts", {"POST": Act.MANAGE_RUNS})
    assert as_user(owner).get("federations/hearts/runs").status_code == 403


def test_the_documents_are_up_to_date() -> None:
    """`make api` writes them. The schema validates and has no warnings, or this raises."""
    for name, text in documents().items():
        assert (DOCS / name).read_text() == text, f"docs/{name} isn't up to date: make api"


def test_the_catalogue_of_errors_is_complete() -> None:
    assert set(CATALOGUE) == set(ErrorCode)


def test_operations_have_ids_tags_summaries_and_errors() -> None:
    schema = yaml.safe_load((DOCS / "openapi.yaml").read_text())
    operations = [one for path in schema["paths"].values() for one in path.values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(ids) == len(set(ids)) >= 60
    for operation in operations:
        assert operation["summary"] and len(operation["tags"]) == 1
        assert operation["operationId"].startswith(operation["tags"][0] + "_")
        assert {"400", "429"} <= set(operation["responses"])


def test_payloads_that_sockets_share_are_described_whole(federation: Federation, owner: User) -> None:
    run = a_run(federation, owner)
    with_rounds(run, [a_client(federation)], 1)
    ModelVersion.objects.create(run=run, round_number=1, key="k", sha256="0" * 64, size=1)
    pause(run, Order(owner))

    described: dict[type[Told], Any] = {
        RunOut: run, RoundOut: run.rounds.with_totals().first(), ModelOut: run.models.first(), CommandOut: run.commands.first(),
        ParticipationOut: Participation.objects.first(), RunClientOut: Client.objects.first(), EventOut: run.events.first(),
    }  # fmt: skip
    for out, row in described.items():
        assert set(out(row).data) == set(out().fields), out

    told, snapshot = snapshot_of(run), cast(Any, SnapshotOut())
    assert set(told) == set(snapshot.fields)
    for name in ("run", "rounds", "participations", "models", "clients"):
        assert set(told[name]) == set(snapshot.fields[name].fields), name
    for name in ("curves", "commands"):
        assert set(told[name][0]) == set(snapshot.fields[name].child.fields), name


def test_the_pages_of_the_documentation_load_from_here_alone(db: None) -> None:
    for address in ("docs", "docs?script=", "redoc", "schema"):
        answer = Browser().get(f"/api/v1/{address}")
        assert answer.status_code == 200
        text = answer.content.decode()
        assert "googleapis" not in text and "cdn." not in text
        if address in ("docs", "redoc"):
            assert "<script>" not in text


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"name": "\\u0000"}', 400),
        (b'{"name": "\\ud800"}', 400),
        (b'{"name": NaN}', 400),
        (b"[" * 40_000, 400),
        (b'"' + b"x" * 70_000 + b'"', 413),
        (b"\xff\xfe", 400),
        (b"[]", 400),
        (b'{"name": "n", "colour": "red"}', 400),
    ],
)
def test_bodies_that_no_database_takes_are_refused(owner: User, body: bytes, status: int) -> None:
    browser = as_user(owner).browser
    answer = browser.post("/api/v1/federations", body, content_type="application/json")
    assert (answer.status_code, answer.json()["code"]) == (status, "invalid_request")


@pytest.mark.parametrize(
    "query",
    ["statu=queued", "limit=0", "limit=many", "limit=201", "cursor=x", "ordering=seed", "fields=id,secret", "q=%00",
     "status=odd", "created_since=soon"],
)  # fmt: skip
def test_parameters_that_mean_nothing_are_refused(federation: Federation, owner: User, query: str) -> None:
    answer = as_user(owner).get(f"federations/hearts/runs?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


@pytest.mark.parametrize("path", ["nowhere", "federations/x/nothing", "federations/", "strategies/%00"])
def test_an_address_that_is_none_is_a_problem(db: None, path: str) -> None:
    answer = Browser().get(f"/api/v1/{path}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE"])
def test_a_method_that_an_address_has_not_is_no_fault_of_the_server_s(
    federation: Federation, owner: User, client: Browser, method: str
) -> None:
    client.force_login(owner)
    response = client.generic(method, "/api/v1/federations/hearts/runs")

    assert response.status_code == 405
    assert "fault" not in response.json()["hint"]


def test_the_schema_is_made_once_however_often_anybody_asks(
    db: None, client: Browser, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.API_STRANGERS_PER_MINUTE = 2
    first = client.get("/api/v1/schema")
    monkeypatch.setattr(SchemaGenerator, "parse", None)

    assert [client.get("/api/v1/schema").status_code for _ in range(2)] == [200, 429]
    assert first.status_code == 200


def test_alive_is_not_ready(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> bool:
        raise ConnectionError

    assert Browser().get("/api/v1/ready").json() == {
        "status": "ready", "parts": {"database": True, "migrations": True, "redis": True}, "degraded": [],
    }  # fmt: skip
    monkeypatch.setattr("fedui.api.meta.PARTS", {"database": away})
    assert Browser().get("/api/v1/ready").status_code == 503
    assert Browser().get("/api/v1/health").json()["status"] == "ok"
