"""FedBN: Li, Jiang, Zhang, Kamp and Dou, "FedBN: federated learning on non-IID features via local batch normalization".

ICLR 2021, algorithm 1.

All tensors are averaged but those of batch normalisation, weights, biases and statistics, which each client keeps. It
helps where the features of sites differ (scanners, sensors) more than their labels. Which tensors are meant is told by
their names; the default fits the usual names.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from aggregator.core.strategies.personal import KeepsTensors, Patterns


class FedBN(KeepsTensors):
    """Each client keeps its own normalisation layers."""

    title: ClassVar[str] = "FedBN: normalisation stays local"
    name: Literal["fedbn"] = "fedbn"
    tensors: Patterns = ("*bn*", "*norm*")
