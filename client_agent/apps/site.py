"""One site's share of a built-in data set, from the owner's options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from client_agent.apps.datasets import Samples
from client_agent.apps.partition import dirichlet_partition
from client_agent.errors import ConfigurationError
from client_agent.sdk import DataCard

VALIDATION_FRACTION = 0.2


@dataclass(frozen=True, slots=True)
class SiteOptions:
    """The options of the built-in apps: `fedagent run --set partition=2 --set partitions=5`."""

    partition: int = 0
    partitions: int = 1
    alpha: float = 0.5
    seed: int = 0
    slowdown: float = 0.0
    """Seconds that each epoch takes longer, to show how a federation bears a slow machine."""

    def __post_init__(self) -> None:
        if not 0 <= self.partition < self.partitions:
            raise ConfigurationError(
                f"Option partition={self.partition} is not below partitions={self.partitions}; the first is 0."
            )
        if self.alpha <= 0 or self.seed < 0 or self.slowdown < 0:
            raise ConfigurationError("Options: alpha must be above 0, seed and slowdown not below 0.")

    @classmethod
    def parse(cls, options: Mapping[str, str]) -> SiteOptions:
        """Raises `ConfigurationError` for an unknown option or a value of the wrong type."""
        parsers: dict[str, Callable[[str], int | float]] = {
            "partition": int,
            "partitions": int,
            "alpha": float,
            "seed": int,
            "slowdown": float,
        }
        if unknown := sorted(options.keys() - parsers.keys()):
            raise ConfigurationError(f"Unknown option {unknown[0]!r}; known are {', '.join(parsers)}.")
        values = {name: _parse(name, text, parsers[name]) for name, text in options.items()}
        return cls(**values)  # type: ignore[arg-type]  # each parser returns its field's type


@dataclass(frozen=True, slots=True)
class Site:
    """What one client trains on and what it validates on."""

    train: Samples
    validation: Samples
    options: SiteOptions

    @property
    def everything(self) -> Samples:
        """What this client has."""
        features = np.concatenate([self.train.features, self.validation.features])
        return Samples(features, np.concatenate([self.train.labels, self.validation.labels]))

    def card(self, data_set: str, classes: Sequence[str]) -> DataCard:
        """`classes`: the names of the labels 0, 1, ..."""
        own = self.everything
        counts = np.bincount(own.labels, minlength=len(classes))
        labels = {name: int(count) for name, count in zip(classes, counts, strict=True)}
        return DataCard(len(own), own.features.shape[1], labels, data_set)

    @classmethod
    def of(cls, samples: Samples, options: SiteOptions) -> Site:
        shares = dirichlet_partition(samples.labels, options.partitions, options.alpha, options.seed)
        own = np.random.default_rng((options.seed, options.partition)).permutation(shares[options.partition])
        validation = max(1, round(VALIDATION_FRACTION * len(own)))
        return cls(samples.take(own[validation:]), samples.take(own[:validation]), options)


def _parse(name: str, text: str, parser: Callable[[str], int | float]) -> int | float:
    try:
        return parser(text)
    except ValueError:
        raise ConfigurationError(f"Option {name}={text!r} is not {_KINDS[parser]}.") from None


_KINDS: Mapping[Callable[[str], int | float], str] = {int: "a whole number", float: "a number"}
