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
    FlowerModelOption,
    FlowerOption,
    HomeOption,
    JsonOption,
    MaxTasksOption,
    MetricsPortOption,
    MinValuesOption,
    PolicyOption,
    ProxyOption,
    SetOption,
)
from client_agent.proxy import go_through
from client_agent.terminal import printable

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
            f"Waiting for an operator of {printable(waiting.federation)} to admit this client. Its key is\n"
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
    enrolled = f"Enrolled {identity.enrolment.client_name} in {identity.enrolment.federation}"
    typer.echo(f"{printable(enrolled)}. Next: fedagent run")


@cli.command()
def run(
    app: AppOption = None,
    options: SetOption = None,
    home: HomeOption = DEFAULT_HOME,
    log_format: Annotated[str | None, typer.Option(help="text or json.")] = None,
    min_values: MinValuesOption = None,
    policy: PolicyOption = None,
    proxy: ProxyOption = None,
    max_tasks: MaxTasksOption = None,
    metrics_port: MetricsPortOption = None,
    flower: FlowerOption = None,
    flower_model: FlowerModelOption = None,
) -> None:
    """Work for the federation until interrupted."""
    from client_agent import agent, hosting
    from client_agent.owner import Owner
    from client_agent.sdk import Context

    place = Home(home)
    flags = {"app": app, "set": options, "log_format": log_format, "min_values": min_values}
    flags |= {"max_tasks": max_tasks, "flower": flower, "flower_model": flower_model}
    settings = _settings(place, **flags, policy=policy, proxy=proxy, metrics_port=metrics_port)
    logs.configure(settings.log_format)
    identity = place.load()
    owner = Owner(place, identity.enrolment.federation, settings.policy)
    owner.policy()  # a broken one ends the agent before it begins, and libraries see only the processors that it allows
    context = Context(identity.enrolment.client_name, settings.set)
    apps = hosting.host_all(settings.app, context, settings.min_values, hosting.flower_apps(settings))
    agent.run(place, identity, apps, owner, settings.reconnect_max_seconds, settings.max_tasks, settings.metrics_port)


@cli.command()
def bridge(
    listen: Annotated[str, typer.Option(help="Where Flower clients connect.")] = "127.0.0.1:8080",
    app_name: Annotated[str, typer.Option(help="The app that they are offered as.")] = "flower",
    app_version: Annotated[str, typer.Option(help="Its version.")] = "1",
    tensors: Annotated[
        str | None, typer.Option(help="Names of the model's tensors, separated by commas.", show_default="0,1,2,…")
    ] = None,
    initial_model: Annotated[
        Path | None,
        typer.Option(
            help="A file of numpy.savez with what runs begin with.", show_default="what get_parameters returns"
        ),
    ] = None,
    home: Annotated[
        list[Path] | None,
        typer.Option(
            envvar="FEDAGENT_HOME",
            help="The folder of an enrolled client. Several times: a place for a Flower client each.",
            show_default="~/.fedagent",
        ),
    ] = None,
    allow_remote: Annotated[
        bool,
        typer.Option("--allow-remote", help="Listen where other machines can connect, without any authentication."),
    ] = False,
    log_format: Annotated[str | None, typer.Option(help="text or json.")] = None,
    policy: Annotated[
        Path | None,
        typer.Option(help="The owner's policy, for all places.", show_default="policy.toml in each agent's folder"),
    ] = None,
    proxy: ProxyOption = None,
) -> None:
    """Let clients written for Flower (start_client, start_numpy_client) take part, until interrupted."""
    from client_agent.flower import bridge as flower_bridge
    from client_agent.flower.offer import Offer

    homes = [Home(path) for path in dict.fromkeys(home or [DEFAULT_HOME])]
    settings = _settings(homes[0], log_format=log_format, proxy=proxy)
    logs.configure(settings.log_format)
    offer = Offer.of(app_name, app_version, tensors, initial_model)
    where = flower_bridge.Listen.parse(listen, allow_remote=allow_remote)
    flags = {"policy": policy} if policy else {}
    places = [flower_bridge.Place(place, config.load(flags, os.environ, place.settings_file).policy) for place in homes]
    flower_bridge.run(where, places, offer, settings.reconnect_max_seconds)


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
    flower: FlowerOption = None,
    flower_model: FlowerModelOption = None,
) -> None:
    """Look for what may keep the agent from working. Exits with 1 if there is a problem."""
    from client_agent.doctor import examine

    place = Home(home)
    settings = _settings(place, app=app, set=options, flower=flower, flower_model=flower_model)
    healthy = True
    for finding in examine(place, settings):
        healthy &= finding.ok
        typer.echo(f"{'ok     ' if finding.ok else 'PROBLEM'}  {finding.check}: {printable(finding.detail)}")
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
        typer.echo(f"fedagent: {printable(str(error))}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
