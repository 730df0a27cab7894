"""Example-weighted averaging: exact, whatever the order of arrival."""

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from aggregator.core.accumulator import AccumulatorOverflow, WeightedMean
from aggregator.core.config import StrategyConfig
from aggregator.core.strategies.base import RoundContext, Update
from aggregator.core.strategy import Strategy
from protos.tensors import Parameters, Signature, TensorSpec
from tests.support.spool import MemorySpool

VECTORS = Path(__file__).parent.parent / "vectors"
N = 7

Pairs = list[tuple[NDArray[Any], int]]

weights = st.integers(1, 10**6)
floats32 = npst.arrays(np.float32, N, elements=st.floats(-1e4, 1e4, width=32))
updates = st.lists(st.tuples(floats32, weights), min_size=1, max_size=8)


def mean(pairs: Pairs, dtype: str = "float32") -> NDArray[Any]:
    accumulator = WeightedMean(Signature((TensorSpec("w", dtype, pairs[0][0].shape),)))
    for array, weight in pairs:
        accumulator.add({"w": array}, weight)
    return accumulator.result()["w"]


@given(updates, st.randoms(use_true_random=False))
def test_the_order_of_arrival_changes_no_bit(pairs: Pairs, random: Random) -> None:
    shuffled = list(pairs)
    random.shuffle(shuffled)
    assert mean(pairs).tobytes() == mean(shuffled).tobytes()


@given(updates)
def test_it_agrees_with_a_float64_reference_to_one_float32_ulp(pairs: Pairs) -> None:
    total = sum(w for _, w in pairs)
    reference = np.sum([a.astype(np.longdouble) * w for a, w in pairs], axis=0) / total
    rounded = reference.astype(np.float32)
    # 2⁻⁶² of rounding an update is one ulp only of values below 2⁻³⁸.
    tolerance = np.maximum(np.spacing(np.abs(rounded)), len(pairs) * 2.0**-61)
    assert (np.abs(mean(pairs).astype(np.longdouble) - reference) <= tolerance).all()


@given(updates)
def test_it_stays_between_the_updates(pairs: Pairs) -> None:
    arrays = np.stack([a for a, _ in pairs])
    result = mean(pairs)
    slack = np.maximum(np.spacing(np.abs(result)), 2.0**-60)
    assert (result >= arrays.min(axis=0) - slack).all()
    assert (result <= arrays.max(axis=0) + slack).all()


@given(floats32, st.lists(weights, min_size=1, max_size=5))
def test_equal_updates_give_that_update(array: NDArray[Any], several: list[int]) -> None:
    np.testing.assert_allclose(mean([(array, w) for w in several]), array, rtol=2e-7, atol=2.0**-60)


@given(
    st.lists(
        st.tuples(npst.arrays(np.int64, N, elements=st.integers(-(2**40), 2**40)), weights), min_size=1, max_size=6
    )
)
def test_integers_are_averaged_exactly_and_stay_integers(pairs: Pairs) -> None:
    result = mean(pairs, "int64")
    total = sum(w for _, w in pairs)
    assert result.dtype == np.int64
    for i in range(N):
        numerator = sum(int(a[i]) * w for a, w in pairs)
        assert abs(int(result[i]) * total - numerator) * 2 <= total


def test_integers_round_half_to_even() -> None:
    assert mean([(np.array([1, 2, -1]), 1), (np.array([2, 3, -2]), 1)], "int64").tolist() == [2, 2, -2]


def test_bools_take_the_majority_and_stay_bools() -> None:
    result = mean([(np.array([True, False, True]), 3), (np.array([False, False, True]), 2)], "bool")
    assert result.dtype == np.bool_
    assert result.tolist() == [True, False, True]


@pytest.mark.parametrize("dtype", ["float16", "float64", "int8", "uint8"])
def test_a_zero_dimensional_tensor_keeps_dtype_and_shape(dtype: str) -> None:
    result = mean([(np.array(3, dtype), 2), (np.array(3, dtype), 5)], dtype)
    assert (result.dtype, result.shape, result.item()) == (np.dtype(dtype), (), 3)


def test_no_update_is_changed_by_being_taken_in() -> None:
    array = np.linspace(-1, 1, 100_000, dtype=np.float32)
    before = array.copy()
    mean([(array, 3)])
    np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize(
    ("dtype", "value"), [("float32", 3e38), ("float64", 1e300), ("int64", 2**62), ("uint64", 2**63)]
)
def test_values_too_large_are_refused_and_leave_the_sum_as_it_was(dtype: str, value: float) -> None:
    accumulator = WeightedMean(Signature((TensorSpec("ok", dtype, (1,)), TensorSpec("w", dtype, (1,)))))
    accumulator.add({"ok": np.ones(1, dtype), "w": np.ones(1, dtype)}, 2)
    with pytest.raises(AccumulatorOverflow, match="'w'"):
        accumulator.add({"ok": np.full(1, 5, dtype), "w": np.full(1, value, dtype)}, 10)
    assert {name: array.tolist() for name, array in accumulator.result().items()} == {"ok": [1], "w": [1]}


def test_nothing_taken_in_has_no_mean() -> None:
    with pytest.raises(ValueError, match="No update"):
        WeightedMean(Signature(())).result()


@pytest.mark.parametrize("case", ["fedavg", "fedavg_one_client", "fedavg_many"])
def test_fedavg_gives_what_another_implementation_gives(case: str) -> None:
    """Vectors made with flwr 1.42.0's FedAvg, whose sums are in float32: so to float32's precision."""
    vectors = np.load(VECTORS / f"{case}.npz")
    model: Parameters = {f"t{i}": vectors[f"i_t{i}"] for i in range(3)}
    signature = Signature.of(model)
    strategy = Strategy(StrategyConfig(), signature)
    for number in range(1, sum(name.startswith("n") for name in vectors.files) + 1):
        weights_of_round = vectors[f"n{number}"]
        aggregation = strategy.begin(RoundContext(number, 0, signature, model, len(weights_of_round), MemorySpool))
        for client, weight in enumerate(weights_of_round):
            parameters = {name: vectors[f"u{number}_c{client}_{name}"] for name in model}
            aggregation.add(Update(str(client), parameters, int(weight), {}))
        model = strategy.next_model(model, aggregation.result())
        for name, array in model.items():
            np.testing.assert_allclose(array, vectors[f"e{number}_{name}"], rtol=1e-5, atol=1e-6)
