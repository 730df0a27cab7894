"""Rounds of a strategy with both halves of its method, without any network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from aggregator.core.config import StrategyConfig
from aggregator.core.strategies.base import RoundContext, Update
from aggregator.core.strategy import Strategy
from client_agent import execution
from client_agent.execution import Evaluation, Given
from client_agent.hosting import HostedApp
from protos.convert import scalars_from_proto
from protos.tensors import AUXILIARY, Parameters, decode
from tests.support.spool import MemorySpool


@dataclass
class Simulation:
    """What is kept for each client, and the last update of each, can be looked at between rounds."""

    config: StrategyConfig
    clients: Mapping[str, HostedApp]
    seed: int = 0
    model: Parameters = field(init=False)
    kept: dict[str, Parameters] = field(init=False, default_factory=dict)
    updates: dict[str, Parameters] = field(init=False, default_factory=dict)
    rounds: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        first = next(iter(self.clients.values()))
        self.model = first.app.named([np.array(a) for a in first.client.get_parameters({"seed": self.seed})])
        self.strategy = Strategy(self.config, first.signature)

    def run(self, rounds: int, cohort: list[str] | None = None) -> Parameters:
        for _ in range(rounds):
            self._round(cohort or list(self.clients))
        return self.model

    def evaluate(self, client: str) -> Evaluation:
        given = self._given(client, self.strategy.shared_of(self.model))
        return execution.evaluate(self.clients[client], given, {"seed": self.seed})

    def _round(self, cohort: list[str]) -> None:
        self.rounds += 1
        strategy = self.strategy
        current = strategy.shared_of(self.model)
        context = RoundContext(
            self.rounds, self.seed, strategy.shared, current, len(cohort), MemorySpool, len(self.clients)
        )
        aggregation = strategy.begin(context)
        config = {**strategy.fit_config(self.rounds, 100, len(cohort)), "seed": self.seed, "round": self.rounds}
        for client in cohort:
            trained = execution.fit(
                self.clients[client], self._given(client, strategy.sent_to_train(self.model)), config
            )
            self.kept[client] = trained.kept
            self.updates[client] = decode(trained.update.content, strategy.uploaded)
            numbers = {
                n: float(v) for n, v in scalars_from_proto(trained.update.metrics).items() if isinstance(v, int | float)
            }
            aggregation.add(Update(client, self.updates[client], trained.update.num_examples, numbers))
        self.model = aggregation.next_model(self.model, aggregation.result())
        aggregation.close()

    def _given(self, client: str, sent: Parameters) -> Given:
        copies = {name: array.copy() for name, array in sent.items()}
        shared = {name: array for name, array in copies.items() if not name.startswith(AUXILIARY)}
        auxiliary = {name: array for name, array in copies.items() if name.startswith(AUXILIARY)}
        return Given(shared, auxiliary, self.kept.get(client, {}), self.strategy.local_tensors)
