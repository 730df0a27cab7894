"""A strategy at work: its parts put together for one run, and guarded.

Parts may be anybody's code. What they raise or return is checked here, so that a bad one fails the round with a
reason, and never harms the last committed model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from aggregator.core.accumulator import WeightedMean
from aggregator.core.config import StrategyConfig
from aggregator.core.registry import part_name
from aggregator.core.scaled import measured_steps
from aggregator.core.statistics import RoundStatistics, Sketcher, UpdateStatistics
from aggregator.core.strategies.base import (
    Aggregator,
    Contributions,
    ObservedAggregator,
    RoundContext,
    Update,
    UpdateRejected,
)
from protos.convert import Scalars
from protos.tensors import Array, Parameters, Signature, first_non_finite

METHOD_STATE = "~method/"
"""What the names of the method's state begin with, beside the optimiser's."""


class AggregationFailed(Exception):
    """A part of the strategy raised, or returned what can't be a model. The text is for the operator."""


class Strategy:
    """The parts of one run. Keeps between rounds what the server's half of the method and the server optimiser keep."""

    def __init__(self, config: StrategyConfig, signature: Signature) -> None:
        """Raises `ValueError` if the method can't be used on such a model."""
        self._config = config
        self._local = config.method.local_tensors(signature)
        self.local_tensors = tuple(t.name for t in signature.tensors if t.name in self._local)
        """Those that stay at the clients."""
        self.shared = Signature(tuple(t for t in signature.tensors if t.name not in self._local))
        """The tensors that travel and are aggregated."""
        self._optimizer = config.optimizer.build(self.shared)
        self._method = config.method.build(self.shared)

    @property
    def uploaded(self) -> Signature:
        """What an update holds: the shared tensors, then what the method's other half adds."""
        return Signature((*self.shared.tensors, *self._method.returned().tensors))

    def fit_config(self, round_number: int, num_rounds: int, updates_wanted: int) -> Scalars:
        """What the clients of the round are told about their training."""
        told = {
            **self._config.local.as_scalars(round_number, num_rounds),
            **self._config.aggregation.fit_config(updates_wanted),
        }
        if (method := part_name(type(self._config.method))) != "none":
            told |= {"method": method, **self._config.method.settings()}
        return told

    def shared_of(self, model: Parameters) -> Parameters:
        """What of a global model the clients are sent to evaluate."""
        return {t.name: model[t.name] for t in self.shared.tensors}

    def sent_to_train(self, model: Parameters) -> Parameters:
        """What the clients are sent to train."""
        return self.shared_of(model) | self._method.auxiliary()

    def begin(self, context: RoundContext) -> RoundAggregation:
        """`context` is about the shared tensors. Raises `AggregationFailed`."""
        try:
            aggregator = self._config.aggregation.begin(context)
        except Exception as error:
            raise _failure(self._config.aggregation.title, "begin", error) from error
        return RoundAggregation(self._config, context, aggregator, self._method.returned())

    def next_model(self, current: Parameters, aggregate: Parameters, contributions: Contributions) -> Parameters:
        """The global model after the round. Raises `AggregationFailed`: then `load` the last state before going on."""
        shared = self.shared_of(current)
        aggregate = self._corrected(shared, aggregate, contributions)
        title = self._config.optimizer.title
        try:
            model = self._optimizer.step(shared, aggregate)
        except Exception as error:
            raise _failure(title, "step", error) from error
        return current | _checked(model, self.shared, title)

    def _corrected(self, shared: Parameters, aggregate: Parameters, contributions: Contributions) -> Parameters:
        title = self._config.method.title
        try:
            corrected = self._method.correct(shared, aggregate, contributions)
        except Exception as error:
            raise _failure(title, "correct", error) from error
        return _checked(corrected, self.shared, title)

    def state(self) -> Parameters:
        """What must be stored with the last round's model to go on from it."""
        method = {METHOD_STATE + name: array for name, array in self._method.state().items()}
        return self._optimizer.state() | method

    def load(self, state: Parameters) -> None:
        """Go on from where `state` was returned; an empty one is the beginning. What a failed round did is forgotten."""
        self._optimizer = self._config.optimizer.build(self.shared)
        self._method = self._config.method.build(self.shared)
        method = {n.removeprefix(METHOD_STATE): a for n, a in state.items() if n.startswith(METHOD_STATE)}
        optimizer = {n: a for n, a in state.items() if not n.startswith(METHOD_STATE)}
        if method:
            self._method.load(method)
        if optimizer:
            self._optimizer.load(optimizer)


