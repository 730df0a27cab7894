"""FedDyn: Acar et al., "Federated learning based on dynamic regularization" (ICLR 2021), algorithm 1.

Client k minimises L_k(w) − ⟨g_k, w⟩ + (α/2) ‖w − w_t‖² and then sets g_k ← g_k − α (w_k − w_t). The server keeps h ← h − α
(1/m) Σ_{k ∈ S} (w_k − w_t), with m the clients that could have been asked, and w_{t+1} = mean_{k ∈ S} w_k − h / α. All begin
at 0. As in the paper clients count alike, however many examples they have: where it converges, it is to a minimum of the
plain sum of their losses, whatever the number of local steps. Default: α = 0.1; the paper tries 0.001 to 0.1.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from aggregator.core.strategies.base import Contributions, MethodConfig, OptimizerConfig, RuleConfig, ServerHalf
from aggregator.core.strategies.fedavg import Mean, NoOptimizer
from protos.convert import ScalarValue
from protos.tensors import Parameters, Signature


class FedDyn(MethodConfig):
    """A term that changes from round to round makes the clients' optima agree with that of all."""

    title: ClassVar[str] = "FedDyn: a dynamic regulariser"
    counts_alike: ClassVar[bool] = True
    name: Literal["feddyn"] = "feddyn"
    alpha: Annotated[float, Field(gt=0, le=1_000, title="Strength α")] = 0.1

    def settings(self) -> dict[str, ScalarValue]:
        return {"feddyn_alpha": self.alpha}

    def refusal(self, rule: RuleConfig, optimizer: OptimizerConfig) -> str | None:
        if not isinstance(rule, Mean):
            return f"FedDyn's state at the server is made of plain means of the models, not of {rule.title}. Choose the rule “mean”."
        if not isinstance(optimizer, NoOptimizer):
            return f"FedDyn makes the next model by itself; {optimizer.title} would undo its correction. Choose the optimizer “none”."
        return None

    def build(self, shared: Signature) -> ServerHalf:
        return _Dynamic(shared, self.alpha)

    def explain(self) -> str:
        kept = "Clients keep a gradient from round to round. The traffic is that of FedAvg."
        return f"{kept} In the mean they count alike, however many examples they have."


class _Dynamic:
    def __init__(self, shared: Signature, alpha: float) -> None:
        self._alpha = alpha
        self._correction: Parameters = {
            t.name: np.zeros(t.shape, np.float64) for t in shared.tensors if t.dtype.startswith("float")
        }

    def auxiliary(self) -> Parameters:
        return {}

    def returned(self) -> Signature:
        return Signature(())

    def correct(self, current: Parameters, aggregate: Parameters, contributions: Contributions) -> Parameters:
        share = contributions.count / contributions.population
        model = dict(aggregate)
        for name, h in self._correction.items():
            mean = aggregate[name].astype(np.float64)
            self._correction[name] = h - self._alpha * share * (mean - current[name])
            model[name] = (mean - self._correction[name] / self._alpha).astype(aggregate[name].dtype)
        return model

    def state(self) -> Parameters:
        return dict(self._correction)

    def load(self, state: Parameters) -> None:
        self._correction = dict(state)
