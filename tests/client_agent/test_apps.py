"""The built-in apps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import ModuleType

import numpy as np
import pytest

from client_agent import execution
from client_agent.apps import breast_cancer, breast_cancer_trees, breast_cancer_xgboost, datasets, digits_numpy
from client_agent.apps.digits_numpy import MLP
from client_agent.apps.site import Site, SiteOptions
from client_agent.errors import ConfigurationError, TaskCancelled
from client_agent.hosting import find_app, host
from client_agent.sdk import Arrays, Config, Context, NumPyClient
from protos.convert import ScalarValue
from protos.tensors import OPEN, TensorSpec
from protos.trees import BadEnsemble


def clients(module: ModuleType, partitions: int = 5) -> list[NumPyClient]:
    options = {"partitions": str(partitions)}
    return [
        module.client_fn(Context(f"site-{index}", options | {"partition": str(index)})) for index in range(partitions)
    ]


def federated_averaging(clients: list[NumPyClient], rounds: int) -> Iterator[Arrays]:
    parameters = clients[0].get_parameters({"seed": 0})
    for number in range(1, rounds + 1):
        results = [client.fit([a.copy() for a in parameters], {"round": number}) for client in clients]
        total = sum(examples for _, examples, _ in results)
        parameters = [
            sum(
                (arrays[k] * np.float32(examples / total) for arrays, examples, _ in results),
                np.zeros_like(parameters[k]),
            )
            for k in range(len(parameters))
        ]
        yield parameters


def test_digits_mlp_has_the_signature_that_both_frameworks_share() -> None:
    assert host(digits_numpy.app, Context("site-1")).signature.tensors == (
        TensorSpec("hidden.weight", "float32", (64, 32)),
        TensorSpec("hidden.bias", "float32", (32,)),
        TensorSpec("output.weight", "float32", (32, 10)),
        TensorSpec("output.bias", "float32", (10,)),
    )


def test_the_data_sets_are_whole() -> None:
    digits, cancer = datasets.digits(), datasets.breast_cancer()
    assert len(digits.shared) + len(digits.held_out) == 1797
    assert np.bincount(np.concatenate([digits.shared.labels, digits.held_out.labels])).tolist() == [
        178, 182, 177, 183, 181, 182, 181, 179, 174, 180,
    ]  # fmt: skip
    assert len(cancer.shared) + len(cancer.held_out) == 569
    assert np.bincount(np.concatenate([cancer.shared.labels, cancer.held_out.labels])).tolist() == [212, 357]


@pytest.mark.parametrize(("module", "goal"), [(digits_numpy, 0.90), (breast_cancer, 0.93)])
def test_five_rounds_of_five_different_sites_learn(module: ModuleType, goal: float) -> None:
    *_, parameters = federated_averaging(clients(module), rounds=5)
    loss, examples, metrics = module.evaluate_held_out(dict(zip(module.TENSOR_NAMES, parameters, strict=True)))
    assert metrics["accuracy"] > goal
    assert loss < 1
    assert examples > 100


def test_the_same_task_gives_the_same_bits() -> None:
    config: Config = {"seed": 3, "round": 2, "epochs": 1}
    first, second = (clients(digits_numpy)[1] for _ in range(2))
    parameters = first.get_parameters({"seed": 3})
    once, again = first.fit(parameters, config), second.fit(parameters, config)
    assert all(np.array_equal(a, b) for a, b in zip(once[0], again[0], strict=True))
    assert once[1:] == again[1:]
    other = first.fit(parameters, {**config, "round": 3})
    assert not np.array_equal(once[0][0], other[0][0])


def test_fit_leaves_the_given_parameters_alone() -> None:
    client = clients(digits_numpy)[0]
    parameters = client.get_parameters({"seed": 0})
    before = [array.copy() for array in parameters]
    client.fit(parameters, {})
    assert all(np.array_equal(a, b) for a, b in zip(parameters, before, strict=True))


def test_sites_train_and_validate_on_samples_of_their_own() -> None:
    shared = datasets.digits().shared
    sites = [Site.of(shared, SiteOptions(partition=index, partitions=5)) for index in range(5)]
    rows = np.concatenate([part.features for site in sites for part in (site.train, site.validation)])
    assert len(rows) == len(shared)
    assert np.array_equal(np.unique(rows, axis=0), np.unique(shared.features, axis=0))


def test_evaluation_and_properties_tell_of_the_validation_part() -> None:
    client = clients(digits_numpy)[0]
    loss, examples, metrics = client.evaluate(client.get_parameters({"seed": 0}), {})
    assert examples == client.get_properties({})["num_validation_examples"]
    assert loss > 1
    assert 0 <= float(metrics["accuracy"]) <= 1


def test_the_gradient_is_that_of_the_loss() -> None:
    samples = datasets.digits().shared.take(np.arange(32))
    parameters = digits_numpy.initialise(1)
    stepped = MLP(parameters)
    stepped.step(samples, learning_rate=1.0)
    for index, (before, after) in enumerate(zip(parameters, stepped.parameters(), strict=True)):
        gradient = (before - after).ravel()
        steepest = int(np.abs(gradient).argmax())
        assert gradient[steepest] == pytest.approx(slope(parameters, index, steepest, samples), rel=0.02)


def slope(parameters: Arrays, index: int, coordinate: int, samples: datasets.Samples, width: float = 1e-2) -> float:
    losses = []
    for sign in (1, -1):
        moved = [array.copy() for array in parameters]
        moved[index].ravel()[coordinate] += sign * width
        losses.append(MLP(moved).loss_and_accuracy(samples)[0])
    return (losses[0] - losses[1]) / (2 * width)


class Recorder:
    """Progress that notes what it is told, and may cancel."""

    def __init__(self, cancel_at: float = 2.0) -> None:
        self.fractions: list[float] = []
        self.slept = 0.0
        self._cancel_at = cancel_at
        self.ends_after = 10**6
        self.steps = (0, 0)

    def report(self, fraction: float, metrics: Mapping[str, ScalarValue]) -> None:
        self.fractions.append(fraction)
        assert "loss" in metrics
        if fraction >= self._cancel_at:
            raise TaskCancelled

    def may_go_on(self, done: int, planned: int) -> bool:
        self.steps = (done, planned)
        return done < self.ends_after

    def sleep(self, seconds: float) -> None:
        self.slept += seconds


def test_training_reports_every_batch_and_ends_at_one() -> None:
    recorder = Recorder()
    client = clients(digits_numpy)[0]
    client.send_progress_to(recorder)
    client.fit(client.get_parameters({"seed": 0}), {"epochs": 2})
    assert recorder.fractions == sorted(recorder.fractions)
    assert recorder.fractions[-1] == 1.0


def test_a_training_whose_time_is_up_returns_what_it_has_and_the_steps_it_made() -> None:
    recorder = Recorder()
    recorder.ends_after = 3
    client = clients(digits_numpy)[0]
    client.send_progress_to(recorder)
    beginning = client.get_parameters({"seed": 0})
    ended, _, metrics = client.fit([array.copy() for array in beginning], {"epochs": 2})
    assert (recorder.steps[0], metrics["local_steps"]) == (3, 3)
    assert recorder.steps[1] > 3
    assert not np.array_equal(ended[0], beginning[0])


def test_a_cancelled_training_stops_at_once() -> None:
    recorder = Recorder(cancel_at=0.1)
    client = clients(digits_numpy)[0]
    client.send_progress_to(recorder)
    with pytest.raises(TaskCancelled):
        client.fit(client.get_parameters({"seed": 0}), {})
    assert recorder.fractions[-1] < 0.2


def test_a_slow_site_takes_its_seconds_in_every_epoch() -> None:
    recorder = Recorder()
    client = digits_numpy.client_fn(Context("slow", {"slowdown": "1.5"}))
    client.send_progress_to(recorder)
    client.fit(client.get_parameters({"seed": 0}), {"epochs": 2})
    assert recorder.slept == pytest.approx(3.0)


@pytest.mark.parametrize("client_fn", [digits_numpy.client_fn, breast_cancer.client_fn])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"partitons": "5"}, "Unknown option 'partitons'"),
        ({"partition": "one"}, "partition='one' is not a whole number"),
        ({"alpha": "0"}, "alpha must be above 0"),
        ({"partition": "5", "partitions": "5"}, "partition=5 is not below partitions=5"),
    ],
)
def test_a_wrong_option_is_named(
    client_fn: Callable[[Context], NumPyClient], options: Mapping[str, str], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        client_fn(Context("site-1", options))


def test_the_trees_are_those_of_the_same_site_and_config_and_learn() -> None:
    first, second = (breast_cancer_xgboost.client_fn(Context("site", {})) for _ in range(2))
    start = first.get_parameters({"seed": 1})
    config: Config = {"epochs": 20, "learning_rate": 0.3, "max_depth": 3, "return_trees": "new"}
    once, again = first.fit(start, config), second.fit(start, config)
    np.testing.assert_array_equal(once[0][0], again[0][0])
    loss, _, metrics = breast_cancer_trees.evaluate_held_out({"ensemble": once[0][0]})
    assert (metrics["trees"], metrics["accuracy"] > 0.93, loss < 0.3) == (20, True, True)
    with pytest.raises(BadEnsemble):
        first.evaluate([np.zeros(5, np.uint8)], {})


def test_the_app_of_trees_leaves_its_length_open() -> None:
    hosted = host(find_app("breast-cancer-xgboost"), Context("site-1"))
    assert hosted.signature.tensors == (TensorSpec("ensemble", "uint8", OPEN),)
    given = execution.Given({"ensemble": hosted.client.get_parameters({})[0]})
    update = execution.fit(hosted, given, {"epochs": 1}).update
    assert hosted.signature.misfit(update.signature) == ""
    assert not update.signature.is_open


def test_trees_report_every_boosting_round() -> None:
    recorder = Recorder()
    client = breast_cancer_xgboost.client_fn(Context("slow", {"slowdown": "1.5"}))
    client.send_progress_to(recorder)
    client.fit(client.get_parameters({}), {"epochs": 2})
    assert (recorder.fractions, recorder.slept) == ([0.5, 1.0], 3.0)
