"""FedRep: Collins, Hassani, Mokhtari and Shakkottai, "Exploiting shared representations for personalized federated learning".

ICML 2021, algorithm 1.

The body (representation) is averaged; the head stays at each client. In a round the client first trains its head for
some epochs with the body held fixed, then the body with the head held fixed, for the epochs of the strategy. Default: 5
epochs of the head.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from aggregator.core.strategies.personal import KeepsTensors, Patterns
from protos.convert import ScalarValue


class FedRep(KeepsTensors):
    """Each client keeps its own last layers, and trains them before the rest."""

    title: ClassVar[str] = "FedRep: personal heads, trained first"
    name: Literal["fedrep"] = "fedrep"
    tensors: Patterns = ("*head*", "*classifier*", "*output*")
    head_epochs: Annotated[int, Field(ge=1, le=1_000, title="Epochs of the head")] = 5

    def settings(self) -> dict[str, ScalarValue]:
        return {"head_epochs": self.head_epochs}
