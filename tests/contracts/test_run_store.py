"""What every run store must do, held against the one in memory and the one in the database."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from aggregator.core.cohort import Attendance
from aggregator.core.config import StrategyConfig
from aggregator.core.history import Pace
from aggregator.core.round import Outcome, ParticipationReport
from aggregator.memory import MemoryRunStore
from aggregator.ports import (
    ClientIdentity,
    Directive,
    Ending,
    Lease,
    LeaseLost,
    MetricRecord,
    ModelRecord,
    RoundRecord,
    RunOutcome,
    RunSpec,
    RunState,
    RunStore,
)
from fedui.accounts.models import User
from fedui.catalog.models import App
from fedui.clients.models import Client
from fedui.federations.models import Federation
from fedui.runs import commands
from fedui.runs.adapters import DatabaseRunStore
from fedui.runs.commands import Order
from fedui.runs.models import Run, RunStatus
from fedui.strategies.models import Strategy, StrategyVersion
from protos.tensors import Signature, TensorSpec

SIGNATURE = Signature((TensorSpec("w", "float32", (2,)),))
NOW = datetime(2026, 1, 2, tzinfo=UTC)
WISHED = {
    Directive.GO_ON: RunStatus.RUNNING,
    Directive.PAUSE: RunStatus.PAUSING,
    Directive.PAUSE_NOW: RunStatus.PAUSING,
    Directive.STOP: RunStatus.STOPPING,
}

pytestmark = pytest.mark.django_db(transaction=True)


class Harness:
    """A store that holds one run, and what a test can't do through the port."""

    def __init__(
        self, store: RunStore, run_id: int, clients: list[str], wish: Callable[[Directive], Awaitable[None]],
        expire: Callable[[], Awaitable[None]], extend: Callable[[int], Awaitable[None]],
        weigh: Callable[[str, int], Awaitable[None]], federation_id: str,
    ) -> None:  # fmt: skip
        self.store, self.run_id, self.clients = store, run_id, clients
        self.wish, self.expire, self.extend, self.weigh = wish, expire, extend, weigh
        self.federation_id = federation_id

    async def take_up(self) -> RunState:
        state = await self.store.take_up(self.run_id, "engine")
        assert state is not None
        return state

    def record(self, number: int, attempt: int = 1, *, metrics: list[MetricRecord] | None = None) -> RoundRecord:
        reports = [ParticipationReport(c, Outcome.COMPLETED, num_examples=10) for c in self.clients]
        return RoundRecord(number, attempt, NOW, NOW, NOW, NOW, reports, metrics or [])

    def model(self, number: int) -> ModelRecord:
        return ModelRecord(self.run_id, number, f"run/round-{number}", "0" * 64, 8)

    async def commit(self, lease: Lease, number: int, attempt: int = 1) -> None:
        if number:
            await self.store.begin_round(lease, self.record(number, attempt))
        await self.store.commit_round(lease, self.record(number, attempt), self.model(number))


def in_memory() -> Harness:
    store = MemoryRunStore()
    run = store.add(RunSpec(1, "r", "f", "toy", "1", SIGNATURE, StrategyConfig(), 7, 3))

    async def wish(directive: Directive) -> None:
        run.directive, run.paused = directive, False

    async def expire() -> None:
        run.held = False

    async def extend(num_rounds: int) -> None:
        run.wanted_rounds = num_rounds

    async def weigh(client: str, percent: int) -> None:
        run.weights[client] = percent

    return Harness(store, 1, ["a", "b"], wish, expire, extend, weigh, "f")


def in_database() -> Harness:
    federation = Federation.objects.create(slug="tests", name="Tests")
    owner = User.objects.create_user("owner")
    strategy = Strategy.objects.create(federation=federation, name="fedavg")
    run = Run.objects.create(
        federation=federation,
        name="r",
        strategy_version=StrategyVersion.objects.create(strategy=strategy, number=1, config={}),
        app=App.objects.create(federation=federation, name="toy", version="1", signature=SIGNATURE.to_json()),
        seed=7,
        num_rounds=3,
        created_by=owner,
    )
    clients = [Client.objects.create(federation=federation, name=n, number=i) for i, n in enumerate("ab")]

    async def wish(directive: Directive) -> None:
        at_once = directive is Directive.PAUSE_NOW
        await Run.objects.filter(pk=run.pk).aupdate(status=WISHED[directive], pause_at_once=at_once)

    async def extend(num_rounds: int) -> None:
        await Run.objects.filter(pk=run.pk).aupdate(num_rounds=num_rounds)

    async def expire() -> None:
        await Run.objects.filter(pk=run.pk).aupdate(lease_expires_at=NOW)

    async def weigh(client: str, percent: int) -> None:
        found = await Client.objects.aget(pk=client)
        await sync_to_async(commands.weigh)(run, Order(owner), client=found, percent=percent)

    ids = [str(c.pk) for c in clients]
    return Harness(DatabaseRunStore(), run.pk, ids, wish, expire, extend, weigh, str(federation.pk))


