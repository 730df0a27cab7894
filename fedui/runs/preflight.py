"""What an operator should know before a run begins: will it find its clients?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from aggregator.core.cohort import cohort_size
from aggregator.core.config import StrategyConfig
from aggregator.core.modes import Buffered
from aggregator.core.registry import part_name
from aggregator.core.strategy import Sizes, refusal, sizes
from fedui.catalog.models import App
from fedui.clients.models import Client, ClientStatus, Presence
from fedui.federations.models import Federation
from fedui.runs.models import ModelVersion


@dataclass(frozen=True, slots=True)
class Preflight:
    app: App
    config: StrategyConfig
    ready: list[Client]
    """Online, offer the app with the right model, carry the strategy's labels."""
    absent: list[Client]
    """Would take part, but aren't online."""
    unavailable: list[Client]
    """Online, but take no tasks now, as their owners will have it."""
    refused: list[tuple[Client, str]]
    """Offer the app with another model: each with the difference."""
    outdated: list[Client]
    """Offer the app, but their agents can't send updates as the strategy asks for."""
    refusal: str
    """Why the strategy can't train the app's model; empty if it can."""
    sizes: Sizes | None
    """None if it can't."""

    @property
    def needed(self) -> int:
        """Clients that a round can't do without; an update in a buffer is each of another one."""
        return max(self.config.cohort.min_clients, self.config.fewest_updates)

    @property
    def begins(self) -> bool:
        return len(self.ready) >= self.config.cohort.min_clients

    @property
    def enough(self) -> bool:
        return len(self.ready) >= self.needed

    @property
    def cohort_size(self) -> int:
        """How many clients a round would ask, if it began now, or with as few as it may; how many would train at once in a buffered run."""
        if isinstance(mode := self.config.mode, Buffered):
            most = max(self.config.cohort.min_clients, len(self.ready))
            return most if mode.concurrency is None else min(most, mode.concurrency)
        return cohort_size(self.config.cohort, max(self.config.cohort.min_clients, len(self.ready)))

    @property
    def asynchronous(self) -> bool:
        return isinstance(self.config.mode, Buffered)

    @property
    def traffic(self) -> int:
        """Bytes of a round's training, both ways."""
        updates = self.config.fewest_updates if self.asynchronous else self.cohort_size
        return updates * (self.sizes.to_train + self.sizes.update) if self.sizes else 0

    @property
    def at_most(self) -> bool:
        """The traffic is known as a bound alone: what an ensemble of trees grows to, and what packing saves, nobody knows beforehand."""
        return self.app.model_signature.is_open or self.config.update.packing != "none"

    @property
    def evaluation_traffic(self) -> int:
        """Bytes of a round's evaluation by the clients. In a buffered run there is none."""
        evaluated = self.config.evaluation.federated and not self.asynchronous
        return self.cohort_size * self.sizes.to_evaluate if self.sizes and evaluated else 0


def offer_of(client: Client, app: App) -> str | None:
    """None if the client doesn't offer the app; else what is wrong with its offer, which may be nothing."""
    for offer in client.apps:
        if (offer["name"], offer["version"]) == (app.name, app.version):
            return str(offer.get("problem") or "")
    return None


def preflight(federation: Federation, app: App, config: StrategyConfig) -> Preflight:
    ready: list[Client] = []
    absent: list[Client] = []
    unavailable: list[Client] = []
    refused: list[tuple[Client, str]] = []
    outdated: list[Client] = []
    for client in _candidates(federation, config.cohort.labels.items()):
        problem = offer_of(client, app)
        if problem:
            refused.append((client, problem))
        elif problem is not None and _is_outdated(client, config):
            outdated.append(client)
        elif problem is not None:
            online, takes_tasks = client.presence == Presence.ONLINE, not client.unavailable
            (absent if not online else ready if takes_tasks else unavailable).append(client)
    reason = refusal(config, app.model_signature)
    on_the_wire = None if reason else sizes(config, app.model_signature)
    return Preflight(app, config, ready, absent, unavailable, refused, outdated, reason, on_the_wire)


def fork_notes(origin: ModelVersion, config: StrategyConfig) -> list[str]:
    """What a run with this strategy would take over from the model that it begins with, in words for an operator."""
    before = origin.run.strategy_version.parsed
    notes = [f"Begins with the model of round {origin.round_number} of {origin.run.name}."]
    same_tensors = before.method.local_tensors(origin.run.app.model_signature) == config.method.local_tensors(
        origin.run.app.model_signature
    )
    for part, earlier in ((config.optimizer, before.optimizer), (config.method, before.method)):
        if (name := part_name(type(part))) == "none":
            continue
        goes_on = same_tensors and name == part_name(type(earlier))
        notes.append(f"{part.title}: its state at the server {'goes on' if goes_on else 'begins anew'}.")
    if part_name(type(config.method)) != "none":
        notes.append("What clients keep for the method begins anew.")
    return notes


def _is_outdated(client: Client, config: StrategyConfig) -> bool:
    """The engine never asks such a client. Of one that has not connected yet nothing is known."""
    return client.protocol_minor is not None and client.protocol_minor < config.agent_minor


def _candidates(federation: Federation, labels: Iterable[tuple[str, str]]) -> Iterable[Client]:
    wanted = set(labels)
    active = federation.clients.filter(status=ClientStatus.ACTIVE)
    return (client for client in active if wanted <= set(client.labels.items()))
