"""What values that a strategy tells are called in a Flower app."""

from __future__ import annotations

from collections.abc import Mapping

from protos.convert import ScalarValue

_FLOWERS_NAMES = {"round": "server-round", "epochs": "local-epochs", "learning_rate": "lr"}
"""By which Flower's own templates call some of them."""
_STRATEGYS_NAMES = {theirs.replace("-", "_"): ours for ours, theirs in _FLOWERS_NAMES.items()}


def with_flowers_names(config: Mapping[str, ScalarValue]) -> dict[str, ScalarValue]:
    """Each value also with dashes in its name, and as Flower's templates call it. A name that the strategy uses is its own."""
    told: dict[str, ScalarValue] = {}
    for name, value in config.items():
        told[name.replace("_", "-")] = value
        if name in _FLOWERS_NAMES:
            told[_FLOWERS_NAMES[name]] = value
    return {**told, **config}


def strategys_name(name: str) -> str:
    """Of the value that an app may read by `name`."""
    plain = name.replace("-", "_")
    return _STRATEGYS_NAMES.get(plain, plain)
