"""Tasks from the server's push to the result, over real gRPC."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from client_agent import transfer
from client_agent.hosting import host
from client_agent.sdk import App, Arrays, Config, Context, EvaluateResult, FitResult, Metrics
from client_agent.tasks import MOST_WAITING
from protos import encodings, tensors
from protos.convert import encoding_from_proto, scalars_from_proto, signature_from_proto
from protos.encodings import Compression, Encoding
from protos.fedui.v1 import fleet_pb2, task_pb2
from tests.client_agent.server import ScriptedServer
from tests.client_agent.toy import TOY_SHAPE, Launch, ToyClient, toy_model

COMPLETED = task_pb2.TASK_OUTCOME_COMPLETED
FAILED = task_pb2.TASK_OUTCOME_FAILED
REFUSED = task_pb2.TASK_OUTCOME_REFUSED
CANCELLED = task_pb2.TASK_OUTCOME_CANCELLED


def uploaded(server: ScriptedServer, task_id: str) -> Arrays:
    header = next(header for header in server.headers if header.task_id == task_id)
    return list(tensors.decode(server.uploads[task_id], signature_from_proto(header.signature)).values())


async def test_initialise_uploads_the_parameters_of_the_seed(server: ScriptedServer, launch: Launch) -> None:
    launch()
    server.push_task("t", task_pb2.TASK_KIND_INITIALISE, config={"seed": 4})
    assert (await server.result("t")).outcome == COMPLETED
    assert np.array_equal(uploaded(server, "t")[0], np.full(TOY_SHAPE, 4, np.float32))


async def test_fit_trains_the_model_it_got_and_uploads_the_update(server: ScriptedServer, launch: Launch) -> None:
    launch()
    server.push_task("t", task_pb2.TASK_KIND_FIT, toy_model(2.0))
    result = await server.result("t")
    assert result.outcome == COMPLETED
    assert np.array_equal(uploaded(server, "t")[0], np.full(TOY_SHAPE, 3, np.float32))
    assert server.headers[0].num_examples == 7
    assert scalars_from_proto(server.headers[0].metrics) == {"loss": 0.5}


async def test_evaluate_returns_loss_and_metrics(server: ScriptedServer, launch: Launch) -> None:
    launch()
    server.push_task("t", task_pb2.TASK_KIND_EVALUATE, toy_model(2.0))
    result = await server.result("t")
    assert (result.outcome, result.loss, result.num_examples) == (COMPLETED, 2.0, 3)
    assert scalars_from_proto(result.metrics) == {"accuracy": 0.75}
    assert not server.headers


async def test_progress_names_the_phases_and_ends_with_the_last_value(server: ScriptedServer, launch: Launch) -> None:
    launch()
    server.push_task("t", task_pb2.TASK_KIND_FIT, toy_model())
    await server.result("t")
    phases = list(dict.fromkeys(message.phase for message in server.progress))
    assert phases == [task_pb2.PHASE_DOWNLOADING, task_pb2.PHASE_TRAINING, task_pb2.PHASE_UPLOADING]
    training = [message for message in server.progress if message.phase == task_pb2.PHASE_TRAINING]
    assert training[-1].fraction == 1.0
    assert scalars_from_proto(training[-1].metrics) == {"loss": 0.5}


@pytest.mark.parametrize("compression", ["none", "float16", "bfloat16", "int8"])
async def test_an_update_travels_as_the_task_asks_though_the_app_trains_in_place(
    server: ScriptedServer, launch: Launch, compression: Compression
) -> None:
    encoding, model = Encoding(compression, delta=True), toy_model(3.0)
    launch()
    server.push_task("t", task_pb2.TASK_KIND_FIT, model, encoding=encoding)
    assert (await server.result("t")).outcome == COMPLETED
    (header,) = server.headers
    assert encoding_from_proto(header.encoding) == encoding
    signature = signature_from_proto(header.signature)
    decoded = encodings.decode(server.uploads["t"], signature, encoding, model)
    np.testing.assert_allclose(np.asarray(decoded["weight"]), 4.0, atol=1 / 127 + 1e-6)


async def test_the_same_work_in_another_encoding_is_encoded_anew(server: ScriptedServer, launch: Launch) -> None:
    launch()
    asked: list[Compression] = ["int8", "float16", "int8"]
    for attempt, compression in enumerate(asked, start=1):
        encoding = Encoding(compression, delta=True)
        server.push_task(f"t{attempt}", task_pb2.TASK_KIND_FIT, toy_model(), attempt=attempt, encoding=encoding)
        assert (await server.result(f"t{attempt}")).outcome == COMPLETED
    assert [header.encoding.compression for header in server.headers] == asked
    assert server.uploads["t1"] == server.uploads["t3"] != server.uploads["t2"]


async def test_a_step_beyond_float16_fails_the_task_with_advice(server: ScriptedServer, launch: Launch) -> None:
    launch()
    encoding = Encoding("float16", delta=True)
    server.push_task("t", task_pb2.TASK_KIND_FIT, toy_model(), {"factor": 1e6}, encoding=encoding)
    result = await server.result("t")
    assert result.outcome == FAILED
    assert "can't travel as float16 differences" in result.reason
    assert "Let the strategy send bfloat16 or int8" in result.reason
    assert "t" not in server.uploads


async def test_an_encoding_of_a_later_version_fails_the_task_before_training(
    server: ScriptedServer, launch: Launch, client: ToyClient
) -> None:
    launch()
    task = server.push_task("t", task_pb2.TASK_KIND_FIT, toy_model())
    await server.result("t")
    later = task_pb2.Task()
    later.CopyFrom(task)
    later.task_id, later.encoding.compression = "u", "int4"
    server.push(task=later)
    result = await server.result("u")
    assert (result.outcome, client.fits) == (FAILED, 1)
    assert "'int4'" in result.reason
    assert "update fedagent" in result.reason


async def test_an_upload_goes_on_where_it_broke(server: ScriptedServer, launch: Launch) -> None:
    server.break_upload_after = 600_000
    launch()
    server.push_task("t", task_pb2.TASK_KIND_FIT, toy_model())
    assert (await server.result("t")).outcome == COMPLETED
    assert [header.offset > 0 for header in server.headers] == [False, True]
    assert np.array_equal(uploaded(server, "t")[0], np.full(TOY_SHAPE, 2, np.float32))


async def test_a_download_goes_on_where_it_broke(server: ScriptedServer, launch: Launch) -> None:
    server.break_download_after = 600_000
    launch()
    server.push_task("t", task_pb2.TASK_KIND_FIT, toy_model())
    assert (await server.result("t")).outcome == COMPLETED
    assert [offset > 0 for offset in server.download_offsets] == [False, True]


async def test_a_download_goes_on_under_another_task(server: ScriptedServer, launch: Launch) -> None:
    server.break_download_after = 600_000
    launch()
    server.push_task("earlier", task_pb2.TASK_KIND_FIT, toy_model())
    server.break_download_again = True
    await server.until(lambda: len(server.download_offsets) > 1)
    server.push(cancel=fleet_pb2.CancelTask(task_id="earlier", reason="The server has begun anew."))
    assert (await server.result("earlier")).outcome == CANCELLED
    server.break_download_again, server.download_offsets[:] = False, []
    server.push_task("later", task_pb2.TASK_KIND_FIT, toy_model())
    assert (await server.result("later")).outcome == COMPLETED
    assert server.download_offsets[0] > 0
    assert np.array_equal(uploaded(server, "later")[0], np.full(TOY_SHAPE, 2, np.float32))


async def test_an_upload_waits_for_its_turn_however_long_that_takes(
    server: ScriptedServer, launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "STALL_SECONDS", 0.2)
    server.turn = asyncio.Event()
    launch()
    server.push_task("t", task_pb2.TASK_KIND_FIT, toy_model())
    await server.until(lambda: bool(server.headers))
    assert not server.uploads.get("t")
    asyncio.get_running_loop().call_later(0.6, server.turn.set)
    assert (await server.result("t")).outcome == COMPLETED
    assert len(server.headers) == 1


async def test_what_a_server_has_of_a_new_update_is_asked_of_one_that_is_not_known_yet(
    server: ScriptedServer, launch: Launch
) -> None:
    server.turn = asyncio.Event()
    server.turn.set()
    launch()
    for number, task_id in enumerate(("first", "second"), start=1):
        server.push_task(task_id, task_pb2.TASK_KIND_FIT, toy_model(), round_number=number)
        assert (await server.result(task_id)).outcome == COMPLETED
    assert server.asked_what_is_there == ["first"]
    server.push(goodbye=fleet_pb2.Goodbye(reason="Restarting.", reconnect_after_seconds=0.01))
    await server.until(lambda: len(server.hellos) == 2)
    server.push_task("third", task_pb2.TASK_KIND_FIT, toy_model(), round_number=3)
    assert (await server.result("third")).outcome == COMPLETED
    server.push_task("again", task_pb2.TASK_KIND_FIT, toy_model(), round_number=3, attempt=2)
    assert (await server.result("again")).outcome == COMPLETED
    assert server.asked_what_is_there == ["first", "third", "again"]


async def test_a_model_with_another_hash_fails_the_task(server: ScriptedServer, launch: Launch) -> None:
    task = server.push_task("t", task_pb2.TASK_KIND_FIT, toy_model())
    server.models["t"] = bytes(len(server.models["t"]))
    launch()
    result = await server.result(task.task_id)
    assert result.outcome == FAILED
    assert "SHA-256" in result.reason


async def test_a_refused_upload_fails_the_task_with_the_servers_reason(server: ScriptedServer, launch: Launch) -> None:
    server.refuse_uploads = True
    launch()
    server.push_task("t", task_pb2.TASK_KIND_FIT, toy_model())
    result = await server.result("t")
    assert result.outcome == FAILED
    assert "The round is closed." in result.reason


async def test_an_app_that_raises_fails_the_task_and_the_agent_goes_on(server: ScriptedServer, launch: Launch) -> None:
    launch()
    server.push_task("bad", task_pb2.TASK_KIND_FIT, toy_model(), {"error": "no data today"})
    result = await server.result("bad")
    assert (result.outcome, result.reason) == (FAILED, "ArithmeticError: no data today")
    server.push_task("good", task_pb2.TASK_KIND_FIT, toy_model())
    assert (await server.result("good")).outcome == COMPLETED


async def test_a_diverged_update_is_not_uploaded(server: ScriptedServer, launch: Launch) -> None:
    launch()
    server.push_task("t", task_pb2.TASK_KIND_FIT, toy_model(), {"factor": float("nan")})
    result = await server.result("t")
    assert result.outcome == FAILED
    assert "'weight'" in result.reason
    assert "NaN" in result.reason
    assert not server.headers


async def test_an_unknown_app_is_refused(server: ScriptedServer, launch: Launch) -> None:
    launch()
    server.push_task("t", task_pb2.TASK_KIND_FIT, toy_model(), app="other")
    result = await server.result("t")
    assert result.outcome == REFUSED
    assert result.reason == "This agent has no app other 1.0; it offers toy 1.0."


async def test_a_model_of_another_shape_is_refused(server: ScriptedServer, launch: Launch) -> None:
    launch()
    server.push_task("t", task_pb2.TASK_KIND_FIT, {"weight": np.zeros((2, 2), np.float32)})
    result = await server.result("t")
    assert result.outcome == REFUSED
    assert "tensor 'weight' has shape (2, 2), not (300, 1000)" in result.reason


async def test_a_cancelled_task_stops_training(server: ScriptedServer, launch: Launch, client: ToyClient) -> None:
    client.may_end.clear()
    launch()
    server.push_task("t", task_pb2.TASK_KIND_FIT, toy_model())
    server.push_task("waiting", task_pb2.TASK_KIND_FIT, toy_model(5.0))
    await asyncio.to_thread(client.started.wait)
    server.push(cancel=fleet_pb2.CancelTask(task_id="waiting", reason="Enough updates came."))
    server.push(cancel=fleet_pb2.CancelTask(task_id="t", reason="Enough updates came."))
    assert (await server.result("t")).outcome == CANCELLED
    assert (await server.result("waiting")).outcome == CANCELLED
    assert client.fits == 1
    assert not server.headers


async def test_a_training_that_is_asked_to_finish_sends_what_it_has(
    server: ScriptedServer, launch: Launch, client: ToyClient
) -> None:
    client.may_end.clear()
    launch()
    server.push_task("t", task_pb2.TASK_KIND_FIT, toy_model())
    await asyncio.to_thread(client.started.wait)
    server.push(cancel=fleet_pb2.CancelTask(task_id="t", reason="Its time is up.", finish=True))
    assert (await server.result("t")).outcome == COMPLETED
    (header,) = server.headers
    assert (header.work.done, header.work.planned) == (1, 4)


async def test_a_training_ends_by_itself_when_the_task_says(
    server: ScriptedServer, launch: Launch, client: ToyClient
) -> None:
    client.may_end.clear()
    launch()
    server.push_task("t", task_pb2.TASK_KIND_FIT, toy_model(), finish_after_seconds=0.2)
    assert (await server.result("t")).outcome == COMPLETED
    assert server.headers[0].HasField("work")


async def test_tasks_wait_for_each_other_in_order(server: ScriptedServer, launch: Launch, client: ToyClient) -> None:
    launch()
    for number in range(3):
        server.push_task(f"t{number}", task_pb2.TASK_KIND_FIT, toy_model(number))
    await server.result("t2")
    assert [result.task_id for result in server.results] == ["t0", "t1", "t2"]


async def test_an_agent_that_is_sent_tasks_without_end_refuses_them(
    server: ScriptedServer, launch: Launch, client: ToyClient
) -> None:
    server.heartbeat_seconds = (
        10.0  # a busy machine is no reason to begin another stream, and to lose what was sent on this one
    )
    client.may_end.clear()
    launch()
    for number in range(MOST_WAITING + 2):
        server.push_task(f"t{number}", task_pb2.TASK_KIND_FIT, toy_model())
        await server.until(client.started.is_set)
    refused = await server.result(f"t{MOST_WAITING + 1}")
    assert refused.outcome == task_pb2.TASK_OUTCOME_REFUSED
    assert "tasks wait for this agent already" in refused.reason
    assert len(server.results) == 1
    client.may_end.set()


async def test_a_task_delivered_twice_is_trained_once(
    server: ScriptedServer, launch: Launch, client: ToyClient
) -> None:
    client.may_end.clear()
    launch()
    task = server.push_task("t", task_pb2.TASK_KIND_FIT, toy_model())
    await asyncio.to_thread(client.started.wait)
    server.push(task=task)
    client.may_end.set()
    await server.result("t")
    server.push(task=task)
    await server.until(lambda: len(server.results) == 2)
    assert [result.outcome for result in server.results] == [COMPLETED, COMPLETED]
    assert client.fits == 1


async def test_a_new_attempt_at_the_same_work_gets_the_update_without_training(
    server: ScriptedServer, launch: Launch, client: ToyClient
) -> None:
    launch()
    server.push_task("first", task_pb2.TASK_KIND_FIT, toy_model(), attempt=1)
    await server.result("first")
    server.push_task("second", task_pb2.TASK_KIND_FIT, toy_model(), attempt=2)
    assert (await server.result("second")).outcome == COMPLETED
    assert server.uploads["first"] == server.uploads["second"]
    assert client.fits == 1


class BareClient:
    """Flower's four methods and nothing else."""

    def get_parameters(self, config: Config) -> Arrays:
        return [np.zeros(3, np.float32)]

    def fit(self, parameters: Arrays, config: Config) -> FitResult:
        return parameters, 1, {}

    def evaluate(self, parameters: Arrays, config: Config) -> EvaluateResult:
        return 0.0, 1, {}

    def get_properties(self, config: Config) -> Metrics:
        return {}


