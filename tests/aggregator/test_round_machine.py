"""The round's state machine: what it decides, for any order of events."""

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
    Committed,
    DeadlinePassed,
    EvaluationArrived,
    Finish,
    Outcome,
    PhaseEntered,
    RoundEvent,
    RoundMachine,
    RoundPhase,
    SendEvaluate,
    SendFit,
    SetDeadline,
    StopRequested,
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
    assert cancel == Cancel(("b",), "The round's deadline has passed.")
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
