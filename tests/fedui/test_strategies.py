"""Strategies and their versions, which never change."""

from __future__ import annotations

import pytest

from aggregator.core.config import LocalConfig, StrategyConfig
from fedui.accounts.models import User
from fedui.audit.models import AuditEvent
from fedui.errors import NameTaken
from fedui.federations.models import Federation
from fedui.strategies.models import Strategy
from fedui.strategies.services import create_strategy, save_version
from tests.support.domain import a_federation

LONGER = StrategyConfig(local=LocalConfig(epochs=5))


@pytest.fixture
def strategy(federation: Federation, owner: User) -> Strategy:
    return create_strategy(federation, owner, name="plain", config=StrategyConfig())


def test_a_strategy_begins_with_version_1(strategy: Strategy) -> None:
    assert strategy.latest.number == 1
    assert strategy.latest.parsed == StrategyConfig()


def test_a_change_makes_the_next_version(strategy: Strategy, owner: User) -> None:
    version = save_version(strategy, LONGER, owner)

    assert version.number == 2
    assert strategy.latest == version
    assert strategy.versions.get(number=1).parsed == StrategyConfig()
    assert AuditEvent.objects.get(action="strategy.changed").details == {"version": 2}


def test_saving_what_is_there_makes_no_version(strategy: Strategy, owner: User) -> None:
    assert save_version(strategy, StrategyConfig(), owner) == strategy.latest
    assert strategy.versions.count() == 1


def test_what_an_earlier_version_said_can_be_saved_again(strategy: Strategy, owner: User) -> None:
    save_version(strategy, LONGER, owner)

    assert save_version(strategy, StrategyConfig(), owner).number == 3


def test_a_version_cannot_be_changed(strategy: Strategy) -> None:
    version = strategy.latest
    version.config = LONGER.model_dump()

    with pytest.raises(RuntimeError, match="plain v1 can't be changed"):
        version.save()


def test_a_name_is_used_once_in_a_federation(strategy: Strategy, federation: Federation, owner: User) -> None:
    with pytest.raises(NameTaken):
        create_strategy(federation, owner, name="plain", config=LONGER)
    create_strategy(a_federation("lungs", owner), owner, name="plain", config=LONGER)

    assert strategy.latest.parsed == StrategyConfig()
