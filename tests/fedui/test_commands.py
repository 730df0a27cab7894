"""What people do to runs, once they are there."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client as Browser
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import DjangoCaptureOnCommitCallbacks

from aggregator.core.config import StrategyConfig
from fedui.accounts.models import User
from fedui.audit.models import AuditEvent
from fedui.clients.models import Client
from fedui.federations.models import Federation
from fedui.runs import commands, live, reproduction, weights
from fedui.runs.commands import Order
from fedui.runs.models import ModelVersion, Priority, Run, RunCommand, RunStatus
from fedui.runs.services import RunRefused, create_run
from fedui.runs.tasks import dispatch_ownerless
from fedui.strategies.services import create_strategy
from fedui.transitions import IllegalTransition
from tests.support.domain import a_client, a_federation, a_run, a_user, an_app

S = RunStatus
Command = Callable[..., Any]


def in_state(run: Run, status: RunStatus, **fields: Any) -> Run:
    begun = {} if status == S.QUEUED else {"started_at": timezone.now()}
    Run.objects.filter(pk=run.pk).update(status=status, **begun | fields)
    run.refresh_from_db()
    return run


@pytest.fixture
def run(federation: Federation, owner: User) -> Run:
    return a_run(federation, owner)


@pytest.fixture
def order(owner: User) -> Order:
    return Order(owner, address="192.0.2.1")


def a_model(run: Run, number: int) -> ModelVersion:
    return ModelVersion.objects.create(run=run, round_number=number, key=f"{number}", sha256=f"{number:064x}", size=8)


@pytest.mark.parametrize(
    ("command", "before", "after"),
    [
        (commands.pause, S.QUEUED, S.PAUSED), (commands.pause, S.RUNNING, S.PAUSING), (commands.pause, S.PAUSING, None),
        (commands.pause, S.PAUSED, None), (commands.resume, S.PAUSED, S.QUEUED), (commands.resume, S.FAILED, S.QUEUED),
        (commands.resume, S.PAUSING, S.RUNNING), (commands.resume, S.RUNNING, None), (commands.resume, S.QUEUED, None),
        (commands.stop, S.QUEUED, S.STOPPED), (commands.stop, S.PAUSED, S.STOPPED), (commands.stop, S.RUNNING, S.STOPPING),
        (commands.stop, S.PAUSING, S.STOPPING), (commands.stop, S.STOPPING, None), (commands.stop, S.STOPPED, None),
        (commands.cancel, S.QUEUED, S.STOPPED), (commands.start, S.RUNNING, None),
    ],
)  # fmt: skip
def test_each_order_is_obeyed_where_it_makes_sense(
    run: Run, order: Order, command: Command, before: RunStatus, after: RunStatus | None
) -> None:
    in_state(run, before)
    obeyed = command(run, order)
    run.refresh_from_db()
    assert run.status == (after or before)
    assert (obeyed is not None) == (after is not None)
    assert (
        RunCommand.objects.count() == AuditEvent.objects.filter(address="192.0.2.1").count() == int(after is not None)
    )


@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        (commands.pause, S.STOPPING, "is stopping"), (commands.pause, S.COMPLETED, "is completed"),
        (commands.resume, S.COMPLETED, "is completed"), (commands.resume, S.STOPPED, "is stopped"),
        (commands.stop, S.COMPLETED, "is completed"), (commands.stop, S.FAILED, "is failed"),
        (commands.cancel, S.RUNNING, "has begun"), (commands.start, S.PAUSED, "is paused"),
    ],
)  # fmt: skip
def test_and_refused_where_not(run: Run, order: Order, command: Command, status: RunStatus, words: str) -> None:
    in_state(run, status)
    with pytest.raises((IllegalTransition, RunRefused), match=words):
        command(run, order)
    assert not RunCommand.objects.exists()


def test_a_command_names_who_when_and_the_round(run: Run, order: Order) -> None:
    command = commands.stop(in_state(run, S.RUNNING, rounds_done=7), order)
    assert command
    assert (command.actor_name, command.round_number, command.kind) == ("owner", 7, "stop")
    assert AuditEvent.objects.get(action="run.stopped").details == {"run": run.pk}


def test_one_key_is_one_order(run: Run, owner: User) -> None:
    order = Order(owner, "k")
    first = commands.pause(run, order)
    commands.resume(run, Order(owner, "l"))
    assert commands.pause(run, order) == first  # repeated late, it doesn't pause again
    run.refresh_from_db()
    assert run.status == S.QUEUED
    with pytest.raises(RunRefused, match="another order: pause"):
        commands.stop(run, order)


def test_workers_and_browsers_are_told(
    run: Run, order: Order, monkeypatch: pytest.MonkeyPatch,
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:  # fmt: skip
    told: list[Any] = []
    monkeypatch.setattr(live, "run_changed", told.append)
    monkeypatch.setattr(live, "run_commanded", told.append)
    monkeypatch.setattr(dispatch_ownerless, "delay", lambda: told.append("dispatch"))
    with django_capture_on_commit_callbacks(execute=True):
        command = commands.stop(in_state(run, S.RUNNING), order)
    assert told == [run, command, "dispatch"]


def test_a_pause_now_makes_a_pause_after_the_round_sharper(run: Run, order: Order) -> None:
    in_state(run, S.RUNNING)
    commands.pause(run, order)
    assert commands.pause(run, order, at_once=True)
    run.refresh_from_db()
    assert (run.status, run.pause_at_once) == (S.PAUSING, True)
    assert commands.pause(run, order) is None


def test_schedule_start_and_priority(run: Run, order: Order) -> None:
    at = timezone.now() + timedelta(hours=3)
    assert commands.schedule(run, order, start_at=at)
    assert commands.schedule(run, order, start_at=at) is None
    assert commands.start(run, order)
    assert commands.prioritise(run, order, priority=Priority.HIGH)
    assert commands.prioritise(run, order, priority=Priority.HIGH) is None
    run.refresh_from_db()
    assert (run.start_at, run.priority) == (None, Priority.HIGH)
    with pytest.raises(RunRefused, match="no priority 9"):
        commands.prioritise(run, order, priority=9)
    with pytest.raises(RunRefused, match="is running"):
        commands.schedule(in_state(run, S.RUNNING), order, start_at=at)


@pytest.mark.parametrize(
    ("status", "after"), [(S.QUEUED, S.QUEUED), (S.RUNNING, S.RUNNING), (S.PAUSED, S.PAUSED), (S.COMPLETED, S.QUEUED)]
)
def test_a_run_is_extended_to_a_number_of_rounds(run: Run, order: Order, status: RunStatus, after: RunStatus) -> None:
    in_state(run, status, rounds_done=20)
    assert commands.extend(run, order, num_rounds=30)
    assert commands.extend(run, order, num_rounds=30) is None
    run.refresh_from_db()
    assert (run.num_rounds, run.status, run.ended_at) == (30, after, None)


@pytest.mark.parametrize(
    ("status", "done", "wanted", "words"),
    [
        (S.RUNNING, 3, 10, "has 20 rounds already"), (S.STOPPED, 3, 30, "is stopped: that is final"),
        (S.COMPLETED, 12, 30, "was ended by the early stop"), (S.QUEUED, 0, 100_001, "can't have 100001 rounds"),
    ],
)  # fmt: skip
def test_what_can_not_be_extended(
    run: Run, order: Order, status: RunStatus, done: int, wanted: int, words: str
) -> None:
    in_state(run, status, rounds_done=done)
    with pytest.raises(RunRefused, match=words):
        commands.extend(run, order, num_rounds=wanted)


def test_a_fork_begins_with_a_committed_round_and_is_made_once(run: Run, owner: User) -> None:
    origin = a_model(run, 7)
    strategy = create_strategy(run.federation, owner, name="median", config=StrategyConfig())
    order = Order(owner, "k")
    made = [commands.fork(run, order, round_number=7, strategy_version=strategy.latest, num_rounds=5) for _ in range(2)]
    assert made[0].pk == made[1].pk
    assert (made[0].origin, made[0].num_rounds, made[0].seed) == (origin, 5, run.seed)
    assert RunCommand.objects.get().data == {"round": 7, "run": made[0].pk}
    assert AuditEvent.objects.get(action="run.forked").details == {"run": run.pk, "round": 7, "new_run": made[0].pk}
    with pytest.raises(RunRefused, match="no committed round 8"):
        commands.fork(run, Order(owner), round_number=8)


def test_an_unfit_fork_is_refused_before_it_is_there(run: Run, order: Order, owner: User) -> None:
    a_model(run, 7)
    config = StrategyConfig.model_validate({"method": {"name": "fedbn"}})
    local = create_strategy(run.federation, owner, name="local", config=config).latest
    with pytest.raises(RunRefused, match=r"No tensor of the app is named like \*bn\*"):
        commands.fork(run, order, round_number=7, strategy_version=local)
    ModelVersion.objects.update(removed_at=timezone.now())
    with pytest.raises(RunRefused, match="was removed by retention"):
        commands.fork(run, order, round_number=7)
    assert Run.objects.count() == 1
    assert not RunCommand.objects.exists()


def test_a_clone_is_the_same_again(run: Run, order: Order) -> None:
    clone = commands.clone(in_state(run, S.COMPLETED, rounds_done=20), order)
    fields = ("name", "strategy_version_id", "app_id", "seed", "num_rounds")
    assert [getattr(clone, f) for f in fields] == [getattr(run, f) for f in fields]
    assert (clone.status, clone.origin, clone.rounds_done) == (S.QUEUED, None, 0)


def test_a_fork_trains_the_app_of_its_origin(run: Run, owner: User) -> None:
    with pytest.raises(RunRefused, match="is not a model of other"):
        create_run(
            run.federation, owner, name="x", strategy_version=run.strategy_version, app=an_app(run.federation, "other"),
            num_rounds=1, seed=1, origin=a_model(run, 1),
        )  # fmt: skip


@pytest.mark.parametrize("command", [commands.clone, commands.reproduce, commands.pause])
def test_an_order_writes_nothing_after_its_entry_in_the_audit_log(run: Run, order: Order, command: Command) -> None:
    """Its end would otherwise wait for others, with the lock on the log's head held."""
    with CaptureQueriesContext(connection) as captured:
        command(run, order)
    written = [query["sql"] for query in captured if query["sql"].startswith(("INSERT", "UPDATE", "DELETE"))]
    tables = [sql.split('"')[1] for sql in written]
    first = next(place for place, table in enumerate(tables) if table.startswith("audit_"))
    assert first > 0
    assert {table.partition("_")[0] for table in tables[first:]} == {"audit"}


