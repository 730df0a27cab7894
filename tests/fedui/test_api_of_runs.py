"""What is particular to runs over REST: how they are made, their curves, their events as they come, ranges of a model."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from django.db import connections
from django.test import AsyncClient

from fedui.accounts.models import User
from fedui.federations.models import Federation
from fedui.runs import live
from fedui.runs.models import Event, Metric, ModelVersion, Run, RunStatus
from tests.fedui.test_api_runs import DATA, model  # noqa: F401  # a fixture
from tests.support.api import Caller, as_user
from tests.support.domain import NOW, a_run, with_events


@pytest.fixture
def run(federation: Federation, owner: User) -> Run:
    return a_run(federation, owner, "First run")


@pytest.fixture
def caller(owner: User) -> Caller:
    return as_user(owner)


BODY = {"name": "new", "app": "digits-mlp", "app_version": "1", "strategy": "plain", "num_rounds": 3}


def test_a_run_is_made_and_found(run: Run, caller: Caller) -> None:
    made = caller.post("federations/hearts/runs", BODY | {"priority": 1, "start_at": "2030-01-02T03:04:05Z", "seed": 7})
    assert made.status_code == 201, made.content
    told = made.json()
    assert (told["strategy"]["version"], told["seed"], told["priority"]) == (1, 7, 1)
    assert told["state"]["kind"] == "scheduled"
    found = caller.get("federations/hearts/runs?q=new&status=queued&fields=id").json()["results"]
    assert found == [{"id": told["id"]}]
    assert caller.get("federations/hearts/runs?app=another").json()["results"] == []


def test_a_run_begins_with_the_model_of_another(run: Run, model: ModelVersion, caller: Caller) -> None:  # noqa: F811
    made = caller.post("federations/hearts/runs", BODY | {"origin": {"run": run.pk, "round": 3}}).json()
    assert made["origin"]["sha256"] == model.sha256
    assert [command["kind"] for command in caller.get(f"runs/{run.pk}/commands").json()["results"]] == ["fork"]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"app": "nothing"}, 404),
        ({"strategy_version": 9}, 404),
        ({"origin": {"run": 10**15, "round": 1}}, 404),
        ({"num_rounds": 0}, 400),
        ({"seed": 2**63}, 400),
        ({"name": "  "}, 400),
        ({"priority": 7}, 400),
    ],
)
def test_runs_that_can_not_be_are_refused(run: Run, caller: Caller, change: dict[str, Any], status: int) -> None:
    assert caller.post("federations/hearts/runs", BODY | change).status_code == status
    assert Run.objects.count() == 1


def test_numbers_that_no_database_has_are_not_found(run: Run, caller: Caller) -> None:
    for path in (f"runs/{10**30}", f"runs/{run.pk}/models/{10**30}", f"federations/hearts/tokens/{10**30}"):
        assert caller.get(path).status_code == 404


def test_curves_are_thinned_by_ranges(run: Run, caller: Caller) -> None:
    Metric.objects.bulk_create(
        Metric(run=run, round_number=n, source=source, name="loss", value=float(n))
        for n in range(100)
        for source in ("server", "fit")
    )
    whole = caller.get(f"runs/{run.pk}/metrics?source=server").json()
    assert whole["rounds_per_point"] == 1
    assert [point["value"] for point in whole["series"][0]["points"]] == [float(n) for n in range(100)]

    thin = caller.get(f"runs/{run.pk}/metrics?source=fit&first=20&last=79&points=6").json()
    assert thin["rounds_per_point"] == 10
    [series] = thin["series"]
    assert len(series["points"]) == 6
    assert series["points"][0] == {"round": 29, "value": 24.5, "low": 20.0, "high": 29.0}
    assert caller.get(f"runs/{run.pk}/metrics?name=other").json()["series"] == []


@pytest.mark.parametrize(
    ("asked", "status", "expected"),
    [
        ("bytes=0-9", 206, DATA[:10]),
        ("bytes=5-", 206, DATA[5:]),
        ("bytes=-7", 206, DATA[-7:]),
        (f"bytes=0-{10**12}", 206, DATA),
        ("bytes=9-2", 200, DATA),
        ("bytes=0-1,4-5", 200, DATA),
        ("lines=1-2", 200, DATA),
        (f"bytes={len(DATA)}-", 416, b""),
    ],
)
def test_a_model_comes_in_ranges(
    run: Run,
    model: ModelVersion,  # noqa: F811
    caller: Caller,
    asked: str,
    status: int,
    expected: bytes,
) -> None:
    answer = caller.get(f"runs/{run.pk}/models/3", range=asked)
    assert answer.status_code == status
    assert (answer.getvalue() if status != 416 else b"") == expected
    if status == 206:
        first = DATA.index(expected) if asked != "bytes=-7" else len(DATA) - 7
        assert answer["Content-Range"] == f"bytes {first}-{first + len(expected) - 1}/{len(DATA)}"
        assert answer["Repr-Digest"].startswith("sha-256=:")
    other = caller.get(f"runs/{run.pk}/models/3", range="bytes=0-9", if_range='"another"')
    assert (other.status_code, len(other.getvalue())) == (200, len(DATA))


# --- events as they come ---------------------------------------------------------------------------------------------


async def read_until(chunks: Any, wanted: str) -> str:
    text = ""
    async with asyncio.timeout(30):
        while wanted not in text:
            piece = await anext(chunks)
            text += piece.decode() if isinstance(piece, bytes) else piece
    return text


def numbers(text: str) -> list[int]:
    return [int(line.removeprefix("id: ")) for line in text.splitlines() if line.startswith("id: ")]


@pytest.mark.django_db(transaction=True)
async def test_events_come_as_they_happen_and_go_on_after_a_cut(federation: Federation, owner: User) -> None:
    run = await sync_to_async(a_run)(federation, owner)
    await sync_to_async(with_events)(run, 4)
    browser = AsyncClient()
    await browser.aforce_login(owner)
    path = f"/api/v1/runs/{run.pk}/events/stream"

    response = await browser.get(path, headers={"last-event-id": "2", "accept": "text/event-stream"})
    assert response["Content-Type"] == "text/event-stream"
    chunks = response.streaming_content.__aiter__()  # type: ignore[attr-defined]
    assert numbers(await read_until(chunks, "id: 4")) == [3, 4]

    event = await sync_to_async(Event.objects.create)(
        run=run, seq=5, at=NOW, kind="round.started", level="round", message="Event 5"
    )
    layer: Any = get_channel_layer()
    await layer.group_send(live.run_group(run.pk), {"type": "run.events", "events": []})
    text = await read_until(chunks, "id: 5")
    assert json.loads(text.split("data: ")[1].splitlines()[0])["message"] == event.message

    await Run.objects.filter(pk=run.pk).aupdate(status=RunStatus.STOPPED)
    await layer.group_send(live.run_group(run.pk), {"type": "run.events", "events": []})
    await read_until(chunks, "event: end")
    await sync_to_async(connections.close_all)()


@pytest.mark.django_db(transaction=True)
async def test_a_stream_ends_when_its_reader_may_read_no_more(federation: Federation, owner: User) -> None:
    run = await sync_to_async(a_run)(federation, owner)
    browser = AsyncClient()
    await browser.aforce_login(owner)
    response = await browser.get(f"/api/v1/runs/{run.pk}/events/stream")
    chunks = response.streaming_content.__aiter__()  # type: ignore[attr-defined]
    await read_until(chunks, "retry:")
    await federation.memberships.all().adelete()
    pending = asyncio.ensure_future(anext(chunks))
    layer: Any = get_channel_layer()
    await layer.group_send(live.run_group(run.pk), {"type": "run.events", "events": []})
    with pytest.raises(StopAsyncIteration):
        await asyncio.wait_for(pending, 30)
    await sync_to_async(connections.close_all)()


def test_a_stream_begins_at_a_number(run: Run, caller: Caller) -> None:
    assert caller.get(f"runs/{run.pk}/events/stream", last_event_id="soon").status_code == 400
    assert caller.get(f"runs/{run.pk}/events/stream?after=-1").status_code == 400
