"""A client of Flower that trains nothing, for the server at the address given, with a model of the size given."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from flwr.client import NumPyClient, start_client


class Echo(NumPyClient):
    def __init__(self, size: int) -> None:
        self.size = size

    def get_parameters(self, config: Any) -> Any:
        return [np.zeros(self.size, np.float32)]

    def fit(self, parameters: Any, config: Any) -> Any:
        return parameters, 1, {}

    def evaluate(self, parameters: Any, config: Any) -> Any:
        return 0.0, 1, {}


if __name__ == "__main__":
    start_client(server_address=sys.argv[1], client=Echo(int(sys.argv[2])).to_client())
