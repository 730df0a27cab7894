"""What a client does for one task, without any network: arrays and a configuration in, a checked outcome out."""

from __future__ import annotations

import contextlib
import hashlib
import math
from dataclasses import dataclass, field, replace

import numpy as np

from client_agent import scalars
from client_agent.errors import TaskRefused
from client_agent.hosting import HostedApp
from client_agent.methods import METHODS, PERSONAL, SERVED_BY_THE_AGENT, Method, Setting
from client_agent.scalars import ProtoScalars
from client_agent.sdk import Arrays, NumPyClient
from protos import limits, tensors
from protos.convert import Scalars
from protos.encodings import PLAIN, Encoding, encode
from protos.packing import Packing, pack
from protos.tensors import CodecError, Parameters, Signature

LOCAL = "local/"
"""What the names of a client's own tensors begin with among what it keeps."""
RESIDUAL = "residual/"
"""Likewise those of what top_k has not sent. As all that is kept, it is that of the last update that counted: what was trained for one
that didn't count is gone, with all that it took from the residual."""


@dataclass(frozen=True, slots=True)
class Update:
    """Encoded parameters that go to the server, after fitting or as the beginning of a run."""

    content: bytearray
    sha256: str
    signature: Signature
    num_examples: int
    metrics: ProtoScalars
    encoding: Encoding = PLAIN
    packing: Packing = "none"
    """How `content` is packed; the hash is of it as it is sent."""
    steps: tuple[int, int] | None = None
    """Of the training: done, and planned. None where the app doesn't tell."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    loss: float
    num_examples: int
    metrics: ProtoScalars


@dataclass(frozen=True, slots=True)
class Given:
    """What a task brings, and what this client kept for it."""

    shared: Parameters
    """The server's tensors of the app's model."""
    auxiliary: Parameters = field(default_factory=dict)
    """Those that the run's method sends beside it."""
    kept: Parameters = field(default_factory=dict)
    """What `Trained.kept` was in the last round of this client that counted."""
    local_tensors: tuple[str, ...] = ()

    def model(self, hosted: HostedApp, config: Scalars) -> Parameters:
        """The whole model: where the server has no say, this client's own tensors, which begin as the app makes them."""
        if not self.local_tensors:
            return self.shared
        own = {name: self.kept.get(LOCAL + name) for name in self.local_tensors}
        if any(array is None for array in own.values()):
            own = hosted.app.named(hosted.client.get_parameters({"seed": config.get("seed", 0)}))  # type: ignore[assignment]
        merged = {**own, **self.shared}
        return {t.name: np.array(merged[t.name]) for t in hosted.signature.tensors}


@dataclass(frozen=True, slots=True)
class Trained:
    update: Update
    kept: Parameters
    """For this client's next round in the run; it never leaves the machine."""


def initialise(hosted: HostedApp, config: Scalars) -> Update:
    arrays = hosted.client.get_parameters(config)
    parameters = _checked_parameters(hosted, arrays)
    return _update(encode(parameters, PLAIN), Signature.of(parameters), 0, {}, PLAIN)


def fit(
    hosted: HostedApp,
    given: Given,
    config: Scalars,
    encoding: Encoding = PLAIN,
    rounding_seed: int = 0,
    packing: Packing = "none",
) -> Trained:
    """The update travels as `encoding` says; what that rounds at random, `rounding_seed` decides. It is packed if that is worthwhile.

    Raises `TaskRefused` if the app can't train by the run's method.
    """
    before = {name: array.copy() for name, array in given.shared.items()} if encoding.delta else None
    residual = {n.removeprefix(RESIDUAL): a for n, a in given.kept.items() if n.startswith(RESIDUAL)}
    model = given.model(hosted, config)
    method = _method(hosted, given, model, config)
    sent, kept, num_examples, metrics = _trained(hosted, given, method, _fit(hosted, method, model, config))
    content = encode(sent, encoding, before, rounding_seed, residual)
    if encoding.compression == "top_k":
        kept = kept | {RESIDUAL + name: array for name, array in residual.items()}
    return Trained(_update(content, Signature.of(sent), num_examples, metrics, encoding, packing), kept)


def _fit(hosted: HostedApp, method: Method, model: Parameters, config: Scalars) -> object:
    client = hosted.client
    if not isinstance(client, NumPyClient):
        return client.fit(_writable(model), config)
    client.train_by(method)
    try:
        return client.fit(_writable(model), config)
    finally:
        client.train_by(None)


