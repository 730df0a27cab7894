"""The parts that a strategy is made of, and how they meet.

A round goes through them in this order: the clients train by a *method*, their updates arrive one by one, each is
transformed (clipped), an *aggregation rule* turns them into one aggregate, the method's half at the server corrects that,
and a *server optimiser* makes the next global model from the current one and the aggregate. Rules and optimisers don't
know of each other, so any rule can be followed by any optimiser; a method says with which it can't go.

A part is a pydantic model: its fields are its settings, typed and bounded, and its methods make what does the work. A
custom part is a subclass in an installed package, named by an entry point of the group `fedui.strategies`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from protos.convert import Scalars
from protos.tensors import Array, Parameters, Signature

Observer = Callable[[str, int, Array], None]
"""Is told the name of a floating tensor and where a chunk of it begins in it, and shown the chunk while it is in the cache."""


class UpdateRejected(Exception):
    """An update that can't be taken in: that participation fails, the round goes on. The text is for operator and owner."""


class Part(BaseModel):
    """Settings of one part. Subclasses have a field `name: Literal["…"] = "…"` that finds them in a configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    version: ClassVar[int] = 1
    """Of the algorithm: a change that gives other results for the same settings makes the next one."""
    title: ClassVar[str]
    """For people: "Coordinate-wise median"."""


@dataclass(frozen=True, slots=True)
class Update:
    """What a rule is told of one client's update. `parameters` are the client's, checked against the signature and finite."""

    client_id: str
    parameters: Mapping[str, Array]
    num_examples: int
    metrics: Mapping[str, float]
    steps: int = 0
    """Local steps that were made of a training that was ended early; 0 of a whole one."""


class Spool(Protocol):
    """Rows of equal length, kept outside the process's memory. `rows[k]` are views, of dtype `dtype`."""

    def append(self, row: NDArray[Any]) -> None: ...

    def __len__(self) -> int: ...

    @property
    def rows(self) -> NDArray[Any]:
        """Shape (number of rows, length); backed by a file, so that reading a block of columns reads no more than that."""
        ...

    def close(self) -> None: ...


class SpoolFactory(Protocol):
    def __call__(self, length: int, dtype: np.dtype[Any], most_rows: int) -> Spool: ...


@dataclass(frozen=True, slots=True)
class RoundContext:
    """What a round is to its rule. `current` is the global model that the cohort was given."""

    round_number: int
    seed: int
    signature: Signature
    current: Parameters
    cohort_size: int
    spool: SpoolFactory
    population: int = 0
    """Clients that could have been asked; 0 where that isn't known, which counts as the cohort."""


class Aggregator(Protocol):
    """One round's aggregation. Takes updates in as they come; their order must not matter."""

    def add(self, update: Update) -> None:
        """Raises `UpdateRejected` for an update that can't be taken in, and is then unchanged."""
        ...

    def result(self) -> Parameters:
        """The aggregate, in the dtypes of the signature: what the next model would be without a server optimiser."""
        ...

    def close(self) -> None:
        """Give back what is held outside memory. Called once, whether or not there was a result."""
        ...


@runtime_checkable
class ObservedAggregator(Aggregator, Protocol):
    """One that can show each update to an observer in its own pass over memory. Of the others each update is read once more."""

    def add_observed(self, update: Update, observe: Observer) -> None:
        """As `add`; `observe` is shown all floating tensors, each from its beginning, in chunks of whole `statistics.WIDTH`s."""
        ...


