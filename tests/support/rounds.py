"""One round of a rule, on arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aggregator.core import registry
from aggregator.core.strategies.base import RoundContext, RuleConfig, Update
from protos.tensors import Parameters, Signature
from tests.support.spool import MemorySpool

Vectors = Sequence[NDArray[Any]] | NDArray[Any]


def rule(name: str, **settings: Any) -> RuleConfig:
    return registry.rules()[name].model_validate({"name": name, **settings})


def aggregate(
    config: RuleConfig,
    updates: Sequence[Mapping[str, NDArray[Any]]],
    *,
    num_examples: Sequence[int] | None = None,
    metrics: Sequence[Mapping[str, float]] | None = None,
    current: Parameters | None = None,
    order: Sequence[int] | None = None,
) -> Parameters:
    """The aggregate of `updates`, those of clients "00", "01", …, that arrive in `order`."""
    first = {name: np.asarray(array) for name, array in updates[0].items()}
    current = current or {name: np.zeros_like(array) for name, array in first.items()}
    context = RoundContext(1, 0, Signature.of(first), current, len(updates), MemorySpool)
    aggregator = config.begin(context)
    for k in order if order is not None else range(len(updates)):
        count = num_examples[k] if num_examples else 1
        aggregator.add(Update(f"{k:02d}", updates[k], count, metrics[k] if metrics else {}))
    result = aggregator.result()
    aggregator.close()
    return result


def aggregate_vectors(config: RuleConfig, vectors: Vectors, **options: Any) -> NDArray[Any]:
    """The same for models of one tensor."""
    return aggregate(config, [{"w": np.asarray(vector)} for vector in vectors], **options)["w"]
