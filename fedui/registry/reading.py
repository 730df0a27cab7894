"""What pages and API show of the registry. A few queries, however many versions there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Count, Prefetch, Q, QuerySet

from fedui.federations.models import Federation
from fedui.registry.models import RegisteredModel, RegisteredVersion, Stage
from fedui.runs.figures import MOST_TRUSTED_FIRST
from fedui.runs.models import Metric, ModelVersion, Run
from fedui.web.figures import is_lower_better

VERSIONS_IN_LIST = 5
MOST_GENERATIONS = 12
MOST_COMPARED = 8
MOST_REFERRERS = 50

Figures = Mapping[str, float]


def models_of(federation: Federation) -> QuerySet[RegisteredModel]:
    """Those that changed last first, each with its newest versions as `newest`."""
    newest = versions_with_sources()[:VERSIONS_IN_LIST]
    counted = federation.registered_models.annotate(version_count=Count("versions"))
    return counted.prefetch_related(Prefetch("versions", newest, to_attr="newest")).order_by("-changed_at", "name")


def versions_with_sources() -> QuerySet[RegisteredVersion]:
    return RegisteredVersion.objects.select_related(
        "model__federation", "source__run__strategy_version__strategy", "source__run__app", "promoted_by"
    )


def found_models(federation: Federation, text: str, stage: str) -> QuerySet[RegisteredModel]:
    """By words of name, description, tags and notes, and by a stage that one of the versions is in."""
    found = federation.registered_models.all()
    for word in text.split()[:8]:
        found = found.filter(
            Q(name__icontains=word)
            | Q(description__icontains=word)
            | Q(pk__in=_versions_that_say(federation, word).values("model"))
        )
    if stage in Stage.values:
        found = found.filter(pk__in=RegisteredVersion.objects.filter(status=stage).values("model"))
    return models_of(federation).filter(pk__in=found.values("pk"))


def _versions_that_say(federation: Federation, word: str) -> QuerySet[RegisteredVersion]:
    versions = RegisteredVersion.objects.filter(model__federation=federation)
    return versions.filter(Q(notes__icontains=word) | Q(tags__icontains=word) | Q(source__sha256__startswith=word))


def figures_of(sources: Iterable[ModelVersion]) -> dict[int, Figures]:
    """The metrics of each checkpoint by its key, from the most trusted source of each. One query."""
    by_place = {(source.run_id, source.round_number): source.pk for source in sources}
    if not by_place:
        return {}
    wanted = Q()
    for run_id, number in by_place:
        wanted |= Q(run_id=run_id, round_number=number)
    found: dict[int, dict[str, tuple[int, float]]] = {pk: {} for pk in by_place.values()}
    for metric in Metric.objects.filter(wanted):
        known = found[by_place[metric.run_id, metric.round_number]]
        rank = MOST_TRUSTED_FIRST.index(metric.source)
        if metric.name not in known or rank < known[metric.name][0]:
            known[metric.name] = (rank, metric.value)
    return {pk: {name: value for name, (_, value) in values.items()} for pk, values in found.items()}


@dataclass(frozen=True, slots=True)
class ComparedMetric:
    name: str
    values: Sequence[float | None]
    deltas: Sequence[float | None]
    """From the baseline's; None for the baseline itself."""

    @property
    def best(self) -> float | None:
        """None where there is nothing to choose."""
        known = {value for value in self.values if value is not None}
        if len(known) < 2:
            return None
        return min(known) if is_lower_better(self.name) else max(known)

    @property
    def cells(self) -> list[tuple[float | None, float | None, bool, bool]]:
        """Value, difference, whether it is the best, whether the difference is for the better."""
        lower = is_lower_better(self.name)
        return [
            (value, delta, value is not None and value == self.best, delta is not None and (delta < 0) == lower)
            for value, delta in zip(self.values, self.deltas, strict=True)
        ]


def compared(versions: Sequence[RegisteredVersion], baseline: RegisteredVersion | None) -> list[ComparedMetric]:
    """The metrics of versions side by side, with differences from the baseline's."""
    figures = figures_of(version.source for version in versions)
    names = sorted({name for values in figures.values() for name in values})
    return [_compared(name, versions, figures, baseline) for name in names]


def _compared(
    name: str,
    versions: Sequence[RegisteredVersion],
    figures: Mapping[int, Figures],
    baseline: RegisteredVersion | None,
) -> ComparedMetric:
    values = [figures[version.source_id].get(name) for version in versions]
    base = figures[baseline.source_id].get(name) if baseline else None
    deltas = [
        None if value is None or base is None or version == baseline else value - base
        for value, version in zip(values, versions, strict=True)
    ]
    return ComparedMetric(name, values, deltas)


@dataclass(frozen=True, slots=True)
class Ancestor:
    """A checkpoint that a run began with."""

    source: ModelVersion
    registered: Sequence[RegisteredVersion]


def lineage_of(source: ModelVersion) -> list[Ancestor]:
    """The checkpoints of other runs that this one goes back to, the nearest first. A query a generation, and a dozen at most."""
    related = ModelVersion.objects.select_related("run__strategy_version__strategy", "run__app")
    found: list[ModelVersion] = []
    origin_id = source.run.origin_id
    while origin_id and len(found) < MOST_GENERATIONS:
        found.append(related.get(pk=origin_id))
        origin_id = found[-1].run.origin_id
    registered: dict[int, list[RegisteredVersion]] = {one.pk: [] for one in found}
    for version in RegisteredVersion.objects.filter(source__in=registered).select_related("model"):
        registered[version.source_id].append(version)
    return [Ancestor(one, registered[one.pk]) for one in found]


def referrers_of(version: RegisteredVersion) -> dict[str, Any]:
    """What stands on the checkpoint: runs that began with it, and other names that it was promoted under."""
    others = version.source.registrations.exclude(pk=version.pk).select_related("model")
    return {
        "forks": list(Run.objects.filter(origin=version.source).order_by("-pk")[:MOST_REFERRERS]),
        "others": list(others[:MOST_REFERRERS]),
    }