class RuleConfig(Part):
    """An aggregation rule."""

    linear: ClassVar[bool] = False
    """A weighted sum: streams in O(model) memory, and is what secure aggregation can compute."""

    vectors: ClassVar[bool] = True
    """Its aggregate is a point near the current model: clipping before it and a server optimiser after it make sense."""
    weighs: ClassVar[bool] = False
    """An update counts by its number of examples, so that an operator can make a client count for less."""
    partial_work: ClassVar[bool] = False
    """Weighs an update by the steps that were really made, so that one of unfinished training is as good as any."""
    in_turn: ClassVar[bool] = False
    """Needs cohorts of one client each, in cyclic order."""

    def refusal(self, signature: Signature) -> str:
        """Why models of this signature, which is an app's, can't be aggregated; empty if they can. For the operator."""
        if not signature.is_open:
            return ""
        return f"{self.title} needs tensors of fixed size, and the app's model has one of open length: choose a rule for trees."

    def refusal_of_epochs(self, epochs: int) -> str:
        """Why the rule takes no updates of clients that train so many local epochs; empty if it does. For the operator."""
        return ""

    def check_initial(self, parameters: Parameters) -> None:
        """Raises `UpdateRejected` for a model that a run can't begin with. It fits the signature and is finite."""

    def fit_config(self, updates_wanted: int) -> Scalars:
        """What the clients of a round are told for the rule's sake, beside the settings of local training."""
        return {}

    def fewest_updates(self) -> int:
        """With fewer updates than this the rule's promise doesn't hold; the quorum must not be smaller."""
        return 1

    def begin(self, context: RoundContext) -> Aggregator:
        raise NotImplementedError

    def explain(self, quorum: int) -> str:
        """One sentence for the operator: what the rule tolerates with so many updates."""
        return ""


class ServerOptimizer(Protocol):
    """Keeps its state between rounds. `state` and `load` are inverse, bit for bit; tensors may be of any shape and float dtype."""

    def step(self, current: Parameters, aggregate: Parameters) -> Parameters:
        """The next global model. Mutates neither argument. Integer and bool tensors are taken from the aggregate."""
        ...

    def state(self) -> Parameters: ...

    def load(self, state: Parameters) -> None: ...


@dataclass(frozen=True, slots=True)
class Contributions:
    """What a round's updates brought beside the model's tensors."""

    count: int
    """Updates that were counted."""
    population: int
    """Clients that could have been asked."""
    auxiliary: Parameters
    """The plain mean of the tensors that came with the updates."""


class ServerHalf(Protocol):
    """A method's half at the server. Keeps its state between rounds; `state` and `load` are inverse, bit for bit."""

    def auxiliary(self) -> Parameters:
        """What goes to the clients with the model; the names begin with `AUXILIARY`."""
        ...

    def returned(self) -> Signature:
        """What comes back with each update beside the model's tensors; names likewise."""
        ...

    def correct(self, current: Parameters, aggregate: Parameters, contributions: Contributions) -> Parameters:
        """The aggregate as the server optimizer is given it; updates the state. Mutates no argument."""
        ...

    def state(self) -> Parameters: ...

    def load(self, state: Parameters) -> None: ...


class Stateless:
    """The server's half of a method that works at the clients alone."""

    def auxiliary(self) -> Parameters:
        return {}

    def returned(self) -> Signature:
        return Signature(())

    def correct(self, current: Parameters, aggregate: Parameters, contributions: Contributions) -> Parameters:
        return aggregate

    def state(self) -> Parameters:
        return {}

    def load(self, state: Parameters) -> None:
        """There is none."""


class MethodConfig(Part):
    """How clients train when their data differ. Its other half runs at the clients (`client_agent.methods`)."""

    counts_alike: ClassVar[bool] = False
    """Each client weighs the same in the aggregate, however many examples it has."""
    partial_work: ClassVar[bool] = False
    """Its promise holds whatever the number of local steps is, so that unfinished training is as good as any."""

    def settings(self) -> Scalars:
        """What the clients' half is told, among the app's configuration."""
        return {}

    def local_tensors(self, signature: Signature) -> frozenset[str]:
        """Names of the tensors that never leave the clients."""
        return frozenset()

    def refusal(self, rule: RuleConfig, optimizer: OptimizerConfig) -> str | None:
        """Why the method can't go with these, for the operator; None if it can."""
        return None

    def build(self, shared: Signature) -> ServerHalf:
        """The server's half, for the tensors that travel."""
        return Stateless()

    def explain(self) -> str:
        """One or two sentences for the operator."""
        return ""


class OptimizerConfig(Part):
    """A server optimiser."""

    def build(self, signature: Signature) -> ServerOptimizer:
        raise NotImplementedError
