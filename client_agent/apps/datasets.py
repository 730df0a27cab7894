"""The data sets that come with the package; `data/NOTICE.txt` says where they are from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from client_agent.apps.partition import Indices, hold_out

HELD_OUT_FRACTION = 0.2
HELD_OUT_SEED = 20_220
"""Fixed for ever: results on held-out data compare only if it is the same data."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Features, one row a sample, with their labels."""

    features: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Indices) -> Samples:
        return Samples(self.features[indices], self.labels[indices])


@dataclass(frozen=True, slots=True)
class DataSet:
    """What the sites share among themselves, and the held-out part that none of them trains on."""

    shared: Samples
    held_out: Samples


@cache
def digits() -> DataSet:
    """Handwritten digits: 1,797 images of 8 x 8 pixels, ten classes.

    Pixels, 0 to 16 with a mean near 5, are centred and scaled by constants: all sites must scale alike.
    """
    table = _read("digits.csv.gz", skip_rows=0)
    return _split((table[:, :-1] - 5) / 4, table[:, -1])


@cache
def breast_cancer() -> DataSet:
    """Wisconsin diagnostic breast cancer: 569 patients, 30 features, label 1 means benign. Features are standardised.

    Sites must agree on a scale before they train together; here it is that of the shared part.
    """
    features, labels = _measurements()
    shared, _ = hold_out(labels, HELD_OUT_FRACTION, HELD_OUT_SEED)
    mean, deviation = features[shared].mean(axis=0), features[shared].std(axis=0)
    return _split((features - mean) / deviation, labels)


@cache
def breast_cancer_measurements() -> DataSet:
    """The same patients in the same order, in the units in which the cells were measured."""
    return _split(*_measurements())


def _measurements() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    table = _read("breast_cancer.csv.gz", skip_rows=1)
    return table[:, :-1], table[:, -1]


def _read(name: str, skip_rows: int) -> NDArray[np.float64]:
    with resources.as_file(resources.files("client_agent.apps") / "data" / name) as path:
        return np.loadtxt(path, delimiter=",", skiprows=skip_rows)


def _split(features: NDArray[np.float64], labels: NDArray[np.float64]) -> DataSet:
    samples = Samples(features.astype(np.float32), labels.astype(np.int64))
    shared, held_out = hold_out(samples.labels, HELD_OUT_FRACTION, HELD_OUT_SEED)
    return DataSet(samples.take(shared), samples.take(held_out))
