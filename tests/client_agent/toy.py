"""An app whose training a test can hold and make fail."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import numpy as np

from client_agent.sdk import Arrays, Config, EvaluateResult, FitResult, Metrics, NumPyClient
from protos.tensors import Parameters

Launch = Callable[..., asyncio.Task[None]]
"""The fixture `launch`: starts an agent, which ends with the test."""

TOY_SHAPE = (300, 1000)
"""1.2 MB: an upload of several chunks."""


class ToyClient(NumPyClient):
    """Adds one to every weight. A test can hold its training, and make it fail."""

    def __init__(self) -> None:
        self.fits = 0
        self.started = threading.Event()
        self.may_end = threading.Event()
        self.may_end.set()

    def get_parameters(self, config: Config) -> Arrays:
        return [np.full(TOY_SHAPE, config["seed"], np.float32)]

    def fit(self, parameters: Arrays, config: Config) -> FitResult:
        self.fits += 1
        self.started.set()
        if "error" in config:
            raise ArithmeticError(config["error"])
        while not self.may_end.is_set() and self.may_go_on(1, 4):
            self.report_progress(0.5, loss=1.0)
            self.sleep(0.01)
        self.report_progress(1.0, loss=0.5)
        weights = parameters[0]
        weights += 1
        return [weights * np.float32(config.get("factor", 1.0))], 7, {"loss": np.float32(0.5)}  # type: ignore[dict-item]

    def evaluate(self, parameters: Arrays, config: Config) -> EvaluateResult:
        return float(parameters[0].mean()), 3, {"accuracy": 0.75}

    def get_properties(self, config: Config) -> Metrics:
        return {"num_examples": 7}


def toy_model(value: float = 1.0) -> Parameters:
    return {"weight": np.full(TOY_SHAPE, value, np.float32)}
