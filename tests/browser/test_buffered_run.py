"""The page of a buffered run: clients that train on over rounds, fail and are asked again, or come in the middle."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect

from aggregator.core.config import StrategyConfig
from fedui.clients.models import Client
from fedui.runs.models import Event, Outcome, Participation, Round, RoundStatus, Run, RunStatus
from fedui.strategies.services import create_strategy
from tests.browser.conftest import Open
from tests.support.population import World

NAMES = ("hosp-alder", "hosp-birch", "hosp-cedar", "hosp-oak", "hosp-willow")
ALDER, BIRCH, CEDAR, OAK, WILLOW = NAMES


class BufferedRun:
    """A run with a buffer of 2, told as the engine tells it: rows as at the end of a round, and its events."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.clients = {name: self.enrol(name) for name in NAMES}
        config = StrategyConfig.model_validate(
            {"mode": {"name": "buffered", "buffer_size": 2}, "faults": {"quorum": 1}}
        )
        strategy = create_strategy(world.federation, world.owner, name="buffered", config=config)
        self.run = Run.objects.create(
            federation=world.federation,
            name="buffered",
            strategy_version=strategy.latest,
            app=world.run.app,
            seed=1,
            num_rounds=5,
            status=RunStatus.RUNNING,
            created_by=world.owner,
            started_at=timezone.now(),
        )
        self.address = f"{world.root}runs/{self.run.pk}/"
        self._seq = 0

    def enrol(self, name: str) -> Client:
        number = self.world.federation.clients.count() + 1
        return Client.objects.create(federation=self.world.federation, name=name, number=number)

    def tell(self, kind: str, number: int, client: Client | None = None, **data: object) -> None:
        self._seq += 1
        Event.objects.create(
            run=self.run,
            seq=self._seq,
            at=timezone.now() - timedelta(seconds=100 - self._seq),
            kind=kind,
            level="info",
            round_number=number,
            client=client,
            message=kind,
            data={"name": client.name, **data} if client else data,
        )

    def begin(self, number: int) -> None:
        round_ = Round.objects.create(run=self.run, number=number, started_at=timezone.now())
        for client in self.clients.values():
            Participation.objects.create(round=round_, client=client)
        cohort = [{"id": str(client.pk), "name": client.name} for client in self.clients.values()]
        self.tell("round.started", number, attempt=1, cohort=cohort, deadline_seconds=60)

    def enter(self, number: int, phase: str, names: Iterable[str]) -> None:
        for name in names:
            self.tell("client.phase", number, self.clients[name], phase=phase)

    def fail(self, number: int, name: str) -> None:
        self.tell("client.failed", number, self.clients[name], outcome="lost", reason="The connection was lost.")

    def commit(self, number: int, *names: str, flagged: str = "", train_seconds: float = 5.0) -> None:
        counted = {name: self.clients[name] for name in names}
        for client in counted.values():
            self.tell(
                "client.completed", number, client,
                metrics={}, bytes_up=100, download_seconds=1.0, train_seconds=train_seconds, upload_seconds=1.0,
            )  # fmt: skip
        Round.objects.filter(run=self.run, number=number).update(
            status=RoundStatus.COMMITTED, closed_at=timezone.now(), committed_at=timezone.now()
        )
        of_round = Participation.objects.filter(round__run=self.run, round__number=number)
        others = of_round.exclude(client__in=counted.values())
        training = [str(client_id) for client_id in others.values_list("client_id", flat=True)]
        others.delete()
        of_round.update(outcome=Outcome.COMPLETED, norm_ratio=1.0)
        looks = {
            str(client.pk): {
                "norm_ratio": 1.0,
                "cosine_to_aggregate": 0.5,
                "flagged": name == flagged,
                "flag_reason": "its norm is 1.8 times the median" if name == flagged else "",
            }
            for name, client in counted.items()
        }
        self.tell("round.closed", number, received=2, expected=2)
        self.tell(
            "round.committed", number,
            metrics=[], bytes_up=200, bytes_down=200, sha256="0" * 64, size=100, training=training, updates=looks,
        )  # fmt: skip


@pytest.fixture
def story(world: World) -> BufferedRun:
    return BufferedRun(world)


def catch_up(page: Page) -> None:
    """As a tab does that is shown again: fetch the events since."""
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def cells(page: Page, number: int) -> dict[str, str]:
    """Of each client of the heatmap what its cell says of the round."""
    labels = page.locator(f"#by-round td[data-round='{number}']").evaluate_all(
        "cells => cells.map(cell => cell.getAttribute('aria-label'))"
    )
    return dict(label.split(f", round {number}: ") for label in labels)


