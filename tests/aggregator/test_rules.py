"""Laws that every aggregation rule keeps, and what each promises."""

from __future__ import annotations

from importlib.util import find_spec
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray
from scipy import stats

from aggregator.core import kernels, registry
from aggregator.core.exact_sum import LARGEST
from aggregator.core.kernels.plain_columns import NETWORK_ROWS
from aggregator.core.spooled import Rows
from aggregator.core.strategies.base import RoundContext, RuleConfig, Update, UpdateRejected
from protos.tensors import Signature
from tests.support.rounds import Vectors, aggregate, aggregate_vectors, rule
from tests.support.spool import MemorySpool

N, D = 11, 6
ALL = sorted(name for name, part in registry.rules().items() if part.vectors)
SETTINGS: dict[str, dict[str, Any]] = {name: {"malicious": 2} for name in ("krum", "multikrum", "bulyan")}
METRICS = [{"initial_loss": 0.5 + k, "local_steps": 1.0 + k % 3} for k in range(70)]
TRANSLATES = [name for name in ALL if name != "qfedavg"]
ROBUST = ["median", "trimmed_mean", "krum", "multikrum", "bulyan", "geometric_median"]

vectors = npst.arrays(np.float32, (N, D), elements=st.floats(-100, 100, width=32))
examples = st.lists(st.integers(1, 1000), min_size=N, max_size=N)


def built(name: str) -> RuleConfig:
    return rule(name, **SETTINGS.get(name, {}))


@pytest.mark.parametrize("name", ALL)
@given(rows=vectors, counts=examples, random=st.randoms(use_true_random=False))
def test_the_order_of_arrival_changes_no_bit(name: str, rows: NDArray[Any], counts: list[int], random: Random) -> None:
    order = list(range(N))
    random.shuffle(order)
    options: dict[str, Any] = {"num_examples": counts, "metrics": METRICS[:N]}
    straight = aggregate_vectors(built(name), rows, **options)
    assert straight.tobytes() == aggregate_vectors(built(name), rows, order=order, **options).tobytes()


