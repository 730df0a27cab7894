"""State machines of clients and runs, each pair of states tried."""

from __future__ import annotations

import itertools

import pytest

from fedui.accounts.models import User
from fedui.clients.models import Client, ClientStatus
from fedui.federations.models import Federation
from fedui.runs.models import Run, RunStatus
from fedui.transitions import IllegalTransition, StatefulModel
from tests.support.domain import a_client, a_run

ALLOWED = {
    Client: {
        ("active", "suspended"), ("active", "revoked"), ("suspended", "active"), ("suspended", "revoked"),
    },
    Run: {
        ("queued", "running"), ("queued", "paused"), ("queued", "stopped"), ("queued", "failed"),
        ("running", "stopping"), ("running", "completed"), ("running", "stopped"), ("running", "failed"),
        ("running", "queued"), ("running", "pausing"), ("running", "paused"),
        ("pausing", "running"), ("pausing", "paused"), ("pausing", "queued"), ("pausing", "stopping"),
        ("pausing", "completed"), ("pausing", "stopped"), ("pausing", "failed"),
        ("paused", "queued"), ("paused", "stopped"), ("completed", "queued"), ("failed", "queued"),
        ("stopping", "stopped"), ("stopping", "completed"), ("stopping", "failed"),
    },
}  # fmt: skip


def rows(federation: Federation, owner: User) -> dict[type[StatefulModel], StatefulModel]:
    return {Client: a_client(federation), Run: a_run(federation, owner)}


@pytest.mark.parametrize(
    ("model", "current", "wanted"),
    [(Client, *pair) for pair in itertools.product(ClientStatus.values, repeat=2)]
    + [(Run, *pair) for pair in itertools.product(RunStatus.values, repeat=2)],
)
def test_each_pair_of_states(
    federation: Federation, owner: User, model: type[StatefulModel], current: str, wanted: str
) -> None:
    row = rows(federation, owner)[model]
    row.status = current
    row.save()

    if (current, wanted) in ALLOWED[model]:
        row.transition(wanted)
        assert row.status == wanted
    else:
        with pytest.raises(IllegalTransition, match=f"is {current} and can't become {wanted}"):
            row.transition(wanted)
        row.refresh_from_db()
        assert row.status == current


def test_of_two_who_read_the_same_state_one_succeeds(federation: Federation, owner: User) -> None:
    run = a_run(federation, owner)
    same_run = Run.objects.get(pk=run.pk)

    run.transition(RunStatus.STOPPED, reason="first")
    with pytest.raises(IllegalTransition):
        same_run.transition(RunStatus.FAILED, reason="second")

    assert same_run.reason == "first"
    assert same_run.is_terminal