@pytest.fixture(params=[in_memory, in_database])
async def harness(request: pytest.FixtureRequest, db: None, transactional_db: None) -> Harness:
    make: Callable[[], Harness] = request.param
    return await sync_to_async(make)()


async def test_a_run_is_taken_up_once(harness: Harness) -> None:
    state = await harness.take_up()
    assert (state.spec.num_rounds, state.spec.signature, state.model) == (3, SIGNATURE, None)
    assert (state.last_attempt, state.last_event) == (0, 0)
    assert await harness.store.take_up(harness.run_id, "another") is None


async def test_it_goes_on_from_the_last_committed_round(harness: Harness) -> None:
    lease = (await harness.take_up()).lease
    await harness.commit(lease, 0)
    await harness.commit(lease, 1)
    await harness.store.begin_round(lease, harness.record(2))
    await harness.store.release(lease)
    state = await harness.take_up()
    assert state.model == harness.model(1)
    assert state.last_attempt == 1
    assert state.lease.fencing > lease.fencing


async def test_an_expired_lease_is_taken_over_and_its_holder_can_write_nothing(harness: Harness) -> None:
    old = (await harness.take_up()).lease
    await harness.commit(old, 0)
    await harness.expire()
    new = (await harness.take_up()).lease
    for write in (
        harness.store.renew(old),
        harness.store.release(old),
        harness.store.begin_round(old, harness.record(1)),
        harness.store.commit_round(old, harness.record(1), harness.model(1)),
        harness.store.abandon_round(old, harness.record(1), "x"),
        harness.store.record_evaluation(old, harness.record(1)),
        harness.store.pause(old, ""),
        harness.store.finish(old, RunOutcome.COMPLETED, ""),
    ):
        with pytest.raises(LeaseLost):
            await write
    await harness.commit(new, 1)
    await harness.store.finish(new, RunOutcome.COMPLETED, "done")


async def test_a_renewal_that_comes_after_the_release_keeps_nobody_from_the_run(harness: Harness) -> None:
    lease = (await harness.take_up()).lease
    await harness.store.release(lease)
    await harness.store.renew(lease)
    assert (await harness.take_up()).lease.fencing > lease.fencing


async def test_the_operators_stop_is_read_with_the_lease(harness: Harness) -> None:
    lease = (await harness.take_up()).lease
    assert await harness.store.renew(lease) is Directive.GO_ON
    for directive in (Directive.PAUSE, Directive.GO_ON, Directive.PAUSE_NOW, Directive.STOP):
        await harness.wish(directive)
        assert await harness.store.renew(lease) is directive


async def test_a_run_that_rests_is_taken_up_when_it_is_resumed(harness: Harness) -> None:
    lease = (await harness.take_up()).lease
    await harness.commit(lease, 0)
    await harness.commit(lease, 1)
    await harness.store.begin_round(lease, harness.record(2))
    await harness.wish(Directive.PAUSE)
    await harness.store.pause(lease, "")
    assert await harness.store.take_up(harness.run_id, "engine") is None
    await harness.wish(Directive.GO_ON)
    assert (await harness.take_up()).model == harness.model(1)


async def test_a_pause_that_was_taken_back_leaves_the_run_to_the_next(harness: Harness) -> None:
    lease = (await harness.take_up()).lease
    await harness.wish(Directive.PAUSE)
    await harness.wish(Directive.GO_ON)
    await harness.store.pause(lease, "")
    assert (await harness.take_up()).lease.fencing > lease.fencing


async def test_what_must_be_put_right_first_pauses_without_anybodys_wish(harness: Harness) -> None:
    lease = (await harness.take_up()).lease
    await harness.store.pause(lease, "The disk is full.")
    assert await harness.store.take_up(harness.run_id, "engine") is None


async def test_a_run_that_was_extended_meanwhile_does_not_end(harness: Harness) -> None:
    lease = (await harness.take_up()).lease
    await harness.extend(5)
    assert await harness.store.finish(lease, RunOutcome.COMPLETED, "all done", 3) is Ending.EXTENDED
    state = await harness.take_up()
    assert state.spec.num_rounds == 5
    assert await harness.store.finish(state.lease, RunOutcome.COMPLETED, "early stop") is Ending.ENDED


async def test_a_run_that_has_ended_is_not_taken_up_again(harness: Harness) -> None:
    lease = (await harness.take_up()).lease
    await harness.store.finish(lease, RunOutcome.STOPPED, "enough")
    assert await harness.store.take_up(harness.run_id, "engine") is None


async def test_an_abandoned_attempt_is_counted_and_not_committed(harness: Harness) -> None:
    lease = (await harness.take_up()).lease
    await harness.commit(lease, 0)
    await harness.store.begin_round(lease, harness.record(1))
    await harness.store.abandon_round(lease, harness.record(1), "no quorum")
    await harness.store.release(lease)
    state = await harness.take_up()
    assert (state.model, state.last_attempt) == (harness.model(0), 1)