class WideClient(BareClient):
    def fit(self, parameters: Arrays, config: Config) -> FitResult:
        return [parameters[0].astype(np.float64)], 1, {}


class ShapelessClient(BareClient):
    def fit(self, parameters: Arrays, config: Config) -> FitResult:
        return None  # type: ignore[return-value]


class LeavingClient(BareClient):
    def fit(self, parameters: Arrays, config: Config) -> FitResult:
        raise SystemExit(3)


@pytest.mark.parametrize(
    ("client_type", "outcome", "reason"),
    [
        (BareClient, COMPLETED, ""),
        (WideClient, FAILED, "The update doesn't fit the model: tensor '0' has dtype float64, not float32."),
        (ShapelessClient, FAILED, "TypeError: fit must return (list of arrays, number of examples, metrics)"),
        (LeavingClient, FAILED, "SystemExit: 3"),
    ],
)
async def test_what_a_duck_typed_client_returns_is_checked(
    server: ScriptedServer,
    launch: Launch,
    client_type: type[BareClient],
    outcome: task_pb2.TaskOutcome.ValueType,
    reason: str,
) -> None:
    app = App("bare", "1.0", "none", lambda context: client_type())
    launch({("bare", "1.0"): host(app, Context("site-1"))})
    server.push_task("t", task_pb2.TASK_KIND_FIT, {"0": np.ones(3, np.float32)}, app="bare")
    result = await server.result("t")
    assert (result.outcome, result.reason) == (outcome, reason)


class GrowingBytes(ToyClient):
    """Appends one byte to its model."""

    def get_parameters(self, config: Config) -> Arrays:
        return [np.zeros(0, np.uint8)]

    def fit(self, parameters: Arrays, config: Config) -> FitResult:
        return [np.append(parameters[0], np.uint8(7))], 7, {}


async def test_a_model_of_open_length_goes_down_and_up_in_its_own(server: ScriptedServer, launch: Launch) -> None:
    app = App("toy", "1.0", "numpy", lambda context: GrowingBytes(), ["ensemble"], open_tensors=["ensemble"])
    launch({("toy", "1.0"): host(app, Context("site-1"))})
    server.push_task("one", task_pb2.TASK_KIND_FIT, {"ensemble": np.arange(100, dtype=np.uint8)})
    assert (await server.result("one")).outcome == COMPLETED
    assert uploaded(server, "one")[0].tolist() == [*range(100), 7]
    server.push_task("two", task_pb2.TASK_KIND_FIT, {"ensemble": np.zeros((4, 4), np.uint8)})
    refusal = await server.result("two")
    assert (refusal.outcome, "a number of bytes is expected" in refusal.reason) == (REFUSED, True)
