"""The owner's commands: `fedagent policy`, `log`, `pause` and `resume`."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Annotated

import typer

from client_agent import config
from client_agent.errors import BrokenPolicy, ConfigurationError
from client_agent.identity import DEFAULT_HOME, Home
from client_agent.options import AppOption, HomeOption, JsonOption
from client_agent.state import AgentState

ACKNOWLEDGED_SECONDS = 10.0
"""How long `pause` and `resume` wait for a running agent to act."""

policy = typer.Typer(help="What this machine does for a federation, and what may leave it.", no_args_is_help=True)


@policy.command()
def check(
    file: Annotated[
        Path | None, typer.Argument(help="The policy.", show_default="policy.toml in the agent's folder")
    ] = None,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Explain what a policy allows. Exits with 3 if the file is wrong."""
    from client_agent.explanation import explain
    from client_agent.policy import matches, read

    place = Home(home)
    file = file or config.load({}, os.environ, place.settings_file).policy or place.policy_file
    try:
        allowed = read(file)
    except BrokenPolicy as error:
        for problem in error.problems:
            typer.echo(f"{file}: {problem}", err=True)
        raise typer.Exit(error.exit_code) from error
    for topic, rule in explain(allowed):
        typer.echo(f"{topic + ':':24}{rule}")
    if place.is_enrolled and not matches(allowed.federations, federation := place.load().enrolment.federation):
        typer.echo(f"This agent is enrolled in {federation}, for which the file allows no work.")


@policy.command()
def digest(app: AppOption = None, home: HomeOption = DEFAULT_HOME) -> None:
    """Print the SHA-256 of the code of each app, as `apps.NAME.sha256` wants it."""
    from client_agent.digests import digest_of
    from client_agent.hosting import find_app, module_of

    settings = config.load({"app": app} if app else {}, os.environ, Home(home).settings_file)
    for reference in settings.app:
        found = find_app(reference)
        typer.echo(f"{found.name} {found.version} {digest_of(module_of(reference))}")


def pause(
    reason: Annotated[str, typer.Option(help="Words for the operator.")] = "", home: HomeOption = DEFAULT_HOME
) -> None:
    """Take no tasks, and end the one at work, until `fedagent resume`. The agent stays connected."""
    from client_agent import pause as pausing

    place = Home(home)
    place.load()
    try:
        pausing.pause(place.pause_file, reason)
    except OSError as error:
        raise ConfigurationError(f"{place.pause_file} can't be written: {error.strerror}") from error
    _report(place, "Paused", paused=True)


def resume(home: HomeOption = DEFAULT_HOME) -> None:
    """Take tasks again."""
    from client_agent import pause as pausing

    place = Home(home)
    place.load()
    if not pausing.resume(place.pause_file):
        typer.echo("It wasn't paused.")
        return
    _report(place, "Resumed", paused=False)


def _report(place: Home, done: str, *, paused: bool) -> None:
    """Tell what the running agent makes of it, as soon as it has."""
    give_up_at = time.monotonic() + ACKNOWLEDGED_SECONDS
    while (state := AgentState.read(place.state_file)).pid and time.monotonic() < give_up_at:
        if paused == state.unavailable.startswith("Paused"):
            also = f" It takes no tasks: {state.unavailable}" if state.unavailable and not paused else ""
            typer.echo(f"{done}. The agent (process {state.pid}) obeys.{also}")
            return
        time.sleep(0.05)
    if state.pid:
        raise ConfigurationError(f"{done}, but the agent (process {state.pid}) hasn't noticed. Restart it.")
    typer.echo(f"{done}. No agent is running here.")


def log(
    home: HomeOption = DEFAULT_HOME,
    as_json: JsonOption = False,
    kind: Annotated[str | None, typer.Option(help="Only of this kind, for example update.")] = None,
    run: Annotated[str | None, typer.Option(help="Only of this run.")] = None,
    last: Annotated[int | None, typer.Option(min=1, help="Only so many, the newest.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Check that no entry was changed or removed.")] = False,
    head: Annotated[str, typer.Option(help="With --verify: the hash of an entry that must be there.")] = "",
    compare: Annotated[
        Path | None, typer.Option(help="Compare the updates with the server's receipt, a JSON file.")
    ] = None,
) -> None:
    """List everything that has left this machine for the federation. --verify and --compare exit with 1 if they don't agree."""
    from client_agent import departure_log

    file = Home(home).log_file
    if verify:
        agrees, lines = departure_log.verified(file, head)
    elif compare:
        agrees, lines = departure_log.compared(file, compare)
    else:
        found = departure_log.select(file, kind, run, last)
        agrees, lines = True, [json.dumps(entry) if as_json else departure_log.as_text(entry) for entry in found]
    for line in lines:
        typer.echo(line)
    raise typer.Exit(0 if agrees else 1)
