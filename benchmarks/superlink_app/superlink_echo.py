"""The clients of `benchmarks.flower_client` as an app for Flower's SuperLink.

Writes the seconds of each round, as a JSON list, to the file `times`.
"""

from __future__ import annotations

import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

client = ClientApp()
server = ServerApp()


class Timed(FedAvg):
    """A round begins with the choice of its clients, and the last one ends with its evaluation."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.moments: list[float] = []

    def configure_train(self, *arguments: Any, **named: Any) -> Any:
        chosen = super().configure_train(*arguments, **named)  # the first time, this waits for the clients
        self.moments.append(time.perf_counter())
        return chosen

    def aggregate_evaluate(self, *arguments: Any, **named: Any) -> Any:
        result = super().aggregate_evaluate(*arguments, **named)
        self.last = time.perf_counter()
        return result


@client.train()
def train(message: Message, context: Context) -> Message:
    metrics = MetricRecord({"num-examples": 1})
    return Message(RecordDict({"arrays": message.content["arrays"], "metrics": metrics}), reply_to=message)


@client.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    return Message(RecordDict({"metrics": MetricRecord({"loss": 0.0, "num-examples": 1})}), reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    strategy = Timed(
        min_train_nodes=config["clients"], min_evaluate_nodes=config["clients"], min_available_nodes=config["clients"]
    )
    arrays = ArrayRecord([np.zeros(int(config["size"]), np.float32)])
    strategy.start(grid=grid, initial_arrays=arrays, num_rounds=int(config["rounds"]))
    moments = [*strategy.moments, strategy.last]
    Path(str(config["times"])).write_text(json.dumps([after - before for before, after in pairwise(moments)]))
