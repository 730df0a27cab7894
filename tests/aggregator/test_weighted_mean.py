"""Example-weighted averaging: exact, whatever the order of arrival, with numba and without."""

import tracemalloc
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from aggregator.core import kernels
from aggregator.core.accumulator import AccumulatorOverflow, WeightedMean
from aggregator.core.config import StrategyConfig
from aggregator.core.strategies.base import RoundContext, Update
from aggregator.core.strategy import Strategy
from protos.tensors import Parameters, Signature, TensorSpec
from tests.support.spool import MemorySpool

VECTORS = Path(__file__).parent.parent / "vectors"
N = 7
LONG = 300_001
"""Longer than the chunks that the sums work on."""

Pairs = list[tuple[NDArray[Any], int]]

weights = st.integers(1, 10**6)
floats32 = npst.arrays(np.float32, N, elements=st.floats(-1e4, 1e4, width=32))
any_floats32 = npst.arrays(np.float32, N, elements=st.floats(-(2.0**63), 2.0**63, width=32))
updates = st.lists(st.tuples(floats32, weights), min_size=1, max_size=8)
any_updates = st.lists(st.tuples(any_floats32, weights), min_size=1, max_size=8)

with_numba = pytest.param(True, marks=pytest.mark.skipif(not find_spec("numba"), reason="numba isn't installed"))
both_ways = pytest.mark.parametrize("compiled", [False, with_numba])


@pytest.fixture(autouse=True, scope="module")
def _compiled_beforehand() -> None:
    """So that no single example takes the seconds that it may take."""
    kernels.load(compiled=True)


def mean(pairs: Pairs, dtype: str = "float32", *, compiled: bool = False) -> NDArray[Any]:
    accumulator = WeightedMean(Signature((TensorSpec("w", dtype, pairs[0][0].shape),)), compiled=compiled)
    for array, weight in pairs:
        accumulator.add({"w": array}, weight)
    return accumulator.result()["w"]


def exact(pairs: Pairs) -> list[Fraction]:
    total = sum(w for _, w in pairs)
    columns = zip(*(a.reshape(-1).tolist() for a, _ in pairs), strict=True)
    return [
        sum((Fraction(x) * w for x, (_, w) in zip(column, pairs, strict=True)), Fraction(0)) / total
        for column in columns
    ]


def units_off(result: NDArray[Any], reference: list[Fraction]) -> float:
    """How far the worst number is from the reference, in units of the last place."""
    info = np.finfo(result.dtype)
    smallest = Fraction(float(info.smallest_subnormal))

    def unit(value: Fraction) -> Fraction:
        exponent = np.frexp(abs(float(value)))[1] - 1
        return max(Fraction(2) ** int(exponent) * Fraction(float(info.eps)), smallest)

    pairs = zip(result.reshape(-1).tolist(), reference, strict=True)
    return max((float(abs(Fraction(got) - wanted) / unit(wanted)) for got, wanted in pairs), default=0.0)


@both_ways
@given(pairs=any_updates, random=st.randoms(use_true_random=False))
def test_the_order_of_arrival_changes_no_bit(compiled: bool, pairs: Pairs, random: Random) -> None:
    shuffled = list(pairs)
    random.shuffle(shuffled)
    assert mean(pairs, compiled=compiled).tobytes() == mean(shuffled).tobytes()


@both_ways
@given(pairs=any_updates)
def test_the_mean_is_the_exact_one_rounded_whatever_the_size_of_the_numbers(compiled: bool, pairs: Pairs) -> None:
    assert units_off(mean(pairs, compiled=compiled), exact(pairs)) < 0.5001


@both_ways
@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e-4, 1.0, 1e4, 1e18])
def test_a_long_tensor_agrees_with_a_reference_in_any_order(compiled: bool, scale: float) -> None:
    rng = np.random.default_rng(1)
    pairs = [
        ((rng.standard_normal(LONG) * scale).astype(np.float32), int(w)) for w in (1, 999, 60_000, 7, 5_000_000, 31, 3)
    ]
    result = mean(pairs, compiled=compiled)
    reference = np.sum([a.astype(np.longdouble) * w for a, w in pairs], axis=0) / sum(w for _, w in pairs)
    assert (np.abs(result - reference) <= np.spacing(np.abs(result))).all()
    for _ in range(3):
        rng.shuffle(pairs)
        assert mean(pairs, compiled=compiled).tobytes() == result.tobytes()


@both_ways
@pytest.mark.parametrize("spread", [3, 30])
def test_numbers_of_very_unlike_sizes_in_one_tensor_are_exact(compiled: bool, spread: int) -> None:
    rng = np.random.default_rng(2)
    pairs = [
        (np.ldexp(rng.standard_normal(500), rng.integers(-4 * spread, spread, 500)).astype("f4"), w) for w in (3, 70)
    ]
    assert units_off(mean(pairs, compiled=compiled), exact(pairs)) < 0.5001


