"""Federated XGBoost: the rules for trees, and whole runs over gRPC with real XGBoost at the clients."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import xgboost

from aggregator.core import registry
from aggregator.core.config import StrategyConfig
from aggregator.core.strategies.base import RoundContext, RuleConfig, Update, UpdateRejected
from aggregator.memory import StoredRun
from aggregator.ports import RunOutcome, RunSpec
from client_agent.apps.breast_cancer_trees import TENSOR, evaluate_held_out
from client_agent.apps.datasets import breast_cancer
from protos.convert import scalars_from_proto
from protos.fedui.v1 import task_pb2
from protos.tensors import OPEN, Array, Parameters, Signature, TensorSpec
from protos.trees import Ensemble
from tests.aggregator.conftest import Federation
from tests.support.ensembles import SITES, as_json, boosted, client, initial, trees_of
from tests.support.rounds import rule
from tests.support.scripted_agent import SIGNATURE, ScriptedAgent
from tests.support.spool import MemorySpool

OPEN_SIGNATURE = Signature((TensorSpec(TENSOR, "uint8", OPEN),))
CYCLIC: Mapping[str, Any] = {
    "cohort": {"fraction": 0.01, "min_clients": 1, "max_clients": 1, "order": "cyclic"},
    "faults": {"quorum": 1, "deadline_seconds": 20},
    "local": {"epochs": 2, "learning_rate": 0.3},
    "aggregation": {"name": "xgboost_cyclic", "max_depth": 4},
}
BAGGING: Mapping[str, Any] = {
    "cohort": {"min_clients": SITES},
    "faults": {"quorum": SITES, "deadline_seconds": 20},
    "local": {"epochs": 1, "learning_rate": 0.8},
    "aggregation": {"name": "xgboost_bagging", "max_depth": 4},
}


def aggregate(config: RuleConfig, current: Array, updates: Mapping[str, Ensemble | Array]) -> Ensemble:
    """The rule's result for updates that arrive in this order."""
    context = RoundContext(1, 0, OPEN_SIGNATURE, {TENSOR: current}, len(updates), MemorySpool)
    aggregator = config.begin(context)
    for client_id, update in updates.items():
        content = update.to_array() if isinstance(update, Ensemble) else update
        aggregator.add(Update(client_id, {TENSOR: content}, 10, {}))
    return Ensemble.parse(aggregator.result()[TENSOR])


def margins(ensemble: Ensemble) -> Array:
    booster = xgboost.Booster(model_file=bytearray(ensemble.to_array().tobytes()))
    features = xgboost.DMatrix(breast_cancer().held_out.features)
    predicted: Array = booster.predict(features, output_margin=True)
    return predicted


def test_the_merged_ensemble_predicts_the_sum_of_the_clients_trees() -> None:
    start = boosted(0, initial()).to_array()
    updates = {f"{site}": boosted(site, start, num_parallel_tree=1) for site in range(3)}
    merged = aggregate(rule("xgboost_bagging"), start, updates)
    assert merged.trees == Ensemble.parse(start).trees + sum((u.trees for u in updates.values()), ())
    features = xgboost.DMatrix(breast_cancer().held_out.features)
    whole = xgboost.Booster(model_file=bytearray(merged.to_array().tobytes()))
    parts = [whole[k : k + 2] for k in range(0, 8, 2)]  # two boosting rounds of each
    for part, update in zip(parts[1:], updates.values(), strict=True):
        np.testing.assert_array_equal(part.predict(features, output_margin=True), margins(update))
    total = margins(Ensemble.parse(start)).astype(np.float64) + sum(margins(u) for u in updates.values())
    np.testing.assert_allclose(margins(merged), total, rtol=0, atol=1e-6)


def test_the_order_of_arrival_changes_nothing() -> None:
    start = initial()
    updates = {f"{site}": boosted(site, start) for site in range(3)}
    backwards = dict(reversed(updates.items()))
    assert aggregate(rule("xgboost_bagging"), start, updates) == aggregate(rule("xgboost_bagging"), start, backwards)


