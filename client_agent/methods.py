"""Methods for clients whose data differ: the half that runs where the training does.

A strategy names a method; the agent makes its half for each task, and the app trains in the *phases* that it gives:

    for phase in self.method.phases(parameters, config["epochs"]):
        load(phase.parameters)
        for _ in range(phase.epochs):
            for batch in data:
                gradients = ...
                phase.correct(weights, gradients, learning_rate)
                ...  # step
        phase.end(weights)
    return self.method.result, num_examples, metrics

Without a method that is one phase whose `correct` changes nothing. An app says in `App.methods` which methods its loop
serves; those in `SERVED_BY_THE_AGENT` need nothing of it. For PyTorch, `client_agent.torch_methods` does the same on
tensors. For any other framework, all that `correct` does to the gradient g of a tensor with values w is in the phase:

    g ← 0                                               if the tensor's name is in `phase.frozen`
    g ← g + phase.pull · (w − phase.anchor[i]) + phase.offsets[i]   otherwise (no anchor, no offsets: nothing is added)

with `phase.rates += learning_rate` for each step. The papers and equations are in `aggregator.core.strategies`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from client_agent.errors import BrokenApp
from protos.convert import ScalarValue
from protos.tensors import AUXILIARY, Parameters

Arrays = list[NDArray[Any]]
Config = Mapping[str, ScalarValue]

CONTROL = "control/"
CONTROL_SENT = f"{AUXILIARY}{CONTROL}"
GRADIENT, PREVIOUS, PERSONAL = "gradient/", "previous/", "personal/"


@dataclass(frozen=True, slots=True)
class Contrast:
    """What MOON adds to a batch's loss: mu times the mean over its examples of ℓ_con (equation 3)."""

    mu: float
    temperature: float
    anchor: Sequence[NDArray[Any]]
    """Parameters of the global model, which makes z_glob."""
    previous: Sequence[NDArray[Any]]
    """Parameters of this client's last model, which makes z_prev."""

    def loss(
        self, z: NDArray[Any], z_global: NDArray[Any], z_previous: NDArray[Any]
    ) -> tuple[float, NDArray[np.float32]]:
        """The term, and its gradient by `z`. All are representations of one batch, shape (examples, features)."""
        to_global, by_global = _cosines(z, z_global)
        to_previous, by_previous = _cosines(z, z_previous)
        margin = (to_previous - to_global) / self.temperature
        share = np.exp(-np.logaddexp(0, -margin)) / self.temperature / len(z)
        gradient = self.mu * share[:, None] * (by_previous - by_global)
        return self.mu * float(np.logaddexp(0, margin).mean()), gradient.astype(np.float32)


