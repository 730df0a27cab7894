"""App "digits-mlp" in NumPy: handwritten digits, a perceptron with one hidden layer of 32 units."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client_agent import methods
from client_agent.apps.datasets import Samples, digits
from client_agent.apps.site import Site, SiteOptions
from client_agent.apps.training import Trainer, he_normal, softmax_cross_entropy
from client_agent.methods import Phase
from client_agent.sdk import App, Arrays, Context, DataCard

INPUTS, HIDDEN, CLASSES = 64, 32, 10
TENSOR_NAMES = ("hidden.weight", "hidden.bias", "output.weight", "output.bias")


class MLP:
    """One hidden layer with ReLU, softmax cross-entropy. Weights have the shape (inputs, outputs)."""

    def __init__(self, parameters: Arrays) -> None:
        self._w1, self._b1, self._w2, self._b2 = (np.array(array, np.float32) for array in parameters)

    def parameters(self) -> Arrays:
        return [self._w1, self._b1, self._w2, self._b2]

    def step(self, samples: Samples, learning_rate: float, phase: Phase | None = None) -> float:
        hidden, logits = self._forward(samples.features)
        loss, by_logits = softmax_cross_entropy(logits, samples.labels)
        by_hidden = by_logits @ self._w2.T
        if phase and phase.contrast:
            seen_by = [
                MLP(list(arrays)).represent(samples) for arrays in (phase.contrast.anchor, phase.contrast.previous)
            ]
            by_hidden += phase.contrast.loss(hidden, *seen_by)[1]
        by_hidden *= hidden > 0
        gradients = [
            samples.features.T @ by_hidden,
            by_hidden.sum(axis=0),
            hidden.T @ by_logits,
            by_logits.sum(axis=0),
        ]
        if phase:
            phase.correct(self.parameters(), gradients, learning_rate)
        for array, gradient in zip(self.parameters(), gradients, strict=True):
            np.subtract(array, np.float32(learning_rate) * gradient, out=array)
        return loss

    def represent(self, samples: Samples) -> NDArray[np.float32]:
        """What the hidden layer makes of the samples, shape (samples, HIDDEN)."""
        return self._forward(samples.features)[0]

    def loss_and_accuracy(self, samples: Samples) -> tuple[float, float]:
        _, logits = self._forward(samples.features)
        loss, _ = softmax_cross_entropy(logits, samples.labels)
        return loss, float((logits.argmax(axis=1) == samples.labels).mean())

    def _forward(self, features: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        hidden = np.maximum(features @ self._w1 + self._b1, 0)
        return hidden, hidden @ self._w2 + self._b2


def initialise(seed: int) -> Arrays:
    """He weights and no biases, in the order of `TENSOR_NAMES`."""
    rng = np.random.default_rng(seed)
    return [
        he_normal(rng, (INPUTS, HIDDEN)),
        np.zeros(HIDDEN, np.float32),
        he_normal(rng, (HIDDEN, CLASSES)),
        np.zeros(CLASSES, np.float32),
    ]


def client_fn(context: Context) -> Trainer:
    return Trainer(Site.of(digits().shared, SiteOptions.parse(context.options)), initialise, MLP)


def columns(context: Context) -> dict[str, NDArray[Any]]:
    """The digit that each image shows, and how dark the image is: the mean of its pixels as scaled for training."""
    site = Site.of(digits().shared, SiteOptions.parse(context.options)).everything
    return {"digit": site.labels, "mean intensity": site.features.mean(axis=1)}


def card(context: Context) -> DataCard:
    site = Site.of(digits().shared, SiteOptions.parse(context.options))
    return site.card("handwritten digits", [str(digit) for digit in range(CLASSES)])


def evaluate_held_out(parameters: Mapping[str, NDArray[Any]]) -> tuple[float, int, dict[str, float]]:
    """Loss, number of examples and accuracy on the digits that no client trains on, for the server."""
    held_out = digits().held_out
    loss, accuracy = MLP([parameters[name] for name in TENSOR_NAMES]).loss_and_accuracy(held_out)
    return loss, len(held_out), {"accuracy": accuracy}


app = App("digits-mlp", "1.0", "numpy", client_fn, TENSOR_NAMES, methods=methods.ALL, columns=columns, card=card)
