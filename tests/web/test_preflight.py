from __future__ import annotations

import pytest

from aggregator.core.config import CohortConfig, FaultsConfig, StrategyConfig
from fedui.clients.models import Client, ClientStatus
from fedui.runs.preflight import Preflight, preflight
from protos import limits
from tests.support.population import World, populate


@pytest.fixture
def world(db: None) -> World:
    return populate()


def _check(world: World, config: StrategyConfig | None = None) -> Preflight:
    return preflight(world.federation, world.run.app, config or StrategyConfig())


def test_clients_that_are_online_and_offer_the_app_are_ready(world: World) -> None:
    check = _check(world)
    assert len(check.ready) == 2
    assert check.enough
    assert check.traffic == 2 * 2 * world.run.app.model_signature.size


def test_a_client_that_is_away_is_counted_apart(world: World) -> None:
    Client.objects.filter(pk=world.client.pk).update(connected=False)
    check = _check(world)
    assert [client.name for client in check.absent] == ["hosp-elm"]
    assert not check.enough


def test_a_client_whose_owner_has_paused_it_is_not_ready(world: World) -> None:
    Client.objects.filter(pk=world.client.pk).update(unavailable="Paused by its owner.")
    check = _check(world)
    assert [client.unavailable for client in check.unavailable] == ["Paused by its owner."]
    assert not check.enough


def test_another_model_under_the_same_name_is_said(world: World) -> None:
    world.client.apps[0]["problem"] = "weight is float64, not float32."
    world.client.save()
    assert _check(world).refused == [(world.client, "weight is float64, not float32.")]


def test_labels_and_revocation_leave_clients_out(world: World) -> None:
    wanted = StrategyConfig(cohort=CohortConfig(labels={"region": "south"}))
    assert _check(world, wanted).ready == []
    Client.objects.filter(pk=world.client.pk).update(status=ClientStatus.REVOKED)
    assert len(_check(world).ready) == 1


def test_over_selection_asks_more_as_far_as_there_are(world: World) -> None:
    half = CohortConfig(fraction=0.5, min_clients=1)
    assert _check(world, StrategyConfig(cohort=half, faults=FaultsConfig(quorum=1))).cohort_size == 1
    more = half.model_copy(update={"over_selection": 5.0})
    assert _check(world, StrategyConfig(cohort=more, faults=FaultsConfig(quorum=1))).cohort_size == 2


def test_a_rule_that_cannot_aggregate_the_apps_model_is_said(world: World) -> None:
    assert _check(world).refusal == ""
    world.run.app.signature = [{"name": "ensemble", "dtype": "uint8", "shape": [-1]}]
    world.run.app.save()
    assert "one of open length: choose a rule for trees" in _check(world).refusal
    bagging = StrategyConfig.model_validate({"aggregation": {"name": "xgboost_bagging"}})
    assert _check(world, bagging).refusal == ""
    assert _check(world, bagging).traffic == 2 * 2 * limits.MAX_OPEN_BYTES
