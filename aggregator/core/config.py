"""The configuration of a strategy: one typed, versioned schema for forms, API and engine.

Its parts are separate: who is asked, what they are told, how they train, how their updates become one, how that becomes the next
model, when to stop. An older version of the schema is read by the same class, which brings it up to date.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

import yaml
from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, model_validator

from aggregator.core import plain_yaml, registry
from aggregator.core.modes import Buffered, RunMode, Synchronous
from aggregator.core.schedule import Constant, Schedule
from aggregator.core.strategies.base import MethodConfig, OptimizerConfig, Part, RuleConfig
from aggregator.core.strategies.fedavg import Mean, NoMethod, NoOptimizer
from protos import limits
from protos.convert import ScalarValue
from protos.encodings import MOST_KEPT, PLAIN, Compression, Encoding
from protos.packing import Packing

if TYPE_CHECKING:
    AnyRule = RuleConfig
    AnyOptimizer = OptimizerConfig
    AnyMethod = MethodConfig
else:
    # The parts that are installed, told apart by `name`: so errors, JSON Schema and forms know each one's own settings.
    def _one_of(parts: Mapping[str, type[Part]]) -> Any:
        types = tuple(parts.values())
        return types[0] if len(types) == 1 else Annotated[Union[types], Field(discriminator="name")]  # noqa: UP007  # made at run time

    AnyRule, AnyOptimizer = _one_of(registry.rules()), _one_of(registry.optimizers())
    AnyMethod = _one_of(registry.methods())


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class CohortConfig(_Section):
    """Who is asked to train in a round."""

    fraction: Annotated[float, Field(gt=0, le=1, title="Fraction of the clients")] = 1.0
    min_clients: Annotated[int, Field(ge=1, le=100_000, title="Fewest clients to begin a round")] = 2
    max_clients: Annotated[
        int | None,
        Field(
            ge=1,
            le=100_000,
            title="Most clients of a round",
            description="A round is after no more updates than this, whatever the fraction. Empty: no limit.",
        ),
    ] = None
    over_selection: Annotated[
        float,
        Field(
            ge=1,
            le=10,
            title="Over-selection",
            description="Asks so many times the clients, and closes with the first to answer.",
        ),
    ] = 1.0
    order: Annotated[
        Literal["random", "cyclic", "available"],
        Field(
            title="Whom to ask first",
            description="random: drawn anew in each round. cyclic: in turn. available: those that have answered most reliably in this run.",
        ),
    ] = "random"
    labels: Annotated[dict[str, str], Field(title="Only clients with these labels")] = {}


class LocalConfig(_Section):
    """What each client is told about its training."""

    epochs: Annotated[int, Field(ge=1, le=1_000, title="Local epochs")] = 2
    batch_size: Annotated[int, Field(ge=1, le=1_000_000, title="Batch size")] = 16
    learning_rate: Annotated[float, Field(gt=0, le=10, title="Learning rate")] = 0.2
    schedule: Annotated[Schedule, Field(title="Learning rate by round")] = Constant()
    epochs_schedule: Annotated[
        Schedule, Field(title="Epochs by round", description="Rounded to whole epochs, at least one.")
    ] = Constant()
    extra: Annotated[dict[str, bool | int | float | str], Field(title="More values for the app")] = {}

    def as_scalars(self, round_number: int, num_rounds: int) -> dict[str, ScalarValue]:
        return {
            **self.extra,
            "epochs": self.epochs_at(round_number, num_rounds),
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate * self.schedule.factor_at(round_number, num_rounds),
        }

    def epochs_at(self, round_number: int, num_rounds: int) -> int:
        return max(1, round(self.epochs * self.epochs_schedule.factor_at(round_number, num_rounds)))


class UpdateConfig(_Section):
    """How each update travels, and what is done to it before it is aggregated."""

    send: Annotated[
        Literal["parameters", "delta"],
        Field(
            title="What is sent",
            description="The trained parameters, or their difference (delta) from the global model. Rules see the same.",
        ),
    ] = "parameters"
    compression: Annotated[
        Compression,
        Field(
            title="Compression",
            description=(
                "Of differences: 16 bits a value, or 8 with a scale for every 1,024 and random rounding; top_k sends the largest alone, "
                "and clients keep the rest for their next update (fedagent of protocol 1.3 or newer)."
            ),
        ),
    ] = "none"
    keep: Annotated[
        float,
        Field(
            gt=0,
            le=MOST_KEPT,
            title="Kept by top_k",
            description="Which fraction of each tensor's differences top_k sends. Without top_k it says nothing.",
        ),
    ] = 0.01
    packing: Annotated[
        Packing,
        Field(
            title="Lossless packing",
            description="zstd: of updates and models, where it makes them smaller. No bit changes; agents that don't know it do without.",
        ),
    ] = "none"
    clip_norm: Annotated[
        float | None,
        Field(
            gt=0,
            title="Longest step",
            description="An update further than this (L2) from the global model is drawn in. Empty: no limit.",
        ),
    ] = None

    @model_validator(mode="after")
    def _only_differences_are_compressed(self) -> UpdateConfig:
        if self.compression == "top_k" and self.send != "delta":
            raise ValueError("top_k sends the largest differences from the global model: choose send: delta with it.")
        if self.compression != "none" and self.send != "delta":
            raise ValueError(
                f"{self.compression} would round the parameters themselves, and small steps of training would be lost: a weight "
                "plus its step rounds back to the weight. Compress differences (send: delta), or send parameters uncompressed."
            )
        return self

    @property
    def encoding(self) -> Encoding:
        keep = self.keep if self.compression == "top_k" else 0.0
        return Encoding(self.compression, delta=self.send == "delta", keep=keep)


class StoppingConfig(_Section):
    """When a run ends before its last round."""

    metric: Annotated[str, Field(min_length=1, max_length=63, title="Metric that decides")] = "accuracy"
    source: Annotated[Literal["server", "federated", "fit"], Field(title="Measured by")] = "server"
    better: Annotated[Literal["higher", "lower"], Field(title="Better is")] = "higher"
    target: Annotated[float | None, Field(title="Stop at", description="Empty: no target.")] = None
    patience: Annotated[
        int | None,
        Field(
            ge=1,
            le=10_000,
            title="Patience (rounds)",
            description="Stop after so many rounds without a new best. Empty: never.",
        ),
    ] = None
    min_change: Annotated[float, Field(ge=0, title="Least change that counts as better")] = 0.0


class FaultsConfig(_Section):
    """What a round does about clients that are slow or lost."""

    deadline_seconds: Annotated[float, Field(gt=0, le=86_400 * 7, title="Deadline of a round (seconds)")] = 120.0
    quorum: Annotated[int, Field(ge=1, le=100_000, title="Fewest updates that make a round count")] = 2
    max_abandoned: Annotated[int, Field(ge=1, le=100, title="Attempts at a round before the run fails")] = 3
    wait_for_clients_seconds: Annotated[
        float, Field(gt=0, le=86_400 * 7, title="Longest wait for enough clients (seconds)")
    ] = 600.0
    replace: Annotated[
        bool,
        Field(
            title="Replace clients that drop out",
            description="By others, as long as the round has time enough for them.",
        ),
    ] = True
    own_deadlines: Annotated[
        bool,
        Field(
            title="Deadlines from each client's history",
            description="A client that takes far longer than it usually does counts as dropped out before the round's deadline.",
        ),
    ] = False
    own_margin: Annotated[
        float,
        Field(ge=1, le=100, title="Margin on its usual time", description="Its own deadline is so many times that."),
    ] = 2.0
    partial_work: Annotated[
        bool,
        Field(
            title="Take unfinished training",
            description="Where the algorithm allows it (FedProx, FedNova): who runs out of time sends what it has.",
        ),
    ] = True
    aggregation_seconds: Annotated[float, Field(gt=0, le=86_400, title="Time limit of the aggregation (seconds)")] = (
        300.0
    )


class EvaluationConfig(_Section):
    """How the global model is measured after a round."""

    federated: Annotated[bool, Field(title="By the clients, on their own data")] = True
    server: Annotated[bool, Field(title="On the server, where the app brings an evaluator")] = True
    every: Annotated[int, Field(ge=1, le=10_000, title="Every so many rounds")] = 1


class StrategyConfig(_Section):
    """The whole of a strategy. `schema_version` says how to read it."""

    schema_version: Literal[2] = 2
    mode: Annotated[RunMode, Field(title="Mode", discriminator="name")] = Synchronous()
    cohort: CohortConfig = CohortConfig()
    local: LocalConfig = LocalConfig()
    method: Annotated[SerializeAsAny[AnyMethod], Field(title="Method")] = NoMethod()
    update: UpdateConfig = UpdateConfig()
    aggregation: Annotated[SerializeAsAny[AnyRule], Field(title="Rule")] = Mean()
    optimizer: Annotated[SerializeAsAny[AnyOptimizer], Field(title="Optimizer")] = NoOptimizer()
    stopping: StoppingConfig = StoppingConfig()
    faults: FaultsConfig = FaultsConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="before")
    @classmethod
    def _bring_up_to_date(cls, raw: Any) -> Any:
        return migrate(raw) if isinstance(raw, Mapping) else raw

    @model_validator(mode="after")
    def _parts_fit_together(self) -> StrategyConfig:
        if isinstance(self.mode, Buffered):
            self._check_buffered(self.mode)
        else:
            self._check_cohort()
        if (needed := self.aggregation.fewest_updates()) > self.fewest_updates:
            name = "buffer" if isinstance(self.mode, Buffered) else "quorum"
            raise ValueError(
                f"{_title(self.aggregation)} with these settings needs at least {needed} updates, "
                f"and the {name} allows a round with {self.fewest_updates}. "
                f"Raise the {name} to {needed}, or let the rule tolerate less."
            )
        if refusal := self.method.refusal(self.aggregation, self.optimizer):
            raise ValueError(refusal)
        if refusal := self._what_the_rule_refuses():
            raise ValueError(f"{_title(self.aggregation)} {refusal}")
        return self

    def _check_cohort(self) -> None:
        quorum, least = self.faults.quorum, self.cohort.min_clients
        if quorum > least:
            raise ValueError(
                f"The quorum ({quorum}) is larger than the fewest clients that begin a round ({least}): such a round could never count."
            )
        if (most := self.cohort.max_clients) is not None and most < least:
            raise ValueError(
                f"A round begins with {least} clients or more, and may have no more than {most}. "
                f"Raise the most clients of a round to {least}, or lower the fewest, and the quorum ({quorum}) with it."
            )

    def _what_the_rule_refuses(self) -> str:
        """Which other part doesn't go with the rule, and what to do; empty if all do."""
        rule, cohort = self.aggregation, self.cohort
        if not rule.vectors and not isinstance(self.optimizer, NoOptimizer):
            return f"makes no vector that a server optimizer could work on: choose none instead of {_title(self.optimizer)}."
        if not rule.vectors and self.update.clip_norm is not None:
            return "takes no updates that have a length: leave the longest step empty."
        if not rule.vectors and not isinstance(self.method, NoMethod):
            return f"trains trees, which have no gradients for a method to correct: choose none instead of {_title(self.method)}."
        if rule.in_turn and (cohort.order, cohort.max_clients, cohort.over_selection) != ("cyclic", 1, 1.0):
            return "trains with one client a round, in turn: ask the clients in cyclic order, one at most, without over-selection."
        return rule.refusal_of_epochs(self.local.epochs)

    def _check_buffered(self, mode: Buffered) -> None:
        """What is said of cohorts, and nothing can come of without one."""
        cohort = self.cohort
        if (cohort.over_selection, cohort.fraction, cohort.max_clients, cohort.order) != (1, 1, None, "random"):
            raise ValueError(
                "A buffered run has no cohorts to choose: over-selection and fraction must be 1, with no most clients, in random order. "
                "How many clients train at once is the mode's concurrency."
            )
        if self.stopping.source == "federated" and (
            self.stopping.target is not None or self.stopping.patience is not None
        ):
            raise ValueError(
                "In a buffered run clients don't evaluate, for they train all the time: "
                "the early stop can't wait for their measure. Let it look at the server's, or at that of the training."
            )
        if not self.aggregation.vectors:
            raise ValueError(
                f"{_title(self.aggregation)} makes no vector that could be moved to a newer model. Choose the synchronous mode."
            )
        if type(self.method).build is not MethodConfig.build:
            raise ValueError(
                f"{_title(self.method)} keeps a state at the server that takes the clients of a round to train from the same model. "
                "In a buffered run they don't. Choose another method, or the synchronous mode."
            )

    @property
    def agent_minor(self) -> int:
        """The protocol's oldest minor version whose agents can do what the strategy asks of them."""
        if self.update.compression == "top_k":
            return limits.TOP_K_MINOR
        plain = self.update.encoding == PLAIN and isinstance(self.method, NoMethod)
        return 0 if plain else limits.METHODS_MINOR

    @property
    def takes_partial_work(self) -> bool:
        """Whether the update of a client that ended its training early counts."""
        plain = isinstance(self.method, NoMethod)
        return self.faults.partial_work and (self.method.partial_work or (plain and self.aggregation.partial_work))

    @property
    def depends_on_num_rounds(self) -> tuple[str, ...]:
        """What would have been otherwise if the run had been given another number of rounds at its beginning."""
        local, stopping = self.local, self.stopping
        stops = stopping.target is not None or stopping.patience is not None
        found = {
            "the learning rate": local.schedule.depends_on_num_rounds,
            "the number of epochs": local.epochs_schedule.depends_on_num_rounds,
            "the early stop, for the last round is always measured": stops and self.evaluation.every > 1,
        }
        return tuple(words for words, depends in found.items() if depends)

    @property
    def fewest_updates(self) -> int:
        """With fewer updates no round counts."""
        return self.mode.buffer_size if isinstance(self.mode, Buffered) else self.faults.quorum

    @property
    def algorithm(self) -> str:
        """The parts in short: "mean", "scaffold + mean", "buffered + median + adam"."""
        parts = [registry.part_name(type(part)) for part in (self.mode, self.method, self.aggregation, self.optimizer)]
        return " + ".join(name for name in parts if name not in ("none", "synchronous"))

    @classmethod
    def from_yaml(cls, text: str) -> StrategyConfig:
        """Raises `ValueError` (pydantic's among them) for what is no strategy. Only plain values are read, never objects."""
        raw = plain_yaml.read(text)
        if not isinstance(raw, dict):
            raise ValueError("A strategy is a mapping, such as `aggregation: {name: mean}`.")  # noqa: TRY004  # a bad value of a good type
        return cls.model_validate(raw)

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def migrate(raw: Mapping[str, Any]) -> dict[str, Any]:
    """`raw`, of any version of the schema, in the words of the newest."""
    values = dict(raw)
    if values.get("schema_version") == 1:
        values.pop("algorithm", None)  # version 1 knew FedAvg alone
        values["schema_version"] = 2
    return values


def _title(part: Part) -> str:
    return part.title