def test_a_forest_is_told_and_kept() -> None:
    start, config = initial(), rule("xgboost_bagging", parallel_trees=3)
    update = boosted(0, start, epochs=2, num_parallel_tree=3)
    merged = aggregate(config, start, {"0": update, "1": boosted(1, start, epochs=2, num_parallel_tree=3)})
    assert (merged.num_parallel_tree, merged.rounds) == (3, (0, 3, 6, 9, 12))
    assert len({str(tree.nodes) for tree in merged.trees}) == 12
    again = boosted(2, merged.to_array(), epochs=1, num_parallel_tree=3)
    assert len(aggregate(config, merged.to_array(), {"2": again}).trees) == 15


@pytest.mark.parametrize(
    ("told", "rule_settings", "message"),
    [
        ({"epochs": 5}, {"max_trees": 4}, "5 new trees; between 1 and 4"),
        ({"max_depth": 6}, {"max_depth": 1}, "deep; at most 1"),
        ({"num_parallel_tree": 2}, {}, "2 trees a boosting round; the strategy says 1"),
    ],
)
def test_an_update_that_the_settings_do_not_allow_is_rejected(
    told: dict[str, int], rule_settings: dict[str, int], message: str
) -> None:
    start = initial()
    update = boosted(0, start, **told)
    for name in ("xgboost_bagging", "xgboost_cyclic"):
        with pytest.raises(UpdateRejected, match=message):
            aggregate(rule(name, **rule_settings), start, {"0": update})
        with pytest.raises(UpdateRejected, match="0 new trees"):
            aggregate(rule(name), start, {"0": start})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objective": "reg:squarederror"}, "objective is reg:squarederror, not binary:logistic"),
        ({"base_score": (0.25,)}, "base_score is"),
        ({"num_class": 1}, "num_class is 1, not 0"),
        ({"num_feature": 31}, "num_feature is 31, not 30"),
    ],
)
def test_trees_for_another_problem_are_rejected(change: dict[str, Any], message: str) -> None:
    start = initial()
    update = boosted(0, start)
    update = replace(update, header=replace(update.header, **change))
    with pytest.raises(UpdateRejected, match=message):
        aggregate(rule("xgboost_bagging"), start, {"0": update})


def test_an_update_longer_than_all_trees_that_are_allowed_is_not_even_read() -> None:
    config = rule("xgboost_bagging", max_trees=2, max_depth=2)
    longest = 2 * (4096 + 8 * 256)
    with pytest.raises(UpdateRejected, match="the trees that the strategy allows have at most"):
        aggregate(config, initial(), {"0": np.full(initial().nbytes + longest + 1, ord("["), np.uint8)})


def test_an_update_that_is_no_ensemble_is_rejected_and_the_others_count() -> None:
    start = initial()
    aggregator = rule("xgboost_bagging").begin(RoundContext(1, 0, OPEN_SIGNATURE, {TENSOR: start}, 2, MemorySpool))
    with pytest.raises(UpdateRejected, match="no XGBoost model"):
        aggregator.add(Update("0", {TENSOR: np.zeros(100, np.uint8)}, 10, {}))
    aggregator.add(Update("1", {TENSOR: boosted(1, start).to_array()}, 10, {}))
    assert len(Ensemble.parse(aggregator.result()[TENSOR]).trees) == 2


def test_in_its_turn_a_client_adds_trees_and_changes_no_others() -> None:
    config = rule("xgboost_cyclic")
    first = aggregate(config, initial(), {"0": boosted(0, initial(), return_trees="all")})
    second = boosted(1, first.to_array(), return_trees="all")
    result = aggregate(config, first.to_array(), {"1": second})
    assert (len(result.trees), result.begins_with(first)) == (4, True)
    raw = as_json(second)
    trees_of(raw)[0]["split_conditions"][-1] += 1
    forged = np.frombuffer(str(raw).replace("'", '"').encode(), np.uint8)
    for update in (forged, boosted(1, first.to_array())):
        with pytest.raises(UpdateRejected, match="doesn't begin with the trees"):
            aggregate(config, first.to_array(), {"1": update})


