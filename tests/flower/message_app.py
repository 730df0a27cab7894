"""A Flower app of the message API, as its owner wrote it: state, configuration, and a metric that is a list."""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()
with_client_fn = ClientApp(client_fn=lambda context: None)
only_trains = ClientApp()


def model() -> dict[str, Any]:
    return {"weights": np.zeros((2, 3), np.float32), "count": np.array(0)}


@app.train()
def train(message: Message, context: Context) -> Message:
    arrays, config = message.content["arrays"], message.content["config"]
    before = context.state["seen"]["rounds"] if "seen" in context.state else 0
    context.state["seen"] = MetricRecord({"rounds": before + 1})
    step = context.node_config["step"] * context.run_config["scale"]
    updated = {name: Array(np.asarray(array.numpy() + step)) for name, array in arrays.items()}
    metrics = {
        "num-examples": 10,
        "rounds": before + 1,
        "epochs": context.run_config["local-epochs"],
        "told": [float(config[name]) for name in ("server-round", "lr", "pace")],
    }
    content = RecordDict({"arrays": ArrayRecord(updated), "metrics": MetricRecord(metrics)})
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    weights = message.content["arrays"]["weights"].numpy()
    metrics = {"eval_loss": float(weights[0, 0]), "eval_acc": 0.5, "num-examples": 5}
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)


@only_trains.train()
def train_without_count(message: Message, context: Context) -> Message:
    return Message(RecordDict({"arrays": message.content["arrays"]}), reply_to=message)
