"""Data cards: what apps can tell of the data, and what of it the owner publishes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from client_agent.hosting import HostedApp
from client_agent.policy import CardRule, Leave
from protos import limits
from protos.fedui.v1 import fleet_pb2


def of(apps: Iterable[HostedApp]) -> fleet_pb2.DataCards:
    """All that the apps tell. It doesn't leave the machine like this."""
    return fleet_pb2.DataCards(cards=[_card(hosted) for hosted in apps if hosted.card])


def _card(hosted: HostedApp) -> fleet_pb2.DataCard:
    card = hosted.card
    assert card
    labels = [
        fleet_pb2.LabelCount(label=str(label)[: limits.MAX_LABEL_LENGTH], examples=n)
        for label, n in card.labels.items()
    ]
    return fleet_pb2.DataCard(
        app=hosted.app.name,
        app_version=hosted.app.version,
        data_set=card.data_set[: limits.MAX_LABEL_LENGTH],
        examples=card.examples,
        features=card.features,
        labels=labels,
    )


def published(cards: fleet_pb2.DataCards, leave: Leave) -> fleet_pb2.DataCards:
    """What the owner lets leave of them."""
    shown = (_published(card, leave.card_rule(card.app)) for card in cards.cards)
    return fleet_pb2.DataCards(cards=[card for card in shown if card])


def _published(card: fleet_pb2.DataCard, rule: CardRule) -> fleet_pb2.DataCard | None:
    if not rule.publish:
        return None
    shown = fleet_pb2.DataCard(app=card.app, app_version=card.app_version, data_set=card.data_set)
    if "examples" in rule.publish:
        shown.examples = card.examples
    if "features" in rule.publish and card.HasField("features"):
        shown.features = card.features
    if "labels" in rule.publish:
        floor = shown.label_floor = rule.label_floor
        shown.labels.extend(
            fleet_pb2.LabelCount(label=count.label, examples=count.examples // floor * floor)
            for count in card.labels
            if count.examples >= floor
        )
    return shown


def plain(cards: fleet_pb2.DataCards) -> list[dict[str, Any]]:
    """As JSON can hold them, for the log."""
    return [_plain(card) for card in cards.cards]


def _plain(card: fleet_pb2.DataCard) -> dict[str, Any]:
    told: dict[str, Any] = {"app": card.app}
    for name in ("examples", "features"):
        if card.HasField(name):
            told[name] = getattr(card, name)
    return told | ({"labels": {count.label: count.examples for count in card.labels}} if card.labels else {})
