"""A strategy at work: its parts put together for one run, and guarded.

Parts may be anybody's code. What they raise or return is checked here, so that a bad one fails the round with a
reason, and never harms the last committed model.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

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
    Part,
    RoundContext,
    Update,
    UpdateRejected,
)
from protos.convert import Scalars, scalars_to_proto
from protos.encodings import encoded_size
from protos.tensors import Array, CodecError, Parameters, Signature, first_non_finite

logger = logging.getLogger(__name__)

METHOD_STATE = "~method/"
"""What the names of the method's state begin with, beside the optimiser's."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes on the wire, of one client in one round. With a tensor of open length, the most they may be."""

    to_train: int
    update: int
    to_evaluate: int


def sizes(config: StrategyConfig, signature: Signature) -> Sizes:
    """Raises `ValueError` if the method can't be used on such a model, or one would be over the limits with what travels beside it."""
    local = config.method.local_tensors(signature)
    shared = Signature(tuple(t for t in signature.tensors if t.name not in local))
    method = config.method.build(shared)
    sent = Signature((*shared.tensors, *Signature.of(method.auxiliary()).tensors))
    returned = Signature((*shared.tensors, *method.returned().tensors))
    update = returned.size if returned.is_open else encoded_size(returned, config.update.encoding)
    return Sizes(sent.size, update, shared.size)


def refusal(config: StrategyConfig, signature: Signature) -> str:
    """Why models of this signature, which is an app's, can't be trained with the strategy; empty if they can. For the operator."""
    try:
        sizes(config, signature)
    except ValueError as error:
        return str(error)
    except Exception as error:
        return _no_answer(config.method, error)
    try:
        return config.aggregation.refusal(signature)
    except Exception as error:
        return _no_answer(config.aggregation, error)


def _no_answer(part: Part, error: Exception) -> str:
    logger.error("%s can't say whether it goes with an app", part.title, exc_info=error)
    return f"{part.title} can't say whether it goes with the app: {type(error).__name__}: {error}"


def carried(state: Parameters, signature: Signature, before: StrategyConfig, after: StrategyConfig) -> Parameters:
    """Of what strategy `before` stored with a model, that from which `after` goes on: the state of the parts that are the same."""
    if before.method.local_tensors(signature) != after.method.local_tensors(signature):
        return {}  # they work on other tensors
    same_method = part_name(type(before.method)) == part_name(type(after.method))
    same_optimizer = part_name(type(before.optimizer)) == part_name(type(after.optimizer))
    return {n: a for n, a in state.items() if (same_method if n.startswith(METHOD_STATE) else same_optimizer)}


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
        self._server = ServerHalves(config, self.shared)

    @property
    def uploaded(self) -> Signature:
        """What an update holds: the shared tensors, then what the method's other half adds."""
        return Signature((*self.shared.tensors, *self._server.method.returned().tensors))

    def fit_config(self, round_number: int, num_rounds: int, updates_wanted: int) -> Scalars:
        """What the clients of the round are told about their training. Raises `AggregationFailed`."""
        told = self._config.local.as_scalars(round_number, num_rounds)
        with _guarded(self._config.aggregation.title, "fit_config"):
            told |= self._config.aggregation.fit_config(updates_wanted)
            scalars_to_proto(told)
        if (method := part_name(type(self._config.method))) != "none":
            told |= {"method": method, **self._config.method.settings()}
        return told

    def shared_of(self, model: Parameters) -> Parameters:
        """What of a global model the clients are sent to evaluate."""
        return {t.name: model[t.name] for t in self.shared.tensors}

    def sent_to_train(self, model: Parameters) -> Parameters:
        """What the clients are sent to train. Raises `AggregationFailed`."""
        with _guarded(self._config.method.title, "auxiliary"):
            return self.shared_of(model) | self._server.method.auxiliary()

    def begin(self, context: RoundContext) -> RoundAggregation:
        """`context` is about the shared tensors. Raises `AggregationFailed`."""
        with _guarded(self._config.aggregation.title, "begin"):
            aggregator = self._config.aggregation.begin(context)
        return RoundAggregation(self._config, context, aggregator, self._server)

    def state(self) -> Parameters:
        """What must be stored with the last round's model to go on from it. Raises `AggregationFailed`."""
        return self._server.state()

    def load(self, state: Parameters) -> None:
        """Go on from where `state` was returned; an empty one is the beginning. What a failed round did, or still does, is forgotten."""
        self._server = ServerHalves(self._config, self.shared)
        self._server.load(state)


