"""Runs side by side, over the page and the API."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client as Browser
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from aggregator.core.config import StrategyConfig
from fedui.runs.comparison import MOST
from fedui.runs.models import Metric, MetricSource, Outcome, Participation, Round, RoundStatus, Run, RunStatus
from fedui.runs.thinning import MAX_POINTS
from fedui.strategies.services import save_version
from tests.support.population import World, populate

SECONDS, BYTES = 10, 100


@pytest.fixture
def world(db: None) -> World:
    return populate()


@pytest.fixture
def browser(client: Browser, world: World) -> Browser:
    client.force_login(world.owner)
    return client


def a_curve(world: World, values: list[float], *, lost: int = 0, name: str = "accuracy") -> Run:
    """A finished run whose rounds take 10 s and 200 bytes each and reach `values`, the first `lost` updates missing."""
    run = Run.objects.get(pk=world.run.pk)
    run.pk = None
    run.name, run.status = f"curve {len(values)}", RunStatus.COMPLETED
    run.num_rounds = run.rounds_done = len(values)
    run.started_at = timezone.now() - timedelta(hours=1)
    run.ended_at = run.started_at + timedelta(seconds=SECONDS * len(values))
    run.save()
    for number, value in enumerate(values, start=1):
        end = run.started_at + timedelta(seconds=SECONDS * number)
        round_ = Round.objects.create(
            run=run, number=number, status=RoundStatus.COMMITTED, started_at=run.started_at, committed_at=end
        )
        outcome = Outcome.LOST if number <= lost else Outcome.COMPLETED
        Participation.objects.create(
            round=round_, client=world.client, outcome=outcome, bytes_up=BYTES, bytes_down=BYTES
        )
        Metric.objects.create(run=run, round_number=number, source=MetricSource.SERVER, name=name, value=value)
    return run


def asked(world: World, browser: Browser, *runs: Run, query: str = "") -> dict[str, object]:
    numbers = ",".join(str(run.pk) for run in runs)
    answer = browser.get(f"/api/v1/federations/{world.federation.slug}/comparison?runs={numbers}{query}")
    assert answer.status_code == 200, answer.content
    return {row["label"]: row["values"] for row in answer.json()["results"]} | {"body": answer.json()}


def test_each_run_is_measured_by_what_it_took_to_reach_the_target(world: World, browser: Browser) -> None:
    slow, quick = a_curve(world, [0.5, 0.6, 0.7, 0.8]), a_curve(world, [0.75, 0.9], lost=1)
    results = asked(world, browser, slow, quick)
    assert results["Accuracy, best"] == [0.8, 0.9]
    assert results["Rounds to the target"] == [4, 2]
    assert results["Time to the target"] == [40, 20]
    assert results["Traffic to the target"] == [800, 400]
    assert results["Updates lost"] == [0, 0.5]
    assert asked(world, browser, slow, quick, query="&target=0.85")["Rounds to the target"] == [None, 2]


def test_of_a_loss_less_is_better(world: World, browser: Browser) -> None:
    first, second = a_curve(world, [2.0, 1.0, 1.5], name="loss"), a_curve(world, [1.2, 0.5], name="loss")
    results = asked(world, browser, first, second)
    assert results["Loss, lowest"] == [1.0, 0.5]
    assert results["Rounds to the target"] == [2, 2]


def test_curves_keep_their_lowest_highest_and_last_points(world: World, browser: Browser) -> None:
    long, short = a_curve(world, [0.1]), a_curve(world, [0.2, 0.3])
    count = 3 * MAX_POINTS
    start = long.started_at
    assert start
    Metric.objects.filter(run=long).delete()
    long.rounds.all().delete()
    Round.objects.bulk_create(
        Round(run=long, number=n, status=RoundStatus.COMMITTED, started_at=start, committed_at=start)
        for n in range(1, count + 1)
    )
    values = dict.fromkeys(range(1, count + 1), 0.5) | {777: 0.1, 4321: 0.9}
    Metric.objects.bulk_create(
        Metric(run=long, round_number=n, source=MetricSource.SERVER, name="accuracy", value=value)
        for n, value in values.items()
    )
    body = asked(world, browser, long, short)["body"]
    curve = {point[0]: point[3] for point in body["runs"][0]["curves"]["accuracy"]}  # type: ignore[index]
    assert len(curve) <= MAX_POINTS
    assert (curve[777], curve[4321]) == (0.1, 0.9)
    assert {1, count} <= curve.keys()


def test_settings_that_differ_are_told_from_those_that_do_not(world: World, browser: Browser) -> None:
    other = a_curve(world, [0.5])
    config = StrategyConfig.model_validate({"aggregation": {"name": "median"}})
    other.strategy_version = save_version(world.version.strategy, config, world.owner)
    other.save()
    body = asked(world, browser, world.run, other)["body"]
    settings = {row["name"]: row for row in body["settings"]}  # type: ignore[index]
    assert settings["aggregation.name"]["values"] == ["mean", "median"]
    assert settings["aggregation.name"]["differs"]
    assert not settings["cohort.fraction"]["differs"]


def test_the_page_shows_distances_from_the_pinned_run(world: World, browser: Browser) -> None:
    first, second = a_curve(world, [0.8]), a_curve(world, [0.7, 0.9])
    page = browser.get(f"{world.root}runs/compare/?runs={first.pk},{second.pk}&base={second.pk}").content.decode()
    assert "−10.0 %" in page
    assert "+10.0 %" not in page


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("", "0 runs were chosen"),
        ("runs=1", "1 run was chosen."),
        ("runs=" + ",".join(map(str, range(1, MOST + 2))), f"Choose 2 to {MOST} runs"),
        ("runs=1,x", "named by their numbers"),
        ("runs=1,9" + 30 * "9", "named by their numbers"),
        ("runs=999998,999999", "has no run 999998, 999999"),
        ("runs={run},{other}&target=nan", "finite"),
        ("runs={run},{other}&target=<b>", "A target is a number"),
    ],
)
def test_what_is_no_comparison_is_refused_with_a_reason(world: World, browser: Browser, query: str, says: str) -> None:
    query = query.format(run=world.run.pk, other=a_curve(world, [0.5]).pk)
    page = browser.get(f"{world.root}runs/compare/?{query}")
    assert page.status_code == 422
    assert says in page.content.decode()
    answer = browser.get(f"/api/v1/federations/{world.federation.slug}/comparison?{query}")
    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid_request"


def test_a_stranger_compares_nothing(world: World, client: Browser) -> None:
    client.force_login(world.stranger)
    query = f"?runs={world.run.pk},{a_curve(world, [0.5]).pk}"
    assert client.get(f"{world.root}runs/compare/{query}").status_code == 404
    assert client.get(f"/api/v1/federations/{world.federation.slug}/comparison{query}").status_code == 404


def test_more_runs_take_no_more_queries(
    world: World, browser: Browser, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    runs = [a_curve(world, [0.1 * n, 0.5]) for n in range(1, MOST + 1)]
    numbers = ",".join(str(run.pk) for run in runs)
    with django_assert_max_num_queries(12):
        browser.get(f"{world.root}runs/compare/?runs={numbers}")
