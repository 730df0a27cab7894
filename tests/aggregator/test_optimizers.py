"""Server optimisers: each by hand, and their state bit for bit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.core import registry
from aggregator.core.server_step import BLOCK
from aggregator.core.strategies.base import ServerOptimizer
from protos.tensors import Parameters, Signature

ALL = sorted(registry.optimizers())
SIGNATURE = Signature.of(
    {"w": np.zeros((3, 2), np.float32), "b": np.zeros(2, np.float64), "n": np.array(0), "h": np.zeros(2, np.float16)}
)


def optimizer(name: str, signature: Signature = SIGNATURE, **settings: Any) -> ServerOptimizer:
    return registry.optimizers()[name].model_validate({"name": name, **settings}).build(signature)


def models(seed: int, count: int) -> list[Parameters]:
    rng = np.random.default_rng(seed)
    return [
        {t.name: (rng.standard_normal(t.shape) * 3).astype(t.dtype) for t in SIGNATURE.tensors} for _ in range(count)
    ]


def steps_of(name: str, deltas: list[float], **settings: Any) -> list[float]:
    """Where a model of one weight, beginning at 0, is after each of the differences."""
    signature = Signature.of({"w": np.zeros(1)})
    opt, w, places = optimizer(name, signature, **settings), np.zeros(1), []
    for delta in deltas:
        w = opt.step({"w": w}, {"w": w + delta})["w"]
        places.append(float(w[0]))
    return places


def test_momentum_by_hand() -> None:
    assert steps_of("momentum", [1, 1], learning_rate=0.5, momentum=0.9) == pytest.approx([0.5, 0.5 + 0.5 * 1.9])
    assert steps_of("momentum", [1, 1], learning_rate=1, momentum=0.5, nesterov=True) == pytest.approx(
        [1.5, 1.5 + 1.75]
    )


def test_adagrad_by_hand() -> None:
    expected = 0.1 * 2 / (2 + 0.001)
    assert steps_of("adagrad", [2, 1], tau=0.001) == pytest.approx([expected, expected + 0.1 / (math.sqrt(5) + 0.001)])


def test_adam_by_hand() -> None:
    m, v = 0.1 * 2, 0.01 * 4
    rate = 0.1 * math.sqrt(1 - 0.99**2) / (1 - 0.9**2)
    assert steps_of("adam", [2], tau=0.001) == pytest.approx([rate * m / (math.sqrt(v) + 0.001)])
    paper = 0.1 * m / (math.sqrt(0.99 * 0.001**2 + v) + 0.001)
    assert steps_of("adam", [2], tau=0.001, paper=True) == pytest.approx([paper])


def test_yogi_by_hand() -> None:
    m, v = 0.1 * 2, 0.01 * 4
    assert steps_of("yogi", [2], tau=0.001) == pytest.approx([0.01 * m / (math.sqrt(v) + 0.001)])


@pytest.mark.parametrize("name", ALL)
def test_no_difference_is_no_step(name: str) -> None:
    assert steps_of(name, [0, 0, 0]) == [0, 0, 0]


@pytest.mark.parametrize("name", ALL)
@given(seed=st.integers(0, 1000), before=st.integers(0, 4), after=st.integers(1, 3))
def test_saving_and_loading_changes_no_bit(name: str, seed: int, before: int, after: int) -> None:
    sequence = models(seed, before + after + 1)
    through, current = optimizer(name), sequence[0]
    for aggregate in sequence[1 : before + 1]:
        current = through.step(current, aggregate)
    resumed = optimizer(name)
    if state := {key: array.copy() for key, array in through.state().items()}:
        resumed.load(state)
    here, there = current, {key: array.copy() for key, array in current.items()}
    for aggregate in sequence[before + 1 :]:
        here, there = through.step(here, aggregate), resumed.step(there, aggregate)
    assert {k: a.tobytes() for k, a in here.items()} == {k: a.tobytes() for k, a in there.items()}
    assert {k: a.tobytes() for k, a in through.state().items()} == {k: a.tobytes() for k, a in resumed.state().items()}


@pytest.mark.parametrize("name", ALL)
def test_dtypes_stay_integers_are_the_aggregates_and_no_argument_changes(name: str) -> None:
    current, aggregate = models(1, 2)
    copies = [{k: a.copy() for k, a in model.items()} for model in (current, aggregate)]
    result = optimizer(name).step(current, aggregate)
    assert Signature.of(result) == SIGNATURE
    assert int(result["n"]) == int(aggregate["n"])
    for model, copy in zip((current, aggregate), copies, strict=True):
        for key, array in model.items():
            np.testing.assert_array_equal(array, copy[key])


@pytest.mark.parametrize("name", ALL)
def test_a_tensor_of_several_blocks_is_treated_as_one(name: str) -> None:
    size = 2 * BLOCK + 7
    rng = np.random.default_rng(2)
    current, aggregate = ({"w": rng.standard_normal(size).astype(np.float32)} for _ in range(2))
    whole = optimizer(name, Signature.of(current)).step(current, aggregate)["w"]
    tail = {"w": current["w"][-5:]}
    part = optimizer(name, Signature.of(tail)).step(tail, {"w": aggregate["w"][-5:]})["w"]
    np.testing.assert_array_equal(whole[-5:], part)
