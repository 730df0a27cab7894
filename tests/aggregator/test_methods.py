"""Methods for clients whose data differ: both halves together, against closed forms on quadratics and on real data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from aggregator.core import registry
from aggregator.core.config import StrategyConfig
from aggregator.core.strategies.base import RoundContext, Update, UpdateRejected
from aggregator.core.strategy import Strategy
from client_agent import methods
from client_agent.apps import digits_numpy
from client_agent.errors import BrokenApp, TaskRefused
from client_agent.hosting import HostedApp, host
from client_agent.sdk import App, Arrays, Config, Context, EvaluateResult, FitResult, NumPyClient
from protos.tensors import Parameters, Signature
from tests.support.simulation import Simulation
from tests.support.spool import MemorySpool

CURVATURES, OPTIMA = (1.0, 3.0), (0.0, 1.0)
TRUE_OPTIMUM = 0.75
"""(1 · 0 + 3 · 1) / (1 + 3), of the losses a (w − b)² / 2 added up."""


class Quadratic(NumPyClient):
    """Loss a ‖w − b‖² / 2 over two tensors, gradient descent of as many steps as there are epochs."""

    def __init__(self, curvature: float, optimum: float, *, num_examples: int = 10, corrects: bool = True) -> None:
        self._curvature, self._optimum, self._corrects = curvature, optimum, corrects
        self._num_examples = num_examples

    def get_parameters(self, config: Config) -> Arrays:
        return [np.zeros(2), np.zeros((1, 1))]

    def fit(self, parameters: Arrays, config: Config) -> FitResult:
        rate = float(config["learning_rate"])
        for phase in self.method.phases(parameters, int(config["epochs"])):
            values = [np.array(array) for array in phase.parameters]
            for _ in range(phase.epochs):
                gradients = [self._curvature * (array - self._optimum) for array in values]
                if self._corrects:
                    phase.correct(values, gradients, rate)
                values = [array - rate * gradient for array, gradient in zip(values, gradients, strict=True)]
            phase.end(values)
        return self.method.result, self._num_examples, {}

    def evaluate(self, parameters: Arrays, config: Config) -> EvaluateResult:
        return float(self._curvature * ((parameters[0] - self._optimum) ** 2).sum() / 2), 10, {"w": parameters[0][0]}


def hosted(client: NumPyClient, served: Any = methods.ALL) -> HostedApp:
    return host(
        App("quadratic", "1", "numpy", lambda context: client, ["body", "head"], methods=served), Context("site")
    )


def simulation(method: dict[str, Any], *, epochs: int = 5, rate: float = 0.1, **parts: Any) -> Simulation:
    raw = {"method": method, "local": {"epochs": epochs, "learning_rate": rate}, **parts}
    clients = {f"c{k}": hosted(Quadratic(*each)) for k, each in enumerate(zip(CURVATURES, OPTIMA, strict=True))}
    return Simulation(StrategyConfig.model_validate(raw), clients)


def test_plain_training_drifts_to_a_biased_point() -> None:
    """Each client goes (1 − 0.9⁵) or (1 − 0.7⁵) of the way to its optimum, and there the pulls are equal."""
    pull = (1 - 0.9**5, 1 - 0.7**5)
    biased = pull[1] / sum(pull)
    np.testing.assert_allclose(simulation({"name": "none"}).run(100)["body"], biased, rtol=1e-6)
    assert abs(biased - TRUE_OPTIMUM) > 0.05


def test_scaffold_takes_the_drift_away() -> None:
    np.testing.assert_allclose(simulation({"name": "scaffold"}).run(150)["body"], TRUE_OPTIMUM, rtol=1e-6)


def test_feddyn_finds_the_optimum_of_the_sum() -> None:
    run = simulation({"name": "feddyn", "alpha": 1.0}, epochs=50)
    np.testing.assert_allclose(run.run(200)["body"], TRUE_OPTIMUM, rtol=1e-5)


@pytest.mark.parametrize(
    "cohorts", [[["c0", "c1", "c2"]], [["c0", "c1"], ["c1", "c2"], ["c0", "c2"]], [["c0"], ["c1", "c2"]]]
)
def test_feddyn_counts_clients_alike_however_many_examples_they_have(cohorts: list[list[str]]) -> None:
    """Losses (w − 0)² / 2, (w − 1)² / 2 and (w − 5)² / 2 of 1, 3 and 9 examples: their sum is least at 2."""
    run = simulation({"name": "feddyn", "alpha": 1.0}, epochs=50)
    clients = [Quadratic(1, 0, num_examples=1), Quadratic(1, 1, num_examples=3), Quadratic(1, 5, num_examples=9)]
    run.clients = {f"c{k}": hosted(client) for k, client in enumerate(clients)}
    for number in range(300):
        run.run(1, cohorts[number % len(cohorts)])
    np.testing.assert_allclose(run.model["body"], 2, rtol=1e-5)


def test_scaffold_of_a_part_of_the_clients_moves_its_control_by_that_part() -> None:
    """Option II: c_k = (w − y) / (K η), which for one step is the gradient, −3 for the second client; N is 2."""
    run = simulation({"name": "scaffold"}, epochs=1)
    run.run(1, cohort=["c1"])
    np.testing.assert_allclose(run.strategy.sent_to_train(run.model)["~control/body"], -1.5)
    np.testing.assert_allclose(run.kept["c1"]["control/body"], -3.0)


def test_fedprox_holds_each_client_between_its_optimum_and_the_global_model() -> None:
    """Trained to the end, client k comes to (a b + μ w) / (a + μ) from w = 0."""
    run = simulation({"name": "fedprox", "proximal_mu": 2.0}, epochs=300)
    run.run(1)
    np.testing.assert_allclose(run.updates["c1"]["body"], 3.0 / 5.0)


def test_ditto_keeps_a_personal_model_that_the_client_evaluates() -> None:
    run = simulation({"name": "ditto", "regularisation": 2.0}, epochs=300)
    plain = simulation({"name": "none"}, epochs=300)
    np.testing.assert_array_equal(run.run(1)["body"], plain.run(1)["body"])
    np.testing.assert_allclose(run.kept["c1"]["personal/body"], 3.0 / 5.0)
    own = run.evaluate("c1")
    assert own.metrics["w"].double == pytest.approx(3.0 / 5.0)
    assert own.metrics["global_w"].double == pytest.approx(0.5)
    assert own.metrics["global_loss"].double == pytest.approx(3 * 2 * 0.5**2 / 2)


def test_moon_remembers_the_clients_last_model() -> None:
    run = simulation({"name": "moon"})
    run.run(1)
    np.testing.assert_array_equal(run.kept["c1"]["previous/body"], run.updates["c1"]["body"])


@pytest.mark.parametrize("name", ["fedbn", "fedper", "fedrep"])
def test_personal_tensors_never_leave_the_clients(name: str) -> None:
    run = simulation({"name": name, "tensors": ["he*"]}, epochs=200)
    run.run(2)
    assert all(list(update) == ["body"] for update in run.updates.values())
    assert list(run.strategy.sent_to_train(run.model)) == ["body"]
    np.testing.assert_array_equal(run.model["head"], 0)
    heads = [run.kept[client]["local/head"][0, 0] for client in ("c0", "c1")]
    assert heads == pytest.approx(OPTIMA, abs=0.03)  # FedRep gives a head 5 steps a round
    np.testing.assert_allclose(run.model["body"], 0.5)


def test_fedrep_trains_the_head_before_the_body() -> None:
    run = simulation({"name": "fedrep", "tensors": ["head"], "head_epochs": 1}, epochs=2)
    run.run(1)
    np.testing.assert_allclose(run.kept["c1"]["local/head"], 0.3)
    np.testing.assert_allclose(run.updates["c1"]["body"], 1 - 0.7**2)


def test_a_method_and_an_optimizer_keep_their_states_bit_for_bit() -> None:
    parts: dict[str, Any] = {"optimizer": {"name": "momentum", "momentum": 0.9}}
    whole = simulation({"name": "scaffold"}, **parts)
    whole.run(3)
    resumed = simulation({"name": "scaffold"}, **parts)
    resumed.run(1)  # has another state, which is forgotten
    resumed.strategy.load(whole.strategy.state())
    resumed.model, resumed.kept, resumed.rounds = dict(whole.model), dict(whole.kept), 3
    assert list(resumed.strategy.sent_to_train(resumed.model)) == list(whole.strategy.sent_to_train(whole.model))
    expected, found = whole.run(2), resumed.run(2)
    assert all(expected[name].tobytes() == found[name].tobytes() for name in expected)


def test_a_rejected_update_takes_what_came_with_it_away_again() -> None:
    config = StrategyConfig.model_validate({"method": {"name": "scaffold"}})
    current: Parameters = {"w": np.zeros(3, np.float32), "n": np.array(0)}
    strategy = Strategy(config, Signature.of(current))
    aggregation = strategy.begin(RoundContext(1, 0, strategy.shared, current, 2, MemorySpool))
    good: Parameters = {"w": np.ones(3, np.float32), "n": np.array(1), "~control/w": np.full(3, 0.5, np.float32)}
    bad: Parameters = {**good, "n": np.array(2**62), "~control/w": np.full(3, 100, np.float32)}
    with pytest.raises(UpdateRejected):
        aggregation.add(Update("bad", bad, 9, {}))
    aggregation.add(Update("good", good, 9, {}))
    aggregation.next_model(current, aggregation.result())
    np.testing.assert_array_equal(strategy.sent_to_train(current)["~control/w"], np.full(3, 0.25, np.float32))


def test_every_method_has_both_halves() -> None:
    assert set(registry.methods()) == methods.ALL


def test_every_method_that_needs_no_plain_mean_goes_with_every_rule() -> None:
    plenty = {"cohort": {"min_clients": 100}, "faults": {"quorum": 100}}
    for method in set(registry.methods()) - {"scaffold", "feddyn"}:
        for rule in (name for name, rule in registry.rules().items() if rule.vectors):
            raw = {**plenty, "method": {"name": method}, "aggregation": {"name": rule}}
            assert StrategyConfig.model_validate(raw).algorithm.endswith(rule)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ({"method": {"name": "scaffold"}, "aggregation": {"name": "median"}}, "averaged with no defence"),
        ({"method": {"name": "feddyn"}, "aggregation": {"name": "fednova"}}, "Choose the rule “mean”"),
        ({"method": {"name": "feddyn"}, "optimizer": {"name": "adam"}}, "Choose the optimizer “none”"),
        ({"method": {"name": "fedper", "tensors": []}}, "at least 1 item"),
    ],
)
def test_senseless_pairs_are_refused_with_the_reason(raw: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        StrategyConfig.model_validate(raw)


@pytest.mark.parametrize(("pattern", "reason"), [("x*", "No tensor of the app"), ("*", "nothing to train together")])
def test_patterns_that_leave_nothing_are_refused(pattern: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        simulation({"name": "fedper", "tensors": [pattern]})


def test_an_app_that_does_not_serve_a_method_refuses() -> None:
    run = simulation({"name": "scaffold"})
    run.clients = {"c0": hosted(Quadratic(1, 1), served=frozenset({"fedprox"}))}
    with pytest.raises(TaskRefused, match="can't train by the method 'scaffold'"):
        run.run(1)


def test_an_app_that_claims_what_it_does_not_do_is_told_so() -> None:
    run = simulation({"name": "scaffold"})
    run.clients = {"c0": hosted(Quadratic(1, 1, corrects=False))}
    with pytest.raises(BrokenApp, match=r"call phase\.correct before each step"):
        run.run(1)


def digits(method: dict[str, Any]) -> Simulation:
    """Five sites with unlike digits."""
    raw = {"method": method, "local": {"epochs": 2, "learning_rate": 0.1}}
    options = {"partitions": "5", "alpha": "0.3"}
    sites = {f"s{k}": host(digits_numpy.app, Context(f"s{k}", options | {"partition": str(k)})) for k in range(5)}
    return Simulation(StrategyConfig.model_validate(raw), sites, seed=1)


@pytest.mark.parametrize("name", ["none", "fedprox", "scaffold", "feddyn", "moon", "ditto"])
def test_the_digits_are_learnt_by_every_global_method(name: str) -> None:
    _, _, metrics = digits_numpy.evaluate_held_out(digits({"name": name}).run(6))
    assert metrics["accuracy"] > 0.85


@pytest.mark.parametrize("name", ["fedper", "fedrep", "ditto"])
def test_personal_models_do_better_at_home_than_the_global_one(name: str) -> None:
    personal, shared = digits({"name": name}), digits({"name": "none"})
    personal.run(6)
    shared.run(6)

    def at_home(run: Simulation) -> float:
        return float(np.mean([run.evaluate(site).metrics["accuracy"].double for site in run.clients]))

    assert at_home(personal) > at_home(shared) - 0.01 > 0.8
