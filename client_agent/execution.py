"""What a client does for one task, without any network: arrays and a configuration in, a checked outcome out."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np

from client_agent import scalars
from client_agent.hosting import HostedApp
from client_agent.scalars import ProtoScalars
from client_agent.sdk import Arrays
from protos import limits, tensors
from protos.convert import Scalars
from protos.tensors import CodecError, Parameters, Signature


@dataclass(frozen=True, slots=True)
class Update:
    """Encoded parameters that go to the server, after fitting or as the beginning of a run."""

    content: bytearray
    sha256: str
    signature: Signature
    num_examples: int
    metrics: ProtoScalars


@dataclass(frozen=True, slots=True)
class Evaluation:
    loss: float
    num_examples: int
    metrics: ProtoScalars


def initialise(hosted: HostedApp, config: Scalars) -> Update:
    arrays = hosted.client.get_parameters(config)
    return _update(hosted, arrays, 0, {})


def fit(hosted: HostedApp, parameters: Parameters, config: Scalars) -> Update:
    result: object = hosted.client.fit(_writable(parameters), config)
    match result:
        case (list() as arrays, num_examples, dict() as metrics):
            return _update(hosted, arrays, _checked_count(num_examples), scalars.to_proto(metrics))
    raise TypeError("fit must return (list of arrays, number of examples, metrics)")


def evaluate(hosted: HostedApp, parameters: Parameters, config: Scalars) -> Evaluation:
    result: object = hosted.client.evaluate(_writable(parameters), config)
    match result:
        case (int() | float() | np.number() as loss, num_examples, dict() as metrics):
            return Evaluation(_finite(float(loss)), _checked_count(num_examples), scalars.to_proto(metrics))
    raise TypeError("evaluate must return (loss, number of examples, metrics)")


def _update(hosted: HostedApp, arrays: Arrays, num_examples: int, metrics: ProtoScalars) -> Update:
    parameters = hosted.app.named([np.asarray(array) for array in arrays])
    signature = Signature.of(parameters)
    if misfit := hosted.signature.misfit(signature):
        raise CodecError(f"The update doesn't fit the model: {misfit}.")
    if name := tensors.first_non_finite(parameters):
        raise CodecError(f"Tensor {name!r} of the update holds NaN or infinity: try a smaller learning rate.")
    content = tensors.encode(parameters)
    return Update(content, hashlib.sha256(content).hexdigest(), signature, num_examples, metrics)


def _writable(parameters: Parameters) -> Arrays:
    """The buffer under the views is this task's own, and Flower's clients may train in place."""
    for array in parameters.values():
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
