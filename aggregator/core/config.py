"""The configuration of a strategy: one typed, versioned schema for forms, API and engine."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from protos.convert import ScalarValue


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CohortConfig(_Section):
    """Who is asked to train in a round."""

    fraction: Annotated[float, Field(gt=0, le=1, title="Fraction of the clients")] = 1.0
    min_clients: Annotated[int, Field(ge=1, le=100_000, title="Fewest clients to begin a round")] = 2
    labels: Annotated[dict[str, str], Field(title="Only clients with these labels")] = {}


class LocalConfig(_Section):
    """What each client is told about its training."""

    epochs: Annotated[int, Field(ge=1, le=1_000, title="Local epochs")] = 2
    batch_size: Annotated[int, Field(ge=1, le=1_000_000, title="Batch size")] = 16
    learning_rate: Annotated[float, Field(gt=0, le=10, title="Learning rate")] = 0.2
    extra: Annotated[dict[str, bool | int | float | str], Field(title="More values for the app")] = {}

    def as_scalars(self) -> dict[str, ScalarValue]:
        return {
            **self.extra,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
        }


class FaultsConfig(_Section):
    """What a round does about clients that are slow or lost."""

    deadline_seconds: Annotated[float, Field(gt=0, le=86_400 * 7, title="Deadline of a round (seconds)")] = 120.0
    quorum: Annotated[int, Field(ge=1, le=100_000, title="Fewest updates that make a round count")] = 2
    max_abandoned: Annotated[int, Field(ge=1, le=100, title="Rounds without quorum in a row that end the run")] = 3
    wait_for_clients_seconds: Annotated[
        float, Field(gt=0, le=86_400 * 7, title="Longest wait for enough clients (seconds)")
    ] = 600.0


class EvaluationConfig(_Section):
    """How the global model is measured after a round."""

    federated: Annotated[bool, Field(title="By the clients, on their own data")] = True
    server: Annotated[bool, Field(title="On the server, where the app brings an evaluator")] = True
    every: Annotated[int, Field(ge=1, le=10_000, title="Every so many rounds")] = 1


class StrategyConfig(_Section):
    """The whole of a strategy. `schema_version` says how to read it."""

    schema_version: Literal[1] = 1
    algorithm: Annotated[Literal["fedavg"], Field(title="Aggregation")] = "fedavg"
    cohort: CohortConfig = CohortConfig()
    local: LocalConfig = LocalConfig()
    faults: FaultsConfig = FaultsConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _quorum_can_be_met(self) -> StrategyConfig:
        if self.faults.quorum > self.cohort.min_clients:
            raise ValueError(
                f"The quorum ({self.faults.quorum}) is larger than the fewest clients that begin a round "
                f"({self.cohort.min_clients}): such a round could never count."
            )
        return self
