"""Runs over REST: who sees them, the snapshot, the events, the models."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asgiref.sync import sync_to_async
from django.db import connections
from django.test import AsyncClient
from django.test import Client as Browser
from numpy.typing import NDArray
from pytest_django import DjangoAssertNumQueries, Settings

from aggregator.core.statistics import WIDTH, pack
from fedui.accounts.models import User
from fedui.clients.models import Client
from fedui.federations.models import ALLOWED, Act, Federation, Role
from fedui.federations.services import add_member
from fedui.runs.models import ModelVersion, Participation, Round, RoundStatus, Run
from tests.support.domain import NOW, a_client, a_member, a_run, a_user, with_events, with_rounds

DATA = b"not really safetensors " * 100_000


@pytest.fixture
def run(federation: Federation, owner: User) -> Run:
    return a_run(federation, owner, "First run")


@pytest.fixture
def clients(federation: Federation) -> list[Client]:
    return [a_client(federation, f"hosp-{number}") for number in range(1, 4)]


@pytest.fixture
def browser(owner: User) -> Browser:
    return signed_in(owner)


@pytest.fixture
def model(run: Run, settings: Settings, tmp_path: Path) -> ModelVersion:
    settings.MODEL_DIR = tmp_path
    (tmp_path / "round-3.safetensors").write_bytes(DATA)
    sha256 = hashlib.sha256(DATA).hexdigest()
    return ModelVersion.objects.create(
        run=run, round_number=3, key="round-3.safetensors", sha256=sha256, size=len(DATA)
    )


def signed_in(user: User) -> Browser:
    browser = Browser()
    browser.force_login(user)
    return browser


# --- who sees them ---------------------------------------------------------------------------------------------------

ADDRESSES: list[Callable[[Run], str]] = [
    lambda run: f"/api/v1/runs/{run.pk}",
    lambda run: f"/api/v1/runs/{run.pk}/snapshot",
    lambda run: f"/api/v1/runs/{run.pk}/events",
    lambda run: f"/api/v1/runs/{run.pk}/models/3",
    lambda run: f"/api/v1/runs/{run.pk}/rounds/3/similarity",
]


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("role", [role for role in Role if Act.READ in ALLOWED[role]])
def test_members_see_runs(run: Run, model: ModelVersion, role: Role, address: Callable[[Run], str]) -> None:
    Round.objects.create(run=run, number=3, status=RoundStatus.COMMITTED, started_at=NOW)
    user = a_member(run.federation, role) if role != Role.OWNER else run.created_by
    assert user

    assert signed_in(user).get(address(run)).status_code == 200


@pytest.mark.parametrize("address", ADDRESSES)
def test_for_site_admins_a_run_does_not_exist(run: Run, model: ModelVersion, address: Callable[[Run], str]) -> None:
    user = a_user("site-admin")
    add_member(
        run.federation,
        user,
        Role.SITE_ADMIN,
        a_member(run.federation, Role.OPERATOR),
        clients=[a_client(run.federation)],
    )
    assert signed_in(user).get(address(run)).status_code == 404


@pytest.mark.parametrize("address", ADDRESSES)
def test_for_strangers_a_run_does_not_exist(
    run: Run, model: ModelVersion, stranger: User, address: Callable[[Run], str]
) -> None:
    response = signed_in(stranger).get(address(run))
    nowhere = signed_in(stranger).get("/api/v1/runs/999999")

    assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert response.json() == nowhere.json()


@pytest.mark.parametrize("address", ADDRESSES)
def test_who_is_not_signed_in_is_told_so(run: Run, model: ModelVersion, address: Callable[[Run], str]) -> None:
    response = Browser().get(address(run))

    assert (response.status_code, response.json()["code"]) == (401, "unauthenticated")


# --- the snapshot ----------------------------------------------------------------------------------------------------


def test_the_snapshot_has_all_that_the_page_draws(
    browser: Browser, run: Run, clients: list[Client], model: ModelVersion
) -> None:
    with_rounds(run, clients, 3)

    body = browser.get(f"/api/v1/runs/{run.pk}/snapshot").json()

    assert body["run"]["name"] == "First run"
    assert body["run"]["federation"] == "hearts"
    assert body["run"]["app"] == {"name": "digits-mlp", "version": "1"}
    assert body["run"]["strategy"]["name"] == "plain"
    assert body["run"]["started_at"] is None
    assert body["last_seq"] == 6
    rounds, parts = body["rounds"], body["participations"]
    assert rounds["number"] == [1, 2, 3]
    assert rounds["started_at"][0] == "2026-11-24T12:01:00.000Z"
    totals = {name: rounds[name][0] for name in ("expected", "received", "bytes_up", "bytes_down")}
    assert totals == {"expected": 3, "received": 3, "bytes_up": 300, "bytes_down": 600}
    assert rounds["bytes_total"] == [900, 1800, 2700]
    [curve] = body["curves"]
    assert (curve["rounds"], curve["values"]) == ([1, 2, 3], [1, 1 / 2, 1 / 3])
    assert {len(values) for values in parts.values()} == {9}
    assert (parts["round"][0], parts["attempt"][0], parts["train_seconds"][0]) == (1, 1, 1.5)
    assert dict(zip(body["clients"]["number"], body["clients"]["name"], strict=True)) == {
        1: "hosp-1",
        2: "hosp-2",
        3: "hosp-3",
    }
    assert set(parts["client"]) == set(body["clients"]["id"])
    assert body["models"] == {"round": [3], "sha256": [model.sha256], "size": [model.size], "removed_at": [None]}
    assert (body["run"]["state"]["text"], body["commands"]) == ("Queued (next)", [])


def test_a_run_that_has_not_begun_has_a_snapshot(browser: Browser, run: Run) -> None:
    body = browser.get(f"/api/v1/runs/{run.pk}/snapshot").json()

    assert body["run"]["status"] == "queued"
    assert (body["last_seq"], body["curves"]) == (0, [])
    assert body["rounds"]["number"] == body["participations"]["client"] == []


def test_a_round_that_nobody_took_part_in_has_no_bytes(browser: Browser, run: Run) -> None:
    Round.objects.create(run=run, number=1, status=RoundStatus.RUNNING, started_at=NOW)

    rounds = browser.get(f"/api/v1/runs/{run.pk}/snapshot").json()["rounds"]

    assert (rounds["expected"], rounds["received"], rounds["bytes_up"]) == ([0], [0], [0])


def test_participations_are_told_of_the_latest_60_rounds(browser: Browser, run: Run, clients: list[Client]) -> None:
    with_rounds(run, clients[:1], 70)

    body = browser.get(f"/api/v1/runs/{run.pk}/snapshot").json()

    [curve] = body["curves"]
    assert len(body["rounds"]["number"]) == len(curve["rounds"]) == 70
    assert sorted(set(body["participations"]["round"])) == list(range(11, 71))


def test_what_a_page_draws_comes_packed(browser: Browser, run: Run, clients: list[Client]) -> None:
    with_rounds(run, clients, 20)

    packed = browser.get(f"/api/v1/runs/{run.pk}/snapshot", headers={"Accept-Encoding": "gzip"})

    assert packed["Content-Encoding"] == "gzip"
    assert {"Accept-Encoding", "Cookie"} <= set(packed["Vary"].split(", "))
    assert json.loads(gzip.decompress(packed.content))["rounds"]["number"] == list(range(1, 21))
    again = browser.get(
        f"/api/v1/runs/{run.pk}/snapshot", headers={"Accept-Encoding": "gzip", "If-None-Match": packed["ETag"]}
    )
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("count", [1, 20])
def test_the_number_of_queries_does_not_grow(
    browser: Browser, run: Run, clients: list[Client], django_assert_num_queries: DjangoAssertNumQueries, count: int
) -> None:
    with_rounds(run, clients, count)

    browser.get(f"/api/v1/runs/{run.pk}/snapshot")  # digests of the rounds are made once
    with django_assert_num_queries(14):  # with those of the orders and of the place in the queue
        browser.get(f"/api/v1/runs/{run.pk}/snapshot")
    with django_assert_num_queries(6):
        browser.get(f"/api/v1/runs/{run.pk}/events")


# --- events ----------------------------------------------------------------------------------------------------------


def events(browser: Browser, run: Run, **query: Any) -> Any:
    return browser.get(f"/api/v1/runs/{run.pk}/events", query).json()


def test_events_come_in_order_and_in_pages(browser: Browser, run: Run) -> None:
    with_events(run, 25)
    seen: list[int] = []
    more = True
    while more:
        page = events(browser, run, after=seen[-1] if seen else 0, limit=10)
        seen += [event["seq"] for event in page["events"]]
        more = page["more"]
        assert page["last_seq"] == 25

    assert seen == list(range(1, 26))


def test_an_event_has_the_shape_that_the_socket_sends(browser: Browser, run: Run) -> None:
    with_events(run, 1)

    assert events(browser, run)["events"] == [
        {
            "seq": 1,
            "at": "2026-11-24T12:00:00.000Z",
            "kind": "round.started",
            "level": "round",
            "round": 1,
            "client": None,
            "message": "Event 1",
            "data": {},
        }
    ]


@pytest.mark.parametrize("after", [25, 26, 10**9])
def test_after_the_last_event_there_is_nothing_more(browser: Browser, run: Run, after: int) -> None:
    with_events(run, 25)

    assert events(browser, run, after=after) == {"events": [], "last_seq": 25, "more": False}


@pytest.mark.parametrize("query", [{"limit": 1001}, {"limit": 0}, {"after": -1}, {"after": "x"}, {"after": 2**63}])
def test_a_page_that_makes_no_sense_is_refused(browser: Browser, run: Run, query: dict[str, Any]) -> None:
    response = browser.get(f"/api/v1/runs/{run.pk}/events", query)

    assert (response.status_code, response.json()["code"]) == (400, "invalid_request")


# --- what updates looked like ----------------------------------------------------------------------------------------


def test_a_participation_tells_what_the_update_looked_like_without_its_sketch(
    browser: Browser, run: Run, clients: list[Client]
) -> None:
    with_rounds(run, clients[:1], 1)
    looks = {
        "update_norm": 0.5, "update_largest": 0.1, "norm_ratio": 1.8, "cosine_to_aggregate": 0.25, "z_norm": 4.0,
        "z_cosine": None, "flagged": True, "flag_reason": "its norm is 1.8 times the median",
    }  # fmt: skip
    Participation.objects.update(**looks, update_sketch=sketch_of(np.ones(WIDTH)))

    [told] = browser.get(f"/api/v1/runs/{run.pk}/participations").json()["results"]

    assert told.items() >= looks.items()
    assert "update_sketch" not in told


def test_the_similarity_of_a_rounds_updates(browser: Browser, run: Run, clients: list[Client]) -> None:
    with_rounds(run, clients, 1)
    one, other = np.random.default_rng(1).standard_normal((2, WIDTH))
    for client, step in zip(clients, (one, -2 * one, one + other), strict=True):
        Participation.objects.filter(client=client).update(update_sketch=sketch_of(step))

    body = browser.get(f"/api/v1/runs/{run.pk}/rounds/1/similarity").json()

    order = [body["clients"].index(str(client.pk)) for client in clients]
    cosines = np.array(body["cosines"])[np.ix_(order, order)]
    half = math.sqrt(0.5)
    expected = [[1, -1, half], [-1, 1, -half], [half, -half, 1]]
    np.testing.assert_allclose(cosines, expected, atol=0.05)
    assert (body["round"], body["attempt"]) == (1, 1)


def test_an_update_without_direction_is_similar_to_none(browser: Browser, run: Run, clients: list[Client]) -> None:
    with_rounds(run, clients[:1], 1)
    Participation.objects.update(update_sketch=sketch_of(np.zeros(WIDTH)))

    body = browser.get(f"/api/v1/runs/{run.pk}/rounds/1/similarity").json()

    assert body["cosines"] == [[None]]


def test_a_round_from_before_updates_were_measured_has_no_similarities(
    browser: Browser, run: Run, clients: list[Client]
) -> None:
    with_rounds(run, clients, 1)

    body = browser.get(f"/api/v1/runs/{run.pk}/rounds/1/similarity").json()

    assert (body["clients"], body["cosines"]) == ([], [])


@pytest.mark.parametrize("number", [0, 2, 2**70])
def test_a_round_that_was_not_committed_has_no_similarity(browser: Browser, run: Run, number: int) -> None:
    Round.objects.create(run=run, number=2, status=RoundStatus.ABANDONED, started_at=NOW)

    response = browser.get(f"/api/v1/runs/{run.pk}/rounds/{number}/similarity")

    assert (response.status_code, response.json()["code"]) == (404, "not_found")


def test_the_updates_of_a_great_round_are_not_compared_in_pairs(
    browser: Browser, run: Run, federation: Federation, clients: list[Client]
) -> None:
    with_rounds(run, clients, 1)
    more = Client.objects.bulk_create(
        Client(federation=federation, name=f"more-{n}", number=10 + n) for n in range(498)
    )
    round_ = Round.objects.get(run=run)
    Participation.objects.bulk_create(Participation(round=round_, client=client) for client in more)
    Participation.objects.update(update_sketch=sketch_of(np.ones(WIDTH)))

    refused = browser.get(f"/api/v1/runs/{run.pk}/rounds/1/similarity")
    Participation.objects.filter(client=clients[0]).delete()
    told = browser.get(f"/api/v1/runs/{run.pk}/rounds/1/similarity")

    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")
    assert refused.json()["detail"] == "Round 1 has 501 updates; those of at most 500 are compared in pairs."
    assert (told.status_code, len(told.json()["clients"])) == (200, 500)


def sketch_of(step: NDArray[Any]) -> bytes:
    return pack(step.astype(np.float32))


# --- models ----------------------------------------------------------------------------------------------------------


def test_a_model_can_be_downloaded_and_checked(browser: Browser, run: Run, model: ModelVersion) -> None:
    response = browser.get(f"/api/v1/runs/{run.pk}/models/3")

    assert b"".join(response.streaming_content) == DATA  # type: ignore[attr-defined]
    assert response["Content-Disposition"] == 'attachment; filename="first-run-round-3.safetensors"'
    assert response["Content-Length"] == str(len(DATA))
    assert response["ETag"] == f'"{model.sha256}"'
    assert response["X-Checksum"] == f"sha256={model.sha256}"
    response.close()


def test_a_model_that_one_has_is_not_sent_again(browser: Browser, run: Run, model: ModelVersion) -> None:
    response = browser.get(f"/api/v1/runs/{run.pk}/models/3", headers={"if-none-match": f'"{model.sha256}"'})

    assert response.status_code == 304


@pytest.mark.django_db(transaction=True)
async def test_under_asgi_a_model_is_sent_in_pieces(run: Run, model: ModelVersion, owner: User) -> None:
    browser = AsyncClient()
    await browser.aforce_login(owner)

    response = await browser.get(f"/api/v1/runs/{run.pk}/models/3")

    chunks = [chunk async for chunk in response.streaming_content]  # type: ignore[attr-defined]
    assert b"".join(chunks) == DATA
    assert len(chunks) > 1
    assert response["Content-Disposition"] == 'attachment; filename="first-run-round-3.safetensors"'
    await sync_to_async(connections.close_all)()  # those of the thread that ran the view


def test_a_model_that_does_not_exist_or_whose_file_is_gone_is_404(
    browser: Browser, run: Run, model: ModelVersion, tmp_path: Path
) -> None:
    assert browser.get(f"/api/v1/runs/{run.pk}/models/4").status_code == 404
    (tmp_path / model.key).unlink()
    assert browser.get(f"/api/v1/runs/{run.pk}/models/3").status_code == 404


def test_a_model_that_retention_has_removed_is_told_apart(browser: Browser, run: Run, model: ModelVersion) -> None:
    ModelVersion.objects.update(removed_at=NOW)
    gone = browser.get(f"/api/v1/runs/{run.pk}/models/3")
    assert (gone.status_code, gone.json()["code"]) == (410, "gone")
    assert "was removed by retention on 24 Nov 2026" in gone.json()["detail"]
    assert browser.get(f"/api/v1/runs/{run.pk}/snapshot").json()["models"]["removed_at"] == ["2026-11-24T12:00:00.000Z"]


# --- commands --------------------------------------------------------------------------------------------------------


def order(browser: Browser, run: Run, **body: Any) -> Any:
    return browser.post(f"/api/v1/runs/{run.pk}/commands", body, content_type="application/json")


def test_orders_are_given_over_rest_and_are_safe_to_repeat(browser: Browser, run: Run) -> None:
    for _ in range(2):
        answer = order(browser, run, command="pause", key="k")
        assert answer.json()["run"]["state"]["text"] == "Paused"
    extended = order(browser, run, command="extend", num_rounds=30)
    assert (extended.status_code, extended.json()["run"]["num_rounds"]) == (200, 30)
    clone = order(browser, run, command="clone", name="again", start_at="2030-01-02T03:04:05Z").json()["run"]
    assert (clone["name"], clone["state"]["text"]) == ("again", "Scheduled (start at 2 Jan 2030, 03:04 UTC)")
    told = browser.get(f"/api/v1/runs/{run.pk}/commands").json()["results"]
    assert [(c["kind"], c["actor"], c["round"]) for c in told] == [
        ("pause", "owner", 0), ("extend", "owner", 0), ("clone", "owner", 0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"command": "explode"}, 400, "explode"),
        ({"command": "extend"}, 400, "num_rounds"),
        ({"command": "extend", "num_rounds": 0}, 400, "num_rounds"),
        ({"command": "fork", "round": 4}, 422, "no committed round 4"),
        ({"command": "schedule", "start_at": "soon"}, 400, "start_at"),
        ({"command": "cancel", "key": "x" * 65}, 400, "key"),
    ],
)
def test_orders_that_make_no_sense_are_told_why(
    browser: Browser, run: Run, body: dict[str, Any], status: int, words: str
) -> None:
    answer = order(browser, run, **body)
    assert answer.status_code == status
    assert words in answer.content.decode()


def test_orders_take_the_role_for_it(run: Run, federation: Federation) -> None:
    assert order(signed_in(a_member(federation, Role.AUDITOR)), run, command="stop").status_code == 403
    assert order(signed_in(a_user("stranger")), run, command="stop").status_code == 404
    assert order(Browser(), run, command="stop").status_code in (401, 403)
