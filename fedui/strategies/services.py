"""What changes strategies. A version that is saved stays as it is; see `StrategyVersion.save`."""

from __future__ import annotations

from django.db import transaction

from aggregator.core.config import StrategyConfig
from fedui.accounts.models import User
from fedui.audit.services import differences, record
from fedui.errors import NameTaken
from fedui.federations.models import Federation
from fedui.strategies.models import Strategy, StrategyVersion


@transaction.atomic
def create_strategy(
    federation: Federation,
    actor: User,
    *,
    name: str,
    config: StrategyConfig,
    description: str = "",
    address: str | None = None,
) -> Strategy:
    """A new strategy with `config` as its version 1. Raises `NameTaken`."""
    strategy, created = Strategy.objects.get_or_create(
        federation=federation, name=name, defaults={"description": description}
    )
    if not created:
        raise NameTaken(f"There is a strategy {name} already.", hint="Choose another name, or edit that strategy.")
    _add_version(strategy, config, actor, number=1)
    record(federation, actor, "strategy.created", strategy, address=address)
    return strategy


@transaction.atomic
def save_version(
    strategy: Strategy, config: StrategyConfig, actor: User, *, address: str | None = None
) -> StrategyVersion:
    """`config` as the next version of `strategy`; its latest version if that says the same."""
    Strategy.objects.select_for_update().get(pk=strategy.pk)  # Two edits at once get two numbers.
    latest = strategy.latest
    if latest.parsed == config:
        return latest
    version = _add_version(strategy, config, actor, number=latest.number + 1)
    change = differences(latest.config, version.config)
    record(strategy.federation, actor, "strategy.changed", strategy, address=address, version=version.number, **change)
    return version


def _add_version(strategy: Strategy, config: StrategyConfig, actor: User, *, number: int) -> StrategyVersion:
    return StrategyVersion.objects.create(
        strategy=strategy, number=number, config=config.model_dump(mode="json"), created_by=actor
    )
