"""What measures the app "breast-cancer-xgboost" without XGBoost: on the server, from the ensemble's JSON alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client_agent.apps.datasets import Samples, breast_cancer
from protos.trees import Ensemble

TENSOR = "ensemble"
BASE_SCORE = 0.5
"""Of the initial ensemble: the margin 0. All clients must agree on it."""


def loss_and_accuracy(margins: NDArray[np.float32], samples: Samples) -> tuple[float, float]:
    """Mean log loss, and the share of right answers; `margins` are log odds of label 1."""
    loss = np.logaddexp(0, margins.astype(np.float64)) - samples.labels * margins
    return float(loss.mean()), float(((margins > 0) == samples.labels).mean())


def evaluate_held_out(parameters: Mapping[str, NDArray[Any]]) -> tuple[float, int, dict[str, float]]:
    """Loss, number of examples, accuracy and number of trees, on the patients that no client trains on, for the server."""
    held_out, ensemble = breast_cancer().held_out, Ensemble.parse(parameters[TENSOR])
    loss, accuracy = loss_and_accuracy(ensemble.margins(held_out.features)[:, 0], held_out)
    return loss, len(held_out), {"accuracy": accuracy, "trees": float(len(ensemble.trees))}
