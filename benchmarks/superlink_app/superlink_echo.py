"""The clients of `benchmarks.flower_client` as an app for Flower's SuperLink.

Writes the seconds of each round so far, as a JSON list, to the file `times`, whenever one has ended.
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

    def __init__(self, file: Path, **options: Any) -> None:
        super().__init__(**options)
        self.file = file
        self.moments: list[float] = []

    def configure_train(self, *arguments: Any, **named: Any) -> Any:
        chosen = super().configure_train(*arguments, **named)  # the first time, this waits for the clients
        self.moments.append(time.perf_counter())
        return chosen

    def aggregate_evaluate(self, *arguments: Any, **named: Any) -> Any:
        result = super().aggregate_evaluate(*arguments, **named)
        self.write([*self.moments, time.perf_counter()])
        return result

    def write(self, moments: list[float]) -> None:
        fresh = self.file.with_suffix(".new")
        fresh.write_text(json.dumps([after - before for before, after in pairwise(moments)]))
        fresh.replace(self.file)


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
        Path(str(config["times"])),
        min_train_nodes=config["clients"],
        min_evaluate_nodes=config["clients"],
        min_available_nodes=config["clients"],
    )
    arrays = ArrayRecord([np.zeros(int(config["size"]), np.float32)])
    strategy.start(grid=grid, initial_arrays=arrays, num_rounds=int(config["rounds"]))
