"""What is kept of each update, and what is made of it when a round is over."""

import math
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from aggregator.core import kernels
from aggregator.core.accumulator import WeightedMean
from aggregator.core.statistics import (
    WIDTH,
    RoundStatistics,
    Sketcher,
    UpdateStatistics,
    cosines,
    pack,
    robust_z,
    unpack,
)
from protos.tensors import Parameters, Signature

with_numba = pytest.param(True, marks=pytest.mark.skipif(not find_spec("numba"), reason="numba isn't installed"))
both_ways = pytest.mark.parametrize("compiled", [False, with_numba])

SIZE = 200_000


@pytest.fixture(autouse=True, scope="module")
def _compiled_beforehand() -> None:
    kernels.load(compiled=True)


def model(vector: NDArray[Any]) -> Parameters:
    """Tensors of several dtypes, shapes and lengths, one over the end of a chunk."""
    return {
        "w": vector[:150_000].reshape(1_000, 150).astype(np.float32),
        "steps": np.array(7),
        "bias": vector[150_000:150_011].astype(np.float32),
        "none": np.zeros((0, 3), np.float32),
        "wide": vector[150_011:170_000],
        "half": vector[170_000:].astype(np.float16),
    }


def floats(parameters: Parameters) -> NDArray[Any]:
    return np.concatenate([a.reshape(-1).astype(np.float64) for a in parameters.values() if a.dtype.kind == "f"])


def measured(parameters: Parameters, current: Parameters, *, compiled: bool = False, seed: int = 1) -> UpdateStatistics:
    return Sketcher(Signature.of(current), seed, compiled=compiled).measure(parameters, current)


def cosine(one: NDArray[Any], other: NDArray[Any]) -> float:
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


def estimated(one: UpdateStatistics, other: UpdateStatistics) -> float:
    return float(cosines(one.sketch[np.newaxis], other.sketch[np.newaxis])[0, 0])


@both_ways
def test_norm_and_largest_are_those_of_the_step(compiled: bool) -> None:
    rng = np.random.default_rng(1)
    current, update = model(rng.standard_normal(SIZE)), model(rng.standard_normal(SIZE))
    step = floats(update) - floats(current)
    seen = measured(update, current, compiled=compiled)
    assert seen.norm == pytest.approx(np.linalg.norm(step), rel=1e-6)
    assert seen.largest == pytest.approx(np.abs(step).max(), rel=1e-6)
    assert seen.sketch.shape == (WIDTH,)


@pytest.mark.skipif(not find_spec("numba"), reason="numba isn't installed")
def test_both_ways_give_the_same_to_rounding() -> None:
    rng = np.random.default_rng(2)
    current, update = model(rng.standard_normal(SIZE)), model(rng.standard_normal(SIZE))
    one, other = (measured(update, current, compiled=compiled) for compiled in (False, True))
    np.testing.assert_allclose(one.sketch, other.sketch, rtol=1e-5, atol=1e-4)
    assert (one.norm, one.largest) == pytest.approx((other.norm, other.largest), rel=1e-6)


@both_ways
@pytest.mark.parametrize("wanted", [-0.9, -0.3, 0.0, 0.1, 0.5, 0.8, 0.99])
def test_the_cosine_between_clients_is_within_five_hundredths(compiled: bool, wanted: float) -> None:
    rng = np.random.default_rng(3)
    current = model(np.zeros(SIZE))
    errors = []
    for seed in range(10):
        one, noise = rng.standard_normal((2, SIZE))
        other = wanted * one + math.sqrt(1 - wanted**2) * noise
        first, second = (measured(model(v), current, compiled=compiled, seed=seed) for v in (one, other))
        errors.append(estimated(first, second) - cosine(floats(model(one)), floats(model(other))))
    assert np.abs(errors).max() < 0.05
    assert np.sqrt(np.mean(np.square(errors))) < 1.5 * (1 - wanted**2) / math.sqrt(WIDTH) + 1e-3