def _method(hosted: HostedApp, given: Given, model: Parameters, config: Scalars) -> Method:
    name = str(config.get("method", "none"))
    if name not in METHODS:
        raise TaskRefused(f"This agent doesn't know the method {name!r}: update fedagent.")
    if name not in SERVED_BY_THE_AGENT and name not in hosted.app.methods:
        raise TaskRefused(
            f"App {hosted.app.name} {hosted.app.version} can't train by the method {name!r}. "
            "Its loop must go through self.method.phases, and its App say so in `methods`."
        )
    local = frozenset(given.local_tensors)
    names, arrays = tuple(model), list(model.values())
    return METHODS[name](Setting(names, arrays, config, given.auxiliary, given.kept, local))


def _trained(
    hosted: HostedApp, given: Given, method: Method, result: object
) -> tuple[Parameters, Parameters, int, ProtoScalars]:
    """What is sent, what is kept, the number of examples, the metrics."""
    match result:
        case (list() as arrays, num_examples, dict() as metrics):
            trained = _checked_parameters(hosted, arrays)
            outcome = method.finish(list(trained.values()))
            local = {LOCAL + name: trained[name] for name in given.local_tensors}
            sent = {name: array for name, array in trained.items() if name not in given.local_tensors}
            _raise_if_not_finite(outcome.auxiliary)
            count, reported = _checked_count(num_examples), scalars.to_proto(metrics)
            return sent | outcome.auxiliary, local | outcome.kept, count, reported
    raise TypeError("fit must return (list of arrays, number of examples, metrics)")


def evaluate(hosted: HostedApp, given: Given, config: Scalars) -> Evaluation:
    """Of the model that this client uses: its personal one if the run's method makes one, and then of the global one too."""
    shared = _evaluate(hosted, given.model(hosted, config), config)
    personal = {n.removeprefix(PERSONAL): a for n, a in given.kept.items() if n.startswith(PERSONAL)}
    if personal.keys() != {t.name for t in hosted.signature.tensors}:
        return shared
    own = _evaluate(hosted, {t.name: personal[t.name] for t in hosted.signature.tensors}, config)
    of_global = {f"global_{name}": value for name, value in shared.metrics.items()}
    metrics = {**own.metrics, **of_global, **scalars.to_proto({"global_loss": shared.loss})}
    return replace(own, metrics=metrics)


def _evaluate(hosted: HostedApp, parameters: Parameters, config: Scalars) -> Evaluation:
    result: object = hosted.client.evaluate(_writable(parameters), config)
    match result:
        case (int() | float() | np.number() as loss, num_examples, dict() as metrics):
            return Evaluation(_finite(float(loss)), _checked_count(num_examples), scalars.to_proto(metrics))
    raise TypeError("evaluate must return (loss, number of examples, metrics)")


def _checked_parameters(hosted: HostedApp, arrays: Arrays) -> Parameters:
    parameters = hosted.app.named([np.asarray(array) for array in arrays])
    if misfit := hosted.signature.misfit(Signature.of(parameters)):
        raise CodecError(f"The update doesn't fit the model: {misfit}.")
    _raise_if_not_finite(parameters)
    return parameters


def _raise_if_not_finite(parameters: Parameters) -> None:
    if name := tensors.first_non_finite(parameters):
        raise CodecError(f"Tensor {name!r} of the update holds NaN or infinity: try a smaller learning rate.")


def _update(
    content: bytearray,
    signature: Signature,
    num_examples: int,
    metrics: ProtoScalars,
    encoding: Encoding,
    packing: Packing = "none",
) -> Update:
    if packing != "none":
        packed = pack(content)
        content, packing = (content, "none") if packed is None else (packed, packing)
    return Update(content, hashlib.sha256(content).hexdigest(), signature, num_examples, metrics, encoding, packing)


def _writable(parameters: Parameters) -> Arrays:
    """Flower's clients may train in place, where the buffer under the views is this task's own."""
    for array in parameters.values():
        with contextlib.suppress(ValueError):  # a bridge's model is that of all its clients, who send it on
            array.flags.writeable = True
    return list(parameters.values())


def _checked_count(value: object) -> int:
    if isinstance(value, int | np.integer) and 0 <= value <= limits.MAX_NUM_EXAMPLES:
        return int(value)
    raise ValueError(f"the number of examples must be an int from 0 to {limits.MAX_NUM_EXAMPLES:,}, not {value!r}")


def _finite(loss: float) -> float:
    if not math.isfinite(loss):
        raise ValueError(f"the loss is {loss}: the model may have diverged")
    return loss
