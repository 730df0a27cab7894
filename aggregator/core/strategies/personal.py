"""What methods share whose clients keep some tensors to themselves."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import Field

from aggregator.core.strategies.base import MethodConfig
from protos.tensors import Signature

Patterns = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=255)], ...],
    Field(
        min_length=1,
        max_length=100,
        title="Tensors that stay at the clients",
        description="Names, with * for any characters.",
    ),
]


class KeepsTensors(MethodConfig):
    """Subclasses have a field `tensors` of patterns; what they name is neither sent nor aggregated."""

    tensors: Patterns

    def local_tensors(self, signature: Signature) -> frozenset[str]:
        """Raises `ValueError` if nothing would stay, or nothing be left to train together."""
        local = _matching((t.name for t in signature.tensors), self.tensors)
        named = ", ".join(self.tensors)
        if not local:
            names = ", ".join(t.name for t in signature.tensors[:8])
            raise ValueError(f"No tensor of the app is named like {named}. Its tensors are {names}.")
        if len(local) == len(signature.tensors):
            raise ValueError(
                f"All tensors of the app are named like {named}: there would be nothing to train together."
            )
        return local

    def explain(self) -> str:
        named = ", ".join(self.tensors)
        kept = "In the global model they stay what they were at the beginning, so let the clients evaluate it."
        return f"Tensors named like {named} never leave the clients. {kept}"


def _matching(names: Iterable[str], patterns: Iterable[str]) -> frozenset[str]:
    wanted = tuple(patterns)
    return frozenset(name for name in names if any(fnmatchcase(name, pattern) for pattern in wanted))
