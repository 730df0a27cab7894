"""A data owner's program, written for Flower: what it is, and which server it goes to, is in its arguments.

Fitting adds the client's step to each weight; evaluating measures the first one.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from flwr.client import NumPyClient, start_client, start_numpy_client


class Site(NumPyClient):
    def __init__(self, step: float) -> None:
        self.step = step

    def get_properties(self, config: Any) -> Any:
        return {"step": self.step, "rooms": 3}

    def get_parameters(self, config: Any) -> Any:
        return [np.zeros((2, 3), np.float32), np.array(0)]

    def fit(self, parameters: Any, config: Any) -> Any:
        weights, count = parameters
        metrics = {"told_round": config["server_round"], "told_pace": config["pace"], "name": "site"}
        # As Flower lets them, a client may send floats of another width.
        return [weights.astype(np.float64) + self.step, count + 1], 10, metrics

    def evaluate(self, parameters: Any, config: Any) -> Any:
        return float(parameters[0][0, 0]), 5, {"count": int(parameters[1])}


class Failing(Site):
    def fit(self, parameters: Any, config: Any) -> Any:
        raise ValueError("no data today")


class FitOnly(NumPyClient):
    """As for statistics: what it is given doesn't matter to it."""

    def fit(self, parameters: Any, config: Any) -> Any:
        return [np.array([1, 2, 3])], 4, {}


def main(kind: str, address: str, step: str = "0") -> None:
    site = Site(float(step))
    match kind:
        case "numpy":
            start_numpy_client(server_address=address, client=site)
        case "client":
            start_client(server_address=address, client=site.to_client())
        case "client_fn":
            start_client(server_address=address, client_fn=lambda context: site.to_client())
        case "failing":
            start_client(server_address=address, client=Failing(0).to_client())
        case "fit_only":
            start_client(server_address=address, client=FitOnly().to_client())


main(*sys.argv[1:])
