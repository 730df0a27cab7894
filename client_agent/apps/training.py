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
from client_agent.methods import Phase
from client_agent.sdk import Arrays, Config, EvaluateResult, FitResult, Metrics, NumPyClient


class Model(Protocol):
    """A classifier under training."""

    def parameters(self) -> Arrays: ...

    def step(self, samples: Samples, learning_rate: float, phase: Phase | None = None) -> float:
        """One step of gradient descent, corrected as the phase wants it; returns the loss before it."""
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
        train = self._site.train
        initial_loss, _ = self._model(parameters).loss_and_accuracy(train)
        batches_per_epoch = -(-len(train) // settings.batch_size)
        total = batches_per_epoch * self.method.total_epochs(settings.epochs)
        done = local_steps = 0
        for number, phase in enumerate(self.method.phases(parameters, settings.epochs)):
            steps = self._train(phase, settings, number, (done, total))
            done += steps
            local_steps += 0 if phase.personal else steps
        model = self._model(self.method.result)
        loss, accuracy = model.loss_and_accuracy(train)
        # The last two are what fair and normalised averaging ask for (q-FedAvg, FedNova).
        metrics: Metrics = {
            "loss": loss,
            "accuracy": accuracy,
            "initial_loss": initial_loss,
            "local_steps": local_steps,
        }
        return model.parameters(), len(train), metrics

    def _train(self, phase: Phase, settings: Hyperparameters, number: int, progress: tuple[int, int]) -> int:
        """Through the epochs of a phase, the `number`-th; `progress` is the steps done before it and those of all phases.

        Returns the steps that were made, which are fewer when the time is up.
        """
        train, options, model = self._site.train, self._site.options, self._model(phase.parameters)
        batches = list(_shuffled_batches(len(train), settings, phase.epochs, options.partition, number))
        pause = options.slowdown * phase.epochs / len(batches)
        before, total = progress
        made = 0
        for step, batch in enumerate(batches, start=before + 1):
            if not self.may_go_on(step - 1, total):
                break
            loss = model.step(train.take(batch), settings.learning_rate, phase)
            if pause:
                self.sleep(pause)
            self.report_progress(step / total, loss=loss)
            made += 1
        self.may_go_on(before + made, total)
        phase.end(model.parameters())
        return made

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


def _shuffled_batches(
    count: int, settings: Hyperparameters, epochs: int, partition: int, phase: int
) -> Iterator[Indices]:
    seeds = (settings.seed, settings.round, partition)
    rng = np.random.default_rng((*seeds, phase) if phase else seeds)
    for _ in range(epochs):
        order = rng.permutation(count)
        for start in range(0, count, settings.batch_size):
            yield order[start : start + settings.batch_size]
