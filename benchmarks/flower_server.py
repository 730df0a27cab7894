"""Flower's own server of the legacy stream; prints the seconds of processors that a round took of it, and then the seconds of each
round, as a JSON list.

Arguments: address, number of clients, number of rounds, the fraction of clients that evaluate.
"""

from __future__ import annotations

import json
import sys
import time
from itertools import pairwise
from typing import Any

from flwr.server import ServerConfig, start_server
from flwr.server.strategy import FedAvg


class Timed(FedAvg):
    """A round begins with the choice of its clients, and the last one ends with its evaluation, or its aggregate where there is none."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.moments: list[float] = []

    def configure_fit(self, *arguments: Any, **named: Any) -> Any:
        chosen = super().configure_fit(*arguments, **named)  # the first time, this waits for the clients
        if not self.moments:
            self.cpu = time.process_time()
        self.moments.append(time.perf_counter())
        return chosen

    def aggregate_fit(self, *arguments: Any, **named: Any) -> Any:
        result = super().aggregate_fit(*arguments, **named)
        self.last = time.perf_counter()
        return result

    def aggregate_evaluate(self, *arguments: Any, **named: Any) -> Any:
        result = super().aggregate_evaluate(*arguments, **named)
        self.last = time.perf_counter()
        return result


def main(address: str, clients: int, rounds: int, evaluating: float) -> None:
    strategy = Timed(
        fraction_evaluate=evaluating,
        min_fit_clients=clients,
        min_evaluate_clients=clients if evaluating else 0,
        min_available_clients=clients,
    )
    start_server(server_address=address, config=ServerConfig(num_rounds=rounds), strategy=strategy)
    moments = [*strategy.moments, strategy.last]
    print((time.process_time() - strategy.cpu) / rounds)
    print(json.dumps([after - before for before, after in pairwise(moments)]))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
