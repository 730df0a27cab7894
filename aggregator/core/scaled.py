"""Weighted means of steps that are scaled client by client: what q-FedAvg and FedNova are made of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from aggregator.core.accumulator import WeightedMean
from aggregator.core.strategies.base import RoundContext, Update, UpdateRejected
from protos.tensors import Array, Parameters, Signature, TensorSpec

Steps = dict[str, NDArray[np.float64]]


def measured_steps(update: Update, current: Mapping[str, Array], floats: Iterable[str]) -> tuple[Steps, float]:
    """w_k − w of the floating tensors, and its ‖·‖² over all of them. Raises `UpdateRejected` if that is no float64."""
    with np.errstate(over="ignore", invalid="ignore"):
        steps = {name: np.asarray(update.parameters[name].astype(np.float64) - current[name]) for name in floats}
        squares = [float(np.vdot(step, step)) for step in steps.values()]
    try:
        squared = math.fsum(squares)
    except OverflowError:
        squared = math.inf
    if not math.isfinite(squared):
        raise UpdateRejected("The update is so far from the global model that its distance is too large for a number.")
    return steps, squared


class ScaledMean:
    """The mean of scale_k (w_k − w), weighted, of the floating tensors; the others are averaged by examples. Exact as `WeightedMean` is."""

    def __init__(self, context: RoundContext) -> None:
        self._context = context
        tensors = context.signature.tensors
        self._floats = [t for t in tensors if t.dtype.startswith("float")]
        self._steps = WeightedMean(Signature(tuple(TensorSpec(t.name, "float64", t.shape) for t in self._floats)))
        self._others = WeightedMean(Signature(tuple(t for t in tensors if not t.dtype.startswith("float"))))
        self._other_names = [t.name for t in tensors if not t.dtype.startswith("float")]

    def measured(self, update: Update) -> tuple[Steps, float]:
        """As `measured_steps`, of the tensors that are scaled."""
        return measured_steps(update, self._context.current, [t.name for t in self._floats])

    def add(self, update: Update, steps: Steps, *, scale: float, weight: int) -> None:
        """`steps` are those of the update, and are scaled in place. Raises `UpdateRejected`, and is then unchanged."""
        with np.errstate(over="ignore"):  # the mean refuses what is infinite
            for step in steps.values():
                np.multiply(step, scale, out=step)
        others = {name: update.parameters[name] for name in self._other_names}
        self._others.check(others, update.num_examples)
        self._steps.add(steps, weight)
        self._others.add(others, update.num_examples)

    def result(self, factor: float) -> Parameters:
        """w + factor · mean, in the dtypes of the model."""
        mean, others = self._steps.result(), self._others.result()
        model: Parameters = {}
        for spec in self._context.signature.tensors:
            if spec.name in others:
                model[spec.name] = others[spec.name]
            else:
                model[spec.name] = np.asarray(self._context.current[spec.name] + factor * mean[spec.name]).astype(
                    spec.dtype
                )
        return model