@both_ways
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_every_number_of_a_long_tensor_leaves_over_is_kept(compiled: bool, dtype: str) -> None:
    far, near = np.full(LONG, 2.0**40, dtype), (np.arange(LONG) * 2.0**-10).astype(dtype)
    result = mean([(far, 1), (near, 1), (-far, 1)], dtype, compiled=compiled)
    np.testing.assert_array_equal(result, (near.astype("f8") / 3).astype(dtype))


@both_ways
def test_updates_that_grow_beyond_what_the_first_was_like_are_exact(compiled: bool) -> None:
    pairs = [
        (np.array([2.0**-149, -(2.0**exponent), 1.5], np.float32), 3**k)
        for k, exponent in enumerate(range(-140, 64, 9))
    ]
    result = mean(pairs[:13], compiled=compiled)
    assert units_off(result, exact(pairs[:13])) < 0.5001
    assert units_off(mean(pairs, compiled=compiled), exact(pairs)) < 0.5001
    assert mean(pairs, compiled=compiled).tobytes() == mean(pairs[::-1], compiled=compiled).tobytes()


@both_ways
def test_many_updates_of_heavy_clients_are_exact(compiled: bool) -> None:
    pairs = [(np.array([1.0, -3.3, 1e-3, 9e18], np.float32), 2**20 + k) for k in range(400)]
    assert units_off(mean(pairs, compiled=compiled), exact(pairs)) < 0.5001


@both_ways
@given(array=any_floats32, weight=weights)
def test_one_update_is_its_own_mean_to_the_bit(compiled: bool, array: NDArray[Any], weight: int) -> None:
    np.testing.assert_array_equal(mean([(array, weight)], compiled=compiled), array)


@given(any_updates, st.integers(2, 100))
def test_weights_count_by_their_ratio_alone(pairs: Pairs, factor: int) -> None:
    np.testing.assert_array_max_ulp(mean(pairs), mean([(a, w * factor) for a, w in pairs]), maxulp=1)


@both_ways
@given(pairs=updates)
def test_it_stays_between_the_updates(compiled: bool, pairs: Pairs) -> None:
    arrays = np.stack([a for a, _ in pairs])
    result = mean(pairs, compiled=compiled)
    assert (result >= arrays.min(axis=0)).all()
    assert (result <= arrays.max(axis=0)).all()


@both_ways
@pytest.mark.parametrize(("dtype", "units"), [("float16", 0.5001), ("float64", 3.0)])
def test_other_floating_dtypes_are_exact_as_well(compiled: bool, dtype: str, units: float) -> None:
    """The products of float64 with weights are rounded before they are added, by half a unit each."""
    rng = np.random.default_rng(3)
    pairs = [(rng.uniform(1, 2, (5, 60)).astype(dtype), w) for w in (1, 2_000, 30)]
    assert units_off(mean(pairs, dtype, compiled=compiled), exact(pairs)) < units
    assert mean(pairs, dtype, compiled=compiled).tobytes() == mean(pairs[::-1], dtype).tobytes()


@both_ways
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_arrays_as_they_come_from_a_buffer_are_taken(compiled: bool, dtype: str) -> None:
    array = np.arange(-6, 6, dtype=dtype).reshape(3, 4)
    unaligned = np.frombuffer(b"." + array.tobytes(), np.uint8)[1:].view(dtype).reshape(3, 4)
    for odd in (unaligned, np.asfortranarray(array), np.repeat(array, 2, axis=1)[:, ::2]):
        np.testing.assert_array_equal(mean([(odd, 3)], dtype, compiled=compiled), array)


@both_ways
@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1,)])
def test_small_and_empty_tensors_keep_their_shape(compiled: bool, shape: tuple[int, ...]) -> None:
    result = mean([(np.full(shape, 2.5, np.float32), 2), (np.full(shape, 0.5, np.float32), 2)], compiled=compiled)
    assert result.shape == shape
    assert (result == 1.5).all()


@both_ways
def test_zeros_first_are_no_obstacle(compiled: bool) -> None:
    zeros, ones = np.zeros(3, np.float32), np.ones(3, np.float32)
    assert mean([(zeros, 1), (ones, 2), (zeros, 1)], compiled=compiled).tolist() == [0.5] * 3
    assert mean([(zeros, 5)], compiled=compiled).tolist() == [0.0] * 3


@both_ways
def test_sums_and_mean_take_three_models_of_memory_however_many_updates(compiled: bool) -> None:
    array = np.random.default_rng(4).standard_normal(2_000_000, np.float32)
    mean([(array[:10], 1)], compiled=compiled)
    tracemalloc.start()
    try:
        mean([(array, 100 + k) for k in range(10)], compiled=compiled)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * array.nbytes + 8e6


