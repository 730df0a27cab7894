"""Updates that were trained on an older model, put on the current one: FedBuff's arithmetic."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from aggregator.core.modes import Buffered
from aggregator.core.staleness import moved
from aggregator.core.strategies.base import RoundContext, Update, UpdateRejected
from protos.tensors import Parameters, Signature
from tests.support.rounds import rule
from tests.support.spool import MemorySpool


def vector(*values: float) -> Parameters:
    return {"w": np.array(values, "f4")}


def step(after: Parameters, base: Parameters, current: Parameters, scale: float) -> NDArray[Any]:
    return moved(Update("a", after, 1, {}), base, current, scale).parameters["w"]


def test_the_damping_of_the_paper() -> None:
    assert [Buffered().scale(age) for age in (0, 3, 8)] == [1, 1 / 2, 1 / 3]
    assert Buffered(staleness_exponent=0).scale(15) == 1
    assert Buffered(staleness_exponent=1).scale(4) == 1 / 5


def test_a_step_is_damped_and_put_on_the_current_model() -> None:
    result = step(vector(3, -1), base=vector(1, 1), current=vector(10, 20), scale=0.5)
    np.testing.assert_array_equal(result, np.array([11, 19], "f4"))


def test_an_update_of_the_current_model_is_left_alone_to_the_last_bit() -> None:
    current = {"w": np.array([1.0, 1e300])}
    update = Update("a", {"w": np.array([1e-17, 1.0])}, 1, {})
    assert moved(update, current, current, 1.0) is update


def test_whole_numbers_are_rounded_and_bools_are_the_clients() -> None:
    base = {"n": np.array([10], "i8"), "m": np.array([False])}
    current = {"n": np.array([100], "i8"), "m": np.array([False])}
    update = Update("a", {"n": np.array([13], "i8"), "m": np.array([True])}, 1, {})
    result = moved(update, base, current, 0.5).parameters
    assert (result["n"].tolist(), str(result["n"].dtype), result["m"].tolist()) == ([102], "int64", [True])


@pytest.mark.parametrize(
    ("dtype", "largest"), [("f4", np.finfo("f4").max), ("i8", np.iinfo("i8").max), ("u1", np.iinfo("u1").max)]
)
def test_what_leaves_the_range_is_rejected(dtype: str, largest: float) -> None:
    top, zero = {"w": np.array([largest], dtype)}, {"w": np.array([0], dtype)}
    with pytest.raises(UpdateRejected, match="leaves the range of"):
        moved(Update("a", top, 1, {}), zero, top, 1.0)


def test_the_buffer_is_divided_by_its_size_whatever_the_order() -> None:
    """Algorithm 1: w + (1/K) Σ s(τ_i) Δ_i = 10 + (1·6 + 1/2·8 + 1/3·6) / 3 = 14, in every order the same bits."""
    current = vector(10, 0.1)
    steps = {"a": (0, 6.0), "b": (3, 8.0), "c": (8, 6.0)}
    results = set()
    for order in permutations(steps):
        context = RoundContext(9, 0, Signature.of(current), current, 3, MemorySpool)
        aggregator = rule("mean").begin(context)
        for client in order:
            age, size = steps[client]
            base = {"w": current["w"] - np.float32(age)}
            update = Update(client, {"w": base["w"] + np.float32(size)}, 1, {})
            aggregator.add(moved(update, base, current, Buffered().scale(age)))
        result = aggregator.result()["w"]
        assert result[0] == 14
        results.add(result.tobytes())
    assert len(results) == 1
