"""How the learning rate changes from round to round: a factor on the one that the strategy names."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from aggregator.core.strategies.base import Part


class Constant(Part):
    """The same in every round."""

    title: ClassVar[str] = "Constant"
    depends_on_num_rounds: ClassVar[bool] = False
    name: Literal["constant"] = "constant"

    def factor_at(self, round_number: int, num_rounds: int) -> float:
        return 1.0


class Step(Part):
    """Multiplied by a factor after every so many rounds."""

    title: ClassVar[str] = "Step"
    depends_on_num_rounds: ClassVar[bool] = False
    name: Literal["step"] = "step"
    factor: Annotated[float, Field(gt=0, le=1, title="Factor of a step")] = 0.5
    every: Annotated[int, Field(ge=1, le=100_000, title="Rounds between steps")] = 10

    def factor_at(self, round_number: int, num_rounds: int) -> float:
        return float(self.factor ** ((round_number - 1) // self.every))


class Cosine(Part):
    """Falls to a fraction along half a cosine (Loshchilov and Hutter 2017, without restarts)."""

    title: ClassVar[str] = "Cosine"
    depends_on_num_rounds: ClassVar[bool] = True
    name: Literal["cosine"] = "cosine"
    end: Annotated[float, Field(ge=0, le=1, title="Fraction left in the last round")] = 0.0

    def factor_at(self, round_number: int, num_rounds: int) -> float:
        progress = (round_number - 1) / max(1, num_rounds - 1)
        return self.end + (1 - self.end) * (1 + math.cos(math.pi * progress)) / 2


Schedule = Annotated[Constant | Step | Cosine, Field(discriminator="name")]
