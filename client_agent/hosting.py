"""Finding apps, and the apps that this agent offers."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import entry_points

from client_agent.config import Settings
from client_agent.digests import digest_of
from client_agent.errors import BrokenApp
from client_agent.queries import DEFAULT_MIN_VALUES, OpenColumns
from client_agent.sdk import App, ClientLike, Context, DataCard
from protos import limits
from protos.tensors import CodecError, Signature

ENTRY_POINT_GROUP = "fedui.apps"

AppKey = tuple[str, str]
"""Name and version."""


@dataclass(frozen=True, slots=True)
class HostedApp:
    """An app with its client, made once for the life of the agent, the model's signature, and what is open to queries.

    `sha256` is that of the app's code, by `client_agent.digests`.
    """

    app: App
    client: ClientLike
    signature: Signature
    columns: OpenColumns
    sha256: str = ""
    card: DataCard | None = None


HostedApps = Mapping[AppKey, HostedApp]


def installed_apps() -> list[str]:
    """The names under which installed packages offer apps."""
    return sorted(entry.name for entry in entry_points(group=ENTRY_POINT_GROUP))


def find_app(reference: str) -> App:
    """The app with this entry point's name, or at "module:attribute". Raises `BrokenApp`."""
    try:
        found = _load(reference)
    except Exception as error:  # An app's module may raise anything while it is imported.
        raise BrokenApp(f"App {reference!r} can't be loaded: {type(error).__name__}: {error}") from error
    if not isinstance(found, App):
        raise BrokenApp(f"{reference!r} is a {type(found).__name__}, not a client_agent.App.")
    return found


def module_of(reference: str) -> str:
    """The module in which `find_app` finds the app."""
    module, separator, _ = reference.partition(":")
    named = entry_points(group=ENTRY_POINT_GROUP, name=reference)
    return module if separator else next(iter(named)).module


def host(app: App, context: Context, min_values: int = DEFAULT_MIN_VALUES) -> HostedApp:
    """Make the app's client and read the model's signature. Raises `ConfigurationError`."""
    try:
        client = app.client_fn(context)
    except (TypeError, ValueError, OSError) as error:
        raise BrokenApp(f"App {app.name!r} could not make its client: {type(error).__name__}: {error}") from error
    if not isinstance(client, ClientLike):
        raise BrokenApp(
            f"App {app.name!r} made a {type(client).__name__}, which lacks one of the methods get_parameters, fit, "
            "evaluate and get_properties."
        )
    try:
        columns = OpenColumns.of(app, context, min_values)
        return HostedApp(app, client, app.signature_of(client), columns, card=_card(app, context))
    except CodecError as error:
        raise BrokenApp(f"App {app.name!r} has a model that can't be sent: {error}") from error


def _card(app: App, context: Context) -> DataCard | None:
    """Raises `BrokenApp` for a card that can't be read or sent."""
    try:
        card = app.card(context) if app.card else None
    except Exception as error:  # the app's own code
        raise BrokenApp(f"App {app.name!r} can't make its data card: {type(error).__name__}: {error}") from error
    if card and len(card.labels) > limits.MAX_LABELS:
        raise BrokenApp(
            f"The data card of app {app.name!r} has {len(card.labels):,} labels; at most {limits.MAX_LABELS} fit."
        )
    return card


def flower_apps(settings: Settings) -> list[tuple[App, str]]:
    """The Flower app that the owner wants to run, if any, with its SHA-256. Raises `BrokenApp`."""
    if not settings.flower:
        return []
    try:
        from client_agent.flower.client_app import flower_app
    except ModuleNotFoundError as error:
        raise BrokenApp(
            f'Flower is not installed here ({error}). Install it: pip install "fedui[agent,flower]"'
        ) from error
    return [(flower_app(settings.flower, settings.flower_model), digest_of(module_of(settings.flower)))]


def host_all(
    references: Iterable[str],
    context: Context,
    min_values: int = DEFAULT_MIN_VALUES,
    more: Iterable[tuple[App, str]] = (),
) -> HostedApps:
    """Load and host each app, and `more`. Raises `BrokenApp` if two have the same name and version."""
    hosted: dict[AppKey, HostedApp] = {}
    for app, sha256 in [*((find_app(name), digest_of(module_of(name))) for name in references), *more]:
        key = (app.name, app.version)
        if key in hosted:
            raise BrokenApp(f"Two apps are called {app.name} {app.version}: leave one of the --app options out.")
        hosted[key] = replace(host(app, context, min_values), sha256=sha256)
    return hosted


def _load(reference: str) -> object:
    module, separator, attribute = reference.partition(":")
    if separator:
        return getattr(importlib.import_module(module), attribute)
    for entry in entry_points(group=ENTRY_POINT_GROUP, name=reference):
        return entry.load()
    raise LookupError(
        f"no installed package offers it; installed are {', '.join(installed_apps()) or 'none'}. "
        'Your own code is named "module:attribute".'
    )
