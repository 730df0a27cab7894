"""The round's state machine: what it decides, for any order of events."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.core.round import (
    Abandon,
    Aggregate,
    AggregationBroke,
    Cancel,
    ClientEnded,
    ClientPhase,
    ClientsChanged,
    Committed,
    DeadlinePassed,
    EvaluationArrived,
    Finish,
    HoldClock,
    Outcome,
    OwnDeadlinePassed,
    PhaseEntered,
    RoundEvent,
    RoundMachine,
    RoundPhase,
    SendEvaluate,
    SendFit,
    SetDeadline,
    StartClock,
    StopRequested,
    TaskHanded,
    TaskWaits,
    UpdateArrived,
)

COHORT = ("a", "b", "c")


def started(*, wanted: int = 3, quorum: int = 2, evaluate: bool = True) -> RoundMachine:
    machine = RoundMachine(COHORT, wanted=wanted, quorum=quorum, deadline_seconds=60, evaluate=evaluate)
    assert machine.start(0.0) == [SendFit(COHORT), SetDeadline(60)]
    return machine


def update(client: str, at: float = 1.0) -> UpdateArrived:
    return UpdateArrived(at, client, num_examples=10, metrics={}, sha256="0" * 64)


def failed(client: str, outcome: Outcome = Outcome.FAILED) -> ClientEnded:
    return ClientEnded(1.0, client, outcome, "it broke")


def measured(client: str) -> EvaluationArrived:
    return EvaluationArrived(2.0, client, loss=0.5, num_examples=4, metrics={})


def test_a_round_in_which_all_answer() -> None:
    machine = started()
    assert machine.handle(update("a")) == []
    assert machine.handle(update("b")) == []
    assert machine.handle(update("c")) == [Aggregate("all clients answered")]
    assert machine.handle(Committed(2.0)) == [SendEvaluate(COHORT), SetDeadline(60)]
    assert machine.handle(measured("b")) == []
    assert machine.handle(failed("a")) == []
    assert machine.handle(measured("c")) == [Finish(evaluated=True)]
    assert machine.phase is RoundPhase.DONE


def test_the_deadline_closes_a_round_that_has_its_quorum() -> None:
    machine = started(quorum=2)
    machine.handle(update("a"))
    machine.handle(update("c"))
    cancel, aggregate = machine.handle(DeadlinePassed(60.0))
    assert cancel == Cancel(("b",), "The round's deadline has passed.", late=True)
    assert aggregate == Aggregate("deadline")
    assert machine.participations["b"].outcome is Outcome.LATE
    assert machine.handle(Committed(61.0))[0] == SendEvaluate(("a", "c"))


def test_the_deadline_abandons_a_round_without_quorum() -> None:
    machine = started(quorum=2)
    machine.handle(update("a"))
    actions = machine.handle(DeadlinePassed(60.0))
    assert actions[-1] == Abandon("The deadline passed with 1 updates; the quorum is 2.")


def test_a_round_that_can_no_longer_reach_its_quorum_is_abandoned_at_once() -> None:
    machine = started(quorum=3)
    machine.handle(update("a"))
    cancel, abandon = machine.handle(failed("b"))
    assert cancel == Cancel(("c",), "Only 2 of 3 updates were still possible.")
    assert isinstance(abandon, Abandon)
    assert machine.participations["c"].outcome is Outcome.CANCELLED


def test_drop_outs_within_the_quorum_do_not_hold_the_round_up() -> None:
    machine = started(quorum=1)
    machine.handle(failed("a", Outcome.LOST))
    machine.handle(failed("b", Outcome.REFUSED))
    assert machine.handle(update("c")) == [Aggregate("all clients answered")]


def test_an_over_selected_round_closes_with_the_updates_it_wanted() -> None:
    machine = started(wanted=2)
    machine.handle(update("b"))
    cancel, aggregate = machine.handle(update("a"))
    assert cancel == Cancel(("c",), "The round has the updates it wanted.")
    assert aggregate == Aggregate("enough clients answered")
    assert machine.participations["c"].outcome is Outcome.CANCELLED
    assert "closed before" in (machine.refusal("c") or "")


@pytest.mark.parametrize("updates", [(), ("a",), ("a", "b", "c")])
def test_a_broken_aggregation_abandons_the_round(updates: tuple[str, ...]) -> None:
    machine = started()
    for client in updates:
        machine.handle(update(client))
    assert machine.handle(AggregationBroke(2.0, "Median returned NaN."))[-1] == Abandon("Median returned NaN.")
    assert machine.phase is RoundPhase.DONE


@pytest.mark.parametrize(
    ("client", "reason"), [("stranger", "not selected"), ("a", "counted already"), ("b", "closed before")]
)
def test_updates_that_must_not_count_are_refused(client: str, reason: str) -> None:
    machine = started()
    machine.handle(update("a"))
    machine.handle(failed("b", Outcome.LOST))
    assert reason in (machine.refusal(client) or "")
    assert machine.handle(update(client)) == []
    assert machine.received == 1


@pytest.mark.parametrize("events", [[], [update("a")], [update("a"), failed("b")]])
def test_stop_while_training_abandons_the_round(events: list[RoundEvent]) -> None:
    machine = started(quorum=1)
    for event in events:
        machine.handle(event)
    assert machine.handle(StopRequested(3.0))[-1] == Abandon("The run was stopped.")


def test_stop_while_aggregating_lets_the_commit_through_and_begins_nothing_after_it() -> None:
    machine = started(quorum=1)
    machine.handle(failed("b"))
    machine.handle(failed("c"))
    machine.handle(update("a"))
    assert machine.handle(StopRequested(3.0)) == []
    assert machine.handle(Committed(4.0)) == [Finish(evaluated=False)]


def test_stop_while_evaluating_ends_the_round() -> None:
    machine = started()
    for client in COHORT:
        machine.handle(update(client))
    machine.handle(Committed(2.0))
    machine.handle(measured("a"))
    assert machine.handle(StopRequested(3.0)) == [
        Cancel(("b", "c"), "The run was stopped."),
        Finish(evaluated=True),
    ]


def test_the_time_of_each_phase_is_measured() -> None:
    machine = started()
    machine.handle(PhaseEntered(2.0, "a", ClientPhase.TRAINING))
    machine.handle(PhaseEntered(7.0, "a", ClientPhase.UPLOADING))
    machine.handle(update("a", at=7.5))
    report = machine.participations["a"]
    assert (report.download_seconds, report.train_seconds, report.upload_seconds) == (2.0, 5.0, 0.5)


clients = st.sampled_from([*COHORT, "stranger"])
events = st.one_of(
    clients.map(update),
    st.builds(failed, clients, st.sampled_from([Outcome.FAILED, Outcome.LOST, Outcome.REJECTED])),
    clients.map(measured),
    st.builds(PhaseEntered, st.just(1.5), clients, st.sampled_from(ClientPhase)),
    st.just(DeadlinePassed(60.0)),
    st.just(StopRequested(5.0)),
)


@given(st.lists(events, max_size=40), st.integers(1, 3), st.integers(1, 3), st.booleans())
def test_whatever_happens_the_round_ends_once_and_counts_each_client_once(
    happenings: list[RoundEvent], quorum: int, wanted: int, evaluate: bool
) -> None:
    machine = started(wanted=max(quorum, wanted), quorum=quorum, evaluate=evaluate)
    actions = []
    for event in [*happenings, DeadlinePassed(60.0), DeadlinePassed(120.0)]:
        done = machine.handle(event)
        if any(isinstance(action, Aggregate) for action in done):
            done += machine.handle(Committed(9.0))
        actions += done
    assert machine.phase is RoundPhase.DONE
    ends = [a for a in actions if isinstance(a, Abandon | Finish)]
    aggregations = [a for a in actions if isinstance(a, Aggregate)]
    assert len(ends) == 1
    assert len(aggregations) == isinstance(ends[0], Finish)
    if aggregations:
        assert machine.received >= quorum
    assert set(machine.participations) == set(COHORT)
    assert all(p.outcome is not Outcome.PENDING for p in machine.participations.values())


# --- replacements, own deadlines, clients busy in other runs ---------------------------------------------------------

RESERVE = ("r", "s", "t")


def with_reserve(usual_seconds: dict[str, float] | None = None, **options: Any) -> RoundMachine:
    settings: dict[str, Any] = {"wanted": 3, "quorum": 2, "deadline_seconds": 60, "evaluate": False, **options}
    machine = RoundMachine(COHORT, reserve=RESERVE, usual_seconds=usual_seconds, **settings)
    machine.start(0.0)
    return machine


def ended(client: str, at: float, outcome: Outcome = Outcome.LOST) -> ClientEnded:
    return ClientEnded(at, client, outcome, "it is gone")


def test_a_drop_out_is_replaced_by_the_first_of_the_reserve_that_is_there() -> None:
    machine = with_reserve()
    assert machine.handle(ended("b", 5.0)) == [SendFit(("r",))]
    machine.handle(ClientsChanged(6.0, frozenset({"t"})))
    assert machine.handle(ended("c", 6.0)) == [SendFit(("t",))]
    assert {c: p.replaces for c, p in machine.participations.items() if p.replaces} == {"r": "b", "t": "c"}
    assert machine.expected == 3


def test_nobody_is_asked_whom_the_time_left_would_not_do() -> None:
    machine = with_reserve({"r": 50.0, "s": 10.0, "t": 5.0})
    assert machine.handle(ended("b", 45.0)) == [SendFit(("s",))]
    assert machine.handle(ended("s", 52.0)) == [SendFit(("t",))]
    assert with_reserve().handle(ended("b", 31.0)) == [], "of one whose pace isn't known, half the deadline is expected"


def test_more_than_enough_that_were_asked_need_no_replacement() -> None:
    machine = with_reserve(wanted=2)
    assert machine.handle(ended("b", 5.0)) == []
    assert machine.handle(ended("c", 5.0)) == [SendFit(("r",))]


def test_who_misses_its_own_deadline_is_called_off_and_replaced() -> None:
    machine = with_reserve()
    assert machine.handle(OwnDeadlinePassed(10.0, "a", "slow")) == [Cancel(("a",), "slow", late=True), SendFit(("r",))]
    assert machine.participations["a"].outcome is Outcome.LATE


def test_who_can_not_be_spared_keeps_the_time_of_the_round() -> None:
    machine = started(quorum=3)
    assert machine.handle(OwnDeadlinePassed(10.0, "a", "slow")) == []
    assert machine.handle(update("a", 20.0)) == []
    assert machine.received == 1


def test_the_deadline_stands_still_until_as_many_as_the_quorum_have_their_task() -> None:
    machine = with_reserve(wait_seconds=600)
    assert machine.handle(TaskWaits(0.0, "a")) == []
    assert machine.handle(TaskWaits(0.0, "b")) == [HoldClock(1, 2), SetDeadline(600)]
    assert machine.handle(TaskWaits(0.0, "c")) == []
    assert machine.handle(TaskHanded(100.0, "c")) == []
    assert machine.handle(TaskHanded(130.0, "a")) == [StartClock(2), SetDeadline(60)]
    machine.handle(update("c", 150.0))
    machine.handle(update("a", 160.0))
    aggregate = machine.handle(DeadlinePassed(190.0))[-1]
    assert aggregate == Aggregate("deadline")
    assert machine.participations["b"].reason == "It was busy in other runs until the deadline."
    assert machine.participations["a"].download_seconds == 30.0


def test_a_round_whose_clients_stay_busy_is_given_up() -> None:
    machine = with_reserve(wait_seconds=600)
    for client in COHORT:
        machine.handle(TaskWaits(0.0, client))
    abandon = machine.handle(DeadlinePassed(600.0))[-1]
    assert abandon == Abandon("Only 0 of 2 clients became free of other runs within 600 s.")


everybody = st.sampled_from([*COHORT, *RESERVE, "stranger"])
troubles = st.one_of(
    everybody.map(update),
    st.builds(ended, everybody, st.floats(0, 59), st.sampled_from([Outcome.FAILED, Outcome.LOST, Outcome.REFUSED])),
    st.builds(OwnDeadlinePassed, st.floats(0, 59), everybody, st.just("slow")),
    st.builds(TaskWaits, st.just(1.0), everybody),
    st.builds(TaskHanded, st.just(2.0), everybody),
    st.builds(ClientsChanged, st.just(1.0), st.frozensets(st.sampled_from(RESERVE))),
    st.just(StopRequested(5.0)),
)


@given(st.lists(troubles, max_size=40), st.integers(1, 3))
def test_whatever_happens_each_counts_once_and_no_drop_out_has_two_replacements(
    happenings: list[RoundEvent], quorum: int
) -> None:
    machine, twin = with_reserve(quorum=quorum), with_reserve(quorum=quorum)
    asked = list(COHORT)
    for event in [*happenings, DeadlinePassed(700.0)]:
        actions = machine.handle(event)
        assert twin.handle(event) == actions, "the same drop-outs, the same replacements"
        asked += [client for action in actions if isinstance(action, SendFit) for client in action.client_ids]
        if any(isinstance(action, Aggregate) for action in actions):
            for one in (machine, twin):
                one.handle(Committed(9.0))
        assert machine.received + len(machine.pending) <= len(COHORT)
    assert machine.phase is RoundPhase.DONE
    assert len(asked) == len(set(asked)), "nobody is asked twice"
    replaced = [p.replaces for p in machine.participations.values() if p.replaces]
    assert len(replaced) == len(set(replaced)) == len(asked) - len(COHORT)
    ended_early = {
        c for c, p in machine.participations.items() if p.outcome not in (Outcome.COMPLETED, Outcome.PENDING)
    }
    assert set(replaced) <= ended_early
    assert all(p.outcome is not Outcome.PENDING for p in machine.participations.values())
