"""What rules share that must have seen all updates before they can say anything: a spool, and the clients in the order of their ids."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aggregator.core import kernels
from aggregator.core.accumulator import WeightedMean
from aggregator.core.exact_sum import LARGEST, magnitude
from aggregator.core.layout import FloatLayout
from aggregator.core.strategies.base import RoundContext, Update, UpdateRejected
from protos.tensors import Parameters

THREADS = min(4, os.cpu_count() or 1)
COLUMNS = 32_768
"""Coordinates worked on at a time: a block of 50 rows is 6.5 MB of float32."""
GRAM_COLUMNS = 8_192
"""A block of 50 centred rows is 1.6 MB, which the product still finds in the cache."""


class SpooledAggregator(ABC):
    """Keeps each update as a row of the spool, outside memory. Integer and bool tensors are averaged by examples.

    The rows are handed to `combine` in the order of the clients' ids, so that the order of arrival can't change the
    result.
    """

    def __init__(self, context: RoundContext) -> None:
        self._context = context
        self._layout = FloatLayout.of(context.signature)
        self._spool = context.spool(self._layout.length, self._layout.dtype, context.cohort_size)
        self._others = WeightedMean(self._layout.others)
        self._clients: list[tuple[str, int]] = []

    @abstractmethod
    def combine(self, rows: Rows) -> NDArray[Any]:
        """The aggregate of the floating tensors, as a vector of the layout."""

    def add(self, update: Update) -> None:
        """Refuses what a mean would, too: squares of larger numbers, and their sums, aren't float64."""
        vector = self._layout.flatten(update.parameters)
        if magnitude(vector) > LARGEST:
            raise UpdateRejected("The update holds values too large for a model: beyond 2^63.")
        self._others.add({t.name: update.parameters[t.name] for t in self._layout.others.tensors}, update.num_examples)
        self._spool.append(vector)
        self._clients.append((update.client_id, update.num_examples))

    def result(self) -> Parameters:
        order = sorted(range(len(self._clients)), key=lambda k: self._clients[k][0])
        num_examples = np.array([self._clients[k][1] for k in order], np.int64)
        vector = self.combine(Rows(self._spool.rows, order, num_examples))
        merged = self._layout.unflatten(vector) | self._others.result()
        return {t.name: merged[t.name] for t in self._context.signature.tensors}

    def close(self) -> None:
        self._spool.close()

    def current(self) -> NDArray[Any]:
        """The global model that the cohort was given, as a vector."""
        return self._layout.flatten(self._context.current)


class Rows:
    """All updates of a round: K rows of D coordinates, read in blocks of columns."""

    def __init__(
        self,
        spooled: NDArray[Any],
        order: list[int],
        num_examples: NDArray[np.int64],
        *,
        compiled: bool | None = None,
    ) -> None:
        """`compiled`: whether to use numba if it is installed; None leaves it to the size. The result is the same."""
        self._spooled = spooled
        self._order = order
        self.num_examples = num_examples
        self.kernels = kernels.load_columns(
            compiled=self.length >= kernels.WORTH_COMPILING if compiled is None else compiled
        )

    @property
    def count(self) -> int:
        return len(self._order)

    @property
    def length(self) -> int:
        return int(self._spooled.shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._spooled.dtype

    def blocks(self) -> list[slice]:
        return [slice(start, min(start + COLUMNS, self.length)) for start in range(0, self.length, COLUMNS)]

    def block(self, columns: slice) -> NDArray[Any]:
        """A copy, shape (K, width), that may be changed."""
        copy: NDArray[Any] = self._spooled[self._order, columns]
        return copy

    def sorted(
        self, columns: slice, wanted: tuple[int, ...] | None = None, among: list[int] | None = None
    ) -> NDArray[Any]:
        """The rows `wanted` (None: all) of what `np.sort(block, axis=0)` is, of all clients or those of `among`.

        Shape (len(wanted), width).
        """
        order = (
            np.array(self._order, np.int64) if among is None else np.array([self._order[k] for k in among], np.int64)
        )
        wanted = tuple(range(len(order))) if wanted is None else wanted
        result = np.empty((len(wanted), columns.stop - columns.start), self.dtype)
        self.kernels.sort(self._spooled, order, columns.start, wanted, result)
        return result

    def by_block(self, work: Callable[[slice], NDArray[Any]]) -> NDArray[Any]:
        """The vector whose every block of columns is what `work` makes of those columns.

        Blocks are worked on in a few threads: the kernels let go of the interpreter while they compute, and no block
        knows of another.
        """
        result = np.empty(self.length, self.dtype)

        def fill(columns: slice) -> None:
            result[columns] = work(columns)

        with ThreadPoolExecutor(THREADS) as pool:
            for _ in pool.map(fill, self.blocks()):
                pass  # raises what `work` raised
        return result

    def row(self, index: int) -> NDArray[Any]:
        """A view."""
        view: NDArray[Any] = self._spooled[self._order[index]]
        return view

    def gram(self, origin: NDArray[Any]) -> NDArray[np.float64]:
        """Shape (K, K): the inner products of the rows less `origin`.

        The origin is the global model, which is near every honest update: so the numbers are small, and no update of
        an attacker, however far away, costs the others their digits.
        """
        gram = self._gram(origin, self.dtype)
        return gram if np.isfinite(gram).all() else self._gram(origin, np.dtype("f8"))

    def _gram(self, origin: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[np.float64]:
        gram = np.zeros((self.count, self.count))
        with np.errstate(over="ignore", invalid="ignore"):  # seen by the caller, and done again in float64
            steps = np.empty((self.count, min(GRAM_COLUMNS, self.length)), dtype)
            for start in range(0, self.length, GRAM_COLUMNS):
                columns = slice(start, min(start + GRAM_COLUMNS, self.length))
                block = steps[:, : columns.stop - start]
                for k, step in enumerate(block):
                    np.subtract(self.row(k)[columns], origin[columns], out=step, dtype=dtype)
                gram += block @ block.T
        return gram

    def combination(self, weights: NDArray[np.float64], origin: NDArray[Any]) -> NDArray[Any]:
        """origin + Σ_k weights[k] (row k − origin), in float64, rounded to the rows' dtype at the end. Rows of weight 0 are not read."""
        result = np.empty(self.length, self.dtype)
        used = [k for k in range(self.count) if weights[k]]
        for columns in self.blocks():
            base = origin[columns].astype(np.float64)
            total = base.copy()
            for k in used:
                total += (self.row(k)[columns] - base) * weights[k]
            result[columns] = total
        return result


def squared_distances(gram: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of every two rows, from their inner products. Never negative; 0 on the diagonal."""
    squares = np.diag(gram)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2 * gram, 0.0)
    np.fill_diagonal(distances, 0.0)
    return distances