@pytest.mark.parametrize(
    "change",
    [
        {"objective_parameters": (("reg_loss_param", (("scale_pos_weight", "no number"),)),)},
        {"boost_from_average": "1"},
        {"version": (99, 0, 0)},
    ],
)
def test_in_its_turn_a_client_changes_no_header(change: dict[str, Any]) -> None:
    """XGBoost loads what comes of it."""
    start = Ensemble.parse(initial())
    header = replace(start.header, boost_from_average="0")
    current = replace(start, header=header).to_array()
    update = boosted(0, current, return_trees="all")
    update = replace(update, header=replace(header, **change))
    result = aggregate(rule("xgboost_cyclic"), current, {"0": update})
    assert (result.header, result.trees) == (header, update.trees)
    assert np.isfinite(margins(result)).all()


def test_the_clients_share_the_learning_rate_of_bagging() -> None:
    told = rule("xgboost_bagging", max_depth=3).fit_config(5)
    assert told == {"max_depth": 3, "num_parallel_tree": 1, "return_trees": "new", "learning_rate_scale": 0.2}
    assert rule("xgboost_bagging", scale_learning_rate=False).fit_config(5)["learning_rate_scale"] == 1.0
    assert rule("xgboost_cyclic").fit_config(1)["return_trees"] == "all"


def test_rules_say_which_models_they_aggregate() -> None:
    for name, part in registry.rules().items():
        config = part.model_validate({"name": name, **({"malicious": 0} if "malicious" in part.model_fields else {})})
        refused = SIGNATURE if name.startswith("xgboost") else OPEN_SIGNATURE
        accepted = OPEN_SIGNATURE if name.startswith("xgboost") else SIGNATURE
        assert "choose" in config.refusal(refused)
        assert config.refusal(accepted) == ""


# --- whole runs ------------------------------------------------------------------------------------------------------


class TreeAgent(ScriptedAgent):
    """Offers the built-in app's signature and does its tasks by the built-in app."""

    async def do(self, task: task_pb2.Task) -> None:
        trainer, config = client(self.site), scalars_from_proto(task.config)
        if task.kind == task_pb2.TASK_KIND_INITIALISE:
            await self.upload(task, {TENSOR: trainer.get_parameters(config)[0]}, num_examples=0)
            self.report(task)
            return
        content = (await self.download(task))[TENSOR]
        if task.kind == task_pb2.TASK_KIND_FIT:
            (update,), count, _ = await asyncio.to_thread(trainer.fit, [content], config)
            await self.upload(task, {TENSOR: self.tampered(update)}, num_examples=count)
            self.report(task)
        else:
            loss, count, _ = trainer.evaluate([content], config)
            self.report(task, loss=loss, num_examples=count)

    @property
    def site(self) -> int:
        return "abcd".index(self.client_id)

    def tampered(self, update: Array) -> Array:
        return update


class HostileAgent(TreeAgent):
    """Sends trees whose nodes lead out of their arrays."""

    def tampered(self, update: Array) -> Array:
        raw = as_json(Ensemble.parse(update))
        trees_of(raw)[-1]["left_children"][0] = 10**6
        return np.frombuffer(str(raw).replace("'", '"').encode(), np.uint8)


async def run_trees(federation: Federation, strategy: Mapping[str, Any], rounds: int) -> StoredRun:
    federation.evaluator = evaluate_held_out
    config = StrategyConfig.model_validate(strategy)
    run = federation.store.add(RunSpec(1, "trees", "tests", "toy", "1", OPEN_SIGNATURE, config, 7, rounds))
    async with asyncio.timeout(60):
        await federation.engine.run(1)
    return run


