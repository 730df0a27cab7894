"""The owner's say over a running agent, over real gRPC: what is refused and with which words, what leaves, what is listed."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client_agent import departures, ledger, pause
from client_agent.agent import serve
from client_agent.departure_log import compared
from client_agent.errors import ConfigurationError
from client_agent.hosting import HostedApps, host, host_all
from client_agent.identity import Home
from client_agent.owner import Owner
from client_agent.policy import Leave
from client_agent.sdk import App, Context
from client_agent.state import AgentState
from protos.convert import ScalarValue, scalars_from_proto, scalars_to_proto
from protos.fedui.v1 import fleet_pb2, task_pb2
from tests.client_agent.server import ScriptedServer
from tests.client_agent.toy import Launch, ToyClient, toy_model

FIT, EVALUATE, QUERY = task_pb2.TASK_KIND_FIT, task_pb2.TASK_KIND_EVALUATE, task_pb2.TASK_KIND_QUERY
COMPLETED, FAILED = task_pb2.TASK_OUTCOME_COMPLETED, task_pb2.TASK_OUTCOME_FAILED
REFUSED = task_pb2.TASK_OUTCOME_REFUSED


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Of the agent that `launch` starts."""
    home = Home(tmp_path / "home")
    home.prepare()
    return home


@pytest.fixture
def apps(client: ToyClient) -> HostedApps:
    """With a column that is open to queries."""
    column = {"age": np.arange(20.0)}
    app = App("toy", "1.0", "numpy", lambda context: client, ["weight"], columns=lambda context: column)
    return {("toy", "1.0"): host(app, Context("site-1"))}


def a_task(
    server: ScriptedServer,
    task_id: str,
    kind: task_pb2.TaskKind.ValueType = FIT,
    config: dict[str, ScalarValue] | None = None,
    **fields: Any,
) -> None:
    server.push_task(task_id, kind, None if kind == QUERY else toy_model(), config, **fields)


def log_of(home: Home, kind: str) -> list[ledger.Entry]:
    return [entry for entry in ledger.entries(home.log_file) if entry["kind"] == kind]


# --- refusals --------------------------------------------------------------------------------------------------------


def protected(**fields: Any) -> dict[str, Any]:
    return {"protection": task_pb2.Protection(**fields)}


FEW, MANY = protected(cohort=3, quorum=1), protected(cohort=5, quorum=4, secure_aggregation=True)


@pytest.mark.parametrize(
    ("policy", "config", "fields", "reason"),
    [
        ('federations = ["cardio"]', {}, {}, "allows no work for the federation tests"),
        ('tasks = ["evaluate"]', {}, {}, "allows no tasks of the kind 'train'"),
        ("[apps.other]", {}, {}, "doesn't allow the app toy 1.0"),
        ('[apps.toy]\nversions = ["2.0"]', {}, {}, "doesn't allow the app toy 1.0"),
        (f'[apps.toy]\nsha256 = "{"a" * 64}"', {}, {}, "allows other code of the app toy"),
        ("limits.epochs = 5", {"epochs": 6}, {}, "limits epochs to 5 a round; this one would have 6"),
        ("limits.epochs = 5", {"epochs": 5.5}, {}, "this one would have 6"),
        ("limits.epochs = 5", {"epochs": float("nan")}, {}, "limits epochs, and 'nan' is no number"),
        ("limits.epochs = 5", {"epochs": "1"}, {}, "limits epochs, and '1' is no number"),
        ("limits.epochs = 5", {"epochs": 3, "method": "ditto"}, {}, "this one would have 6"),
        ("limits.epochs = 5", {"epochs": 9, "method": "fedrep", "head_epochs": -9}, {}, "this one would have 9"),
        ("limits.epochs = 5", {"epochs": 1, "local-epochs": 6}, {}, "this one would have 6"),
        ("limits.config.steps = 100", {"steps": 101}, {}, "allows steps up to 100, not 101"),
        ("limits.config.batch_size = 9", {"batch-size": 10}, {}, "allows batch-size up to 9, not 10"),
        ("limits.config.learning_rate = 0.1", {"lr": 5.0}, {}, "allows lr up to 0.1, not 5.0"),
        ("limits.config.lr = 0.1", {"learning_rate": 5.0}, {}, "allows learning_rate up to 0.1, not 5.0"),
        ("require.cohort = 4", {}, {}, "asks for 4 clients in a round; the server doesn't tell"),
        ("require.cohort = 4", {}, FEW, "asks for 4 clients in a round; this run has 3"),
        ("require.quorum = 2", {}, FEW, "asks for 2 updates in every model; this run has 1 at least"),
        ("require.differential_privacy = true", {}, MANY, "asks for differential privacy, which this run has not"),
        ("require.secure_aggregation = true", {}, FEW, "asks for secure aggregation, which this run has not"),
        ("epochs = 5", {}, {}, "can't be put in force"),
    ],
)
async def test_a_refusal_is_a_reason_and_nothing_is_downloaded_or_trained(
    server: ScriptedServer, launch: Launch, home: Home, client: ToyClient,
    policy: str, config: dict[str, ScalarValue], fields: dict[str, Any], reason: str,
) -> None:  # fmt: skip
    home.policy_file.write_text(policy)
    launch()
    a_task(server, "t", config=config, **fields)
    result = await server.result("t")
    assert (result.outcome, client.fits, server.download_offsets) == (REFUSED, 0, [])
    assert reason in result.reason


