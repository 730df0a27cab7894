"""A strategy at work: its parts put together for one run, and guarded.

Parts may be anybody's code. What they raise or return is checked here, so that a bad one fails the round with a
reason, and never harms the last committed model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from aggregator.core.config import StrategyConfig
from aggregator.core.strategies.base import Aggregator, RoundContext, Update, UpdateRejected
from protos.convert import Scalars
from protos.tensors import Array, Parameters, Signature, first_non_finite


class AggregationFailed(Exception):
    """A part of the strategy raised, or returned what can't be a model. The text is for the operator."""


class Strategy:
    """The parts of one run. Keeps the server optimiser's state between rounds."""

    def __init__(self, config: StrategyConfig, signature: Signature) -> None:
        self._config = config
        self._signature = signature
        self._optimizer = config.optimizer.build(signature)

    def fit_config(self, round_number: int, num_rounds: int, updates_wanted: int) -> Scalars:
        """What the clients of the round are told about their training."""
        local = self._config.local.as_scalars(round_number, num_rounds)
        return {**local, **self._config.aggregation.fit_config(updates_wanted)}

    def begin(self, context: RoundContext) -> RoundAggregation:
        """Raises `AggregationFailed`."""
        try:
            return RoundAggregation(self._config, context, self._config.aggregation.begin(context))
        except Exception as error:
            raise _failure(self._config.aggregation.title, "begin", error) from error

    def next_model(self, current: Parameters, aggregate: Parameters) -> Parameters:
        """The global model after the round. Raises `AggregationFailed`: then `load` the last state before going on."""
        try:
            model = self._optimizer.step(current, aggregate)
        except Exception as error:
            raise _failure(self._config.optimizer.title, "step", error) from error
        return _checked(model, self._signature, self._config.optimizer.title)

    def state(self) -> Parameters:
        """The server optimiser's state after the last round, to be stored with the round's model."""
        return self._optimizer.state()

    def load(self, state: Parameters) -> None:
        """Go on from where `state` was returned; an empty one is the beginning. What a failed round did is forgotten."""
        self._optimizer = self._config.optimizer.build(self._signature)
        if state:
            self._optimizer.load(state)


class RoundAggregation:
    """One round's updates on their way into one aggregate."""

    def __init__(self, config: StrategyConfig, context: RoundContext, aggregator: Aggregator) -> None:
        self._clip_norm = config.update.clip_norm
        self._title = config.aggregation.title
        self._context = context
        self._aggregator = aggregator

    def add(self, update: Update) -> None:
        """Raises `UpdateRejected` for this update's own fault, and `AggregationFailed` for the rule's."""
        if self._clip_norm is not None:
            update = _clipped(update, self._context.current, self._clip_norm)
        try:
            self._aggregator.add(update)
        except UpdateRejected:
            raise
        except Exception as error:
            raise _failure(self._title, "add", error) from error

    def result(self) -> Parameters:
        """Raises `AggregationFailed`."""
        try:
            aggregate = self._aggregator.result()
        except Exception as error:
            raise _failure(self._title, "result", error) from error
        return _checked(aggregate, self._context.signature, self._title)

    def close(self) -> None:
        self._aggregator.close()


def _failure(title: str, method: str, error: Exception) -> AggregationFailed:
    return AggregationFailed(f"{title} failed in {method}: {type(error).__name__}: {error}")


def _checked(model: object, signature: Signature, title: str) -> Parameters:
    if not isinstance(model, dict) or not all(isinstance(array, np.ndarray) for array in model.values()):
        raise AggregationFailed(f"{title} returned no model: a dict of NumPy arrays is expected.")
    if misfit := signature.misfit(Signature.of(model)):
        raise AggregationFailed(f"{title} returned another model than the run's: {misfit}.")
    if tensor := first_non_finite(model):
        raise AggregationFailed(f"{title} returned NaN or infinity in tensor {tensor!r}.")
    return model


def _clipped(update: Update, current: Mapping[str, Array], norm: float) -> Update:
    """The update drawn in to at most `norm` (L2, over all floating tensors) from the global model."""
    floats = [name for name, array in update.parameters.items() if array.dtype.kind == "f"]
    steps = {name: update.parameters[name].astype(np.float64) - current[name] for name in floats}
    length = math.sqrt(math.fsum(float(np.vdot(step, step)) for step in steps.values()))
    if length <= norm:
        return update
    drawn_in = {
        name: (current[name] + step * (norm / length)).astype(update.parameters[name].dtype)
        for name, step in steps.items()
    }
    return Update(update.client_id, {**update.parameters, **drawn_in}, update.num_examples, update.metrics)
