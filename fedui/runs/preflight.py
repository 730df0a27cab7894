"""What an operator should know before a run begins: will it find its clients?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import models
from django.db.models import Max, OuterRef, Subquery
from django.utils import timezone

from aggregator.core.cohort import cohort_size
from aggregator.core.config import StrategyConfig
from aggregator.core.modes import Buffered
from aggregator.core.registry import part_name
from aggregator.core.strategy import Sizes, refusal, sizes
from fedui.catalog.models import App
from fedui.clients.models import Certificate, Client, ClientStatus, Presence
from fedui.federations.models import Federation
from fedui.runs.models import ModelVersion, Outcome, Participation
from fedui.strategies.models import StrategyVersion

REFUSED_LATELY = timedelta(hours=24)
"""A refusal by an owner's policy counts for so long, unless the client has taken part since."""


class Reason(models.TextChoices):
    """Why a client would take part in a run, or would not; the first that holds, in the order in which `_reason` asks."""

    READY = "ready", "Would take part"
    UNAVAILABLE = "unavailable", "Take no tasks now"
    REFUSED = "refused", "Refused lately by their owner's policy"
    LATE = "late", "Late"
    OFFLINE = "offline", "Offline"
    EXPIRED = "expired", "Certificate expired"
    OUTDATED = "outdated", "Agent too old"
    OTHER_MODEL = "other_model", "Another model under this name"
    OTHER_VERSION = "other_version", "Another version of the app"
    NO_APP = "no_app", "Don't offer the app"
    NEVER = "never", "Never connected"
    LABELS = "labels", "Without the strategy's labels"
    SUSPENDED = "suspended", "Suspended"
    REVOKED = "revoked", "Revoked"


@dataclass(frozen=True, slots=True)
class Standing:
    client: Client
    reason: Reason
    words: str = ""
    """What the reason alone doesn't say."""


@dataclass(frozen=True, slots=True)
class Preflight:
    app: App
    config: StrategyConfig
    board: list[Standing]
    """Of every client of the federation, in the order of their names."""
    refusal: str
    """Why the strategy can't train the app's model; empty if it can."""
    sizes: Sizes | None
    """None if it can't."""
    version: StrategyVersion | None = None
    """Where the configuration is that of a stored strategy."""

    def of(self, *reasons: Reason) -> list[Standing]:
        return [standing for standing in self.board if standing.reason in reasons]

    @property
    def ready(self) -> list[Client]:
        """Online, offer the app with the right model, carry the strategy's labels."""
        return [standing.client for standing in self.of(Reason.READY)]

    @property
    def absent(self) -> list[Client]:
        """Would take part, but aren't online."""
        return [standing.client for standing in self.of(Reason.OFFLINE, Reason.LATE)]

    @property
    def by_reason(self) -> list[tuple[Reason, list[Standing]]]:
        """Those that are ready first; reasons that hold for nobody are left out."""
        groups = [(reason, self.of(reason)) for reason in Reason]
        return [(reason, group) for reason, group in groups if group]

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


def preflight(
    federation: Federation, app: App, config: StrategyConfig, version: StrategyVersion | None = None
) -> Preflight:
    """The number of queries doesn't depend on that of the clients. `version` is what runs with the configuration have, if any."""
    asked = _Asked(app, config, _refusals(app, version), timezone.now())
    newest = Certificate.objects.filter(client=OuterRef("pk"), revoked_at=None).order_by("-issued_at", "-id")
    clients = federation.clients.annotate(certificate_ends=Subquery(newest.values("not_after")[:1])).order_by("name")
    board = [Standing(client, *asked.reason(client)) for client in clients]
    reason = refusal(config, app.model_signature)
    on_the_wire = None if reason else sizes(config, app.model_signature)
    return Preflight(app, config, board, reason, on_the_wire, version)


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


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is asked of each client."""

    app: App
    config: StrategyConfig
    refusals: Mapping[Any, str]
    now: datetime

    def reason(self, client: Any) -> tuple[Reason, str]:
        """Of a client with `certificate_ends`: what keeps it away for longest first."""
        if client.status != ClientStatus.ACTIVE:
            return Reason(client.status), ""
        if missing := self.config.cohort.labels.items() - client.labels.items():
            return Reason.LABELS, ", ".join(sorted(f"{key}:{value}" for key, value in missing))
        if client.presence != Presence.ONLINE and client.certificate_ends and client.certificate_ends <= self.now:
            return Reason.EXPIRED, "The site must enroll again."
        if client.protocol_minor is None and not client.apps:
            return Reason.NEVER, ""
        return self._by_offer(client) or self._by_presence(client)

    def _by_offer(self, client: Client) -> tuple[Reason, str] | None:
        problem = offer_of(client, self.app)
        if problem is None:
            versions = sorted(offer["version"] for offer in client.apps if offer["name"] == self.app.name)
            if versions:
                return Reason.OTHER_VERSION, f"Offers {', '.join(versions)}."
            return Reason.NO_APP, f"Offers {', '.join(sorted({offer['name'] for offer in client.apps})) or 'no app'}."
        if problem:
            return Reason.OTHER_MODEL, problem
        if client.protocol_minor is not None and client.protocol_minor < self.config.agent_minor:
            return Reason.OUTDATED, f"Version {client.agent_version or 'unknown'} must be updated for this strategy."
        return None

    def _by_presence(self, client: Client) -> tuple[Reason, str]:
        if client.presence != Presence.ONLINE:
            return Reason(client.presence), ""
        if client.unavailable:
            return Reason.UNAVAILABLE, client.unavailable
        if client.pk in self.refusals:
            return Reason.REFUSED, self.refusals[client.pk]
        return Reason.READY, ""


def _refusals(app: App, version: StrategyVersion | None) -> Mapping[Any, str]:
    """Who refused when it was last asked in such runs, with the reason."""
    asked = Participation.objects.filter(
        round__run__app=app, round__started_at__gte=timezone.now() - REFUSED_LATELY
    ).exclude(outcome__in=[Outcome.PENDING, Outcome.CANCELLED])
    if version:
        asked = asked.filter(round__run__strategy_version=version)
    last = asked.order_by().values("client").annotate(last=Max("pk")).values("last")
    refused = Participation.objects.filter(pk__in=last, outcome=Outcome.REFUSED)
    return dict(refused.order_by().values_list("client", "reason"))
