"""What people do to runs."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_django import DjangoCaptureOnCommitCallbacks

from aggregator.core.config import StrategyConfig
from aggregator.core.strategies.fedavg import Mean
from fedui.accounts.models import User
from fedui.audit.models import AuditEvent
from fedui.errors import ErrorCode
from fedui.federations.models import Federation
from fedui.runs.models import Run, RunStatus
from fedui.runs.services import Plan, RunRefused, create_run
from fedui.runs.tasks import host_run
from fedui.strategies.services import create_strategy
from protos.tensors import Signature
from tests.support.domain import a_federation, an_app


@pytest.fixture
def valid(federation: Federation, owner: User) -> dict[str, Any]:
    strategy = create_strategy(federation, owner, name="plain", config=StrategyConfig())
    return {
        "name": "first", "strategy_version": strategy.latest, "app": an_app(federation), "num_rounds": 20, "seed": 1,
    }  # fmt: skip


def test_a_run_is_queued_and_dispatched_once_it_is_stored(
    federation: Federation,
    owner: User,
    valid: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    dispatched: list[int] = []
    monkeypatch.setattr(host_run, "delay", dispatched.append)

    with django_capture_on_commit_callbacks(execute=True):
        run = create_run(federation, owner, **valid)
        assert dispatched == []

    assert dispatched == [run.pk]
    assert run.status == RunStatus.QUEUED
    assert AuditEvent.objects.get(action="run.created").details["strategy"] == "plain v1"


def test_a_run_survives_a_broker_that_is_away(
    federation: Federation,
    owner: User,
    valid: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    def fail(run_id: int) -> None:
        raise ConnectionError("away")

    monkeypatch.setattr(host_run, "delay", fail)
    with django_capture_on_commit_callbacks(execute=True):
        run = create_run(federation, owner, **valid)

    assert Run.objects.active().filter(pk=run.pk).exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": "  "}, "name has 1 to 120"),
        ({"name": "x" * 121}, "name has 1 to 120"),
        ({"num_rounds": 0}, "can't have 0 rounds"),
        ({"num_rounds": 100_001}, "can't have 100001 rounds"),
        ({"seed": -1}, "seed can't be -1"),
        ({"seed": 2**63}, "seed can't be"),
        ({"plan": Plan(priority=7)}, "no priority 7"),
        ({"plan": Plan(max_retries=11)}, "can't be tried again 11 times"),
    ],
)
def test_a_run_that_makes_no_sense_is_refused(
    federation: Federation, owner: User, valid: dict[str, Any], change: dict[str, Any], reason: str
) -> None:
    with pytest.raises(RunRefused, match=reason) as caught:
        create_run(federation, owner, **(valid | change))

    assert caught.value.code == ErrorCode.RUN_REFUSED
    assert caught.value.hint
    assert not Run.objects.exists()


def test_a_rule_that_is_none_for_the_apps_model_is_refused(
    federation: Federation, owner: User, valid: dict[str, Any]
) -> None:
    trees = an_app(federation, "trees")
    trees.signature = [{"name": "ensemble", "dtype": "uint8", "shape": [-1]}]
    trees.save()
    bagging = StrategyConfig.model_validate({"aggregation": {"name": "xgboost_bagging"}})
    strategy = create_strategy(federation, owner, name="trees", config=bagging)
    with pytest.raises(RunRefused, match="Mean, weighted by examples needs tensors of fixed size"):
        create_run(federation, owner, **(valid | {"app": trees}))
    with pytest.raises(RunRefused, match="XGBoost by bagging joins ensembles of trees"):
        create_run(federation, owner, **(valid | {"strategy_version": strategy.latest}))
    assert create_run(federation, owner, **(valid | {"app": trees, "strategy_version": strategy.latest})).pk


def test_a_method_that_is_none_for_the_apps_model_is_refused(
    federation: Federation, owner: User, valid: dict[str, Any]
) -> None:
    config = StrategyConfig.model_validate({"method": {"name": "fedbn"}})
    strategy = create_strategy(federation, owner, name="local", config=config)
    with pytest.raises(RunRefused, match=r"local v1 can't train digits-mlp.*No tensor of the app is named like \*bn\*"):
        create_run(federation, owner, **(valid | {"strategy_version": strategy.latest}))


def test_a_rule_that_can_not_say_what_it_refuses_is_refused(
    federation: Federation, owner: User, valid: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Mean, "refusal", broken_refusal)
    with pytest.raises(RunRefused, match="can't say whether it goes with the app: ZeroDivisionError"):
        create_run(federation, owner, **valid)


def broken_refusal(self: Mean, signature: Signature) -> str:
    raise ZeroDivisionError


def test_what_belongs_to_another_federation_is_refused(
    federation: Federation, owner: User, valid: dict[str, Any]
) -> None:
    other = a_federation("lungs", owner)
    strategy = create_strategy(other, owner, name="plain", config=StrategyConfig())

    for change in ({"strategy_version": strategy.latest}, {"app": an_app(other)}):
        with pytest.raises(RunRefused, match="belongs to another federation"):
            create_run(federation, owner, **(valid | change))


def test_one_key_makes_one_run(federation: Federation, owner: User, valid: dict[str, Any]) -> None:
    first, again, other = (create_run(federation, owner, **valid, key=key) for key in ("k", "k", "l"))
    assert (first.pk, Run.objects.count()) == (again.pk, 2)
    assert other.pk != first.pk
    assert AuditEvent.objects.filter(action="run.created").count() == 2
