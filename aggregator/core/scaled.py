"""Weighted means of steps that are scaled client by client: what q-FedAvg and FedNova are made of."""

from __future__ import annotations

import math

import numpy as np

from aggregator.core.accumulator import WeightedMean
from aggregator.core.strategies.base import RoundContext, Update
from protos.tensors import Parameters, Signature, TensorSpec


class ScaledMean:
    """The mean of scale_k (w_k − w), weighted, of the floating tensors; the others are averaged by examples. Exact as `WeightedMean` is."""

    def __init__(self, context: RoundContext) -> None:
        self._context = context
        tensors = context.signature.tensors
        self._floats = [t for t in tensors if t.dtype.startswith("float")]
        self._steps = WeightedMean(Signature(tuple(TensorSpec(t.name, "float64", t.shape) for t in self._floats)))
        self._others = WeightedMean(Signature(tuple(t for t in tensors if not t.dtype.startswith("float"))))
        self._other_names = [t.name for t in tensors if not t.dtype.startswith("float")]

    def add(self, update: Update, *, scale: float, weight: int) -> float:
        """‖w_k − w‖², unscaled. Raises `UpdateRejected`, and is then unchanged."""
        steps = {
            t.name: update.parameters[t.name].astype(np.float64) - self._context.current[t.name] for t in self._floats
        }
        squared = math.fsum(float(np.vdot(step, step)) for step in steps.values())
        for name in steps:
            steps[name] *= scale
        others = {name: update.parameters[name] for name in self._other_names}
        self._others.check(others, update.num_examples)
        self._steps.add(steps, weight)
        self._others.add(others, update.num_examples)
        return squared

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
