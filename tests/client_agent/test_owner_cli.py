"""The owner's commands as their user meets them, beside a running agent."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from client_agent.cli import cli
from client_agent.config import load
from client_agent.errors import ConfigurationError
from client_agent.identity import Home
from client_agent.ledger import Ledger
from client_agent.proxy import go_through, next_hop
from protos.convert import scalars_from_proto
from protos.fedui.v1 import task_pb2
from tests.client_agent.api import EnrolmentApi
from tests.client_agent.pki import Authority
from tests.client_agent.proxy import Proxy
from tests.client_agent.server import ScriptedServer
from tests.client_agent.test_cli import DIGITS, Fedagent, ended

GREEDY = "tests.client_agent.greedy:app"
SMALL = {"w": np.zeros(4, np.float32)}


@pytest.fixture
def fedagent(tmp_path: Path) -> Fedagent:
    return Fedagent(tmp_path / "home")


@pytest.fixture
def enrolled(fedagent: Fedagent, server: ScriptedServer) -> Fedagent:
    server.heartbeat_seconds = 0.5  # processes that start beside it may hold it up
    fedagent.home.save(server.authority.identity(server.address))
    return fedagent


def test_policy_check_explains_a_good_file_and_names_what_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text('[limits]\nepochs = 5\n[leave]\nmetrics = ["loss"]')
    good = in_process("policy", "check", str(file))
    assert good.exit_code == 0
    assert "epochs:                 at most 5 a round" in good.output
    assert "metrics that leave:     loss" in good.output
    file.write_text("[limits]\nepoch = 5\nrounds = 3")
    wrong = in_process("policy", "check", str(file))
    assert (wrong.exit_code, wrong.stdout) == (3, "")
    assert wrong.stderr.splitlines() == [
        f"{file}: limits.epoch is not known; did you mean 'epochs'?",
        f"{file}: limits.rounds is not known; did you mean 'rounds_a_day'?",
    ]


def in_process(*arguments: str, home: Path | None = None) -> Result:
    return CliRunner().invoke(cli, arguments, env={"FEDAGENT_HOME": str(home) if home else None})


def test_policy_check_tells_that_this_agents_federation_is_left_out(tmp_path: Path, authority: Authority) -> None:
    home = Home(tmp_path / "home")
    home.save(authority.identity("127.0.0.1:1"))
    missing = in_process("policy", "check", home=home.path)
    assert (missing.exit_code, "Without one everything is allowed" in missing.stderr) == (3, True)
    home.policy_file.write_text('federations = ["Cardio *"]')
    other = in_process("policy", "check", home=home.path)
    assert other.exit_code == 0
    assert "This agent is enrolled in tests, for which the file allows no work." in other.stdout


async def test_an_agent_does_not_begin_with_a_broken_or_missing_policy(enrolled: Fedagent, tmp_path: Path) -> None:
    missing = await enrolled("run", "--app", DIGITS, "--policy", str(tmp_path / "nowhere.toml"))
    assert (missing.code, "is missing" in missing.errors) == (3, True)
    enrolled.home.policy_file.write_text("limits.epoch = 5")
    broken = await enrolled("run", "--app", DIGITS)
    assert (broken.code, "did you mean 'epochs'" in broken.errors) == (3, True)


async def test_the_digest_that_is_printed_is_the_one_that_the_policy_wants(
    enrolled: Fedagent, server: ScriptedServer
) -> None:
    name, version, digest = (await enrolled("policy", "digest", "--app", GREEDY)).output.split()
    enrolled.home.policy_file.write_text(
        f'[apps.{name}]\nversions = ["{version}"]\nsha256 = "{digest}"\n[limits]\ncpus = 1\nmemory_mb = 600'
    )
    process = await enrolled.start("run", "--app", GREEDY, "--log-format", "json")
    server.push_task("small", task_pb2.TASK_KIND_FIT, config={"megabytes": 1}, app=name, model=SMALL)
    assert (await server.result("small")).outcome == task_pb2.TASK_OUTCOME_COMPLETED
    assert scalars_from_proto(server.headers[0].metrics)["processors"] == 1
    server.push_task("large", task_pb2.TASK_KIND_FIT, config={"megabytes": 2000}, app=name, model=SMALL)
    refused = await server.result("large")
    assert refused.outcome == task_pb2.TASK_OUTCOME_REFUSED
    assert refused.reason == "The owner's policy allows 600 MB of memory, which the task was about to exceed."
    process.send_signal(signal.SIGTERM)
    assert (await ended(process)).code == 0


async def test_a_limit_below_what_an_idle_agent_takes_is_refused(enrolled: Fedagent) -> None:
    enrolled.home.policy_file.write_text("limits.memory_mb = 20")
    run = await enrolled("run", "--app", GREEDY)
    assert (run.code, "limits.memory_mb is 20; without any work this agent needs" in run.errors) == (3, True)


async def test_pause_and_resume_beside_a_running_agent(enrolled: Fedagent, server: ScriptedServer) -> None:
    here = partial(in_process, home=enrolled.home.path)
    assert here("resume").output == "It wasn't paused.\n"
    assert here("pause").output == "Paused. No agent is running here.\n"
    process = await enrolled.start("run", "--app", DIGITS)
    await server.until(lambda: bool(server.hellos))
    assert server.hellos[0].unavailable == "Paused by its owner."
    assert "takes no tasks: Paused by its owner." in here("status").output
    resumed = await asyncio.to_thread(here, "resume")
    assert resumed.output == f"Resumed. The agent (process {process.pid}) obeys.\n"
    await server.until(lambda: server.availabilities[-1:] == [""])
    paused = await asyncio.to_thread(here, "pause", "--reason", "Backups")
    assert paused.output == f"Paused. The agent (process {process.pid}) obeys.\n"
    await server.until(lambda: server.availabilities[-1] == "Paused by its owner: Backups.")
    process.send_signal(signal.SIGTERM)
    assert (await ended(process)).code == 0


def test_the_log_is_read_as_text_and_json_and_verified(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    show = partial(in_process, home=home.path)
    assert "nothing has left" in (show("log", "--verify")).output
    home.prepare()
    ledger = Ledger(home.log_file)
    about = {"at": "2026-11-26T12:00:00+00:00", "bytes": 1234, "sha256": "ab" * 32}
    hello = ledger.append({**about, "kind": "hello"})
    ledger.append({
        **about, "kind": "update", "run": "7", "round": 2, "task": "train", "examples": 30, "metrics": {"loss": 0.25},
    })  # fmt: skip
    text = (show("log", "--run", "7")).output
    assert text == (
        "2026-11-26T12:00:00+00:00  update              1,234 B  abababababab  run 7 round 2 train  30 examples  loss=0.25\n"
    )
    (line,) = (show("log", "--json", "--kind", "hello", "--last", "5")).output.splitlines()
    assert json.loads(line) == hello
    whole = show("log", "--verify", "--head", hello["hash"])
    assert (whole.exit_code, whole.output.splitlines()[0].startswith("2 entries")) == (0, True)
    file = home.log_file
    file.write_text(file.read_text().replace("0.25", "0.35"))
    broken = show("log", "--verify")
    assert (broken.exit_code, "Line 2 was changed after it was written" in broken.output) == (1, True)


@pytest.mark.parametrize("credentials", ["", "dXNlcjpwYXNz"])
async def test_enrolment_streams_and_transfers_go_through_a_proxy(
    api: EnrolmentApi, server: ScriptedServer, fedagent: Fedagent, credentials: str
) -> None:
    api.grpc_address, server.heartbeat_seconds = server.address, 0.5
    with Proxy(credentials) as proxy:
        address = f"http://{'user:pass@' if credentials else ''}127.0.0.1:{proxy.port}"
        enrolled = await fedagent(
            "enroll", api.url, "--token", api.authority.token, "--name", "site-1", "--proxy", address
        )
        assert enrolled.code == 0, enrolled.errors
        assert proxy.requests == [f"{api.url}/api/v1/{path}" for path in ("ca", "enroll", "ca")]
        fedagent.home.settings_file.write_text(f'proxy = "{address}"\n')
        process = await fedagent.start("run", "--app", DIGITS)
        server.push_task("t", task_pb2.TASK_KIND_INITIALISE, config={"seed": 1}, app="digits-mlp")
        assert (await server.result("t")).outcome == task_pb2.TASK_OUTCOME_COMPLETED
        assert set(proxy.tunnels) == {server.address}
        assert len(proxy.tunnels) >= 2  # the stream, and the transfer beside it
        doctor = await fedagent("doctor", "--app", DIGITS)
        assert (
            f"network: 127.0.0.1:{proxy.port} accepts connections, a proxy on the way to {server.address}"
            in doctor.output
        )
        process.send_signal(signal.SIGTERM)
        assert (await ended(process)).code == 0
    entries = [json.loads(line)["kind"] for line in (await fedagent("log", "--json")).output.splitlines()]
    assert entries[:2] == ["enrolment", "hello"]


def test_the_systems_proxy_counts_but_not_for_loopback_nor_beside_the_owners() -> None:
    capitals = {"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "example.net"}
    go_through(None, capitals)
    assert (capitals["https_proxy"], capitals["no_proxy"]) == (
        "http://proxy:3128",
        "example.net,localhost,127.0.0.1,::1",
    )
    assert next_hop("fedui.example.org:50051", capitals) == "proxy:3128"
    assert next_hop("127.0.0.1:50051", capitals) == "127.0.0.1:50051"
    assert next_hop("fedui.example.net:50051", capitals) == "fedui.example.net:50051"
    owners = {"https_proxy": "http://other:8080", "NO_PROXY": "*", "no_proxy": "127.0.0.1"}
    go_through("http://user:pass@proxy:3128", owners)
    assert owners["https_proxy"] == owners["grpc_proxy"] == "http://user:pass@proxy:3128"
    assert next_hop("127.0.0.1:50051", owners) == "proxy:3128"


@pytest.mark.parametrize("value", ["proxy:3128", "https://proxy:3128", "http://proxy", "http://proxy:port"])
def test_an_address_that_is_no_proxy_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigurationError, match="http://proxy.example.org:3128"):
        load({"proxy": value}, {}, tmp_path / "agent.toml")


@pytest.mark.skipif(sys.platform != "linux", reason="the limits are Linux's")
def test_a_limit_beyond_that_of_the_system_is_told_with_what_to_do() -> None:
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_DATA, (2**32, 2**32))\n"
        "from client_agent.errors import ConfigurationError\n"
        "from client_agent.policy import Limits\n"
        "from client_agent.resources import Resources\n"
        "try:\n"
        "    Resources().hold(Limits(memory_mb=8192))\n"
        "except ConfigurationError as error:\n"
        "    print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "limits.memory_mb" in said
    assert "Lower them" in said
