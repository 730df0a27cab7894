"""FedPer: Arivazhagan, Aggarwal, Singh and Choudhary, "Federated learning with personalization layers" (2019), algorithms 1 and 2.

The base layers are averaged; the personalisation layers, usually the last, stay at each client and are trained with the
rest.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from aggregator.core.strategies.personal import KeepsTensors, Patterns


class FedPer(KeepsTensors):
    """Each client keeps its own last layers, trained with the rest."""

    title: ClassVar[str] = "FedPer: personal layers"
    name: Literal["fedper"] = "fedper"
    tensors: Patterns = ("*head*", "*classifier*", "*output*")