# --- what clients count for ------------------------------------------------------------------------------------------


@pytest.fixture
def site(federation: Federation) -> Client:
    return a_client(federation, "site-c")


def test_a_client_is_excluded_and_let_in_again(run: Run, order: Order, site: Client) -> None:
    in_state(run, S.RUNNING, rounds_done=4, opened_round=5)
    first = commands.weigh(run, order, client=site, percent=0, why="noise")
    assert first
    assert first.data == {
        "client": str(site.pk),
        "name": "site-c",
        "percent": 0,
        "from_round": 6,
        "why": "noise",
    }  # round 5 is open
    assert commands.weigh(run, order, client=site, percent=0) is None
    assert weights.in_force(run, 5) == {}
    assert weights.in_force(run, 6) == {str(site.pk): 0}
    again = commands.weigh(run, order, client=site, percent=100)
    assert again
    assert weights.latest(run) == {}
    assert AuditEvent.objects.filter(action="run.client_weighed").count() == 2


def test_weights_that_make_no_sense_are_refused(federation: Federation, run: Run, order: Order, site: Client) -> None:
    with pytest.raises(RunRefused, match="101 %"):
        commands.weigh(run, order, client=site, percent=101)
    with pytest.raises(RunRefused, match="no such client"):
        weights.client_of(run, str(a_client(a_federation("other", a_user("other"))).pk))
    assert weights.client_of(run, "site-c") == weights.client_of(run, str(site.pk)) == site
    median = create_strategy(
        federation,
        order.actor,
        name="median",
        config=StrategyConfig.model_validate({"aggregation": {"name": "median"}}),
    )
    robust = create_run(
        federation, order.actor, name="r", strategy_version=median.latest, app=run.app, num_rounds=3, seed=1
    )
    with pytest.raises(RunRefused, match="doesn't weigh updates"):
        commands.weigh(robust, order, client=site, percent=50)
    assert commands.weigh(robust, order, client=site, percent=0)
    with pytest.raises(RunRefused, match="no round follows"):
        commands.weigh(in_state(run, S.COMPLETED), order, client=site, percent=0)


