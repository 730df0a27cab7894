"""What an update that was trained on an older model says about the current one.

FedBuff (Nguyen et al. 2022, algorithm 1) adds up steps Δ_i = w_i − base_i, damped by s(τ_i), and divides by K. Here the
update becomes w + s(τ_i) (w_i − base_i), a model like any other, so that every rule and server optimizer can follow:
the unweighted mean of K of them is w + (1/K) Σ s(τ_i) Δ_i.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from aggregator.core.strategies.base import Update, UpdateRejected
from protos.tensors import Array, Parameters


def moved(update: Update, base: Mapping[str, Array], current: Mapping[str, Array], scale: float) -> Update:
    """`update`, trained on `base`, as a step of `scale` times its length from `current`.

    Computed in float64 and rounded once to each tensor's dtype; bool tensors are the client's. Raises `UpdateRejected`
    if a number leaves the range of its dtype.
    """
    if base is current and scale == 1:
        return update  # bit for bit, in every dtype
    parameters: Parameters = {
        name: _moved(name, array, base[name], current[name], scale) for name, array in update.parameters.items()
    }
    return Update(update.client_id, parameters, update.num_examples, update.metrics)


def _moved(name: str, array: Array, base: Array, current: Array, scale: float) -> Array:
    if array.dtype.kind == "b":
        return array
    with np.errstate(over="ignore", invalid="ignore"):
        exact = current.astype(np.float64) + scale * (array.astype(np.float64) - base)
        if array.dtype.kind in "iu":
            return _whole(name, exact, array.dtype)
        rounded = np.asarray(exact.astype(array.dtype))
    if not np.isfinite(rounded).all():
        raise _out_of_range(name, array.dtype)
    return rounded


def _whole(name: str, exact: Array, dtype: np.dtype[Any]) -> Array:
    limits = np.iinfo(dtype)
    whole = np.rint(exact)
    # The upper limit of int64 is no float64: the comparison is with the power of two above it.
    if (whole < float(limits.min)).any() or (whole >= float(limits.max) + 1).any():
        raise _out_of_range(name, dtype)
    return np.asarray(whole.astype(dtype))


def _out_of_range(name: str, dtype: np.dtype[Any]) -> UpdateRejected:
    return UpdateRejected(
        f"Tensor {name!r} of the update leaves the range of {dtype} when its step is put on the current model: "
        "the training has diverged."
    )
