"""The figures of a round's model: means of what its clients reported."""

from __future__ import annotations

from collections.abc import Iterable

from aggregator.core.metrics import numeric, weighted_means
from aggregator.core.round import ParticipationReport
from aggregator.ports import MetricRecord


def fit_metrics(reports: Iterable[ParticipationReport]) -> list[MetricRecord]:
    """Of the training, weighted by examples."""
    told = [(numeric(p.metrics), p.num_examples) for p in reports if p.num_examples]
    return [MetricRecord("fit", name, *mean) for name, mean in weighted_means(told).items()]


def federated_metrics(reports: Iterable[ParticipationReport]) -> list[MetricRecord]:
    """Of the evaluation by the clients, weighted by their examples."""
    told = [
        (numeric({**p.evaluation_metrics, "loss": p.evaluation_loss}), p.evaluation_num_examples)
        for p in reports
        if p.evaluation_num_examples and p.evaluation_loss is not None
    ]
    return [MetricRecord("federated", name, *mean) for name, mean in weighted_means(told).items()]
