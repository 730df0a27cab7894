"""`fedagent` as its user meets it: a process, its output and its exit code."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from client_agent.identity import Home
from protos.fedui.v1 import fleet_pb2, task_pb2
from tests.client_agent.api import EnrolmentApi
from tests.client_agent.pki import Authority
from tests.client_agent.server import ScriptedServer
from tests.client_agent.test_flower_bridge import FlowerClient, free_address

DIGITS = "client_agent.apps.digits_numpy:app"


@dataclass(frozen=True)
class Ended:
    code: int | None
    output: str
    errors: str


class Fedagent:
    """Starts `fedagent` with a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = Home(home)
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("FEDAGENT_")}

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "client_agent.cli", *arguments,
            env=self.environment | {"FEDAGENT_HOME": str(self.home.path), "FEDAGENT_RECONNECT_MAX_SECONDS": "0.1"},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def __call__(self, *arguments: str) -> Ended:
        return await ended(await self.start(*arguments))


async def ended(process: asyncio.subprocess.Process) -> Ended:
    async with asyncio.timeout(30):
        output, errors = await process.communicate()
    return Ended(process.returncode, output.decode(), errors.decode())


@pytest.fixture
def fedagent(tmp_path: Path) -> Fedagent:
    return Fedagent(tmp_path / "home")


async def test_enrol_run_and_stop(api: EnrolmentApi, server: ScriptedServer, fedagent: Fedagent) -> None:
    api.grpc_address, server.heartbeat_seconds = server.address, 0.5  # processes that start beside it may hold it up
    enrolled = await fedagent("enroll", api.url, "--token", api.authority.token, "--name", "site-1")
    assert (enrolled.code, enrolled.output) == (0, "Enrolled site-1 in tests. Next: fedagent run\n")

    process = await fedagent.start("run", "--app", DIGITS, "--set", "partitions=5", "--log-format", "json")
    await server.until(lambda: len(server.heartbeats) >= 2)
    assert server.hellos[0].apps[0].name == "digits-mlp"
    assert server.heartbeats[-1].memory_bytes < 80_000_000

    status = json.loads((await fedagent("status", "--json")).output)
    assert status["client_name"] == "site-1"
    assert status["agent"]["connected"]
    doctor = await fedagent("doctor", "--app", DIGITS)
    assert "stream: the running agent is connected" in doctor.output

    process.send_signal(signal.SIGTERM)
    run = await ended(process)
    assert run.code == 0
    assert {json.loads(line)["level"] for line in run.errors.splitlines()} == {"info"}
    assert "not running" in (await fedagent("status")).output


async def test_a_task_runs_in_the_process(server: ScriptedServer, fedagent: Fedagent) -> None:
    fedagent.home.save(server.authority.identity(server.address))
    process = await fedagent.start("run", "--app", DIGITS)
    server.push_task("t", task_pb2.TASK_KIND_INITIALISE, config={"seed": 1}, app="digits-mlp")
    assert (await server.result("t")).outcome == task_pb2.TASK_OUTCOME_COMPLETED
    process.send_signal(signal.SIGINT)
    assert (await ended(process)).code == 0


async def test_a_goodbye_for_good_has_an_exit_code(server: ScriptedServer, fedagent: Fedagent) -> None:
    server.greeting = fleet_pb2.Goodbye(reason="This client was revoked.", reconnect_after_seconds=-1)
    fedagent.home.save(server.authority.identity(server.address))
    run = await fedagent("run", "--app", DIGITS)
    assert run.code == 7
    assert run.errors.splitlines()[-1].startswith("fedagent: The server said goodbye: This client was revoked.")
    assert "Traceback" not in run.errors


async def test_an_expired_certificate_has_an_exit_code(authority: Authority, fedagent: Fedagent) -> None:
    fedagent.home.save(authority.identity("127.0.0.1:1", life=timedelta(hours=-1)))
    run = await fedagent("run", "--app", DIGITS)
    assert (run.code, len(run.errors.splitlines())) == (8, 1)
    assert "expired on" in run.errors


async def test_an_absent_server_is_one_readable_line_an_attempt(authority: Authority, fedagent: Fedagent) -> None:
    fedagent.home.save(authority.identity("127.0.0.1:1"))
    process = await fedagent.start("run", "--app", DIGITS)
    assert process.stderr
    lines = [(await process.stderr.readline()).decode() for _ in range(2)]
    process.send_signal(signal.SIGTERM)
    await ended(process)
    assert all("WARNING Not connected to 127.0.0.1:1 (UNAVAILABLE" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("run",), 3, "Begin with: fedagent enroll"),
        (("status",), 3, "Begin with: fedagent enroll"),
        (("run", "--set", "wrong"), 3, "An option is written key=value"),
        (("enroll", "https://fedui.example.org", "--token", "x"), 4, "not an enrolment token"),
        (("enroll",), 2, "Missing argument"),
    ],
)
async def test_a_mistake_is_one_line_and_an_exit_code(
    fedagent: Fedagent, arguments: tuple[str, ...], code: int, message: str
) -> None:
    run = await fedagent(*arguments)
    assert run.code == code
    assert message in run.errors
    assert "Traceback" not in run.errors


async def test_a_refused_token_and_a_false_server(api: EnrolmentApi, fedagent: Fedagent) -> None:
    false = await fedagent("enroll", api.url, "--token", Authority().token)
    assert (false.code, "has another CA" in false.errors) == (5, True)
    api.refusal = (403, {"code": "token_spent", "detail": "The token is spent.", "hint": "Ask for another."})
    spent = await fedagent("enroll", api.url, "--token", api.authority.token)
    assert (spent.code, spent.errors) == (4, "fedagent: The token is spent. Ask for another.\n")
    assert not fedagent.home.is_enrolled


