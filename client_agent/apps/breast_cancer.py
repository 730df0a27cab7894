"""App "breast-cancer": diagnosis from thirty features of a cell image, by logistic regression in NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client_agent import methods
from client_agent.apps.datasets import Samples, breast_cancer, breast_cancer_measurements
from client_agent.apps.site import Site, SiteOptions
from client_agent.apps.training import Trainer
from client_agent.methods import Phase
from client_agent.sdk import App, Arrays, Context, DataCard

FEATURES = 30
TENSOR_NAMES = ("weight", "bias")
PROPERTIES = (
    "radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity", "concave points", "symmetry",
    "fractal dimension",
)  # fmt: skip
COLUMNS = tuple(f"{of} {name}" for of in ("mean", "error of", "worst") for name in PROPERTIES)
"""Of the cells in one image: the mean of each property, its standard error, and the mean of the three largest values."""


class LogisticRegression:
    """P(label = 1) = sigmoid(features @ weight + bias)."""

    def __init__(self, parameters: Arrays) -> None:
        self._weight, self._bias = (np.array(array, np.float32) for array in parameters)

    def parameters(self) -> Arrays:
        return [self._weight, self._bias]

    def step(self, samples: Samples, learning_rate: float, phase: Phase | None = None) -> float:
        logits = self._logits(samples)
        by_logits = (_sigmoid(logits) - samples.labels.astype(np.float32)) / np.float32(len(samples))
        gradients = [samples.features.T @ by_logits, by_logits.sum(keepdims=True)]
        if phase:
            phase.correct(self.parameters(), gradients, learning_rate)
        for array, gradient in zip(self.parameters(), gradients, strict=True):
            np.subtract(array, np.float32(learning_rate) * gradient, out=array)
        return _loss(logits, samples)

    def loss_and_accuracy(self, samples: Samples) -> tuple[float, float]:
        logits = self._logits(samples)
        return _loss(logits, samples), float(((logits > 0) == samples.labels).mean())

    def _logits(self, samples: Samples) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = samples.features @ self._weight + self._bias
        return logits


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    half = np.float32(0.5)
    return np.asarray(half + half * np.tanh(half * logits))  # Unlike 1 / (1 + exp(-x)), it can't overflow.


def _loss(logits: NDArray[np.float32], samples: Samples) -> float:
    return float((np.logaddexp(0, logits) - samples.labels * logits).mean())


def initialise(seed: int) -> Arrays:
    """All zeros: the problem is convex, so that `seed` has nothing to break."""
    return [np.zeros(FEATURES, np.float32), np.zeros(1, np.float32)]


def client_fn(context: Context) -> Trainer:
    site = Site.of(breast_cancer().shared, SiteOptions.parse(context.options))
    return Trainer(site, initialise, LogisticRegression)


def columns(context: Context) -> dict[str, NDArray[Any]]:
    """The patients' measurements, not standardised, and the diagnosis (1 means benign)."""
    site = Site.of(breast_cancer_measurements().shared, SiteOptions.parse(context.options)).everything
    return dict(zip(COLUMNS, site.features.T, strict=True)) | {"benign": site.labels}


def card(context: Context) -> DataCard:
    site = Site.of(breast_cancer().shared, SiteOptions.parse(context.options))
    return site.card("Wisconsin diagnostic breast cancer", ("malignant", "benign"))


def evaluate_held_out(parameters: Mapping[str, NDArray[Any]]) -> tuple[float, int, dict[str, float]]:
    """Loss, number of examples and accuracy on the patients that no client trains on, for the server."""
    held_out = breast_cancer().held_out
    loss, accuracy = LogisticRegression([parameters[name] for name in TENSOR_NAMES]).loss_and_accuracy(held_out)
    return loss, len(held_out), {"accuracy": accuracy}


app = App(
    "breast-cancer", "1.0", "numpy", client_fn, TENSOR_NAMES, methods=methods.WITH_PHASES, columns=columns, card=card
)
