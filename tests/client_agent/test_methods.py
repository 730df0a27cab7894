"""The client's half of the methods: what they do to gradients, and what is kept of them on disk."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from client_agent.errors import BrokenApp, TaskRefused
from client_agent.method_state import KEPT_RUNS, MethodStates
from client_agent.methods import Contrast, Method, Phase, Setting
from client_agent.sdk import NumPyClient

NAMES = ("body", "head", "count")


def test_a_phase_corrects_what_is_trained_and_nothing_else() -> None:
    anchor = [np.array([1.0]), np.array([1.0]), np.array(3)]
    phase = Phase(
        NAMES, anchor, 1, pull=2.0, anchor=anchor, offsets=[np.array([0.5]), None, None], frozen=frozenset({"head"})
    )
    gradients = [np.array([1.0]), np.array([1.0]), None]
    phase.correct([np.array([4.0]), np.array([4.0]), np.array(3)], gradients, 0.1)
    phase.correct([np.array([1.0]), np.array([4.0]), np.array(3)], gradients, 0.2)
    assert gradients[0] == pytest.approx([1 + 2 * 3 + 0.5 + 0.5])
    assert gradients[1] == pytest.approx([0])
    assert phase.rates == pytest.approx(0.3)


def test_outside_an_agent_a_client_trains_plainly() -> None:
    client = NumPyClient()
    given = [np.array([1.0])]
    for phase in client.method.phases(given, 3):
        assert phase.parameters == given
        assert phase.epochs == client.method.total_epochs(3) == 3
        gradient = np.array([5.0])
        phase.correct(phase.parameters, [gradient], 0.1)
        assert gradient == [5.0]
        phase.end([np.array([2.0])])
    assert client.method.result == [2.0]


def test_a_loop_that_does_not_end_its_phases_is_told_so() -> None:
    method = Method(Setting(NAMES, ()))
    with pytest.raises(BrokenApp, match="hasn't ended a phase"):
        list(method.phases([], 1))
    with pytest.raises(BrokenApp, match="hasn't trained through the phases"):
        _ = method.result


def test_the_contrastive_gradient_is_that_of_its_loss() -> None:
    rng = np.random.default_rng(1)
    z, z_global, z_previous = rng.standard_normal((3, 4, 6))
    contrast = Contrast(0.7, 0.5, (), ())

    def loss(at: NDArray[np.float64]) -> float:
        return contrast.loss(at, z_global, z_previous)[0]

    expected = np.zeros_like(z)
    for place in np.ndindex(*z.shape):
        step = np.zeros_like(z)
        step[place] = 1e-6
        expected[place] = (loss(z + step) - loss(z - step)) / 2e-6
    np.testing.assert_allclose(contrast.loss(z, z_global, z_previous)[1], expected, rtol=1e-4, atol=1e-6)
    assert loss(z_global) < loss(z) < loss(z_previous)


def test_a_representation_of_zeros_has_a_finite_gradient() -> None:
    value, gradient = Contrast(1.0, 0.1, (), ()).loss(*np.zeros((3, 2, 5)))
    assert value == pytest.approx(np.log(2))
    assert np.isfinite(gradient).all()


@pytest.fixture
def states(tmp_path: Path) -> MethodStates:
    return MethodStates(tmp_path / "methods")


def value(states: MethodStates, run: str, counted_round: int) -> float | None:
    kept = states.load(run, counted_round)
    return float(kept["control/w"][0]) if kept else None


def save(states: MethodStates, run: str, number: int, counted: int, content: float) -> None:
    states.save(run, number, counted, {"control/w": np.array([content])})


def test_training_goes_on_from_the_round_that_counted(states: MethodStates) -> None:
    save(states, "1", 1, 0, 1.0)
    save(states, "1", 2, 1, 2.0)
    assert (value(states, "1", 2), value(states, "1", 1), value(states, "1", 0)) == (2.0, 1.0, None)
    save(states, "1", 2, 1, 2.5)  # the round was abandoned, and trained again
    save(states, "1", 3, 2, 3.0)
    assert (value(states, "1", 3), value(states, "1", 2), value(states, "1", 1)) == (3.0, 2.5, None)


def test_the_oldest_runs_are_forgotten(states: MethodStates) -> None:
    for run in range(KEPT_RUNS + 2):
        save(states, f"r{run}", 1, 0, run)
    assert sum(value(states, f"r{run}", 1) is not None for run in range(KEPT_RUNS + 2)) == KEPT_RUNS
    assert value(states, f"r{KEPT_RUNS + 1}", 1) is not None


def test_a_damaged_file_begins_anew_and_says_so(
    states: MethodStates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(states, "1", 1, 0, 1.0)
    (tmp_path / "methods/run-1/1.npz").write_bytes(b"PK\x03\x04 not really")
    with caplog.at_level(logging.WARNING):
        assert value(states, "1", 1) is None
    assert "begins anew" in caplog.text


def test_pickles_are_not_read(states: MethodStates, tmp_path: Path) -> None:
    save(states, "1", 1, 0, 1.0)
    np.savez(tmp_path / "methods/run-1/1.npz", w=np.array([{}], object))
    assert states.load("1", 1) == {}


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "x" * 65, "a\0"])
def test_a_run_whose_name_leads_elsewhere_is_refused(states: MethodStates, name: str) -> None:
    with pytest.raises(TaskRefused):
        save(states, name, 1, 0, 1.0)
    with pytest.raises(TaskRefused):
        states.load(name, 1)