def _cosines(one: NDArray[Any], other: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each row of `one` to that of `other`, and their gradients by `one`; 0 where a row is 0."""
    ones, others = one.astype(np.float64), other.astype(np.float64)
    sizes, other_sizes = (np.maximum(np.linalg.norm(x, axis=1), 1e-12)[:, None] for x in (ones, others))
    directions, other_directions = ones / sizes, others / other_sizes
    cosines = (directions * other_directions).sum(axis=1)
    return cosines, (other_directions - cosines[:, None] * directions) / sizes


@dataclass(slots=True)
class Phase:
    """A stretch of local training: begin with `parameters`, make `epochs`, `correct` each gradient, `end` with the result."""

    names: Sequence[str]
    """Of the tensors, in the order of all lists here."""
    parameters: Arrays
    epochs: int
    personal: bool = False
    """What is trained stays here, and is no part of the update."""
    pull: float = 0.0
    anchor: Sequence[NDArray[Any]] = ()
    offsets: Sequence[NDArray[Any] | None] = ()
    frozen: frozenset[str] = frozenset()
    contrast: Contrast | None = None
    rates: float = 0.0
    """The learning rates of all steps so far, added up."""
    trained: Arrays | None = field(default=None, init=False)

    def correct(
        self, parameters: Sequence[NDArray[Any]], gradients: Sequence[NDArray[Any] | None], learning_rate: float
    ) -> None:
        """Change the gradients of a step in place, before it is made. None stands for a tensor that isn't trained."""
        self.rates += learning_rate
        for index, (values, gradient) in enumerate(zip(parameters, gradients, strict=True)):
            if gradient is None:
                continue
            if self.frozen and self.names[index] in self.frozen:
                gradient[...] = 0
                continue
            if self.pull:
                pull = gradient.dtype.type(self.pull) * (values - self.anchor[index])
                np.add(gradient, pull, out=gradient)
            if self.offsets and (offset := self.offsets[index]) is not None:
                np.add(gradient, offset.astype(gradient.dtype, copy=False), out=gradient)

    def end(self, parameters: Sequence[NDArray[Any]]) -> None:
        """The phase is over, and this is what it has come to."""
        self.trained = [np.array(array) for array in parameters]


@dataclass(frozen=True, slots=True)
class Setting:
    """What a method is made from."""

    names: tuple[str, ...]
    parameters: Sequence[NDArray[Any]]
    """The global model, with this client's own tensors in the place of those that stay here. Not to be changed."""
    config: Config = field(default_factory=dict)
    auxiliary: Parameters = field(default_factory=dict)
    """What the server sent beside the model."""
    kept: Parameters = field(default_factory=dict)
    """What `Outcome.kept` was after the last round that counted; nothing in the first."""
    local: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Outcome:
    auxiliary: Parameters
    """For the server, beside the update."""
    kept: Parameters
    """For this client's next round."""


class Method:
    """Plain local training, and the base of the others."""

    anchored: ClassVar[bool] = False
    """Needs the global model as it was, while the app may train in place."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._anchor = [np.array(array) for array in setting.parameters] if self.anchored else []
        self._result: Arrays | None = None

    @property
    def result(self) -> Arrays:
        """The model to return from `fit`. Raises `BrokenApp` before the phases have been gone through."""
        if self._result is None:
            raise BrokenApp("The app hasn't trained through the phases of self.method to their end.")
        return self._result

    def total_epochs(self, epochs: int) -> int:
        """Of all phases together, for a progress bar."""
        return epochs

    def phases(self, parameters: Sequence[NDArray[Any]], epochs: int) -> Iterator[Phase]:
        """`parameters` and `epochs` as `fit` was given them."""
        phase = self._global_phase(list(parameters), epochs)
        yield phase
        self._result = _ended(phase)

    def finish(self, trained: Sequence[NDArray[Any]]) -> Outcome:
        """After `fit`, with what it returned."""
        return Outcome({}, {})

    def _global_phase(self, parameters: Arrays, epochs: int) -> Phase:
        return Phase(self._setting.names, parameters, epochs)

    def _number(self, name: str) -> float:
        return float(self._setting.config[name])

    def _kept(self, prefix: str) -> Arrays | None:
        names = [prefix + name for name in self._setting.names]
        return [self._setting.kept[name] for name in names] if self._setting.kept.keys() >= set(names) else None

    def _to_keep(self, prefix: str, arrays: Sequence[NDArray[Any]]) -> Parameters:
        return {prefix + name: np.asarray(array) for name, array in zip(self._setting.names, arrays, strict=True)}


class FedProx(Method):
    anchored = True

    def _global_phase(self, parameters: Arrays, epochs: int) -> Phase:
        mu = self._number("proximal_mu")
        return Phase(self._setting.names, parameters, epochs, pull=mu, anchor=self._anchor)


class Scaffold(Method):
    anchored = True

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._rates = 0.0
        self._control = {
            name.removeprefix(CONTROL_SENT): array
            for name, array in setting.auxiliary.items()
            if name.startswith(CONTROL_SENT)
        }
        self._own = {n: setting.kept.get(CONTROL + n, np.zeros_like(c)) for n, c in self._control.items()}

    def phases(self, parameters: Sequence[NDArray[Any]], epochs: int) -> Iterator[Phase]:
        offsets = [self._control[n] - self._own[n] if n in self._control else None for n in self._setting.names]
        phase = Phase(self._setting.names, list(parameters), epochs, offsets=offsets)
        yield phase
        self._result, self._rates = _ended(phase), phase.rates

    def finish(self, trained: Sequence[NDArray[Any]]) -> Outcome:
        if not self._rates:
            raise BrokenApp("SCAFFOLD needs the app to call phase.correct before each step, with its learning rate.")
        newer: Parameters = {}
        for name, before, after in zip(self._setting.names, self._anchor, trained, strict=True):
            if name in self._control:
                drift = (before.astype(np.float64) - after) / self._rates
                control = self._own[name].astype(np.float64) - self._control[name] + drift
                newer[name] = control.astype(self._control[name].dtype)
        change = {CONTROL_SENT + name: newer[name] - self._own[name] for name in newer}
        return Outcome(change, {CONTROL + name: control for name, control in newer.items()})


class FedDyn(Method):
    anchored = True

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._alpha = self._number("feddyn_alpha")
        self._gradients = self._kept(GRADIENT) or [np.zeros(a.shape) for a in setting.parameters]

    def _global_phase(self, parameters: Arrays, epochs: int) -> Phase:
        offsets = [-gradient for gradient in self._gradients]
        names = self._setting.names
        return Phase(names, parameters, epochs, pull=self._alpha, anchor=self._anchor, offsets=offsets)

    def finish(self, trained: Sequence[NDArray[Any]]) -> Outcome:
        steps = [after.astype(np.float64) - before for before, after in zip(self._anchor, trained, strict=True)]
        newer = [gradient - self._alpha * step for gradient, step in zip(self._gradients, steps, strict=True)]
        return Outcome({}, self._to_keep(GRADIENT, newer))


class Moon(Method):
    anchored = True

    def _global_phase(self, parameters: Arrays, epochs: int) -> Phase:
        previous = self._kept(PREVIOUS) or self._anchor
        contrast = Contrast(
            self._number("contrastive_mu"), self._number("contrastive_temperature"), self._anchor, previous
        )
        return Phase(self._setting.names, parameters, epochs, contrast=contrast)

    def finish(self, trained: Sequence[NDArray[Any]]) -> Outcome:
        return Outcome({}, self._to_keep(PREVIOUS, trained))


class Ditto(Method):
    anchored = True

    def total_epochs(self, epochs: int) -> int:
        return 2 * epochs

    def phases(self, parameters: Sequence[NDArray[Any]], epochs: int) -> Iterator[Phase]:
        yield from super().phases(parameters, epochs)
        own = self._kept(PERSONAL) or self._anchor
        pull = self._number("ditto_lambda")
        beginning = [np.array(array) for array in own]
        self._personal = Phase(self._setting.names, beginning, epochs, personal=True, pull=pull, anchor=self._anchor)
        yield self._personal
        _ended(self._personal)

    def finish(self, trained: Sequence[NDArray[Any]]) -> Outcome:
        return Outcome({}, self._to_keep(PERSONAL, _ended(self._personal)))


class FedRep(Method):
    def total_epochs(self, epochs: int) -> int:
        return int(self._number("head_epochs")) + epochs

    def phases(self, parameters: Sequence[NDArray[Any]], epochs: int) -> Iterator[Phase]:
        names = self._setting.names
        body = frozenset(names) - self._setting.local
        head_phase = Phase(names, list(parameters), int(self._number("head_epochs")), frozen=body)
        yield head_phase
        body_phase = Phase(names, _ended(head_phase), epochs, frozen=self._setting.local)
        yield body_phase
        self._result = _ended(body_phase)


METHODS: Mapping[str, type[Method]] = {
    "none": Method,
    "fedprox": FedProx,
    "scaffold": Scaffold,
    "feddyn": FedDyn,
    "moon": Moon,
    "ditto": Ditto,
    "fedrep": FedRep,
    "fedbn": Method,
    "fedper": Method,
}
SERVED_BY_THE_AGENT = frozenset({"none", "fedbn", "fedper"})
"""Which tensors stay is the agent's work alone."""
WITH_PHASES = frozenset(METHODS) - {"moon"}
"""What an app serves whose loop goes through the phases and calls `correct`."""
ALL = frozenset(METHODS)
"""What one serves that adds `phase.contrast` to its loss besides."""


def _ended(phase: Phase) -> Arrays:
    if phase.trained is None:
        raise BrokenApp("The app hasn't ended a phase of its training: call phase.end(parameters).")
    return phase.trained