@pytest.mark.parametrize(
    ("policy", "config", "fields"),
    [
        ('federations = ["te*"]\ntasks = ["train"]\n[apps.toy]\nversions = ["1.0"]', {}, {}),
        ("limits.epochs = 6\nlimits.config.steps = 100", {"epochs": 3, "method": "none", "steps": 100}, {}),
        ("[require]\ncohort = 5\nquorum = 4\nsecure_aggregation = true", {}, MANY),
    ],
)
async def test_what_the_policy_allows_is_done(
    server: ScriptedServer, launch: Launch, home: Home, policy: str,
    config: dict[str, ScalarValue], fields: dict[str, Any],
) -> None:  # fmt: skip
    home.policy_file.write_text(policy)
    launch()
    a_task(server, "t", config=config, **fields)
    assert (await server.result("t")).outcome == COMPLETED


@pytest.mark.parametrize("kind", [task_pb2.TASK_KIND_INITIALISE, EVALUATE])
async def test_what_the_server_may_set_is_limited_whatever_the_work_is(
    server: ScriptedServer, launch: Launch, home: Home, kind: task_pb2.TaskKind.ValueType
) -> None:
    home.policy_file.write_text("limits.config.steps = 100")
    launch()
    a_task(server, "t", kind, {"steps": 101})
    result = await server.result("t")
    assert result.outcome == REFUSED
    assert "allows steps up to 100, not 101" in result.reason


async def test_columns_that_the_owner_keeps_are_not_even_named(
    server: ScriptedServer, launch: Launch, home: Home
) -> None:
    home.policy_file.write_text('leave.columns = ["height"]')
    launch()
    await server.until(lambda: bool(server.hellos))
    assert not server.hellos[0].apps[0].columns


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ('leave.columns = ["height"]', "opens no column 'age'"),
        ('leave.statistics = ["moments", "histogram"]', "tells no extremes of a column"),
        ("require.differential_privacy = true", "asks for protection that queries have not"),
        ('leave.columns = ["a*"]', ""),
    ],
)
async def test_queries_too(server: ScriptedServer, launch: Launch, home: Home, policy: str, reason: str) -> None:
    home.policy_file.write_text(policy)
    launch()
    a_task(server, "q", QUERY, query=task_pb2.ColumnQuery(column="age", moments=True, extremes=True))
    result = await server.result("q")
    assert reason in result.reason
    assert (result.outcome == COMPLETED) is not bool(reason)


