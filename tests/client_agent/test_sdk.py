"""The public surface, finding apps, and a client's way to report progress."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

import client_agent
from client_agent import App, BrokenApp, Context, NumPyClient, TaskCancelled
from client_agent.apps import digits_numpy
from client_agent.hosting import find_app, host, host_all
from client_agent.progress import TaskProgress
from client_agent.sdk import Arrays, Config
from protos.convert import scalars_from_proto
from protos.fedui.v1 import task_pb2
from protos.tensors import OPEN


def test_the_public_surface_is_this_list() -> None:
    assert sorted(client_agent.__all__) == [
        "AgentError",
        "App",
        "BrokenApp",
        "BrokenPolicy",
        "CertificateExpired",
        "ClientLike",
        "ConfigurationError",
        "Context",
        "DataCard",
        "Dismissed",
        "EnrolmentError",
        "FalseServer",
        "MalformedToken",
        "NotEnrolled",
        "NumPyClient",
        "Progress",
        "ServerUnreachable",
        "TaskCancelled",
        "TaskRefused",
        "TransferError",
    ]
    assert all(hasattr(client_agent, name) for name in client_agent.__all__)


class TwoTensors(NumPyClient):
    def get_parameters(self, config: Config) -> Arrays:
        return [np.zeros((2, 3), np.float32), np.array(config["seed"], np.int64)]


def make_app(names: list[str] | None = None) -> App:
    return App("two", "1.0", "numpy", lambda context: TwoTensors(), names)


def test_tensors_without_names_are_numbered() -> None:
    signature = host(make_app(), Context("site-1")).signature
    assert [(t.name, t.dtype, t.shape) for t in signature.tensors] == [("0", "float32", (2, 3)), ("1", "int64", ())]


def test_a_wrong_number_of_names_is_told() -> None:
    with pytest.raises(BrokenApp, match="names 1 tensors, but its client returned 2"):
        host(make_app(["weight"]), Context("site-1"))


class GrowingBytes(NumPyClient):
    def get_parameters(self, config: Config) -> Arrays:
        return [np.zeros(5, np.uint8), np.zeros(3, np.float32), np.zeros((2, 2), np.uint8)]


def growing(*open_tensors: str) -> App:
    return App(
        "growing", "1.0", "numpy", lambda context: GrowingBytes(), ["ensemble", "w", "grid"], open_tensors=open_tensors
    )


def test_a_length_is_left_open_where_the_app_says_so() -> None:
    signature = host(growing("ensemble"), Context("site-1")).signature
    assert [t.shape for t in signature.tensors] == [OPEN, (3,), (2, 2)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("trees", "leaves the length of 'trees' open, which is no tensor of its model"),
        ("w", "only uint8 may be open"),
        ("grid", r"has shape \(2, 2\), where a number of bytes is expected"),
    ],
)
def test_a_tensor_that_cannot_be_left_open_is_told(name: str, message: str) -> None:
    with pytest.raises(BrokenApp, match=message):
        host(growing(name), Context("site-1"))


def test_progress_outside_an_agent_does_nothing() -> None:
    TwoTensors().report_progress(0.5, loss=1.0)


def test_an_app_is_found_at_its_module() -> None:
    assert find_app("client_agent.apps.digits_numpy:app") is digits_numpy.app


def test_an_app_is_found_by_its_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = tmp_path / "site_code-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: site-code\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[fedui.apps]\nmine = client_agent.apps.digits_numpy:app\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert find_app("mine") is digits_numpy.app


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("nowhere", "no installed package offers it"),
        ("no_such_module:app", "No module named 'no_such_module'"),
        ("client_agent:nothing", "has no attribute 'nothing'"),
        ("client_agent:NumPyClient", "not a client_agent.App"),
    ],
)
def test_an_app_that_cannot_be_loaded_is_named(reference: str, message: str) -> None:
    with pytest.raises(BrokenApp, match=message):
        find_app(reference)


def test_an_app_whose_client_lacks_a_method_is_named() -> None:
    app = App("half", "1.0", "none", lambda context: object())  # type: ignore[arg-type,return-value]
    with pytest.raises(BrokenApp, match="lacks one of the methods"):
        host(app, Context("site-1"))


def test_one_name_and_version_is_offered_once() -> None:
    twice = ["client_agent.apps.digits_numpy:app"] * 2
    with pytest.raises(BrokenApp, match="Two apps are called digits-mlp"):
        host_all(twice, Context("site-1"))


async def test_progress_is_coalesced_and_its_last_value_always_arrives() -> None:
    sent: list[task_pb2.Progress] = []
    progress = TaskProgress("t", sent.append)
    forwarding = asyncio.create_task(progress.forward())

    def train() -> None:
        for step in range(10_000):
            progress.report(step / 9_999, {"step": step})

    await asyncio.to_thread(train)
    async with asyncio.timeout(10):
        while not sent or sent[-1].fraction < 1:
            await asyncio.sleep(0.01)
    forwarding.cancel()
    assert len(sent) < 20
    assert scalars_from_proto(sent[-1].metrics) == {"step": 9_999}


async def test_a_metric_that_cannot_be_sent_does_not_stop_training() -> None:
    sent: list[task_pb2.Progress] = []
    progress = TaskProgress("t", sent.append)
    progress.report(0.5, {"loss": object()})  # type: ignore[dict-item]
    progress.flush()
    assert "'loss' is a object that can't be sent" in sent[0].message


async def test_a_cancelled_task_wakes_a_sleeping_client() -> None:
    progress = TaskProgress("t", lambda message: None)
    sleeping = asyncio.create_task(asyncio.to_thread(progress.sleep, 60))
    progress.cancel()
    with pytest.raises(TaskCancelled):
        await sleeping
