"""Federated XGBoost by bagging, as Flower's `FedXgbBagging` and NVIDIA FLARE's tree-based "bagging" do it.

In each round every client boosts the global ensemble by a few rounds on its own data (Chen and Guestrin, "XGBoost: a scalable tree
boosting system", KDD 2016, equation 2: ŷ = Σ_k f_k(x)) and sends its new trees f_k alone; the server appends the trees of all of
them. They are fitted side by side to the same residuals, so that the sum of n clients' trees steps n times as far as one client's.
Dividing the learning rate by n makes it their mean (NVIDIA FLARE's scaled learning rate, `lr_mode` "uniform").
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from aggregator.core.strategies.base import Aggregator, RoundContext, Update
from aggregator.core.trees import Ensembles, TreeRule
from protos.convert import Scalars
from protos.tensors import Parameters
from protos.trees import Ensemble


class XgboostBagging(TreeRule):
    """The trees of all clients are appended to the global ensemble."""

    title: ClassVar[str] = "XGBoost by bagging"
    returns: ClassVar[str] = "new"
    name: Literal["xgboost_bagging"] = "xgboost_bagging"
    scale_learning_rate: Annotated[
        bool,
        Field(
            title="Share the learning rate among the clients",
            description="Each trains with the learning rate divided by the updates a round wants.",
        ),
    ] = True

    def fit_config(self, updates_wanted: int) -> Scalars:
        scale = 1 / updates_wanted if self.scale_learning_rate else 1.0
        return {**super().fit_config(updates_wanted), "learning_rate_scale": scale}

    def begin(self, context: RoundContext) -> Aggregator:
        return _Bagging(self, context)

    def explain(self, quorum: int) -> str:
        return (
            f"Local epochs are boosting rounds. A round adds up to {self.max_trees:,} trees of each client; "
            "one that sends wrong trees moves every prediction."
        )


class _Bagging:
    def __init__(self, config: TreeRule, context: RoundContext) -> None:
        self._ensembles = Ensembles(config, context)
        self._updates: dict[str, Ensemble] = {}

    def add(self, update: Update) -> None:
        ensemble = self._ensembles.read(update)
        self._ensembles.check_new(ensemble)
        self._updates[update.client_id] = ensemble

    def result(self) -> Parameters:
        """The trees are appended in the order of the clients' ids."""
        updates = [ensemble for _, ensemble in sorted(self._updates.items())]
        if not updates:
            raise ValueError("No update has been taken in.")
        merged = self._ensembles.current().joined(updates)
        return self._ensembles.as_model(replace(merged, num_parallel_tree=updates[0].num_parallel_tree))

    def close(self) -> None:
        """Everything is in memory."""
