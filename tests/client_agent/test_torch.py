"""The digits app in PyTorch agrees with the one in NumPy. Collected only where torch is installed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from client_agent.apps import datasets, digits_numpy, digits_torch
from client_agent.apps.digits_numpy import MLP, TENSOR_NAMES
from client_agent.apps.digits_torch import TorchMLP
from client_agent.execution import Given, fit
from client_agent.hosting import host
from client_agent.methods import Contrast, Phase
from client_agent.sdk import Config, Context
from client_agent.torch_methods import Correction, contrastive_loss, load, unload
from protos.tensors import decode


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


METHODS: dict[str, Config] = {
    "fedprox": {"proximal_mu": 0.1},
    "scaffold": {},
    "feddyn": {"feddyn_alpha": 0.1},
    "moon": {"contrastive_mu": 1.0, "contrastive_temperature": 0.5},
    "ditto": {"ditto_lambda": 0.5},
    "fedrep": {"head_epochs": 1},
}


@pytest.mark.parametrize("name", METHODS)
def test_both_apps_train_alike_by_every_method(name: str) -> None:
    options = {"partition": "1", "partitions": "5"}
    config: Config = {"seed": 1, "round": 1, "epochs": 1, "learning_rate": 0.1, "method": name, **METHODS[name]}
    shared = dict(zip(TENSOR_NAMES, digits_numpy.initialise(1), strict=True))
    control = {f"~control/{n}": np.full_like(a, 0.01) for n, a in shared.items()} if name == "scaffold" else {}
    local = ("output.weight", "output.bias") if name == "fedrep" else ()
    previous = {f"previous/{n}": a for n, a in zip(TENSOR_NAMES, digits_numpy.initialise(2), strict=True)}
    found = []
    for module in (digits_numpy, digits_torch):
        sent = {n: a.copy() for n, a in shared.items() if n not in local}
        given = Given(sent, control, previous if name == "moon" else {}, local)
        found.append(fit(host(module.app, Context("site", options)), given, config))
    ours, theirs = (decode(trained.update.content, trained.update.signature) for trained in found)
    assert list(ours) == list(theirs)
    for tensor in ours:
        np.testing.assert_allclose(theirs[tensor], ours[tensor], atol=2e-4, err_msg=tensor)
    assert found[0].kept.keys() == found[1].kept.keys()


def test_a_module_and_its_optimizer_are_corrected_as_arrays_are() -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))
    names = list(module.state_dict())
    anchor = [array + 1 for array in unload(module, names)]
    offsets = [np.full_like(array, 0.25) for array in anchor]
    phase = Phase(names, anchor, 1, pull=0.5, anchor=anchor, offsets=offsets, frozen=frozenset({"0.bias"}))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    module(torch.randn(5, 3)).square().mean().backward()
    plain = {n: None if p.grad is None else p.grad.numpy().copy() for n, p in module.named_parameters()}
    values = dict(zip(names, unload(module, names), strict=True))
    Correction(phase, module).apply(optimizer)
    for name, parameter in module.named_parameters():
        if name == "0.bias":
            assert parameter.grad is None
            continue
        expected = plain[name] + 0.5 * (values[name] - anchor[names.index(name)]) + 0.25
        assert parameter.grad is not None
        np.testing.assert_allclose(parameter.grad.numpy(), expected, rtol=1e-5)
    assert phase.rates == pytest.approx(0.1)
    load(module, phase)
    for array, tensor in zip(anchor, unload(module, names), strict=True):
        np.testing.assert_array_equal(tensor, array)


def test_the_contrastive_loss_is_that_of_the_arrays() -> None:
    z, z_global, z_previous = np.random.default_rng(1).standard_normal((3, 4, 6))
    expected, _ = Contrast(1.0, 0.5, (), ()).loss(z, z_global, z_previous)
    found = contrastive_loss(torch.from_numpy(z), torch.from_numpy(z_global), torch.from_numpy(z_previous), 0.5)
    assert float(found) == pytest.approx(expected)