@pytest.mark.parametrize("name", ALL)
@given(row=npst.arrays(np.float32, D, elements=st.floats(-100, 100, width=32)))
def test_equal_updates_give_that_update(name: str, row: NDArray[Any]) -> None:
    if name == "centred_clipping":
        row = row / 100  # within the radius
    metrics = [{"initial_loss": 1.0, "local_steps": 3.0}] * N
    result = aggregate_vectors(
        rule(name, **SETTINGS.get(name, {}), **({"q": 0} if name == "qfedavg" else {})), [row] * N, metrics=metrics
    )
    np.testing.assert_allclose(result, row, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", TRANSLATES)
@given(rows=vectors, shift=st.integers(-64, 64))
def test_moving_everything_moves_the_result_with_it(name: str, rows: NDArray[Any], shift: int) -> None:
    rows = np.round(rows)  # so that the shift is exact
    here = aggregate_vectors(built(name), rows, metrics=METRICS[:N])
    moved = aggregate_vectors(
        built(name), rows + np.float32(shift), metrics=METRICS[:N], current={"w": np.full(D, shift, np.float32)}
    )
    np.testing.assert_allclose(moved - shift, here, atol=2e-3)


@pytest.mark.parametrize("name", ROBUST)
@pytest.mark.parametrize("attack", [LARGEST, -LARGEST, 1e6])
@given(rows=npst.arrays(st.sampled_from([np.float32, np.float64]), (N, D), elements=st.floats(-1, 1, width=32)))
def test_updates_moved_far_away_move_the_result_by_a_bounded_amount(
    name: str, attack: float, rows: NDArray[Any]
) -> None:
    attacked = rows.copy()
    attacked[0] = attack  # the first by id, which no tie and no origin may favour
    attacked[5] = attack
    result = aggregate_vectors(built(name), attacked)
    # The geometric median stays within a few times the honest updates' spread, the others among them.
    assert (np.abs(result) <= (10 if name == "geometric_median" else 1 + 1e-3)).all()


@pytest.mark.parametrize("name", ALL)
def test_integers_are_averaged_by_examples_whatever_the_rule(name: str) -> None:
    updates = [{"w": np.zeros(D, np.float32), "seen": np.array(10 * k)} for k in range(N)]
    result = aggregate(built(name), updates, num_examples=[1] * (N - 1) + [10], metrics=METRICS[:N])
    assert (result["seen"].dtype.name, int(result["seen"])) == ("int64", round((450 + 1000) / 20))
    assert list(result) == ["w", "seen"]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_dtypes_and_shapes_stay_and_no_input_changes(name: str, dtype: str) -> None:
    rng = np.random.default_rng(3)
    updates = [{"a": rng.standard_normal((2, 3)).astype(dtype), "b": np.array(k, dtype)} for k in range(N)]
    before = [{name: array.copy() for name, array in update.items()} for update in updates]
    result = aggregate(built(name), updates, metrics=METRICS[:N])
    assert {n: (a.dtype, a.shape) for n, a in result.items()} == {
        "a": (np.dtype(dtype), (2, 3)),
        "b": (np.dtype(dtype), ()),
    }
    for update, copy in zip(updates, before, strict=True):
        for key, array in update.items():
            np.testing.assert_array_equal(array, copy[key])
    assert MemorySpool.open == 0


@pytest.mark.parametrize("count", [1, 2, 3, 8, 31, NETWORK_ROWS, NETWORK_ROWS + 1, 70])
def test_median_and_trimmed_mean_are_scipys(count: int) -> None:
    rows = np.random.default_rng(count).standard_normal((count, 501)).astype(np.float32)
    median = aggregate_vectors(rule("median"), rows)
    np.testing.assert_allclose(median, np.median(rows, axis=0), rtol=1e-6)
    trimmed = aggregate_vectors(rule("trimmed_mean", trim=0.2), rows)
    np.testing.assert_allclose(trimmed, stats.trim_mean(rows, 0.2, axis=0), rtol=1e-4, atol=1e-6)


columns = npst.arrays(
    st.sampled_from([np.float32, np.float64]),
    st.tuples(st.integers(1, 80), st.integers(1, 9)),
    elements=st.floats(-9, 9, width=32),
)
with_numba = pytest.param(True, marks=pytest.mark.skipif(not find_spec("numba"), reason="numba isn't installed"))
both_ways = pytest.mark.parametrize("compiled", [False, with_numba])


@pytest.fixture(autouse=True, scope="module")
def _compiled_beforehand() -> None:
    """So that no single example takes the seconds that it may take."""
    kernels.load_columns(compiled=True)


def rows_of(block: NDArray[Any], *, compiled: bool) -> Rows:
    return Rows(block, list(range(len(block))), np.ones(len(block), np.int64), compiled=compiled)


def around_median(block: NDArray[Any], nearest: int, *, compiled: bool) -> NDArray[np.float64]:
    rows, result = rows_of(block, compiled=compiled), np.empty(block.shape[1])
    rows.kernels.mean_around_median(rows.sorted(slice(0, rows.length)), nearest, result)
    return result


@both_ways
@given(block=columns, random=st.randoms(use_true_random=False))
def test_columns_are_sorted_whichever_rows_of_them_are_wanted(
    compiled: bool, block: NDArray[Any], random: Random
) -> None:
    before, rows, wide = block.copy(), rows_of(block, compiled=compiled), slice(0, block.shape[1])
    np.testing.assert_array_equal(rows.sorted(wide), np.sort(block, axis=0))
    middle = ((len(block) - 1) // 2, len(block) // 2)
    np.testing.assert_array_equal(rows.sorted(wide, middle), np.sort(block, axis=0)[list(middle)])
    some = random.sample(range(len(block)), random.randint(1, len(block)))
    right = slice(block.shape[1] // 2, block.shape[1])
    np.testing.assert_array_equal(rows.sorted(right, among=some), np.sort(block[some, right], axis=0))
    assert block.tobytes() == before.tobytes()


@pytest.mark.skipif(not find_spec("numba"), reason="numba isn't installed")
@given(block=columns, data=st.data())
def test_numba_gives_the_bits_of_numpy(block: NDArray[Any], data: st.DataObject) -> None:
    """Zeros of either sign among them: these compare equal, but are ordered."""
    wide, nearest = slice(0, block.shape[1]), data.draw(st.integers(1, len(block)))
    ways = [rows_of(block, compiled=compiled) for compiled in (False, True)]
    assert len({rows.sorted(wide).tobytes() for rows in ways}) == 1
    assert len({around_median(block, nearest, compiled=compiled).tobytes() for compiled in (False, True)}) == 1
    means = np.empty((2, block.shape[1]))
    for rows, mean in zip(ways, means, strict=True):
        rows.kernels.mean(rows.sorted(wide), mean)
    assert means[0].tobytes() == means[1].tobytes()


def test_krum_by_hand() -> None:
    """n = 5, f = 1: two neighbours. Scores 1 + 4, 1 + 1, 1 + 4, (10-2)² + (10-1)², (20-10)² + (20-2)²."""
    rows = np.array([[0.0], [1.0], [2.0], [10.0], [20.0]], np.float32)
    assert aggregate_vectors(rule("krum", malicious=1), rows).tolist() == [1.0]
    kept = aggregate_vectors(rule("multikrum", malicious=1, keep=3), rows, num_examples=[1, 1, 2, 9, 9])
    assert kept.tolist() == [(0 + 1 + 2 * 2) / 4]


@both_ways
def test_bulyans_window_by_hand(compiled: bool) -> None:
    """Median of 0 1 2 4 9 is 2; the three nearest are 2, 1 and then 0 or 4, equally far: the lower."""
    block = np.array([[9.0], [0.0], [4.0], [1.0], [2.0]], np.float32)
    assert around_median(block, 3, compiled=compiled).tolist() == [1.0]


@both_ways
def test_values_from_far_away_cost_bulyans_window_no_digits(compiled: bool) -> None:
    block = np.array([[-1e30], [1.0], [2.0], [3.0], [1e30]], np.float32)
    assert around_median(block, 3, compiled=compiled).tolist() == [2.0]


@both_ways
@given(rows=vectors)
def test_bulyans_window_is_the_nearest_values(compiled: bool, rows: NDArray[Any]) -> None:
    result = around_median(rows, 5, compiled=compiled)
    median = np.median(rows, axis=0)
    for column in range(D):
        gaps = np.sort(np.abs(rows[:, column] - median[column]))[:5]
        nearest = [v for v in rows[:, column] if abs(v - median[column]) <= gaps[-1] + 1e-5]
        assert min(nearest) - 1e-3 <= result[column] <= max(nearest) + 1e-3


def test_the_geometric_median_is_where_the_distances_are_least() -> None:
    rows = np.random.default_rng(5).standard_normal((9, 4)).astype(np.float32)
    counts = list(range(1, 10))
    found = aggregate_vectors(rule("geometric_median", steps=5000), rows, num_examples=counts)

    def cost(point: NDArray[Any]) -> float:
        return float((np.linalg.norm(rows - point, axis=1) * counts).sum())

    rng = np.random.default_rng(6)
    assert all(cost(found) <= cost(found + rng.normal(0, 1e-2, 4)) for _ in range(200))


def test_centred_clipping_by_hand() -> None:
    """One step, radius 1, centre 0: (1 + 0.5 + 1) / 3, for 10 is drawn in to 1."""
    rows = np.array([[1.0], [0.5], [10.0]], np.float32)
    result = aggregate_vectors(rule("centred_clipping", radius=1, steps=1), rows)
    np.testing.assert_allclose(result, [2.5 / 3], rtol=1e-6)


def test_norm_clipping_by_hand() -> None:
    """Norms 1, 2 and 50, weights 1, 1 and 2: the last is drawn in to the median, 2."""
    rows = np.array([[1.0], [-2.0], [50.0]], np.float32)
    np.testing.assert_allclose(
        aggregate_vectors(rule("norm_clipping"), rows, num_examples=[1, 1, 2]), [(1 - 2 + 4) / 4]
    )
    np.testing.assert_allclose(
        aggregate_vectors(rule("norm_clipping", norm=1), rows, num_examples=[1, 1, 2]), [(1 - 1 + 2) / 4]
    )


def test_fair_averaging_by_hand() -> None:
    """q = 1, L = 10, w = 0: Δ = -10, -20; F = 1, 2; numerator -10 - 40, denominator (100 + 10) + (400 + 20); w = 50 / 530."""
    rows = np.array([[1.0], [2.0]], np.float32)
    metrics = [{"initial_loss": 1.0}, {"initial_loss": 2.0}]
    result = aggregate_vectors(rule("qfedavg", q=1, client_learning_rate=0.1), rows, metrics=metrics)
    np.testing.assert_allclose(result, [50 / 530], rtol=1e-6)


@given(vectors)
def test_fair_averaging_with_q_0_is_the_unweighted_mean(rows: NDArray[Any]) -> None:
    result = aggregate_vectors(rule("qfedavg", q=0), rows, num_examples=list(range(1, N + 1)), metrics=METRICS[:N])
    np.testing.assert_allclose(result, rows.mean(axis=0, dtype=np.float64), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "metrics", "missing"),
    [
        ("qfedavg", {}, "initial_loss"),
        ("qfedavg", {"initial_loss": -1.0}, "initial_loss"),
        ("fednova", {}, "local_steps"),
        ("fednova", {"local_steps": 0.0}, "local_steps"),
        ("fednova", {"local_steps": 1.5}, "local_steps"),
    ],
)
def test_a_metric_that_a_rule_needs_is_asked_for(name: str, metrics: dict[str, float], missing: str) -> None:
    with pytest.raises(UpdateRejected, match=missing):
        aggregate_vectors(rule(name), [np.zeros(D, np.float32)], metrics=[metrics])


@pytest.mark.parametrize(
    ("name", "settings", "bad", "metrics"),
    [
        ("qfedavg", {"q": 2}, 1.0, {"initial_loss": 1e200}),  # F^q is no float64
        ("qfedavg", {"q": 1}, 0.0, {"initial_loss": 1e307}),  # nor is the sum of some such weights
        ("qfedavg", {"q": 1}, 1.7e153, {"initial_loss": 1.0}),  # nor ‖Δ‖² over two tensors
        ("qfedavg", {"q": 1}, 1e308, {"initial_loss": 1.0}),
        ("fednova", {}, 1.7e153, {"local_steps": 3.0}),
        ("fednova", {}, 1e308, {"local_steps": 3.0}),
    ],
)
def test_numbers_that_overflow_refuse_the_update_and_no_other(
    name: str, settings: dict[str, Any], bad: float, metrics: dict[str, float]
) -> None:
    tensors = {"a": np.ones(40), "b": np.ones(40), "n": np.array(1)}
    far = {**tensors, "a": np.full(40, bad), "b": np.full(40, bad), "n": np.array(9)}
    good = {"initial_loss": 1.0, "local_steps": 2.0}
    context = RoundContext(
        1, 0, Signature.of(tensors), {key: np.zeros_like(array) for key, array in tensors.items()}, 3, MemorySpool
    )
    aggregator = rule(name, **settings).begin(context)
    aggregator.add(Update("0", tensors, 10, good))
    with pytest.raises(UpdateRejected, match="large"):
        aggregator.add(Update("1", far, 10, metrics))
    result = aggregator.result()
    aggregator.close()
    alone = aggregate(rule(name, **settings), [tensors], num_examples=[10], metrics=[good])
    assert {key: array.tobytes() for key, array in result.items()} == {
        key: array.tobytes() for key, array in alone.items()
    }


@pytest.mark.parametrize("name", ["mean", "centred_clipping", "norm_clipping", *ROBUST])
@pytest.mark.parametrize(("dtype", "far"), [("float64", 1e200), ("float64", -1e200), ("float32", 1e30)])
def test_an_update_from_beyond_the_numbers_of_models_is_refused_and_leaves_no_trace(
    name: str, dtype: str, far: float
) -> None:
    model = {"w": np.zeros(D, dtype), "seen": np.array(0)}
    good = [{"w": np.full(D, k, dtype), "seen": np.array(k)} for k in range(N)]
    bad = {"w": good[0]["w"].copy(), "seen": np.array(9)}
    bad["w"][-1] = far
    aggregator = built(name).begin(RoundContext(1, 0, Signature.of(model), model, N + 1, MemorySpool))
    for k, update in enumerate(good):
        aggregator.add(Update(f"{k:02d}", update, 1, {}))
        if k == 1:
            with pytest.raises(UpdateRejected, match="too large"):
                aggregator.add(Update("bad", bad, 1, {}))
    result = aggregator.result()
    aggregator.close()
    for tensor, array in aggregate(built(name), good).items():
        np.testing.assert_array_equal(result[tensor], array)


def descend(optima: Vectors, steps: list[int], name: str, rounds: int = 400) -> float:
    """Clients whose losses are (w − optimum)² / 2, gradient descent at rate 0.1, `steps` each; the point that the rounds come to."""
    w = np.zeros(1)
    for _ in range(rounds):
        local = [optimum + (w - optimum) * 0.9**count for optimum, count in zip(optima, steps, strict=True)]
        metrics = [{"local_steps": float(count)} for count in steps]
        w = aggregate_vectors(rule(name), local, metrics=metrics, current={"w": w})
    return float(w[0])


def test_fednova_finds_the_optimum_where_the_mean_is_biased() -> None:
    """Optima 0 and 1; true optimum 1/2. With 1 and 10 steps the mean comes to the point at which pulls are equal: biased to 1."""
    optima, steps = [np.zeros(1), np.ones(1)], [1, 10]
    pulls = [1 - 0.9**count for count in steps]
    assert descend(optima, steps, "mean") == pytest.approx(pulls[1] / sum(pulls), abs=1e-6)
    normalised = [pull / count for pull, count in zip(pulls, steps, strict=True)]
    found = descend(optima, steps, "fednova")
    assert found == pytest.approx(normalised[1] / sum(normalised), abs=1e-6)
    assert abs(found - 0.5) < abs(descend(optima, steps, "mean") - 0.5)


@pytest.mark.parametrize("name", ["krum", "multikrum", "bulyan"])
def test_more_malicious_clients_than_a_rule_bears_are_refused_when_it_is_defined(name: str) -> None:
    from aggregator.core.config import StrategyConfig

    config = {"cohort": {"min_clients": 10}, "faults": {"quorum": 10}, "aggregation": {"name": name, "malicious": 4}}
    with pytest.raises(ValueError, match=r"needs at least (11|19) updates, and the quorum allows a round with 10"):
        StrategyConfig.model_validate(config)
    assert rule(name, malicious=1).explain(10)


def test_multikrum_that_would_keep_a_malicious_update_is_refused() -> None:
    """Of 5 updates with 1 wrong one, 5 kept are a plain mean; of 6, the wrong one can be left out."""
    from aggregator.core.config import StrategyConfig

    multikrum = {"name": "multikrum", "malicious": 1, "keep": 5}
    with pytest.raises(ValueError, match="needs at least 6 updates, and the quorum allows a round with 5"):
        StrategyConfig.model_validate({"cohort": {"min_clients": 5}, "faults": {"quorum": 5}, "aggregation": multikrum})
    config = StrategyConfig.model_validate(
        {"cohort": {"min_clients": 6}, "faults": {"quorum": 6}, "aggregation": multikrum}
    ).aggregation
    assert "1 wrong updates of at least 6" in config.explain(6)
    rows = np.array([[0.0], [1.0], [2.0], [3.0], [4.0], [1e6]], np.float32)
    assert aggregate_vectors(config, rows).tolist() == [2.0]
    assert rule("multikrum", malicious=2, keep=1).fewest_updates() == 7
