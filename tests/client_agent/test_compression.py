"""What the agent does of its own where updates are the largest differences alone, or packed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from client_agent.hosting import host
from client_agent.sdk import App, Arrays, Config, Context, FitResult
from protos import encodings, tensors
from protos.convert import encoding_from_proto, signature_from_proto
from protos.encodings import PLAIN, Encoding
from protos.fedui.v1 import task_pb2
from protos.packing import unpack
from tests.client_agent.server import ScriptedServer
from tests.client_agent.toy import TOY_SHAPE, Launch, ToyClient, toy_model

COMPLETED, FIT = task_pb2.TASK_OUTCOME_COMPLETED, task_pb2.TASK_KIND_FIT
TOP_K = Encoding("top_k", delta=True, keep=0.1)
STEP = np.random.default_rng(3).integers(-1_000, 1_000, TOY_SHAPE).astype(np.float32) / 1_024
"""Such that no sum of a few of them is rounded."""


class Stepping(ToyClient):
    def fit(self, parameters: Arrays, config: Config) -> FitResult:
        return [parameters[0] + STEP], 7, {}


def sent(server: ScriptedServer, task_id: str) -> Any:
    """What is sent of the differences."""
    header = next(header for header in server.headers if header.task_id == task_id)
    zeros = toy_model(0.0)
    content: Any = server.uploads[task_id]
    signature, encoding = signature_from_proto(header.signature), encoding_from_proto(header.encoding)
    if header.encoding.packing:
        content = b"".join(unpack(content, encodings.encoded_size(signature, encoding)))
    return np.asarray(encodings.decode(content, signature, encoding, zeros)["weight"])


async def trained(server: ScriptedServer, task_id: str, number: int, counted: int) -> Any:
    server.push_task(task_id, FIT, toy_model(0.0), encoding=TOP_K, round_number=number, counted_round=counted)
    result = await server.result(task_id)
    assert result.outcome == COMPLETED, result.reason
    return sent(server, task_id)


async def test_an_update_that_did_not_count_gives_its_mass_back(server: ScriptedServer, launch: Launch) -> None:
    """The second round comes to nothing: the third goes on from the first, whatever is on the disk since."""
    app = App("toy", "1.0", "numpy", lambda context: Stepping(), ["weight"])
    launch({("toy", "1.0"): host(app, Context("site-1"))})
    first = await trained(server, "1", 1, 0)
    lost = await trained(server, "2", 2, 1)
    again = await trained(server, "3", 3, 1)
    np.testing.assert_array_equal(lost, again)
    rest = await trained(server, "4", 4, 3)
    assert np.count_nonzero(first) == np.count_nonzero(rest) == STEP.size // 10
    left = 3 * STEP - first - again - rest
    assert not np.array_equal(first, again)
    np.testing.assert_array_equal(left[rest != 0], 0)
    last = await trained(server, "5", 5, 4)
    np.testing.assert_array_equal(last[last != 0], (left + STEP)[last != 0])


@pytest.mark.parametrize("encoding", [PLAIN, Encoding("int8", delta=True), TOP_K])
async def test_an_update_is_packed_where_the_task_says_so(
    server: ScriptedServer, launch: Launch, encoding: Encoding
) -> None:
    launch()
    server.push_task("t", FIT, toy_model(2.0), encoding=encoding, packing="zstd")
    assert (await server.result("t")).outcome == COMPLETED
    (header,) = server.headers
    assert header.encoding.packing == "zstd"
    signature = signature_from_proto(header.signature)
    assert header.size == len(server.uploads["t"]) < encodings.encoded_size(signature, encoding) / 2
    assert server.packed_downloads == 1
    assert np.count_nonzero(sent(server, "t")) > 0


async def test_a_packed_model_is_gone_on_with_after_a_cut(server: ScriptedServer, launch: Launch) -> None:
    values = np.random.default_rng(1).integers(0, 2**16, (600, 1000)).astype("f4")
    app = App("toy", "1.0", "numpy", lambda context: Stepping(), ["weight"])
    large = {"weight": np.resize(values, TOY_SHAPE)}
    server.break_download_after = 2**18
    launch({("toy", "1.0"): host(app, Context("site-1"))})
    server.push_task("t", FIT, large, packing="zstd")
    result = await server.result("t")
    assert result.outcome == COMPLETED, result.reason
    assert server.download_offsets == [0, 2**18]
    header = server.headers[0]
    signature = signature_from_proto(header.signature)
    content: Any = server.uploads["t"]
    if header.encoding.packing:
        content = b"".join(unpack(content, signature.size))
    np.testing.assert_array_equal(tensors.decode(content, signature)["weight"], large["weight"] + STEP)


@pytest.mark.parametrize("damage", ["cut", "other"])
async def test_a_packed_model_that_is_not_the_announced_one_fails_the_task(
    server: ScriptedServer, launch: Launch, damage: str
) -> None:
    launch()
    task = server.push_task("t", FIT, toy_model(2.0), packing="zstd")
    packed = server.packed_models["t"]
    other = server.push_task("u", FIT, toy_model(3.0), packing="zstd")
    assert task.model.sha256 != other.model.sha256
    server.packed_models["t"] = packed[:-1] if damage == "cut" else server.packed_models["u"]
    result = await server.result("t")
    assert result.outcome == task_pb2.TASK_OUTCOME_FAILED
    assert "server" in result.reason