async def test_rounds_are_counted_by_the_day_and_over_restarts(
    server: ScriptedServer, launch: Launch, home: Home, apps: HostedApps, client: ToyClient
) -> None:
    home.policy_file.write_text('timezone = "UTC"\nlimits.rounds_a_day = 2')
    day = datetime.fromisoformat("2026-11-26T12:00:00+00:00")
    clock: Callable[[], datetime] = lambda: day  # noqa: E731
    home.save(server.authority.identity(server.address))
    for expected in ([COMPLETED, COMPLETED, REFUSED], [REFUSED]):
        serving = asyncio.create_task(serve(home, home.load(), apps, 0.05, Owner(home, "tests", clock=clock)))
        for number, outcome in enumerate(expected):
            task_id = f"{len(expected)}-{number}"
            server.push_task(task_id, FIT, toy_model(), {"n": task_id})
            result = await server.result(task_id)
            assert result.outcome == outcome
        assert "limits rounds to 2 a day" in result.reason
        serving.cancel()
        await asyncio.wait([serving])
    day = datetime.fromisoformat("2026-11-27T00:00:01+00:00")
    serving = asyncio.create_task(serve(home, home.load(), apps, 0.05, Owner(home, "tests", clock=clock)))
    server.push_task("next", FIT, toy_model(), {"n": "next"})
    assert (await server.result("next")).outcome == COMPLETED
    serving.cancel()
    await asyncio.wait([serving])
    assert client.fits == 3


async def test_an_apps_code_is_what_its_digest_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "hospital"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "helpers.py").write_text("RATE = 0.1\n")
    (package / "app.py").write_text("from tests.client_agent.toy import ToyClient\nfrom client_agent import App\n"
                                    'app = App("toy", "1.0", "numpy", lambda context: ToyClient(), ["weight"])\n')  # fmt: skip
    monkeypatch.syspath_prepend(str(tmp_path))

    def digest() -> str:
        (hosted,) = host_all(["hospital.app:app"], Context("site-1")).values()
        return hosted.sha256

    first = digest()
    (package / "data.csv").write_text("1,2,3")
    assert digest() == first
    (package / "helpers.py").write_text("RATE = 0.2\n")
    assert digest() != first


# --- pause and hours -------------------------------------------------------------------------------------------------


async def test_a_pause_takes_effect_at_once_and_the_operator_is_told(
    server: ScriptedServer, launch: Launch, home: Home, client: ToyClient
) -> None:
    client.may_end.clear()
    launch()
    server.push_task("working", FIT, toy_model())
    server.push_task("waiting", FIT, toy_model(2.0))
    await asyncio.to_thread(client.started.wait)
    pause.pause(home.pause_file, "backups tonight")
    reason = "Paused by its owner: backups tonight."
    for task_id in ("working", "waiting"):
        result = await server.result(task_id)
        assert (result.outcome, result.reason) == (REFUSED, reason)
    await server.until(lambda: server.availabilities == [reason])
    server.push_task("late", FIT, toy_model(3.0))
    assert (await server.result("late")).reason == reason
    assert AgentState.read(home.state_file).unavailable == reason
    assert not server.headers

    client.may_end.set()
    assert pause.resume(home.pause_file)
    await server.until(lambda: server.availabilities == [reason, ""])
    server.push_task("again", FIT, toy_model(4.0))
    assert (await server.result("again")).outcome == COMPLETED
    assert [result.task_id for result in server.results] == ["waiting", "working", "late", "again"]


async def test_an_agent_that_starts_paused_says_so_in_its_first_message(
    server: ScriptedServer, launch: Launch, home: Home
) -> None:
    home.pause_file.write_text("not even JSON")
    launch()
    await server.until(lambda: bool(server.hellos))
    assert server.hellos[0].unavailable == "Paused by its owner."