async def connect_sites(federation: Federation, kinds: Mapping[str, type[ScriptedAgent]] | None = None) -> None:
    for client_id in "abcd":
        await federation.connect(client_id, (kinds or {}).get(client_id, TreeAgent), signature=OPEN_SIGNATURE)


def model(federation: Federation, run: StoredRun, number: int) -> Ensemble:
    return Ensemble.parse(federation.models.saved[run.models[number].key][TENSOR])


async def test_bagging_learns_from_all_sites(federation: Federation) -> None:
    await connect_sites(federation)
    run = await run_trees(federation, BAGGING, rounds=8)
    assert run.outcome is RunOutcome.COMPLETED, run.reason
    assert [len(model(federation, run, number).trees) for number in range(9)] == [SITES * n for n in range(9)]
    assert accuracy(run, 8) > 0.9
    assert {m.name for m in run.metrics(8) if m.source == "federated"} == {"loss"}


async def test_cyclic_training_takes_turns_and_goes_on_after_a_restart(federation: Federation) -> None:
    await connect_sites(federation)
    run = await run_trees(federation, CYCLIC, rounds=5)
    turns = [run.rounds[number, 1].participations[0].client_id for number in range(1, 6)]
    assert (run.outcome, turns) == (RunOutcome.COMPLETED, ["a", "b", "c", "d", "a"])
    fifth = model(federation, run, 5)
    federation.store.last_events[1] = federation.sink.events[-1].seq
    run.outcome, run.spec = None, replace(run.spec, num_rounds=8)  # as if the engine had been lost after round 5
    async with asyncio.timeout(60):
        await federation.engine.run(1)
    assert "run.resumed" in federation.sink.kinds()
    assert [len(model(federation, run, n).trees) for n in (5, 8)] == [10, 16]
    assert model(federation, run, 8).begins_with(fifth)
    assert accuracy(run, 8) > 0.9


async def test_a_hostile_update_is_rejected_with_its_reason_and_the_round_goes_on(federation: Federation) -> None:
    await connect_sites(federation, {"b": HostileAgent})
    run = await run_trees(federation, {**BAGGING, "faults": {"quorum": 3, "deadline_seconds": 20}}, rounds=1)
    assert run.outcome is RunOutcome.COMPLETED, run.reason
    (rejected,) = [p for p in run.rounds[1, 1].participations if p.outcome == "rejected"]
    assert (rejected.client_id, rejected.reason) == ("b", "A node's child is out of range.")
    assert len(model(federation, run, 1).trees) == 3


async def test_a_run_whose_rule_is_none_for_the_model_ends_at_once(federation: Federation) -> None:
    await connect_sites(federation)
    run = await run_trees(federation, {**BAGGING, "aggregation": {"name": "mean"}}, rounds=1)
    assert run.outcome is RunOutcome.FAILED
    assert run.reason.endswith("one of open length: choose a rule for trees.")


async def test_an_initial_model_that_is_no_ensemble_is_refused_before_anyone_is_sent_it(federation: Federation) -> None:
    class Broken(TreeAgent):
        async def upload(
            self, task: task_pb2.Task, update: Parameters, given: Parameters | None = None, **header: Any
        ) -> Any:
            return await super().upload(task, {TENSOR: np.zeros(64, np.uint8)}, given, **header)

    await connect_sites(federation, dict.fromkeys("abcd", Broken))
    run = await run_trees(federation, BAGGING, rounds=1)
    assert (run.outcome, run.models) == (RunOutcome.FAILED, {})
    assert "no XGBoost model in JSON" in run.reason


def accuracy(run: StoredRun, number: int) -> float:
    (value,) = [m.value for m in run.metrics(number) if (m.source, m.name) == ("server", "accuracy")]
    return value
