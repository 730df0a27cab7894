"""An app that takes as much memory as it is told, and tells on how many processors it runs."""

from __future__ import annotations

import os

import numpy as np

from client_agent.sdk import App, Arrays, Config, EvaluateResult, FitResult, NumPyClient


class GreedyClient(NumPyClient):
    def get_parameters(self, config: Config) -> Arrays:
        return [np.zeros(4, np.float32)]

    def fit(self, parameters: Arrays, config: Config) -> FitResult:
        taken = np.ones(int(config["megabytes"]) * 1024**2, np.uint8)
        return parameters, 1, {"taken": len(taken), "processors": len(os.sched_getaffinity(0))}

    def evaluate(self, parameters: Arrays, config: Config) -> EvaluateResult:
        return 0.0, 1, {}


app = App("greedy", "1.0", "numpy", lambda context: GreedyClient(), ["w"])
