"""The state machine of a buffered round: what it decides, for any order of events, over many rounds."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from hypothesis import given
from hypothesis import strategies as st

from aggregator.core.buffered import TRIES, BufferMachine, Training
from aggregator.core.modes import Buffered
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
    Finish,
    Outcome,
    PhaseEntered,
    RoundEvent,
    RoundPhase,
    SendFit,
    SetDeadline,
    StopRequested,
    UpdateArrived,
)

CLIENTS = ("a", "b", "c", "d")


def machine(
    number: int = 1,
    *,
    eligible: Collection[str] = CLIENTS,
    training: Mapping[str, Training] | None = None,
    mode: Buffered | None = None,
) -> BufferMachine:
    mode = mode or Buffered(buffer_size=2)
    return BufferMachine(mode, number, seed=7, eligible=eligible, training=training or {}, wait_seconds=60)


def update(client: str, at: float = 1.0) -> UpdateArrived:
    return UpdateArrived(at, client, num_examples=10, metrics={}, sha256="0" * 64)


def ended(client: str, outcome: Outcome = Outcome.FAILED) -> ClientEnded:
    return ClientEnded(1.0, client, outcome, "it broke")


def test_a_full_buffer_closes_and_the_others_train_on() -> None:
    first = machine()
    (sent,) = first.start(0.0)
    assert isinstance(sent, SendFit)
    assert sorted(sent.client_ids) == list(CLIENTS)
    assert first.handle(update("b")) == []
    assert first.handle(update("d")) == [Aggregate("the buffer is full")]
    assert sorted(first.completed) == ["b", "d"]
    assert sorted(first.training) == ["a", "c"]
    assert first.handle(Committed(2.0)) == [Finish(evaluated=False)]
    second = machine(2, training=first.training)
    assert [sorted(action.client_ids) for action in second.start(3.0) if isinstance(action, SendFit)] == [["b", "d"]]
    assert (second.staleness("a"), second.staleness("b")) == (1, 0)


def test_a_client_whose_update_is_counted_waits_for_the_next_version() -> None:
    round_ = machine(eligible="a")
    round_.start(0.0)
    assert round_.handle(update("a")) == [SetDeadline(60)]
    assert round_.refusal("a") == "An update of this client has been counted already."
    assert round_.handle(ClientsChanged(2.0, frozenset("ab"))) == [SendFit(("b",))]


def test_concurrency_bounds_who_trains_and_whoever_ends_makes_room() -> None:
    round_ = machine(mode=Buffered(buffer_size=2, concurrency=1))
    (sent,) = round_.start(0.0)
    assert isinstance(sent, SendFit)
    (first,) = sent.client_ids
    (after,) = round_.handle(update(first))
    assert isinstance(after, SendFit)
    assert len(after.client_ids) == 1
    assert after.client_ids != (first,)


def test_work_on_too_old_a_model_is_called_off_and_asked_anew() -> None:
    training = machine(1, eligible="a")
    training.start(0.0)
    training.handle(AggregationBroke(1.0, "x"))
    on_time = machine(3, eligible="a", training=training.training, mode=Buffered(buffer_size=2, max_staleness=2))
    assert on_time.start(2.0) == []
    old = machine(4, eligible="a", training=training.training, mode=Buffered(buffer_size=2, max_staleness=2))
    cancel, sent = old.start(2.0)
    assert isinstance(cancel, Cancel)
    assert "more than 2 versions old" in cancel.reason
    assert sent == SendFit(("a",))
    assert old.staleness("a") == 0


def test_a_late_client_is_called_off_and_asked_again_and_not_for_ever() -> None:
    round_ = machine(eligible="a")
    round_.start(0.0)
    for _ in range(TRIES - 1):
        assert round_.handle(ended("a", Outcome.LATE)) == [Cancel(("a",), "it broke", late=True), SendFit(("a",))]
    *_, abandon = round_.handle(ended("a", Outcome.LATE))
    assert isinstance(abandon, Abandon)
    assert "1 client has failed 3 times" in abandon.reason


def test_the_wait_for_clients_ends_only_while_nobody_trains() -> None:
    round_ = machine(eligible="")
    assert round_.start(0.0) == [SetDeadline(60)]
    round_.handle(ClientsChanged(1.0, frozenset("a")))
    assert round_.handle(DeadlinePassed(60.0)) == []
    round_.handle(update("a", 61.0))
    (abandon,) = round_.handle(DeadlinePassed(121.0))
    assert isinstance(abandon, Abandon)
    assert "1 of 2 updates" in abandon.reason


def test_who_comes_and_goes_without_training_does_not_prolong_the_wait() -> None:
    round_ = machine(eligible="")
    assert round_.start(0.0) == [SetDeadline(60)]
    assert round_.handle(ClientsChanged(1.0, frozenset())) == []
    assert round_.handle(ClientsChanged(2.0, frozenset("a"))) == [SendFit(("a",))]
    assert round_.handle(update("a", 3.0)) == [SetDeadline(60)]  # a wait of its own
    assert round_.handle(ClientsChanged(4.0, frozenset())) == []
    assert round_.handle(ClientsChanged(5.0, frozenset("a"))) == []
    (abandon,) = round_.handle(DeadlinePassed(63.0))
    assert isinstance(abandon, Abandon)


def test_stop_calls_everybody_off_and_an_abandoned_attempt_nobody() -> None:
    stopped = machine(eligible="ab")
    stopped.start(0.0)
    cancel, abandon = stopped.handle(StopRequested(1.0))
    assert isinstance(cancel, Cancel)
    assert sorted(cancel.client_ids) == ["a", "b"]
    assert abandon == Abandon("The run was stopped.")
    assert stopped.training == {}
    broken = machine(eligible="ab")
    broken.start(0.0)
    assert broken.handle(AggregationBroke(1.0, "x")) == [Abandon("x")]
    assert sorted(broken.training) == ["a", "b"]


clients = st.sampled_from(CLIENTS)
events: st.SearchStrategy[RoundEvent] = st.one_of(
    st.builds(update, clients),
    st.builds(ended, clients, st.sampled_from([Outcome.FAILED, Outcome.LATE, Outcome.LOST, Outcome.REJECTED])),
    st.builds(PhaseEntered, st.just(1.0), clients, st.sampled_from(ClientPhase)),
    st.builds(ClientsChanged, st.just(1.0), st.frozensets(clients)),
    st.just(DeadlinePassed(1.0)),
    st.just(AggregationBroke(1.0, "x")),
)


@given(st.lists(events, max_size=60), st.integers(1, 3), st.integers(1, 4), st.integers(0, 2))
def test_whatever_happens_the_laws_hold(script: list[RoundEvent], size: int, concurrency: int, oldest: int) -> None:
    """A round ends once; no client is twice in a buffer or asked while it trains; nothing too old is counted."""
    number, sent, counted = 1, 0, 0
    mode = Buffered(buffer_size=size, concurrency=concurrency, max_staleness=oldest)
    round_, busy, ends = machine(1, mode=mode), set[str](), 0
    todo = round_.start(0.0)
    for event in [*script, None]:
        for action in todo:
            if isinstance(action, Cancel):
                busy -= set(action.client_ids)
            if isinstance(action, SendFit):
                assert not busy & set(action.client_ids)
                busy |= set(action.client_ids)
                sent += len(action.client_ids)
            ends += isinstance(action, Abandon | Aggregate)
        assert len(busy) <= concurrency
        assert all(round_.staleness(client) <= oldest for client in round_.pending)
        if round_.phase is not RoundPhase.FITTING:
            assert ends == 1
            assert round_.received == size or round_.phase is RoundPhase.DONE
            if round_.phase is RoundPhase.AGGREGATING:
                counted += round_.received
                assert round_.handle(Committed(1.0)) == [Finish(evaluated=False)]
                number += 1
            assert set(round_.training) == busy
            assert round_.handle(update("a")) == []
            assert round_.refusal("a")
            round_, ends = machine(number, training=round_.training, mode=mode), 0
            todo = round_.start(1.0)
            continue
        if event is None:
            break
        if isinstance(event, UpdateArrived | ClientEnded):
            assert (round_.refusal(event.client_id) is None) == (event.client_id in busy)
            busy.discard(event.client_id)
        todo = round_.handle(event)
    assert counted <= sent
