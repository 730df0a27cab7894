"""What a data owner's code is written against: `NumPyClient`, `App` and `Context`.

A client has Flower's four methods with Flower's arguments and returns, so a client written for Flower runs here.
It may also report progress from inside its training loop, and is told there when the server no longer wants the result.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from client_agent.errors import BrokenApp
from client_agent.methods import Method, Setting
from protos.convert import ScalarValue
from protos.tensors import AUXILIARY, OPEN, CodecError, Parameters, Signature, TensorSpec

Arrays = list[NDArray[Any]]
Config = dict[str, ScalarValue]
Metrics = dict[str, ScalarValue]
FitResult = tuple[Arrays, int, Metrics]
"""New parameters, the number of examples they were trained on, metrics."""
EvaluateResult = tuple[float, int, Metrics]
"""Loss, the number of examples it was measured on, metrics."""


@runtime_checkable
class ClientLike(Protocol):
    """Any object with these methods can train; it need not inherit from `NumPyClient`."""

    def get_parameters(self, config: Config) -> Arrays: ...

    def fit(self, parameters: Arrays, config: Config) -> FitResult: ...

    def evaluate(self, parameters: Arrays, config: Config) -> EvaluateResult: ...

    def get_properties(self, config: Config) -> Metrics: ...


class Progress(Protocol):
    """Where a client's progress goes while it works on a task. All methods raise `TaskCancelled`."""

    def report(self, fraction: float, metrics: Mapping[str, ScalarValue]) -> None: ...

    def sleep(self, seconds: float) -> None: ...

    def may_go_on(self, done: int, planned: int) -> bool: ...


class Silent:
    """Progress outside an agent: in a notebook, a test or a simulation that shows none."""

    def report(self, fraction: float, metrics: Mapping[str, ScalarValue]) -> None:
        pass

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def may_go_on(self, done: int, planned: int) -> bool:
        return True


class NumPyClient:
    """Trains and evaluates on one site's data. Inherit, and override what the app needs."""

    _progress: Progress = Silent()
    _method: Method | None = None

    @property
    def method(self) -> Method:
        """How the run's strategy wants `fit` to train: see `client_agent.methods`. Outside an agent: plainly."""
        if self._method is None:
            self._method = Method(Setting((), ()))
        return self._method

    def get_parameters(self, config: Config) -> Arrays:
        """The parameters that a run begins with. `config["seed"]` fixes their random part."""
        raise NotImplementedError(f"{type(self).__name__} has no get_parameters")

    def fit(self, parameters: Arrays, config: Config) -> FitResult:
        """Train `parameters` on the local data. They may be changed in place."""
        raise NotImplementedError(f"{type(self).__name__} has no fit")

    def evaluate(self, parameters: Arrays, config: Config) -> EvaluateResult:
        """Measure `parameters` on the local data."""
        raise NotImplementedError(f"{type(self).__name__} has no evaluate")

    def get_properties(self, config: Config) -> Metrics:
        """What the server may know about this site, for example `num_examples`."""
        return {}

    def report_progress(self, fraction: float, **metrics: ScalarValue) -> None:
        """Tell the server how far the task is, from 0 to 1, with metrics so far.

        Cheap, and safe from any thread: call it for every batch; the agent sends a few values a second and always the
        last. Raises `TaskCancelled` when the server no longer wants the result: let it pass through your loop.
        """
        self._progress.report(fraction, metrics)

    def may_go_on(self, done: int, planned: int) -> bool:
        """Ask before each step of `fit`, and once after the last: `done` steps are made of those `planned`.

        False when the time is up, and the run's strategy takes unfinished training (FedProx, FedNova): then leave the loop, end
        the phase and return what there is. The server is told how many steps were made. Never False before the first step.
        """
        return self._progress.may_go_on(done, planned)

    def sleep(self, seconds: float) -> None:
        """Wait, but no longer than until the task is cancelled; then raise `TaskCancelled`."""
        self._progress.sleep(seconds)

    def train_by(self, method: Method | None) -> None:
        """For whoever drives the client: how the next `fit` trains; None for plainly."""
        self._method = method

    def send_progress_to(self, progress: Progress) -> None:
        """For whoever drives the client: an agent, or a simulation."""
        self._progress = progress


@dataclass(frozen=True, slots=True)
class Context:
    """What an app may know when it makes its client."""

    client_name: str
    options: Mapping[str, str] = field(default_factory=dict)
    """The owner's settings: `fedagent run --set key=value`."""


@dataclass(frozen=True, slots=True)
class DataCard:
    """What an app can tell of a site's data. The owner's policy says what of it is published; without a policy, nothing."""

    examples: int
    features: int | None = None
    labels: Mapping[str, int] = field(default_factory=dict)
    """Number of examples by label, at most 100."""
    data_set: str = ""
    """Its name and state, for example "ecg-12lead, revision 8"."""


@dataclass(frozen=True, slots=True)
class App:
    """Training code with a name and a version, and the names of the model's tensors.

    Agents whose apps have the same name, version and signature train one model together, whatever their framework.
    """

    name: str
    version: str
    framework: str
    client_fn: Callable[[Context], ClientLike]
    tensor_names: Sequence[str] | None = None
    """In the order of `get_parameters`; "0", "1", ... when left out."""
    _: KW_ONLY
    methods: Collection[str] = frozenset()
    """Methods for unlike clients that the app's loop serves: `client_agent.methods.WITH_PHASES` or `ALL`."""
    open_tensors: Sequence[str] = ()
    """Names of uint8 tensors of one dimension whose length changes from round to round, up to `MAX_OPEN_BYTES`."""
    columns: Callable[[Context], Mapping[str, NDArray[Any]]] | None = None
    """What the owner opens to queries: numbers by column, one dimension each, NaN where one is missing. Aggregates of them may be
    told, the ends of their range rounded. Left out, there are no queries."""
    card: Callable[[Context], DataCard] | None = None
    """What the owner may publish of the data."""

    def signature_of(self, client: ClientLike) -> Signature:
        """The model's signature, read from the client's initial parameters. Raises `CodecError` for one that can't be sent."""
        signature = Signature.of(self.named(client.get_parameters({"seed": 0})))
        if unknown := sorted(set(self.open_tensors) - {spec.name for spec in signature.tensors}):
            raise BrokenApp(
                f"App {self.name!r} leaves the length of {unknown[0]!r} open, which is no tensor of its model."
            )
        if reserved := [spec.name for spec in signature.tensors if spec.name.startswith(AUXILIARY)]:
            raise BrokenApp(
                f"Tensor {reserved[0]!r} of app {self.name!r}: names that begin with {AUXILIARY} are reserved."
            )
        declared = Signature(tuple(self._declared(spec) for spec in signature.tensors))
        if misfit := declared.misfit(signature):
            raise CodecError(misfit)
        return declared

    def _declared(self, spec: TensorSpec) -> TensorSpec:
        return replace(spec, shape=OPEN) if spec.name in self.open_tensors else spec

    def named(self, arrays: Sequence[NDArray[Any]]) -> Parameters:
        """`arrays` under the model's tensor names. Raises `BrokenApp` if their number differs."""
        names = self.tensor_names or [str(index) for index in range(len(arrays))]
        if len(names) != len(arrays):
            raise BrokenApp(f"App {self.name!r} names {len(names)} tensors, but its client returned {len(arrays)}.")
        return dict(zip(names, arrays, strict=True))
