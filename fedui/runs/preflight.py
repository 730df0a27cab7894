"""What an operator should know before a run begins: will it find its clients?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from aggregator.core.cohort import cohort_size
from aggregator.core.config import StrategyConfig
from aggregator.core.modes import Buffered
from fedui.catalog.models import App
from fedui.clients.models import Client, ClientStatus, Presence
from fedui.federations.models import Federation


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

    @property
    def refusal(self) -> str:
        """Why the strategy's rule can't aggregate the app's model; empty if it can."""
        return self.config.aggregation.refusal(self.app.model_signature)

    @property
    def enough(self) -> bool:
        return len(self.ready) >= self.config.cohort.min_clients

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
        """Bytes of a round, both ways."""
        updates = self.config.fewest_updates if self.asynchronous else self.cohort_size
        return 2 * updates * self.app.model_signature.size


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
    for client in _candidates(federation, config.cohort.labels.items()):
        problem = offer_of(client, app)
        if problem:
            refused.append((client, problem))
        elif problem is not None:
            online, takes_tasks = client.presence == Presence.ONLINE, not client.unavailable
            (absent if not online else ready if takes_tasks else unavailable).append(client)
    return Preflight(app, config, ready, absent, unavailable, refused)


def _candidates(federation: Federation, labels: Iterable[tuple[str, str]]) -> Iterable[Client]:
    wanted = set(labels)
    active = federation.clients.filter(status=ClientStatus.ACTIVE)
    return (client for client in active if wanted <= set(client.labels.items()))