def test_the_page_wants_the_name_of_who_is_excluded(run: Run, owner: User, site: Client, client: Browser) -> None:
    client.force_login(owner)
    path = f"/f/{run.federation.slug}/runs/{run.pk}/do/weigh/"
    client.post(path, {"client": str(site.pk), "percent": "0", "confirm": "site-d"})
    assert not RunCommand.objects.exists()
    page = f"/f/{run.federation.slug}/runs/{run.pk}/"
    wanted = {"client": str(site.pk), "percent": "0", "confirm": "site-c"}
    seen = client.post(path, wanted, headers={"Referer": f"http://testserver{page}?heat=loss&z=1"})
    assert RunCommand.objects.get().data["percent"] == 0
    assert seen["Location"] == f"{page}?heat=loss&z=1", "what was shown is shown again"
    assert client.post(path, wanted, headers={"Referer": "http://testserver/other/?x=1"})["Location"] == page


def test_a_run_is_reproduced_with_the_weights_it_had(run: Run, order: Order, site: Client, capsys: Any) -> None:
    in_state(run, S.RUNNING, rounds_done=2, opened_round=2)
    commands.weigh(run, order, client=site, percent=50)
    call_command("reproduce_run", str(run.pk), "--user", "owner")
    again = Run.objects.exclude(pk=run.pk).get()
    assert (again.seed, again.num_rounds, again.strategy_version, again.status) == (
        run.seed,
        run.num_rounds,
        run.strategy_version,
        S.QUEUED,
    )
    assert weights.in_force(again, 2) == {}
    assert weights.in_force(again, 3) == {str(site.pk): 50}
    assert reproduction.description(again) == reproduction.description(run)
    with pytest.raises(CommandError, match="no run 999"):
        call_command("reproduce_run", "999")


def test_a_fork_over_rest_tells_nothing_of_another_federation_s_strategies(
    run: Run, owner: User, client: Browser
) -> None:
    a_model(run, 7)
    elsewhere = a_federation("lungs", a_user("somebody"))
    secret = create_strategy(elsewhere, a_user("other"), name="top-secret-trial", config=StrategyConfig())
    client.force_login(owner)
    own = run.strategy_version.pk
    answers = [
        client.post(
            f"/api/v1/runs/{run.pk}/commands",
            {"command": "fork", "round": 7, "strategy_version": version},
            content_type="application/json",
        )
        for version in (secret.latest.pk, 10**9, own)
    ]

    assert [answer.status_code for answer in answers] == [422, 422, 200]
    assert answers[0].json() == answers[1].json()
    assert b"top-secret-trial" not in answers[0].content
