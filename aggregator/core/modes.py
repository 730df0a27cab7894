"""Run modes: what a round waits for.

In a *synchronous* run a cohort trains from one model and the round waits for it (FedAvg). In a *buffered* run clients
train at their own pace and a round is one filling of a buffer: Nguyen et al., "Federated learning with buffered
asynchronous aggregation" (FedBuff, AISTATS 2022, algorithm 1).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from aggregator.core.strategies.base import Part


class Synchronous(Part):
    """A round asks a cohort, and waits for it until its deadline."""

    title: ClassVar[str] = "Synchronous: a round waits for its cohort"
    name: Literal["synchronous"] = "synchronous"


class Buffered(Part):
    """Clients train without waiting for one another; every K updates make the next model."""

    title: ClassVar[str] = "Asynchronous, with a buffer (FedBuff)"
    name: Literal["buffered"] = "buffered"
    buffer_size: Annotated[
        int,
        Field(
            ge=1,
            le=100_000,
            title="Updates in a buffer (K)",
            description="So many updates make the next model, each of another client.",
        ),
    ] = 10
    concurrency: Annotated[
        int | None,
        Field(
            ge=1, le=100_000, title="Most clients that train at once", description="Empty: all who are there, always."
        ),
    ] = None
    max_staleness: Annotated[
        int,
        Field(
            ge=0,
            le=10_000,
            title="Oldest update that counts (versions)",
            description="The server keeps the models that its clients still train on, at most so many beside the newest.",
        ),
    ] = 20
    staleness_exponent: Annotated[
        float,
        Field(
            ge=0,
            le=10,
            title="Damping of old updates (a)",
            description="A step that is τ versions old counts (1 + τ)⁻ᵃ. 0: all alike.",
        ),
    ] = 0.5
    weighting: Annotated[
        Literal["uniform", "examples"],
        Field(
            title="Clients weigh",
            description="Uniform, as in the paper: a fast client comes more often already. Or by their examples.",
        ),
    ] = "uniform"

    def scale(self, staleness: int) -> float:
        """s(τ) = (1 + τ)^-a, section 5 of the paper."""
        return float((1.0 + staleness) ** -self.staleness_exponent)


RunMode = Synchronous | Buffered
