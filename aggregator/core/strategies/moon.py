"""MOON: Li, He and Song, "Model-contrastive federated learning" (CVPR 2021), equations 3 and 4.

Each client adds μ ℓ_con to its loss, with ℓ_con = −log(e^{cos(z, z_glob)/τ} / (e^{cos(z, z_glob)/τ} + e^{cos(z, z_prev)/τ})):
z is what its model makes of an example before the last layer, z_glob the same of the global model, z_prev of the client's
own model after the last round in which it took part. The server's half is that of FedAvg. Defaults: μ = 1, τ = 0.5.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from aggregator.core.strategies.base import MethodConfig
from protos.convert import ScalarValue


class Moon(MethodConfig):
    """Draws what each client's model sees in an example towards what the global model sees in it."""

    title: ClassVar[str] = "MOON: a contrastive loss"
    name: Literal["moon"] = "moon"
    mu: Annotated[float, Field(gt=0, le=1_000, title="Strength μ")] = 1.0
    temperature: Annotated[float, Field(gt=0, le=100, title="Temperature τ")] = 0.5

    def settings(self) -> dict[str, ScalarValue]:
        return {"contrastive_mu": self.mu, "contrastive_temperature": self.temperature}

    def explain(self) -> str:
        return "Each client keeps its model of the last round, and pays for each example with two more forward passes."