def test_the_mean_is_taken_once() -> None:
    accumulator = WeightedMean(Signature((TensorSpec("w", "float32", (2,)),)))
    accumulator.add({"w": np.ones(2, np.float32)}, 1)
    accumulator.result()
    with pytest.raises(ValueError, match="already"):
        accumulator.result()
    with pytest.raises(ValueError, match="already"):
        accumulator.add({"w": np.ones(2, np.float32)}, 1)


def test_an_observer_is_shown_the_floating_tensors_chunk_by_chunk() -> None:
    tensors = {"w": np.arange(LONG, dtype=np.float32), "steps": np.array(3), "half": np.ones((2, 2), np.float16)}
    seen: dict[str, list[NDArray[Any]]] = {"w": [], "half": []}

    def observe(name: str, start: int, chunk: NDArray[Any]) -> None:
        assert start == sum(c.size for c in seen[name])
        seen[name].append(chunk.copy())

    WeightedMean(Signature.of(tensors)).add(tensors, 2, observe)
    for name, chunks in seen.items():
        np.testing.assert_array_equal(np.concatenate(chunks), tensors[name].reshape(-1))


@given(
    st.lists(
        st.tuples(npst.arrays(np.int64, N, elements=st.integers(-(2**40), 2**40)), weights), min_size=1, max_size=6
    )
)
def test_integers_are_averaged_exactly_and_stay_integers(pairs: Pairs) -> None:
    result = mean(pairs, "int64")
    assert result.dtype == np.int64
    assert result.tolist() == [round(value) for value in exact(pairs)]


large_updates = st.lists(
    st.tuples(npst.arrays(np.int64, N, elements=st.integers(-(2**62) + 1, 2**62 - 1)), weights).map(
        lambda pair: (np.sign(pair[0]) * (np.abs(pair[0]) // pair[1]), pair[1])
    ),
    min_size=1,
    max_size=12,
)


@given(pairs=large_updates, refused=large_updates, random=st.randoms(use_true_random=False))
def test_integers_that_one_update_may_hold_are_averaged_exactly_in_any_order(
    pairs: Pairs, refused: Pairs, random: Random
) -> None:
    expected = [round(value) for value in exact(pairs)]
    random.shuffle(pairs)
    assert mean(pairs, "int64").tolist() == expected
    accumulator = WeightedMean(Signature.of({"w": pairs[0][0]}))
    for array, weight in refused:
        accumulator.add({"w": array}, weight)
    for array, weight in pairs:
        accumulator.add({"w": array}, weight)
    for array, weight in refused:
        accumulator.subtract({"w": array}, weight)
    assert accumulator.result()["w"].tolist() == expected


def test_an_enormous_integer_of_one_client_refuses_no_other() -> None:
    largest = np.array(2**62 - 1)
    assert mean([(largest, 1), (np.array(10), 999), (largest, 1)], "int64").tolist() == round(
        Fraction(2 * (2**62 - 1) + 9990, 1001)
    )


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


@both_ways
@pytest.mark.parametrize(
    ("dtype", "value"), [("float32", 3e38), ("float64", 1e300), ("float64", 1e19), ("int64", 2**62), ("uint64", 2**63)]
)
def test_values_too_large_are_refused_and_leave_the_sum_as_it_was(compiled: bool, dtype: str, value: float) -> None:
    signature = Signature((TensorSpec("ok", dtype, (3,)), TensorSpec("w", dtype, (LONG,))))
    accumulator = WeightedMean(signature, compiled=compiled)
    accumulator.add({"ok": np.ones(3, dtype), "w": np.ones(LONG, dtype)}, 2)
    bad = np.arange(LONG).astype(dtype)
    bad[-5] = value
    with pytest.raises(AccumulatorOverflow, match="'w'"):
        accumulator.add({"ok": np.full(3, 5, dtype), "w": bad}, 10)
    assert all((array == 1).all() for array in accumulator.result().values())


@both_ways
@given(good=any_updates, bad=any_floats32, place=st.integers(0, N - 1))
def test_a_refused_update_leaves_no_trace(compiled: bool, good: Pairs, bad: NDArray[Any], place: int) -> None:
    accumulator = WeightedMean(Signature.of({"a": bad, "b": bad}), compiled=compiled)
    far = bad.copy()
    far[place] = 3e38
    for array, weight in good:
        with pytest.raises(AccumulatorOverflow):
            accumulator.add({"a": bad, "b": far}, 7)
        accumulator.add({"a": array, "b": array}, weight)
    for result in accumulator.result().values():
        assert result.tobytes() == mean(good).tobytes()


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
        model = aggregation.next_model(model, aggregation.result())
        for name, array in model.items():
            np.testing.assert_allclose(array, vectors[f"e{number}_{name}"], rtol=1e-5, atol=1e-6)