async def test_a_refusal_gives_no_orders_to_the_terminal(api: EnrolmentApi, fedagent: Fedagent) -> None:
    api.refusal = (403, {"code": "token_spent", "detail": "The token is spent.\x1b]0;owned\x07"})
    spent = await fedagent("enroll", api.url, "--token", api.authority.token)
    assert spent.errors.startswith("fedagent: The token is spent.")
    assert spent.errors.rstrip("\n").isprintable()


async def test_an_enrolment_is_replaced_only_by_force(api: EnrolmentApi, fedagent: Fedagent) -> None:
    enrol = ("enroll", api.url, "--token", api.authority.token, "--name", "site-1")
    await fedagent(*enrol)
    first = fedagent.home.load()
    again = await fedagent(*enrol)
    assert (again.code, "--force" in again.errors) == (3, True)
    assert fedagent.home.load() == first
    assert (await fedagent(*enrol, "--force")).code == 0
    assert fedagent.home.load() != first


async def test_the_doctor_of_a_healthy_agent(api: EnrolmentApi, server: ScriptedServer, fedagent: Fedagent) -> None:
    fedagent.home.save(server.authority.identity(server.address, api.url))
    doctor = await fedagent("doctor", "--app", DIGITS)
    assert doctor.code == 0, doctor.output
    assert all(line.startswith("ok ") for line in doctor.output.splitlines())
    assert not server.hellos[0].apps


async def test_the_doctor_names_every_problem_with_its_cure(api: EnrolmentApi, fedagent: Fedagent) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        fedagent.home.save(
            api.authority.identity(f"127.0.0.1:{unused.getsockname()[1]}", api.url, timedelta(minutes=1))
        )
        fedagent.home.path.chmod(0o755)
        fedagent.home.key_file.chmod(0o644)
        fedagent.home.policy_file.write_text("limits.epoch = 5")
        api.date = "Thu, 01 Jan 2026 00:00:00 GMT"
        doctor = await fedagent("doctor", "--app", "nowhere")
    assert doctor.code == 1
    problems = [line.split()[1:] for line in doctor.output.splitlines() if line.startswith("PROBLEM")]
    assert [words[0] for words in problems] == [
        "home", "key", "certificate:", "clock:", "network:", "stream:", "apps:", "policy:",
    ]  # fmt: skip
    assert f"chmod 600 {fedagent.home.key_file}" in doctor.output
    assert "expires soon" in doctor.output


async def test_the_doctor_tells_why_the_server_refuses(
    api: EnrolmentApi, server: ScriptedServer, fedagent: Fedagent
) -> None:
    server.greeting = fleet_pb2.Goodbye(reason="This client is suspended.", reconnect_after_seconds=-1)
    fedagent.home.save(server.authority.identity(server.address, api.url))
    doctor = await fedagent("doctor", "--app", DIGITS)
    assert doctor.code == 1
    assert "PROBLEM  stream: the server refused: This client is suspended." in doctor.output


async def test_a_home_that_cannot_be_written_spends_no_token(
    api: EnrolmentApi, fedagent: Fedagent, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    run = await fedagent("enroll", api.url, "--token", api.authority.token, "--home", str(tmp_path / "file" / "home"))
    assert (run.code, "can't be written" in run.errors) == (3, True)
    assert not api.requests


async def test_a_bridge_listens_until_it_is_told_to_end(fedagent: Fedagent, authority: Authority) -> None:
    fedagent.home.save(authority.identity("127.0.0.1:1"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = await fedagent.start("bridge", "--listen", f"127.0.0.1:{port}")
    assert process.stderr
    async with asyncio.timeout(30):
        assert f"Flower clients find the bridge at 127.0.0.1:{port}".encode() in await process.stderr.readline()
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
    process.send_signal(signal.SIGTERM)
    assert (await ended(process)).code == 0


async def test_a_bridge_obeys_the_policy_wherever_it_is(
    server: ScriptedServer, authority: Authority, fedagent: Fedagent, tmp_path: Path
) -> None:
    fedagent.home.save(authority.identity(server.address))
    (tmp_path / "owner.toml").write_text('federations = ["Another"]')
    (fedagent.home.path / "agent.toml").write_text(f"policy = '{tmp_path / 'owner.toml'}'")
    process = await fedagent.start("bridge", "--listen", address := free_address())
    assert process.stderr
    async with asyncio.timeout(30):
        await process.stderr.readline()  # it listens
    async with FlowerClient(address) as client:
        await client.introduce()
        await server.until(lambda: bool(server.hellos))
    assert "allows no work for the federation" in server.hellos[0].unavailable
    process.send_signal(signal.SIGTERM)
    await ended(process)
    (tmp_path / "owner.toml").write_text("nonsense = 1")
    told = await fedagent("bridge", "--listen", address)
    assert (told.code, "nonsense is not known" in told.errors) == (3, True)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--listen", "0.0.0.0:8080"], "--allow-remote"),
        (["--initial-model", "nowhere.npz"], "nowhere.npz is no file of numpy.savez"),
        (["--initial-model", "model.npz", "--tensors", "a,b"], "leave --tensors out"),
        ([], "No enrolment in"),
    ],
)
async def test_a_bridge_that_cannot_be_says_why(fedagent: Fedagent, arguments: list[str], reason: str) -> None:
    told = await fedagent("bridge", *arguments)
    assert told.code == 3
    assert reason in told.errors


async def test_a_flower_app_without_flower_says_what_to_install(fedagent: Fedagent, authority: Authority) -> None:
    fedagent.home.save(authority.identity("127.0.0.1:1"))
    told = await fedagent("run", "--flower", "site:app", "--flower-model", "site:model")
    assert (told.code, 'pip install "fedui[agent,flower]"' in told.errors) == (3, True)
