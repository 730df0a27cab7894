"""The program `fedagent`: enrol once, then run. `errors.py` lists the exit codes."""

# Each command imports what it needs by itself: gRPC reads its environment when it is imported, and an idle agent stays
# small without `cryptography`.

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from typing import Annotated

import typer

from client_agent import config, logs, owner_cli
from client_agent.config import Settings
from client_agent.errors import AgentError, ConfigurationError
from client_agent.identity import DEFAULT_HOME, Home
from client_agent.options import (
    AppOption,
    HomeOption,
    JsonOption,
    MinValuesOption,
    PolicyOption,
    ProxyOption,
    SetOption,
)
from client_agent.proxy import go_through

cli = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

cli.add_typer(owner_cli.policy, name="policy")
cli.command()(owner_cli.log)
cli.command()(owner_cli.pause)
cli.command()(owner_cli.resume)


@cli.command()
def enroll(
    url: Annotated[str, typer.Argument(help="The server's address, for example https://fedui.example.org.")],
    token: Annotated[str, typer.Option(envvar="FEDAGENT_TOKEN", help="The token that the operator gave you.")],
    name: Annotated[str, typer.Option(help="This client's name.", show_default="host name")] = platform.node(),
    home: HomeOption = DEFAULT_HOME,
    insecure_http: Annotated[bool, typer.Option("--insecure-http", help="Allow http to other machines.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Enrol again where an enrolment is: the client keeps its history.")
    ] = False,
    proxy: ProxyOption = None,
) -> None:
    """Join a federation: make a key, and have the server certify it. Waits where an operator has to admit the client."""
    from client_agent.departures import entry
    from client_agent.enrolment import Token, Waiting, enrol
    from client_agent.ledger import Ledger

    def tell(waiting: Waiting) -> None:
        typer.echo(
            f"Waiting for an operator of {waiting.federation} to admit this client. Its key is\n"
            f"  {waiting.key_fingerprint}\n"
            "Tell them, or compare it with what they see. Ctrl-C ends the wait; the same command takes it up again."
        )

    place = Home(home)
    if place.is_enrolled and not force:
        raise ConfigurationError(f"{home} is enrolled already. Use --force to replace it, or another --home.")
    place.prepare()
    _settings(place, proxy=proxy)
    ledger = Ledger(place.log_file)
    identity = enrol(
        url,
        Token.parse(token),
        name,
        place,
        insecure_http=insecure_http,
        on_waiting=tell,
        leaving=lambda content: ledger.append(entry("enrolment", "", content, detail=f"to {url} as {name}")),
    )
    typer.echo(f"Enrolled {identity.enrolment.client_name} in {identity.enrolment.federation}. Next: fedagent run")


@cli.command()
def run(
    app: AppOption = None,
    options: SetOption = None,
    home: HomeOption = DEFAULT_HOME,
    log_format: Annotated[str | None, typer.Option(help="text or json.")] = None,
    min_values: MinValuesOption = None,
    policy: PolicyOption = None,
    proxy: ProxyOption = None,
) -> None:
    """Work for the federation until interrupted."""
    from client_agent import agent, hosting
    from client_agent.owner import Owner
    from client_agent.sdk import Context

    place = Home(home)
    settings = _settings(
        place, app=app, set=options, log_format=log_format, min_values=min_values, policy=policy, proxy=proxy
    )
    logs.configure(settings.log_format)
    identity = place.load()
    owner = Owner(place, identity.enrolment.federation, settings.policy)
    owner.policy()  # a broken one ends the agent before it begins, and libraries see only the processors that it allows
    apps = hosting.host_all(settings.app, Context(identity.enrolment.client_name, settings.set), settings.min_values)
    agent.run(place, identity, apps, owner, settings.reconnect_max_seconds)


@cli.command()
def status(home: HomeOption = DEFAULT_HOME, as_json: JsonOption = False) -> None:
    """Tell who this client is, and what its agent is doing."""
    from client_agent import reports

    report = reports.status(Home(home))
    typer.echo(json.dumps(report, indent=2) if as_json else reports.as_text(report))


@cli.command()
def doctor(
    app: AppOption = None,
    options: SetOption = None,
    home: HomeOption = DEFAULT_HOME,
) -> None:
    """Look for what may keep the agent from working. Exits with 1 if there is a problem."""
    from client_agent.doctor import examine

    place = Home(home)
    healthy = True
    for finding in examine(place, _settings(place, app=app, set=options)):
        healthy &= finding.ok
        typer.echo(f"{'ok     ' if finding.ok else 'PROBLEM'}  {finding.check}: {finding.detail}")
        if not finding.ok:
            typer.echo(f"         {finding.cure}")
    raise typer.Exit(0 if healthy else 1)


def _settings(home: Home, **flags: list[str] | str | int | Path | None) -> Settings:
    """The settings; those of the proxy are in force from here on."""
    given = {name: value for name, value in flags.items() if value or value == 0}
    settings = config.load(given, os.environ, home.settings_file)
    go_through(settings.proxy, os.environ)
    return settings


def main() -> None:
    """Entry point: every expected error ends in one line on stderr and its exit code."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # What it would print of a failure is in the error that it raises.
    try:
        cli()
    except AgentError as error:
        typer.echo(f"fedagent: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