def test_who_trains_on_was_no_part_of_a_committed_round(
    sign_in: Open, story: BufferedRun, complaints: list[str]
) -> None:
    page = sign_in(story.world.owner)
    story.begin(1)
    page.goto(story.address)
    expect(page.locator("#live-list li")).to_have_count(5)
    story.enter(1, "training", NAMES)
    story.commit(1, ALDER, BIRCH)
    catch_up(page)
    expect(page.locator("#live-summary")).to_have_text("training 3done 2")
    story.enter(1, "uploading", [CEDAR])  # between two rounds
    catch_up(page)
    expect(page.locator("#live-list li", has_text=CEDAR)).to_contain_text("Uploading")
    story.begin(2)
    catch_up(page)

    expect(page.locator("#live-title")).to_have_text("Round 2, live")
    for _ in range(2):  # as it was seen, and as it is loaded again
        for name, words in {ALDER: "Waiting", CEDAR: "Uploading", OAK: "Training"}.items():
            expect(page.locator("#live-list li", has_text=name)).to_contain_text(words)
        no_part = dict.fromkeys((CEDAR, OAK, WILLOW), "took no part")
        counted = dict.fromkeys((ALDER, BIRCH), "Update norm 1.00 × the median")
        assert cells(page, 1) == counted | no_part
        assert set(cells(page, 2).values()) == {"in progress"}
        page.reload()
    assert complaints == []


def test_a_client_that_fails_and_is_asked_again_is_seen_at_work(sign_in: Open, story: BufferedRun) -> None:
    page = sign_in(story.world.owner)
    story.begin(1)
    story.enter(1, "training", [OAK])
    story.fail(1, OAK)
    page.goto(story.address)
    row = page.locator("#live-list li", has_text=OAK)
    expect(row).to_contain_text("Lost")
    story.enter(1, "downloading", [OAK])
    catch_up(page)
    expect(row).to_contain_text("Downloading")
    assert cells(page, 1)[OAK] == "in progress"


def test_a_client_that_enrols_while_the_page_is_open_joins_the_round(
    sign_in: Open, story: BufferedRun, complaints: list[str]
) -> None:
    page = sign_in(story.world.owner)
    story.begin(1)
    page.goto(story.address)
    expect(page.locator("#live-list li")).to_have_count(5)
    story.clients["hosp-new"] = story.enrol("hosp-new")
    story.enter(1, "training", ["hosp-new"])
    catch_up(page)
    expect(page.locator("#live-list li", has_text="hosp-new")).to_contain_text("Training")
    story.enter(1, "training", [ALDER])
    catch_up(page)
    expect(page.locator("#live-list li", has_text=ALDER)).to_contain_text("Training")
    assert cells(page, 1)["hosp-new"] == "in progress"
    assert complaints == []


def test_work_of_several_rounds_is_drawn_up_to_its_end(sign_in: Open, story: BufferedRun) -> None:
    page = sign_in(story.world.owner)
    story.begin(1)
    story.commit(1, ALDER, BIRCH, train_seconds=3600.0)
    story.begin(2)
    page.goto(story.address)
    bars = page.locator("#timeline rect.t")
    expect(bars).to_have_count(2)
    ends = bars.evaluate_all("bars => bars.map(bar => bar.getBoundingClientRect().right)")
    now = page.locator("#timeline line.now").bounding_box()
    assert now
    assert max(ends) < now["x"]


@pytest.mark.parametrize("width", [1440, 390])
def test_an_anomaly_moves_nothing_on_the_page(sign_in: Open, story: BufferedRun, width: int) -> None:
    page = sign_in(story.world.owner, width=width)
    story.begin(1)
    page.goto(story.address)
    expect(page.locator("#live-list li")).to_have_count(5)
    below = page.locator("#metrics").bounding_box()
    story.commit(1, ALDER, BIRCH)
    story.begin(2)
    catch_up(page)
    notice = page.locator("#anomalies")
    expect(notice).to_contain_text("No update was unlike the others in the latest round.")
    story.commit(2, CEDAR, OAK, flagged=OAK)
    catch_up(page)
    expect(notice).to_contain_text("One update was unlike the others in round 2. hosp-oak: its norm is 1.8 times the")
    assert page.locator("#metrics").bounding_box() == below
    progress = page.get_by_role("region", name="Progress").bounding_box()
    box = notice.bounding_box()
    assert progress and box
    assert box["y"] >= progress["y"] + progress["height"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
