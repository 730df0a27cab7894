"""From a round's updates to its next model: the strategy's work in threads, for as long as it may take."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from aggregator.context import RunContext
from aggregator.core.statistics import RoundStatistics, UpdateStatistics
from aggregator.core.strategies.base import RoundContext, Update
from aggregator.core.strategy import AggregationFailed, RoundAggregation
from aggregator.models import NO_MODEL, GlobalModel
from aggregator.spool import FileSpool
from protos.tensors import Parameters

T = TypeVar("T")


class RoundModel:
    """`begin`, `add` the updates, `finish`, `close`. The first three raise `AggregationFailed`."""

    def __init__(self, context: RunContext, number: int, current: GlobalModel, most: int, population: int) -> None:
        """`most` updates can come, of `population` clients that could have been asked."""
        self._context = context
        self._number, self._current = number, current
        self._most, self._population = most, population
        self._aggregation: RoundAggregation | None = None

    async def begin(self) -> None:
        strategy = self._context.strategy
        context = RoundContext(
            round_number=self._number,
            seed=self._context.spec.seed,
            signature=strategy.shared,
            current=strategy.shared_of(self._current.parameters),
            cohort_size=self._most,
            spool=FileSpool,
            population=self._population,
        )
        self._aggregation = await self._limited(lambda: strategy.begin(context))

    async def add(self, make_update: Callable[[], Update]) -> UpdateStatistics:
        """Raises `UpdateRejected` besides. The update is made in the thread: that may take its time too."""
        aggregation = self._aggregation
        if aggregation is None:
            raise AggregationFailed("The aggregation has not begun.")
        return await self._limited(lambda: aggregation.add(make_update()))

    async def finish(self) -> tuple[GlobalModel, RoundStatistics, Parameters]:
        """With what of the round's figures and the strategy's state is stored beside the model."""
        return await self._limited(self._make)

    def close(self) -> None:
        """What is as large as the model goes now, whoever still knows the round."""
        if self._aggregation:
            self._aggregation.close()
        self._aggregation, self._current = None, NO_MODEL

    def _make(self) -> tuple[GlobalModel, RoundStatistics, Parameters]:
        aggregation, current = self._aggregation, self._current
        assert aggregation is not None  # updates have been added to it
        strategy, aggregate = self._context.strategy, aggregation.result()
        statistics = aggregation.compare(aggregate)
        parameters = aggregation.next_model(current.parameters, aggregate)
        packing = self._context.spec.strategy.update.packing
        return GlobalModel.of(parameters, strategy.shared_of(parameters), packing), statistics, strategy.state()

    async def _limited(self, work: Callable[[], T]) -> T:
        seconds = self._context.spec.strategy.faults.aggregation_seconds
        try:
            return await asyncio.wait_for(asyncio.to_thread(work), seconds)
        except TimeoutError:
            raise AggregationFailed(f"The aggregation took longer than its limit of {seconds:g} s.") from None
