"""The digits app in PyTorch agrees with the one in NumPy. Collected only where torch is installed."""

from __future__ import annotations

import numpy as np
import pytest

from client_agent.apps import datasets, digits_numpy, digits_torch
from client_agent.apps.digits_numpy import MLP
from client_agent.apps.digits_torch import TorchMLP
from client_agent.hosting import host
from client_agent.sdk import Context


def test_both_apps_are_one_app_to_the_server() -> None:
    ours, theirs = (host(module.app, Context("site-1")) for module in (digits_numpy, digits_torch))
    assert (ours.app.name, ours.app.version) == (theirs.app.name, theirs.app.version)
    assert ours.signature == theirs.signature
    pairs = zip(ours.client.get_parameters({"seed": 5}), theirs.client.get_parameters({"seed": 5}), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)


def test_parameters_go_in_and_out_unchanged() -> None:
    parameters = digits_numpy.initialise(2)
    assert all(np.array_equal(a, b) for a, b in zip(parameters, TorchMLP(parameters).parameters(), strict=True))


def test_forward_and_gradient_agree() -> None:
    samples = datasets.digits().shared.take(np.arange(100))
    ours, theirs = MLP(digits_numpy.initialise(1)), TorchMLP(digits_numpy.initialise(1))
    assert theirs.loss_and_accuracy(samples) == pytest.approx(ours.loss_and_accuracy(samples), rel=1e-5)
    assert theirs.step(samples, 0.5) == pytest.approx(ours.step(samples, 0.5), rel=1e-5)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_whole_training_agrees() -> None:
    options = {"partition": "1", "partitions": "5"}
    config = {"seed": 1, "round": 1, "epochs": 1}
    ours, theirs = (module.client_fn(Context("site", options)) for module in (digits_numpy, digits_torch))
    parameters = ours.get_parameters({"seed": 1})
    expected, found = ours.fit(parameters, dict(config)), theirs.fit(parameters, dict(config))
    assert found[1] == expected[1]
    for a, b in zip(expected[0], found[0], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_fit_leaves_the_given_parameters_alone() -> None:
    client = digits_torch.client_fn(Context("site"))
    parameters = client.get_parameters({"seed": 0})
    before = [array.copy() for array in parameters]
    client.fit(parameters, {"epochs": 1})
    assert all(np.array_equal(a, b) for a, b in zip(parameters, before, strict=True))
