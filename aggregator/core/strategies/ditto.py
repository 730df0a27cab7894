"""Ditto: Li, Hu, Beirami and Smith, "Ditto: fair and robust federated learning through personalization" (ICML 2021), algorithm 1.

The global model is trained as ever. Beside it each client keeps a personal model v_k, trained to minimise F_k(v) + (λ/2)
‖v − w_t‖², which is what it evaluates; v_k never leaves it. The server's half is that of FedAvg. Default: λ = 0.1; the
paper tries 0.05 to 2. A robust rule for the global model goes well with it.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from aggregator.core.strategies.base import MethodConfig
from protos.convert import ScalarValue


class Ditto(MethodConfig):
    """Each client trains a personal model beside the global one, and holds it near that."""

    title: ClassVar[str] = "Ditto: personal models"
    name: Literal["ditto"] = "ditto"
    regularisation: Annotated[
        float,
        Field(gt=0, le=1_000, title="Strength λ", description="Larger keeps personal models closer to the global one."),
    ] = 0.1

    def settings(self) -> dict[str, ScalarValue]:
        return {"ditto_lambda": self.regularisation}

    def explain(self) -> str:
        evaluated = "They evaluate their personal models, which never leave them; the server evaluates the global one."
        return f"Clients train twice as long. {evaluated}"
