"""SCAFFOLD: Karimireddy et al., "SCAFFOLD: stochastic controlled averaging for federated learning" (ICML 2020), algorithm 1.

Server and clients keep control variates c and c_k, estimates of the gradients of all and of one. A client steps along
g_k(y) − c_k + c, so that unlike data no longer make it drift, and afterwards sets c_k⁺ = c_k − c + (w − y) / (K η) (option
II of equation 4). Beside its model it sends c_k⁺ − c_k, and the server sets c ← c + (|S| / N) mean_k (c_k⁺ − c_k), with N
the clients that could have been asked. All begin at 0. The paper weighs clients alike; the model's mean here goes by
the rule's weights.

With plain SGD at the clients, K η is the sum of their learning rates. Traffic doubles both ways.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from aggregator.core.strategies.base import Contributions, MethodConfig, OptimizerConfig, RuleConfig, ServerHalf
from aggregator.core.strategies.fedavg import Mean
from protos.tensors import AUXILIARY, Parameters, Signature, TensorSpec

PREFIX = f"{AUXILIARY}control/"


class Scaffold(MethodConfig):
    """Control variates take away what makes clients with unlike data drift apart."""

    title: ClassVar[str] = "SCAFFOLD: control variates"
    name: Literal["scaffold"] = "scaffold"

    def refusal(self, rule: RuleConfig, optimizer: OptimizerConfig) -> str | None:
        if isinstance(rule, Mean):
            return None
        return (
            f"SCAFFOLD's control variates are averaged with no defence, and expect plain means of the models: {rule.title} "
            "beside it would promise what it can't keep. Choose the rule “mean”."
        )

    def build(self, shared: Signature) -> ServerHalf:
        return _Control(shared)

    def explain(self) -> str:
        return "Twice the traffic both ways. Clients keep their control variates from round to round; the app must train with plain SGD."


class _Control:
    def __init__(self, shared: Signature) -> None:
        floats = [t for t in shared.tensors if t.dtype.startswith("float")]
        self._returned = Signature(tuple(TensorSpec(PREFIX + t.name, _wide(t.dtype), t.shape) for t in floats))
        self._control: Parameters = {t.name: np.zeros(t.shape, t.dtype) for t in self._returned.tensors}

    def auxiliary(self) -> Parameters:
        return self._control

    def returned(self) -> Signature:
        return self._returned

    def correct(self, current: Parameters, aggregate: Parameters, contributions: Contributions) -> Parameters:
        share = contributions.count / contributions.population
        self._control = {
            name: (control + share * contributions.auxiliary[name].astype(np.float64)).astype(control.dtype)
            for name, control in self._control.items()
        }
        return aggregate

    def state(self) -> Parameters:
        return self._control

    def load(self, state: Parameters) -> None:
        self._control = {t.name: state[t.name] for t in self._returned.tensors}  # in this order it is sent


def _wide(dtype: str) -> str:
    return "float64" if dtype == "float64" else "float32"
