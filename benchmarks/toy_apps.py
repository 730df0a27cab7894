"""Apps that don't train, for agents whose machinery is to be measured."""

from __future__ import annotations

import time

import numpy as np

from client_agent import App, Context, NumPyClient
from client_agent.sdk import Arrays, Config, EvaluateResult, FitResult


class Echo(NumPyClient):
    """Sends back what it was given: a round is what the platform makes of it."""

    def __init__(self, size: int) -> None:
        self._size = size

    def get_parameters(self, config: Config) -> Arrays:
        return [np.zeros(self._size, np.float32)]

    def fit(self, parameters: Arrays, config: Config) -> FitResult:
        return parameters, 1, {}

    def evaluate(self, parameters: Arrays, config: Config) -> EvaluateResult:
        return 0.0, 1, {}


class Clock(Echo):
    """Reports what time it is, `reports` times."""

    def __init__(self, reports: int, pause: float) -> None:
        super().__init__(1)
        self._reports, self._pause = reports, pause

    def fit(self, parameters: Arrays, config: Config) -> FitResult:
        for number in range(1, self._reports + 1):
            self.report_progress(number / self._reports, sent=time.monotonic())
            self.sleep(self._pause)
        return parameters, 1, {}


def _echo(context: Context) -> Echo:
    return Echo(int(context.options["size"]))


def _clock(context: Context) -> Clock:
    return Clock(int(context.options["reports"]), float(context.options["pause"]))


echo = App("echo", "1", "numpy", _echo)
clock = App("clock", "1", "numpy", _clock)