async def test_outside_its_hours_the_agent_takes_no_tasks(
    server: ScriptedServer, home: Home, apps: HostedApps, client: ToyClient
) -> None:
    home.policy_file.write_text('hours = ["20:00-06:00"]\ntimezone = "Europe/Berlin"')
    moment = datetime.fromisoformat("2026-11-26T04:59:59+00:00")  # 05:59:59 in Berlin
    home.save(server.authority.identity(server.address))
    client.may_end.clear()
    serving = asyncio.create_task(serve(home, home.load(), apps, 0.05, Owner(home, "tests", clock=lambda: moment)))
    server.push_task("t", FIT, toy_model())
    await asyncio.to_thread(client.started.wait)
    moment = datetime.fromisoformat("2026-11-26T05:00:00+00:00")
    result = await server.result("t")
    assert (result.outcome, result.reason) == (REFUSED, "Outside the hours of its owner's policy: 20:00-06:00 (CET).")
    await server.until(lambda: server.availabilities == [result.reason])
    client.may_end.set()
    serving.cancel()
    await asyncio.wait([serving])


async def test_a_policy_that_breaks_while_the_agent_runs_stops_it_from_working_until_it_is_mended(
    server: ScriptedServer, launch: Launch, home: Home
) -> None:
    launch()
    await server.until(lambda: bool(server.hellos))
    home.policy_file.write_text("limits.epoch = 5")
    await server.until(
        lambda: server.availabilities == ["Its owner's policy can't be put in force; the agent's own log says why."]
    )
    home.policy_file.write_text("limits.epochs = 5")
    await server.until(lambda: server.availabilities[-1] == "")
    server.push_task("t", FIT, toy_model(), {"epochs": 6})
    assert "limits epochs to 5" in (await server.result("t")).reason


# --- what leaves -----------------------------------------------------------------------------------------------------


async def test_metrics_that_the_owner_keeps_are_in_no_message(
    server: ScriptedServer, launch: Launch, home: Home, client: ToyClient
) -> None:
    home.policy_file.write_text('leave.metrics = ["accuracy", "loss"]\nleave.properties = []')
    launch()
    server.push_task("shown", EVALUATE, toy_model())
    assert scalars_from_proto((await server.result("shown")).metrics) == {"accuracy": 0.75}
    home.policy_file.write_text("[leave]\nmetrics = []\n# nothing at all")
    server.push_task("t", FIT, toy_model())
    assert (await server.result("t")).outcome == COMPLETED
    assert not any(progress.metrics for progress in server.progress)
    assert not server.headers[0].metrics
    assert not server.hellos[0].properties
    server.push_task("loss", EVALUATE, toy_model())
    assert "lets no loss leave" in (await server.result("loss")).reason


@pytest.mark.parametrize(("errors", "told"), [("text", "ArithmeticError: patient 7"), ("type", "ArithmeticError; its")])
async def test_an_apps_error_may_keep_its_text(
    server: ScriptedServer, launch: Launch, home: Home, errors: str, told: str
) -> None:
    home.policy_file.write_text(f'leave.errors = "{errors}"')
    launch()
    server.push_task("t", FIT, toy_model(), {"error": "patient 7"})
    result = await server.result("t")
    assert result.outcome == FAILED
    assert result.reason.startswith(told)


