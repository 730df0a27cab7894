"""`fedui demo`: a server, five agents as processes of their own, and a run on real data."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import time
import webbrowser
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedui.supervisor.children import StartFailed
from fedui.supervisor.folders import LOCK, claimed
from fedui.supervisor.stack import BIN, Stack

if TYPE_CHECKING:
    from fedui.accounts.models import User
    from fedui.federations.models import Federation
    from fedui.runs.models import Run

AGENTS = ("hosp-alder", "hosp-birch", "hosp-cedar", "hosp-elm", "hosp-willow")
SLOW_AGENT = "hosp-willow"
TORCH_AGENTS = ("hosp-birch", "hosp-elm")
PACE, SLOW_PACE = 0.3, 1.2
"""Seconds that an epoch is drawn out by, so that a person can watch what takes milliseconds on this small data."""
APP, GOOD_ACCURACY = "digits-mlp", 0.90
SEED = 21
OPERATOR = "operator"
ONLINE_SECONDS = 60.0
POLL_SECONDS = 0.1
MARK = ".fedui-demo"


@dataclass(frozen=True, slots=True)
class DemoOptions:
    data_dir: Path
    port: int
    grpc_port: int | None
    rounds: int
    browser: bool
    exit: bool
    torch: bool


def run_demo(options: DemoOptions, say: Callable[[str], None]) -> int:
    """The exit code: with `exit`, 0 only if the run completed and its accuracy on held-out data is good. Raises `StartFailed`."""
    begun = time.monotonic()
    _refuse_folder_of_others(options.data_dir)
    with claimed(options.data_dir):
        _make_fresh(options.data_dir)
        _go_round_proxies()
        say("Starting Redis, web, worker and beat …")
        with Stack(options.data_dir, host="127.0.0.1", port=options.port, grpc_port=options.grpc_port) as stack:
            run = _begin(stack, options, say)
            _follow(stack, run, say, begun)
            if options.exit:
                return _result(run, say)
            say("The platform goes on. Ctrl-C ends it.")
            stack.keep_alive(say)
    return 0


def _begin(stack: Stack, options: DemoOptions, say: Callable[[str], None]) -> Run:
    from django.urls import reverse

    password = secrets.token_urlsafe(9)
    federation, operator = _create_federation(password)
    say(f"Enrolling {len(AGENTS)} agents …")
    _start_agents(stack, options, _create_token(federation, operator))
    run = _start_run(federation, operator, options.rounds)
    address = stack.url + reverse("federation:run", args=[federation.slug, run.pk])
    say(_welcome(address, password, options))
    if options.browser and _has_display():
        webbrowser.open(address)
    return run


def _refuse_folder_of_others(folder: Path) -> None:
    """An earlier demo's folder is replaced; any other that holds something is left alone."""
    try:
        foreign = folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).exists()
    except OSError as error:
        raise StartFailed(f"You may not read {folder} ({error.strerror}). Choose another: --data-dir.") from error
    if foreign:
        raise StartFailed(f"{folder} holds something that is no earlier demo. Choose another folder: --data-dir.")


def _make_fresh(folder: Path) -> None:
    try:
        (folder / MARK).touch()
        for entry in folder.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name not in {LOCK, MARK}:
                entry.unlink()
    except OSError as error:
        raise StartFailed(f"You may not write to {folder} ({error.strerror}). Choose another: --data-dir.") from error


def _go_round_proxies() -> None:
    """Agents and server meet on this machine. Python and gRPC read these variables."""
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1"]))


def _create_federation(password: str) -> tuple[Federation, User]:
    from fedui.accounts.models import User
    from fedui.federations.services import create_federation

    if User.objects.exists():
        raise StartFailed(
            "The database at DATABASE_URL is in use. Name an empty one, or unset it: the demo brings its own."
        )
    operator = User.objects.create_superuser(OPERATOR, "operator@demo.invalid", password)
    return create_federation("Demo hospitals", "demo", operator), operator


def _create_token(federation: Federation, operator: User) -> str:
    from fedui.clients.services import create_token

    _, text = create_token(federation, operator, note="Agents of the demo", max_uses=len(AGENTS))
    return text


def _start_agents(stack: Stack, options: DemoOptions, token: str) -> None:
    """Enrol all at once, by the program that a data owner would use, then run them and wait until they are online."""
    from fedui.clients.models import Client

    homes = {name: stack.data_dir / "agents" / name for name in AGENTS}
    enrolments = {name: _enrol(stack.url, token, name, home) for name, home in homes.items()}
    for name, enrolment in enrolments.items():
        _, errors = enrolment.communicate()
        if enrolment.returncode:
            raise StartFailed(f"{name} could not be enrolled: {errors.decode().strip()}")
    for index, (name, home) in enumerate(homes.items()):
        stack.children.start(name, _agent_command(name, home, index, torch=options.torch), {})
    stack.children.wait_until(
        f"Connection of all {len(AGENTS)} agents",
        lambda: Client.objects.online().count() == len(AGENTS),
        ONLINE_SECONDS,
    )