class ServerHalves:
    """The server's half of the method, and the optimizer. A round keeps those it began with: work that goes on after its time
    is up can't reach what was loaded since.
    """

    def __init__(self, config: StrategyConfig, shared: Signature) -> None:
        self._config, self._shared = config, shared
        self.optimizer = config.optimizer.build(shared)
        self.method = config.method.build(shared)

    def step(self, current: Parameters, aggregate: Parameters, contributions: Contributions) -> Parameters:
        """The shared tensors after the round. Raises `AggregationFailed`."""
        with _guarded(self._config.method.title, "correct"):
            corrected = self.method.correct(current, aggregate, contributions)
        checked = _checked(corrected, self._shared, self._config.method.title)
        with _guarded(self._config.optimizer.title, "step"):
            model = self.optimizer.step(current, checked)
        return _checked(model, self._shared, self._config.optimizer.title)

    def state(self) -> Parameters:
        with _guarded(self._config.optimizer.title, "state"):
            optimizer = self.optimizer.state()
        with _guarded(self._config.method.title, "state"):
            return optimizer | {METHOD_STATE + name: array for name, array in self.method.state().items()}

    def load(self, state: Parameters) -> None:
        method = {n.removeprefix(METHOD_STATE): a for n, a in state.items() if n.startswith(METHOD_STATE)}
        optimizer = {n: a for n, a in state.items() if not n.startswith(METHOD_STATE)}
        if method:
            self.method.load(method)
        if optimizer:
            self.optimizer.load(optimizer)


class RoundAggregation:
    """One round's updates on their way into one aggregate, and what each looked like."""

    def __init__(
        self, config: StrategyConfig, context: RoundContext, aggregator: Aggregator, server: ServerHalves
    ) -> None:
        self._clip_norm = config.update.clip_norm
        self._counts_alike = config.method.counts_alike
        self._title = config.aggregation.title
        self._context = context
        self._aggregator = aggregator
        self._server = server
        self._returned = server.method.returned()
        self._auxiliary = WeightedMean(self._returned)
        self._sketcher = Sketcher(context.signature, (context.seed, context.round_number))
        self._statistics: dict[str, UpdateStatistics] = {}

    def add(self, update: Update) -> UpdateStatistics:
        """What the update looked like before it is clipped: as the client sent it, or in a buffered run as it was moved to this model.

        Raises `UpdateRejected` for this update's own fault, and `AggregationFailed` for the rule's; then nothing is kept of it.
        """
        auxiliary, update = self._taken_apart(update)
        self._auxiliary.add(auxiliary, 1)
        try:
            with _guarded(self._title, "add"):
                statistics = self._take_in(update)
        except UpdateRejected:
            self._auxiliary.subtract(auxiliary, 1)
            raise
        self._statistics[update.client_id] = statistics
        return statistics

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
        with _guarded(self._title, "result"):
            aggregate = self._aggregator.result()
        return _checked(aggregate, self._context.signature, self._title)

    def next_model(self, current: Parameters, aggregate: Parameters) -> Parameters:
        """The global model after the round, of the one before it and what `result` has returned. May be called once.

        Raises `AggregationFailed`: then `Strategy.load` the last state before going on.
        """
        mean = self._auxiliary.result() if self._returned.tensors else {}
        population = self._context.population or self._context.cohort_size
        shared = {t.name: current[t.name] for t in self._context.signature.tensors}
        return current | self._server.step(shared, aggregate, Contributions(len(self._statistics), population, mean))

    def compare(self, aggregate: Parameters) -> RoundStatistics:
        """The updates beside one another, and beside the aggregate that `result` has returned."""
        step = self._sketcher.measure(aggregate, self._context.current)
        return RoundStatistics.of(self._statistics, step.sketch)

    def close(self) -> None:
        self._aggregator.close()


@contextmanager
def _guarded(title: str, method: str) -> Iterator[None]:
    """Whatever a part raises but `UpdateRejected` becomes `AggregationFailed`."""
    try:
        yield
    except UpdateRejected:
        raise
    except Exception as error:
        raise AggregationFailed(f"{title} failed in {method}: {type(error).__name__}: {error}") from error


def _checked(model: object, signature: Signature, title: str) -> Parameters:
    if not isinstance(model, dict) or not all(isinstance(array, np.ndarray) for array in model.values()):
        raise AggregationFailed(f"{title} returned no model: a dict of NumPy arrays is expected.")
    try:
        misfit = signature.misfit(Signature.of(model))
    except CodecError as error:
        misfit = str(error)
    if misfit:
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
