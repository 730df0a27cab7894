"""The training loop of the built-in apps: minibatch SGD over one site's data, whatever the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from client_agent.apps.datasets import Samples
from client_agent.apps.partition import Indices
from client_agent.apps.site import Site
from client_agent.sdk import Arrays, Config, EvaluateResult, FitResult, Metrics, NumPyClient


class Model(Protocol):
    """A classifier under training."""

    def parameters(self) -> Arrays: ...

    def step(self, samples: Samples, learning_rate: float) -> float:
        """One step of gradient descent; returns the loss before it."""
        ...

    def loss_and_accuracy(self, samples: Samples) -> tuple[float, float]: ...


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """What the server may set for one round."""

    epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    round: int

    @classmethod
    def read(cls, config: Config) -> Hyperparameters:
        return cls(
            epochs=int(config.get("epochs", 2)),
            batch_size=int(config.get("batch_size", 16)),
            learning_rate=float(config.get("learning_rate", 0.2)),
            seed=int(config.get("seed", 0)),
            round=int(config.get("round", 0)),
        )


class Trainer(NumPyClient):
    """Trains a `Model` on a `Site`. The same site, parameters and config give the same update, bit for bit."""

    def __init__(self, site: Site, initialise: Callable[[int], Arrays], model: Callable[[Arrays], Model]) -> None:
        self._site = site
        self._initialise = initialise
        self._model = model

    def get_parameters(self, config: Config) -> Arrays:
        return self._initialise(int(config.get("seed", 0)))

    def get_properties(self, config: Config) -> Metrics:
        return {"num_examples": len(self._site.train), "num_validation_examples": len(self._site.validation)}

    def fit(self, parameters: Arrays, config: Config) -> FitResult:
        settings = Hyperparameters.read(config)
        model = self._model(parameters)
        train = self._site.train
        batches = list(_shuffled_batches(len(train), settings, self._site.options.partition))
        initial_loss, _ = model.loss_and_accuracy(train)
        pause = self._site.options.slowdown * settings.epochs / len(batches)
        for number, batch in enumerate(batches, start=1):
            loss = model.step(train.take(batch), settings.learning_rate)
            if pause:
                self.sleep(pause)
            self.report_progress(number / len(batches), loss=loss)
        loss, accuracy = model.loss_and_accuracy(train)
        # The last two are what fair and normalised averaging ask for (q-FedAvg, FedNova).
        metrics: Metrics = {
            "loss": loss,
            "accuracy": accuracy,
            "initial_loss": initial_loss,
            "local_steps": len(batches),
        }
        return model.parameters(), len(train), metrics

    def evaluate(self, parameters: Arrays, config: Config) -> EvaluateResult:
        loss, accuracy = self._model(parameters).loss_and_accuracy(self._site.validation)
        return loss, len(self._site.validation), {"accuracy": accuracy}


def softmax_cross_entropy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[float, NDArray[np.float32]]:
    """The mean loss, and its gradient by `logits`."""
    rows = np.arange(len(labels))
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    gradient = np.exp(log_probabilities)
    gradient[rows, labels] -= 1
    return float(-log_probabilities[rows, labels].mean()), gradient / np.float32(len(labels))


def he_normal(rng: np.random.Generator, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Weights for a layer with `shape[0]` inputs (He et al. 2015, https://arxiv.org/abs/1502.01852)."""
    weights: NDArray[np.float64] = rng.standard_normal(shape) * np.sqrt(2 / shape[0])
    return weights.astype(np.float32)


def _shuffled_batches(count: int, settings: Hyperparameters, partition: int) -> Iterator[Indices]:
    rng = np.random.default_rng((settings.seed, settings.round, partition))
    for _ in range(settings.epochs):
        order = rng.permutation(count)
        for start in range(0, count, settings.batch_size):
            yield order[start : start + settings.batch_size]
