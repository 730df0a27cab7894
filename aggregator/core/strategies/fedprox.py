"""FedProx: Li et al., "Federated optimization in heterogeneous networks" (MLSys 2020), equation 2.

Each client minimises F_k(w) + (μ/2) ‖w − w_t‖², so that its steps don't lead far from the global model w_t however many
they are. The server's half is that of FedAvg. Default: μ = 0.01; the paper tries 0.001 to 1. An app written for
Flower's FedProx reads the same `proximal_mu`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from aggregator.core.strategies.base import MethodConfig
from protos.convert import ScalarValue


class FedProx(MethodConfig):
    """Holds each client's training near the global model."""

    title: ClassVar[str] = "FedProx: a proximal term"
    partial_work: ClassVar[bool] = True  # the γ-inexact solutions of definition 2: any amount of work
    name: Literal["fedprox"] = "fedprox"
    proximal_mu: Annotated[
        float, Field(gt=0, le=1_000, title="Strength μ", description="Larger holds clients closer to the global model.")
    ] = 0.01

    def settings(self) -> dict[str, ScalarValue]:
        return {"proximal_mu": self.proximal_mu}

    def explain(self) -> str:
        return f"Each client is drawn back to the global model with strength {self.proximal_mu:g}."