class RoundAggregation:
    """One round's updates on their way into one aggregate, and what each looked like."""

    def __init__(
        self, config: StrategyConfig, context: RoundContext, aggregator: Aggregator, returned: Signature
    ) -> None:
        self._clip_norm = config.update.clip_norm
        self._counts_alike = config.method.counts_alike
        self._title = config.aggregation.title
        self._context = context
        self._aggregator = aggregator
        self._returned = returned
        self._auxiliary = WeightedMean(returned)
        self._sketcher = Sketcher(context.signature, (context.seed, context.round_number))
        self._statistics: dict[str, UpdateStatistics] = {}

    def add(self, update: Update) -> UpdateStatistics:
        """What the update looked like before it is clipped: as the client sent it, or in a buffered run as it was moved to this model.

        Raises `UpdateRejected` for this update's own fault, and `AggregationFailed` for the rule's; then nothing is kept of it.
        """
        auxiliary, update = self._taken_apart(update)
        self._auxiliary.add(auxiliary, 1)
        try:
            statistics = self._take_in(update)
        except UpdateRejected:
            self._auxiliary.subtract(auxiliary, 1)
            raise
        except Exception as error:
            raise _failure(self._title, "add", error) from error
        self._statistics[update.client_id] = statistics
        return statistics

    def contributions(self) -> Contributions:
        """What came beside the models. May be called once."""
        mean = self._auxiliary.result() if self._returned.tensors else {}
        return Contributions(len(self._statistics), self._context.population or self._context.cohort_size, mean)

    def _taken_apart(self, update: Update) -> tuple[Parameters, Update]:
        """What came beside the model's tensors, and the update without it, with the weight that it has."""
        if self._counts_alike:
            update = replace(update, num_examples=1)
        auxiliary = {t.name: update.parameters[t.name] for t in self._returned.tensors}
        if not auxiliary:
            return {}, update
        model = {name: array for name, array in update.parameters.items() if name not in auxiliary}
        return auxiliary, replace(update, parameters=model)

    def _take_in(self, update: Update) -> UpdateStatistics:
        current = self._context.current
        if self._clip_norm is None and isinstance(self._aggregator, ObservedAggregator):
            observation = self._sketcher.observe(current)
            self._aggregator.add_observed(update, observation)
            return observation.statistics()
        statistics = self._sketcher.measure(update.parameters, current)
        self._aggregator.add(update if self._clip_norm is None else _clipped(update, current, self._clip_norm))
        return statistics

    def result(self) -> Parameters:
        """Raises `AggregationFailed`."""
        try:
            aggregate = self._aggregator.result()
        except Exception as error:
            raise _failure(self._title, "result", error) from error
        return _checked(aggregate, self._context.signature, self._title)

    def compare(self, aggregate: Parameters) -> RoundStatistics:
        """The updates beside one another, and beside the aggregate that `result` has returned."""
        step = self._sketcher.measure(aggregate, self._context.current)
        return RoundStatistics.of(self._statistics, step.sketch)

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
    """The update drawn in to at most `norm` (L2, over all floating tensors) from the global model. Raises `UpdateRejected`."""
    floats = [name for name, array in update.parameters.items() if array.dtype.kind == "f"]
    steps, squared = measured_steps(update, current, floats)
    length = math.sqrt(squared)
    if length <= norm:
        return update
    drawn_in = {
        name: (current[name] + step * (norm / length)).astype(update.parameters[name].dtype)
        for name, step in steps.items()
    }
    return Update(update.client_id, {**update.parameters, **drawn_in}, update.num_examples, update.metrics)