def _enrol(url: str, token: str, name: str, home: Path) -> subprocess.Popen[bytes]:
    command = [str(BIN / "fedagent"), "enroll", url, "--name", name, "--home", str(home)]
    environment = {**os.environ, "FEDAGENT_TOKEN": token}  # not an argument, which other users of the machine can read
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # noqa: S603


def _agent_command(name: str, home: Path, index: int, *, torch: bool) -> list[str]:
    app = f"{APP}-torch" if torch and name in TORCH_AGENTS else APP
    site = {
        "partition": index,
        "partitions": len(AGENTS),
        "alpha": 0.5,
        "slowdown": SLOW_PACE if name == SLOW_AGENT else PACE,
    }
    settings = [part for key, value in site.items() for part in ("--set", f"{key}={value}")]
    return [str(BIN / "fedagent"), "run", "--home", str(home), "--app", app, *settings]


def _start_run(federation: Federation, operator: User, rounds: int) -> Run:
    from aggregator.core.config import CohortConfig, FaultsConfig, StrategyConfig
    from fedui.runs.services import create_run
    from fedui.strategies.services import create_strategy

    config = StrategyConfig(cohort=CohortConfig(min_clients=4), faults=FaultsConfig(quorum=3, deadline_seconds=60.0))
    strategy = create_strategy(federation, operator, name="fedavg", config=config, description="Federated averaging")
    app = federation.apps.get(name=APP)
    return create_run(
        federation, operator,
        name="digits-first", strategy_version=strategy.latest, app=app, num_rounds=rounds, seed=SEED,
    )  # fmt: skip


def _welcome(address: str, password: str, options: DemoOptions) -> str:
    facts = {"Open": address, "User": OPERATOR, "Password": password}
    lines = [f"{name:<8}  {value}" for name, value in facts.items()]
    width = max(map(len, lines)) + 1
    box = [f"│ {line.ljust(width)}│" for line in lines]
    rule = "─" * (width + 1)
    return "\n".join(["", f"┌{rule}┐", *box, f"└{rule}┘", f"Logs: {options.data_dir / 'log'}", ""])


def _follow(stack: Stack, run: Run, say: Callable[[str], None], begun: float) -> None:
    """Tell of each round as it is committed, until the run has ended."""
    told = 0
    while True:
        for line in stack.children.revive():
            say(line)
        run.refresh_from_db()
        done = run.rounds_done if run.is_terminal else _rounds_told_of(run)
        for number in range(told + 1, done + 1):
            since = f" {time.monotonic() - begun:.0f} s after the start" if number == 1 else ""
            say(f"Round {number} of {run.num_rounds}{since}: {_figures(run, number)}")
        told = max(told, done)
        if run.is_terminal:
            say(f"Run {run.status}. {run.reason}")
            return
        time.sleep(POLL_SECONDS)


def _rounds_told_of(run: Run) -> int:
    """The last round that has been evaluated, too."""
    return run.rounds.filter(status="committed", ended_at__isnull=False).count()


def _figures(run: Run, number: int) -> str:
    metrics = run.metrics.filter(round_number=number, source="server").order_by("name")
    return ", ".join(f"{m.name} {m.value:.3f}" for m in metrics) or "committed"


def _result(run: Run, say: Callable[[str], None]) -> int:
    from django.db.models import Sum

    from fedui.runs.models import Participation
    from fedui.runs.store import model_files

    accuracy = run.metrics.filter(source="server", name="accuracy").order_by("-round_number").first()
    model = run.latest_model
    moved = Participation.objects.filter(round__run=run).aggregate(up=Sum("bytes_up"), down=Sum("bytes_down"))
    say(f"Accuracy on held-out data: {accuracy.value:.4f}" if accuracy else "No accuracy was measured.")
    say(f"Rounds: {run.rounds_done} of {run.num_rounds}")
    say(f"Bytes: {moved['up'] or 0:,} up, {moved['down'] or 0:,} down")
    say(f"Model: {model_files().place(model.key) if model else 'none'}")
    good = run.status == "completed" and accuracy is not None and accuracy.value > GOOD_ACCURACY
    return 0 if good else 1


def _has_display() -> bool:
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