async def test_everything_that_leaves_is_listed_with_the_hash_of_what_the_server_got(
    server: ScriptedServer, launch: Launch, home: Home, tmp_path: Path
) -> None:
    running = launch()
    server.push_task("t", FIT, toy_model())
    server.push_task("e", EVALUATE, toy_model(2.0))
    a_task(server, "q", QUERY, query=task_pb2.ColumnQuery(column="age", moments=True))
    await server.result("q")
    running.cancel()
    await asyncio.wait([running])

    (hello,), (update,), results = log_of(home, "hello"), log_of(home, "update"), log_of(home, "result")
    assert hello["metrics"] == {"num_examples": 7}
    received = hashlib.sha256(server.uploads["t"]).hexdigest()
    assert (update["sha256"], update["bytes"]) == (received, len(server.uploads["t"]))
    assert (update["run"], update["round"], update["task"], update["examples"]) == ("r", 1, "train", 7)
    assert update["metrics"] == {"loss": 0.5}
    assert [entry["task"] for entry in results] == ["train", "evaluate", "query"]
    assert results[1]["metrics"] == {"accuracy": 0.75, "loss": 2.0}
    assert (results[2]["metrics"]["count"], results[2]["metrics"]["sum"]) == (20, 190.0)
    progress, beats = log_of(home, "progress"), log_of(home, "heartbeats")
    assert sum(entry["messages"] for entry in progress) == len(server.progress)
    assert progress[0]["metrics"] == {"loss": 0.5}
    assert sum(entry["messages"] for entry in beats) >= len(server.heartbeats)
    assert ledger.verify(home.log_file)

    receipt = tmp_path / "receipt.json"
    counted = {"run": "r", "round": 1, "sha256": received}
    receipt.write_text(json.dumps({"updates": [counted]}))
    assert compared(home.log_file, receipt)[0]
    receipt.write_text(json.dumps({"updates": [counted, {**counted, "sha256": "b" * 64}]}))
    agrees, lines = compared(home.log_file, receipt)
    assert not agrees
    assert lines[0] == f"Run r round 1: the server counted {'b' * 64}, which this machine has never sent."


async def test_an_update_that_is_resumed_is_listed_with_what_was_sent_each_time(
    server: ScriptedServer, launch: Launch, home: Home
) -> None:
    server.break_upload_after = 600_000
    launch()
    server.push_task("t", FIT, toy_model())
    assert (await server.result("t")).outcome == COMPLETED
    whole, rest = log_of(home, "update")
    assert whole["sha256"] == rest["sha256"]
    assert rest["bytes"] == len(server.uploads["t"]) - rest["from"]


async def test_a_log_that_cannot_be_written_ends_the_agent_before_anything_leaves(
    server: ScriptedServer, launch: Launch, home: Home
) -> None:
    running = launch()
    await server.until(lambda: bool(server.hellos))
    home.log_file.unlink()
    home.log_file.mkdir()
    server.push_task("t", FIT, toy_model())
    with pytest.raises(ConfigurationError, match="nothing leaves this machine unlisted"):
        await running
    assert not server.headers


async def test_messages_that_leave_at_once_make_one_chain_whoever_hangs_up(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    gate = departures.Departures(ledger.Ledger(file), Leave, "tests")

    async def leave(number: int) -> None:
        await gate.message(fleet_pb2.AgentMessage(result=task_pb2.TaskResult(task_id="t", num_examples=number)))
        told = [entry["examples"] for entry in ledger.entries(file)]
        assert number in told

    leaving = [asyncio.create_task(leave(number)) for number in range(1, 21)]
    await asyncio.sleep(0)
    leaving[0].cancel()
    ended = await asyncio.gather(*leaving, return_exceptions=True)
    assert [type(one) for one in ended] == [asyncio.CancelledError, *[type(None)] * 19]
    gate.close()
    last = ledger.verify(file)
    assert last is not None
    assert last["seq"] == 20


async def test_long_texts_among_metrics_are_cut_in_the_log_alone(tmp_path: Path) -> None:
    book = ledger.Ledger(tmp_path / "log.jsonl")
    gate = departures.Departures(book, Leave, "tests")
    result = task_pb2.TaskResult(
        task_id="t", metrics=scalars_to_proto({"s": "x" * 4000, "b": b"\x01" * 4000, "n": float("inf")})
    )
    sent = await gate.message(fleet_pb2.AgentMessage(result=result))
    assert scalars_from_proto(sent.result.metrics)["s"] == "x" * 4000
    (entry,) = ledger.entries(tmp_path / "log.jsonl")
    assert entry["metrics"] == {"b": "01" * 100 + "…", "n": "inf", "s": "x" * 100 + "…"}
    assert entry["sha256"] == hashlib.sha256(sent.SerializeToString()).hexdigest()
