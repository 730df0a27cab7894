"""The list of runs: its order and its filters are in the address."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from fedui.runs.models import Metric, MetricSource, Run, RunStatus
from tests.support.domain import a_federation, a_run, a_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def client(client: Client) -> Client:
    """Of the owner of three runs: `best` and `worse` have figures, `new` has none."""
    owner = a_user("owner")
    federation = a_federation("north", owner)
    for name, accuracies, seconds in (("best", (0.5, 0.9, 0.8), 60), ("worse", (0.6, 0.7), 30), ("new", (), None)):
        run = a_run(federation, owner, name)
        for number, accuracy in enumerate(accuracies):
            for source, value in ((MetricSource.SERVER, accuracy), (MetricSource.FIT, 1 - accuracy)):
                Metric.objects.create(run=run, round_number=number, source=source, name="accuracy", value=value)
                Metric.objects.create(run=run, round_number=number, source=source, name="loss", value=1 - value)
        if seconds:
            start = timezone.now() - timedelta(hours=1)
            ended = {"started_at": start, "ended_at": start + timedelta(seconds=seconds), "status": RunStatus.COMPLETED}
            Run.objects.filter(pk=run.pk).update(rounds_done=len(accuracies), **ended)
    client.force_login(owner)
    return client


def shown(client: Client, query: str) -> list[str]:
    return [row.run.name for row in client.get(f"/f/north/runs/?{query}").context["figures"]]


@pytest.mark.parametrize(
    ("sort", "names"),
    [
        ("", ["new", "worse", "best"]),
        ("name", ["best", "new", "worse"]),
        ("-name", ["worse", "new", "best"]),
        ("round", ["new", "worse", "best"]),
        ("accuracy", ["worse", "best", "new"]),
        ("-accuracy", ["best", "worse", "new"]),
        ("loss", ["best", "worse", "new"]),
        ("-loss", ["worse", "best", "new"]),
        ("duration", ["worse", "best", "new"]),
        ("-duration", ["best", "worse", "new"]),
        ("created", ["best", "worse", "new"]),
        ("no-column", ["new", "worse", "best"]),
    ],
)
def test_runs_are_sorted_and_those_without_a_figure_come_last(client: Client, sort: str, names: list[str]) -> None:
    assert shown(client, f"sort={sort}") == names


def test_an_order_goes_with_a_filter_and_to_the_next_page(client: Client) -> None:
    assert shown(client, "sort=-accuracy&q=e") == ["best", "worse", "new"]
    assert shown(client, "sort=-accuracy&status=completed&q=worse") == ["worse"]
    page = client.get("/f/north/runs/?sort=-accuracy&q=e").content.decode()
    assert '<input type="hidden" name="sort" value="-accuracy">' in page
    assert 'href="?sort=-accuracy&amp;q=e&amp;status=completed"' in page
    assert '<th scope="col" class="num" aria-sort="descending"><a class="sorts" href="?sort=accuracy&amp;q=e">' in page