@pytest.mark.parametrize("kept", [3, 100, 5_000])
def test_sparse_steps_are_no_worse(kept: int) -> None:
    rng = np.random.default_rng(4)
    current, places = model(np.zeros(SIZE)), rng.choice(SIZE, 2 * kept, replace=False)
    one, other = np.zeros((2, SIZE))
    one[places[: kept + kept // 2]] = rng.standard_normal(kept + kept // 2)
    other[places[kept // 2 :]] = rng.standard_normal(2 * kept - kept // 2)
    seen = estimated(measured(model(one), current), measured(model(other), current))
    assert abs(seen - cosine(floats(model(one)), floats(model(other)))) < 0.05


def test_an_observation_in_the_pass_of_the_sum_is_the_measurement() -> None:
    rng = np.random.default_rng(6)
    current, update = model(rng.standard_normal(SIZE)), model(rng.standard_normal(SIZE))
    sketcher = Sketcher(Signature.of(current), 1)
    observation, mean = sketcher.observe(current), WeightedMean(Signature.of(current))
    mean.add(update, 5, observation)
    fused, apart = observation.statistics(), sketcher.measure(update, current)
    assert (fused.norm, fused.largest) == (apart.norm, apart.largest)
    np.testing.assert_array_equal(fused.sketch, apart.sketch)
    assert all(np.allclose(a, update[name], rtol=1e-15) for name, a in mean.result().items())


def test_the_seed_decides_the_projection() -> None:
    current, update = model(np.zeros(SIZE)), model(np.ones(SIZE))
    one, same, other = (measured(update, current, seed=seed).sketch for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


@given(npst.arrays(np.float32, WIDTH, elements=st.floats(-1e6, 1e6, width=32), fill=st.floats(-1, 1, width=32)))
def test_packing_keeps_a_sketch_to_half_a_step(sketch: NDArray[np.float32]) -> None:
    packed = pack(sketch)
    assert len(packed) == WIDTH + 4
    largest = float(np.abs(sketch).max())
    least = float(np.finfo(np.float32).smallest_normal)  # below which there is no step that a float32 could hold
    np.testing.assert_allclose(unpack(packed), sketch, rtol=0, atol=max(largest / 127 * 0.51, least))


def test_a_packed_sketch_tells_the_same_cosine() -> None:
    rng = np.random.default_rng(7)
    one, other = rng.standard_normal((2, WIDTH)).astype(np.float32)
    other += one
    kept = [unpack(pack(sketch))[np.newaxis] for sketch in (one, other)]
    assert float(cosines(*kept)[0, 0]) == pytest.approx(cosine(one, other), abs=1e-3)


def test_robust_z_is_blind_to_outliers() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, 1e9])
    np.testing.assert_allclose(robust_z(values)[:4], 0.6745 * (values[:4] - 3))
    assert robust_z(np.array([5.0, 5.0, 5.0])).tolist() == [0, 0, 0]
    assert robust_z(np.array([5.0, 5.0, 5.0, 5.0, 6.0]))[-1] > 3.5


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), st.floats(0.1, 100), st.floats(-100, 100))
def test_robust_z_is_of_no_unit(values: list[float], scale: float, shift: float) -> None:
    array = np.array(values)
    if np.median(np.abs(array - np.median(array))) < 1e-3:
        return
    np.testing.assert_allclose(robust_z(array * scale + shift), robust_z(array), rtol=1e-4, atol=1e-4)


def cohort(rng: np.random.Generator, count: int = 12) -> dict[str, NDArray[Any]]:
    common = rng.standard_normal(SIZE)
    return {f"c{k:02}": common + 0.5 * rng.standard_normal(SIZE) for k in range(count)}


def compared(vectors: dict[str, NDArray[Any]]) -> RoundStatistics:
    """To their mean."""
    current = model(np.zeros(SIZE))
    updates = {name: measured(model(vector), current) for name, vector in vectors.items()}
    mean = measured(model(np.mean(list(vectors.values()), axis=0)), current)
    return RoundStatistics.of(updates, mean.sketch)


def test_a_cohort_of_equals_has_no_flags() -> None:
    vectors = cohort(np.random.default_rng(8))
    seen = compared(vectors)
    assert not any(client.flagged or client.reason for client in seen.clients.values())
    mean = np.mean(list(vectors.values()), axis=0)
    for name, client in seen.clients.items():
        assert client.cosine_to_aggregate == pytest.approx(cosine(vectors[name], mean), abs=0.05)
        assert client.norm_ratio == pytest.approx(1, abs=0.05)


def test_a_long_step_is_flagged_with_its_ratio() -> None:
    vectors = cohort(np.random.default_rng(9))
    vectors["c03"] *= 1.8
    clients = compared(vectors).clients
    assert [name for name, client in clients.items() if client.flagged] == ["c03"]
    assert clients["c03"].reason == "its norm is 1.8 times the median"


def test_a_short_or_slightly_longer_step_is_not_flagged() -> None:
    vectors = cohort(np.random.default_rng(10))
    vectors["c03"] *= 1.2
    vectors["c04"] *= 0.1
    clients = compared(vectors).clients
    assert clients["c03"].z_norm is not None and clients["c03"].z_norm > 3.5
    assert not any(client.flagged for client in clients.values())


def test_a_step_against_the_others_is_flagged() -> None:
    vectors = cohort(np.random.default_rng(11))
    vectors["c05"] *= -1
    clients = compared(vectors).clients
    assert [name for name, client in clients.items() if client.flagged] == ["c05"]
    assert clients["c05"].reason.startswith("its cosine to the aggregate is -0.")


def test_the_cosine_is_to_the_aggregate_that_is_given() -> None:
    one = np.zeros(WIDTH, np.float32)
    one[0] = 1
    updates = {"a": UpdateStatistics(1, 1, one), "b": UpdateStatistics(1, 1, -one)}
    clients = RoundStatistics.of(updates, aggregate=-one).clients
    assert [client.cosine_to_aggregate for client in clients.values()] == [-1, 1]


@both_ways
def test_a_step_beyond_float32_is_flagged_and_harms_no_other(compiled: bool) -> None:
    current: Parameters = {"w": np.full(3, -3e38, np.float32)}
    near: Parameters = {"w": np.full(3, -2.9e38, np.float32)}
    far: Parameters = {"w": np.full(3, 3e38, np.float32)}
    updates = {name: measured(p, current, compiled=compiled) for name, p in {"a": near, "b": near, "z": far}.items()}
    clients = RoundStatistics.of(updates, updates["a"].sketch).clients
    assert clients["z"].flagged and clients["z"].z_norm is None and clients["z"].cosine_to_aggregate is None
    assert clients["a"].cosine_to_aggregate == pytest.approx(1)
    assert not clients["a"].flagged
    assert not unpack(pack(updates["z"].sketch)).any()


@pytest.mark.parametrize("count", [1, 2, 3])
def test_small_cohorts_and_steps_of_nothing_have_statistics(count: int) -> None:
    current = model(np.zeros(SIZE))
    updates = {str(k): measured(current, current) for k in range(count)}
    seen = RoundStatistics.of(updates, updates["0"].sketch)
    assert all(c.cosine_to_aggregate is None and c.norm_ratio is None and not c.flagged for c in seen.clients.values())


def test_a_round_without_updates_has_none() -> None:
    assert RoundStatistics.of({}, np.zeros(WIDTH, np.float32)).clients == {}