async def test_it_knows_how_often_each_client_was_asked_and_completed(harness: Harness) -> None:
    lease = (await harness.take_up()).lease
    one, two = harness.clients
    await harness.commit(lease, 1)
    await harness.store.begin_round(lease, harness.record(2))
    reports = [ParticipationReport(one, Outcome.LATE), ParticipationReport(two, Outcome.COMPLETED)]
    failed = replace(harness.record(2), participations=reports)
    await harness.store.abandon_round(lease, failed, "no quorum")
    pending = [ParticipationReport(one)]
    await harness.store.begin_round(lease, replace(harness.record(2, attempt=2), participations=pending))
    await harness.expire()  # the engine is lost in the middle of that attempt
    assert (await harness.take_up()).attendance == {one: Attendance(3, 1), two: Attendance(2, 2)}


async def test_it_knows_what_a_client_s_parts_took_since_it_last_missed_a_deadline(harness: Harness) -> None:
    lease = (await harness.take_up()).lease
    one, two = harness.clients
    times: dict[str, Any] = {"download_seconds": 1.0, "train_seconds": 20.0, "upload_seconds": 3.0}
    await harness.commit(lease, 0)
    for number, outcome in enumerate((Outcome.COMPLETED, Outcome.LATE, Outcome.COMPLETED), start=1):
        reports = [
            ParticipationReport(one, outcome, **times),
            ParticipationReport(two, Outcome.COMPLETED, replaces=one, steps_done=3, steps_planned=9, **times),
        ]
        await harness.store.begin_round(lease, replace(harness.record(number), participations=[]))
        committed = replace(harness.record(number), participations=reports)
        await harness.store.commit_round(lease, committed, harness.model(number))
    await harness.store.release(lease)
    assert (await harness.take_up()).paces == {one: [Pace(1.0, 20.0, 3.0)], two: [Pace(1.0, 20.0, 3.0)] * 3}


async def test_it_knows_the_round_in_which_each_client_was_asked_for_what_counted_last(harness: Harness) -> None:
    lease = (await harness.take_up()).lease
    one, two = harness.clients
    await harness.commit(lease, 0)
    for number, reports in enumerate(
        (
            [ParticipationReport(one, Outcome.COMPLETED), ParticipationReport(two, Outcome.FAILED)],
            [ParticipationReport(one, Outcome.LATE)],
            [ParticipationReport(two, Outcome.COMPLETED, staleness=2)],
        ),
        start=1,
    ):
        await harness.store.begin_round(lease, replace(harness.record(number), participations=[]))
        committed = replace(harness.record(number), participations=reports)
        await harness.store.commit_round(lease, committed, harness.model(number))
    in_vain = [ParticipationReport(one, Outcome.COMPLETED, staleness=1)]
    await harness.store.begin_round(lease, replace(harness.record(4), participations=[]))
    abandoned = replace(harness.record(4), participations=in_vain, committed_at=None)
    await harness.store.abandon_round(lease, abandoned, "no quorum")
    await harness.store.release(lease)
    assert (await harness.take_up()).counted == {one: 1, two: 1}


async def test_it_knows_which_updates_a_client_need_keep_no_longer(harness: Harness) -> None:
    here = ClientIdentity(harness.clients[0], "a", harness.federation_id, {})
    elsewhere = replace(here, federation_id="00000000-0000-0000-0000-000000000000")
    run = str(harness.run_id)

    async def settled(who: ClientIdentity = here) -> Mapping[str, int | None]:
        return await harness.store.settled(who, {run, "987654", "run", "9" * 30})

    unknown = {"987654": None, "run": None, "9" * 30: None}
    lease = (await harness.take_up()).lease
    assert await settled() == unknown
    assert await settled(elsewhere) == unknown | {run: None}, "whose run it is isn't told"
    await harness.commit(lease, 0)
    await harness.commit(lease, 1)
    assert await settled() == unknown | {run: 1}
    await harness.store.finish(lease, RunOutcome.FAILED, "it may be resumed")
    assert await settled() == unknown | {run: 1}


async def test_a_run_that_has_ended_well_wants_no_updates(harness: Harness) -> None:
    lease = (await harness.take_up()).lease
    await harness.store.finish(lease, RunOutcome.STOPPED, "")
    one = ClientIdentity(harness.clients[0], "a", harness.federation_id, {})
    assert await harness.store.settled(one, {str(harness.run_id)}) == {str(harness.run_id): None}


async def test_an_order_about_a_client_counts_from_the_first_round_that_is_not_open(harness: Harness) -> None:
    lease = (await harness.take_up()).lease
    one, two = harness.clients
    await harness.weigh(one, 0)
    assert await harness.store.weights(lease, 1) == {one: 0}
    await harness.store.begin_round(lease, harness.record(1))
    await harness.weigh(two, 50)

    await harness.expire()  # the engine is lost in the middle of the round, which is done again as it was
    again = (await harness.take_up()).lease
    assert await harness.store.weights(again, 1) == {one: 0}
    await harness.commit(again, 1, 2)
    assert await harness.store.weights(again, 2) == {one: 0, two: 50}

    await harness.weigh(one, 100)  # before the round begins: its opening comes to nothing, and is repeated
    assert await harness.store.weights(again, 2) == {two: 50}
    with pytest.raises(LeaseLost):
        await harness.store.weights(lease, 2)
