"""Federated XGBoost by cyclic training, as Flower's `FedXgbCyclic` and NVIDIA FLARE's tree-based "cyclic" do it.

One client a round, in turn, boosts the global ensemble on its own data, and what it returns is the next one: boosting as on one
machine (Chen and Guestrin, KDD 2016, equation 2), whose data are another site's in every round.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

from aggregator.core.strategies.base import Aggregator, RoundContext, Update, UpdateRejected
from aggregator.core.trees import Ensembles, TreeRule
from protos.tensors import Parameters
from protos.trees import Ensemble


class XgboostCyclic(TreeRule):
    """One client a round, in turn, carries the global ensemble on."""

    title: ClassVar[str] = "XGBoost, cyclic training"
    returns: ClassVar[str] = "all"
    in_turn: ClassVar[bool] = True
    name: Literal["xgboost_cyclic"] = "xgboost_cyclic"

    def begin(self, context: RoundContext) -> Aggregator:
        return _Cyclic(self, context)

    def explain(self, quorum: int) -> str:
        return (
            f"Local epochs are boosting rounds. A client adds up to {self.max_trees:,} trees in its turn, "
            "and can't change those of others."
        )


class _Cyclic:
    def __init__(self, config: TreeRule, context: RoundContext) -> None:
        self._ensembles = Ensembles(config, context)
        self._next: Ensemble | None = None

    def add(self, update: Update) -> None:
        if self._next is not None:
            raise UpdateRejected("Another client has had its turn in this round.")
        ensemble, current = self._ensembles.read(update), self._ensembles.current()
        if not ensemble.begins_with(current):
            raise UpdateRejected("The update doesn't begin with the trees of the ensemble that the client was given.")
        self._ensembles.check_new(ensemble, after=len(current.trees))
        self._next = replace(ensemble, header=current.header)  # which is of everybody's trees

    def result(self) -> Parameters:
        if self._next is None:
            raise ValueError("No update has been taken in.")
        return self._ensembles.as_model(self._next)

    def close(self) -> None:
        """Everything is in memory."""
