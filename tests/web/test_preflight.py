from __future__ import annotations

from typing import Any

import pytest
from django.test import Client as Browser

from aggregator.core.config import CohortConfig, FaultsConfig, StrategyConfig
from aggregator.core.strategies.base import Part
from aggregator.core.strategies.fedavg import Mean, NoMethod
from fedui.clients.models import Client, ClientStatus
from fedui.runs.preflight import Preflight, Reason, preflight
from fedui.strategies.services import create_strategy
from protos import limits
from protos.tensors import Signature
from tests.support.population import World, populate


@pytest.fixture
def world(db: None) -> World:
    return populate()


def _check(world: World, config: StrategyConfig | None = None) -> Preflight:
    return preflight(world.federation, world.run.app, config or StrategyConfig())


def _page(world: World, browser: Browser, values: dict[str, Any]) -> str:
    strategy = create_strategy(
        world.federation, world.owner, name="of the test", config=StrategyConfig.model_validate(values)
    )
    browser.force_login(world.owner)
    response = browser.get(f"{world.root}runs/new/", {"strategy_version": strategy.latest.pk})
    assert response.status_code == 200
    return response.content.decode()


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
    assert [standing.words for standing in check.of(Reason.UNAVAILABLE)] == ["Paused by its owner."]
    assert not check.enough


def test_another_model_under_the_same_name_is_said(world: World) -> None:
    world.client.apps[0]["problem"] = "weight is float64, not float32."
    world.client.save()
    other = _check(world).of(Reason.OTHER_MODEL)
    assert [(standing.client, standing.words) for standing in other] == [
        (world.client, "weight is float64, not float32.")
    ]


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


BUFFERED = {"mode": {"name": "buffered", "buffer_size": 3}}


def test_a_buffer_wants_as_many_clients_as_it_has_places(world: World, client: Browser) -> None:
    check = _check(world, StrategyConfig.model_validate(BUFFERED))
    assert (len(check.ready), check.needed, check.begins, check.enough) == (2, 3, True, False)
    assert _check(world, StrategyConfig.model_validate({"mode": BUFFERED["mode"] | {"buffer_size": 2}})).enough
    page = _page(world, client, BUFFERED)
    assert "will wait" in page
    assert "So few never fill the buffer" in page


def test_an_agent_too_old_to_encode_is_not_ready(world: World, client: Browser) -> None:
    delta = {"update": {"send": "delta"}}
    Client.objects.filter(pk=world.client.pk).update(protocol_minor=limits.METHODS_MINOR - 1)
    assert len(_check(world).ready) == 2
    check = _check(world, StrategyConfig.model_validate(delta))
    assert [standing.client.name for standing in check.of(Reason.OUTDATED)] == ["hosp-elm"]
    assert not check.enough
    assert "Version 0.1.0 must be updated for this strategy." in _page(world, client, delta)
    Client.objects.filter(pk=world.client.pk).update(protocol_minor=limits.METHODS_MINOR)
    assert _check(world, StrategyConfig.model_validate(delta)).enough
    top_k = {"update": {"send": "delta", "compression": "top_k"}}
    outdated = _check(world, StrategyConfig.model_validate(top_k)).of(Reason.OUTDATED)
    assert [standing.client.name for standing in outdated] == ["hosp-elm"]


def test_what_packing_saves_is_not_promised(world: World, client: Browser) -> None:
    packed = {"update": {"packing": "zstd"}}
    assert "At most <b" in _page(world, client, packed)
    assert _check(world, StrategyConfig.model_validate(packed)).enough, "agents that don't know it do without"


MODEL, WEIGHT, BIAS = 2_624, 2_560, 64  # with their padding


@pytest.mark.parametrize(
    ("values", "to_train", "update", "to_evaluate"),
    [
        ({}, MODEL, MODEL, MODEL),
        ({"update": {"send": "delta", "compression": "float16"}}, MODEL, WEIGHT // 2 + BIAS, MODEL),
        ({"update": {"send": "delta", "compression": "top_k", "keep": 0.01}}, MODEL, 64 + BIAS, MODEL),
        ({"update": {"packing": "zstd"}}, MODEL, MODEL, MODEL),
        ({"method": {"name": "scaffold"}}, 2 * MODEL, 2 * MODEL, MODEL),
        ({"method": {"name": "fedbn", "tensors": ["bias"]}}, WEIGHT, WEIGHT, WEIGHT),
        (
            {"method": {"name": "scaffold"}, "update": {"send": "delta", "compression": "float16"}},
            2 * MODEL,
            WEIGHT // 2 + BIAS + MODEL,
            MODEL,
        ),
    ],
)
def test_the_traffic_is_that_of_method_and_encoding(
    world: World, values: dict[str, Any], to_train: int, update: int, to_evaluate: int
) -> None:
    check = _check(world, StrategyConfig.model_validate(values))
    assert check.traffic == 2 * (to_train + update)
    assert check.evaluation_traffic == 2 * to_evaluate


@pytest.mark.parametrize("values", [BUFFERED, {"evaluation": {"federated": False}}])
def test_where_clients_do_not_evaluate_there_is_no_traffic_of_it(
    world: World, client: Browser, values: dict[str, Any]
) -> None:
    assert _check(world, StrategyConfig.model_validate(values)).evaluation_traffic == 0
    assert "Evaluation by the clients" not in _page(world, client, values)


def test_a_method_that_does_not_go_with_the_app_is_said(world: World, client: Browser) -> None:
    page = _page(world, client, {"method": {"name": "fedbn"}})
    assert "refused" in page
    assert "No tensor of the app is named like *bn*" in page
    assert "of traffic a round" not in page


@pytest.mark.parametrize(("part", "name"), [(Mean, "refusal"), (NoMethod, "local_tensors")])
def test_a_part_that_can_not_say_what_it_refuses_takes_no_page_away(
    world: World, client: Browser, monkeypatch: pytest.MonkeyPatch, part: type[Part], name: str
) -> None:
    def broken(self: Part, signature: Signature) -> str:
        raise ZeroDivisionError

    monkeypatch.setattr(part, name, broken)
    assert "can&#x27;t say whether it goes with the app: ZeroDivisionError" in _page(world, client, {})


def test_a_rule_that_cannot_aggregate_the_apps_model_is_said(world: World) -> None:
    assert _check(world).refusal == ""
    world.run.app.signature = [{"name": "ensemble", "dtype": "uint8", "shape": [-1]}]
    world.run.app.save()
    assert "one of open length: choose a rule for trees" in _check(world).refusal
    bagging = StrategyConfig.model_validate({"aggregation": {"name": "xgboost_bagging"}})
    assert _check(world, bagging).refusal == ""
    assert _check(world, bagging).traffic == 2 * 2 * limits.MAX_OPEN_BYTES
