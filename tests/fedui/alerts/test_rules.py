"""What each kind of rule finds, now and in the past."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from aggregator.core.round import Abandon, ClientEnded, DeadlinePassed, RoundMachine
from aggregator.core.round import Outcome as EngineOutcome
from fedui.accounts.models import User
from fedui.alerts import fleet_watch, services
from fedui.alerts.evaluation import evaluate
from fedui.alerts.kinds import TRAITS, BadRule, Kind, clean_settings, in_words
from fedui.alerts.models import Alert, AlertRule
from fedui.alerts.run_watch import QUORUM_WORDS
from fedui.alerts.search import FINDERS, preview
from fedui.clients.models import Certificate, ClientStatus, Connection, VitalsSample
from fedui.federations.models import Federation
from fedui.runs.models import Event, Metric, Outcome, Participation, Round, RoundStatus, Run, RunStatus
from tests.support.domain import a_client, a_run

pytestmark = pytest.mark.django_db
MINUTE = timedelta(minutes=1)


def found(federation: Federation, kind: Kind, **settings: Any) -> list[tuple[str, datetime, datetime | None]]:
    """The oldest first."""
    occurrences = preview(kind, federation, clean_settings(kind, settings), timezone.now())
    return [(one.title, one.at, one.until) for one in occurrences[::-1]]


def a_round(run: Run, number: int, at: datetime, *, abandoned: str = "", attempt: int = 1) -> Round:
    ends: dict[str, Any] = {"status": RoundStatus.ABANDONED, "reason": abandoned, "ended_at": at}
    if not abandoned:
        ends = {"status": RoundStatus.COMMITTED, "committed_at": at}
    return Round.objects.create(run=run, number=number, attempt=attempt, started_at=at - MINUTE, **ends)


def test_every_kind_has_its_search_traits_and_words() -> None:
    assert set(FINDERS) == set(TRAITS) == set(Kind)
    for kind in Kind:
        assert isinstance(in_words(kind, clean_settings(kind, {})), str)


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (Kind.CLIENT_OFFLINE, {"minutes": 0}), (Kind.CLIENT_OFFLINE, {"minutes": 1.5}), (Kind.CLIENT_OFFLINE, {"minutes": True}),
        (Kind.CLIENT_OFFLINE, {"minutes": "nan"}), (Kind.CLIENT_OFFLINE, {"seconds": 5}), (Kind.RUN_FAILED, {"minutes": 5}),
        (Kind.METRIC_THRESHOLD, {"comparison": "equal"}), (Kind.METRIC_THRESHOLD, {"threshold": "inf"}),
        (Kind.METRIC_THRESHOLD, {"metric": ""}), (Kind.METRIC_THRESHOLD, {"metric": "a\nb"}), (Kind.METRIC_THRESHOLD, {"metric": 5}),
        (Kind.DISK_LOW, {"percent": 51}),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense(kind: Kind, given: dict[str, Any]) -> None:
    with pytest.raises(BadRule) as refused:
        clean_settings(kind, given)
    assert refused.value.field == next(iter(given))


def test_a_client_is_offline_between_its_streams_and_since_its_last_sign(federation: Federation) -> None:
    client, never, barred = (a_client(federation, name) for name in ("elm", "never", "barred"))
    now = timezone.now()
    for number, (opened, closed) in enumerate([(300, 200), (190, 100), (60, 31)]):
        for one in (client, barred):
            Connection.objects.create(
                client=one, session_id=f"{one.name}{number}", opened_at=now - opened * MINUTE, closed_at=now - closed * MINUTE
            )  # fmt: skip
    for one in (client, barred):
        type(one).objects.filter(pk=one.pk).update(last_seen_at=now - 31 * MINUTE, lease_expires_at=now - 30 * MINUTE)
    barred.transition(ClientStatus.SUSPENDED)
    assert found(federation, Kind.CLIENT_OFFLINE, minutes=15) == [
        ("elm is offline", now - 85 * MINUTE, now - 60 * MINUTE),
        ("elm is offline", now - 16 * MINUTE, None),
    ]
    assert len(found(federation, Kind.CLIENT_OFFLINE, minutes=5)) == 3
    assert found(federation, Kind.CLIENT_OFFLINE, minutes=60) == []
    assert never.last_seen_at is None


def test_a_run_is_stalled_by_silence_that_nothing_explains(federation: Federation, owner: User) -> None:
    run, now = a_run(federation, owner), timezone.now()
    Run.objects.update(status=RunStatus.RUNNING)
    story = [
        (300, "round.started"),
        (299, "run.waiting"),
        (200, "round.started"),
        (150, "client.progress"),
        (40, "round.committed"),
    ]
    for seq, (ago, kind) in enumerate(story, 1):
        Event.objects.create(run=run, seq=seq, at=now - ago * MINUTE, kind=kind, level="info", message="")
    assert [(at, until) for _, at, until in found(federation, Kind.RUN_STALLED, minutes=30)] == [
        (now - 170 * MINUTE, now - 150 * MINUTE),
        (now - 120 * MINUTE, now - 40 * MINUTE),
        (now - 10 * MINUTE, None),
    ]
    Event.objects.create(run=run, seq=6, at=now - 35 * MINUTE, kind="run.waiting", level="info", message="")
    assert found(federation, Kind.RUN_STALLED, minutes=30)[-1][2] == now - 40 * MINUTE


def test_runs_that_failed_and_that_finished(federation: Federation, owner: User) -> None:
    now = timezone.now()
    for number, status in enumerate([RunStatus.FAILED, RunStatus.COMPLETED, RunStatus.STOPPED]):
        Run.objects.filter(pk=a_run(federation, owner, status).pk).update(
            status=status, ended_at=now - number * MINUTE, reason="It broke."
        )
    assert found(federation, Kind.RUN_FAILED) == [("Run failed has failed", now, None)]
    assert found(federation, Kind.RUN_FINISHED) == [("Run completed is completed", now - MINUTE, now - MINUTE)]


def test_a_metric_beyond_its_threshold(federation: Federation, owner: User) -> None:
    run, now = a_run(federation, owner), timezone.now()
    for number, value in enumerate([0.4, 0.45, 0.6, 0.3], 1):
        a_round(run, number, now - (10 - number) * MINUTE)
        Metric.objects.create(run=run, round_number=number, source="server", name="accuracy", value=value)
    spans = [(at, until) for _, at, until in found(federation, Kind.METRIC_THRESHOLD, source="server", threshold=0.5)]
    assert spans == [(now - 9 * MINUTE, now - 7 * MINUTE), (now - 6 * MINUTE, None)]
    above = found(federation, Kind.METRIC_THRESHOLD, source="server", threshold=0.5, comparison="above")
    assert [title for title, *_ in above] == ["accuracy of run first is above 0.5"]
    assert found(federation, Kind.METRIC_THRESHOLD, source="fit", threshold=0.5) == []


def test_suspicious_updates_in_a_row(federation: Federation, owner: User) -> None:
    run, now = a_run(federation, owner), timezone.now()
    elm, oak = a_client(federation, "elm"), a_client(federation, "oak")
    for number, flags in enumerate([(1, 0), (1, 1), (1, 0), (0, 0), (1, 0)], 1):
        row = a_round(run, number, now - (10 - number) * MINUTE)
        for client, flagged in zip((elm, oak), flags, strict=True):
            Participation.objects.create(
                round=row, client=client, outcome=Outcome.COMPLETED, flagged=bool(flagged), flag_reason="far off"
            )
    assert found(federation, Kind.UPDATE_FLAGGED, rounds=3) == [
        ("elm sends suspicious updates", now - 7 * MINUTE, now - 6 * MINUTE)
    ]
    assert len(found(federation, Kind.UPDATE_FLAGGED, rounds=1)) == 3


def test_certificates_that_nobody_renews(federation: Federation) -> None:
    client, now = a_client(federation, "elm"), timezone.now()
    Certificate.objects.filter(client=client).delete()
    spans = [(-50, -26, -34), (-34, -10, -11), (-11, 2, None)]
    for number, (issued, expires, replaced) in enumerate(spans):
        Certificate.objects.create(
            client=client, serial=str(number), fingerprint="f", issued_at=now + issued * 60 * MINUTE, not_before=now,
            not_after=now + expires * 60 * MINUTE, superseded_at=now + replaced * 60 * MINUTE if replaced else None,
        )  # fmt: skip
    assert [(at, until) for _, at, until in found(federation, Kind.CERTIFICATE_EXPIRING, hours=4)] == [
        (now - 14 * 60 * MINUTE, now - 11 * 60 * MINUTE),  # the first was renewed in time
        (now - 2 * 60 * MINUTE, None),
    ]


def test_an_authority_that_is_about_to_expire(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(federation, Kind.CERTIFICATE_EXPIRING) == []
    monkeypatch.setattr(fleet_watch, "AUTHORITY_AHEAD", timedelta(days=3651))
    [(title, _, until)] = found(federation, Kind.CERTIFICATE_EXPIRING)
    assert "certificate authority" in title and until is None


def test_disks_of_agents_and_server(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    client, now = a_client(federation, "elm"), timezone.now()
    for ago, free in ((5, 50.0), (4, 5.0), (3, 40.0), (2, 6.0)):
        VitalsSample.objects.create(client=client, seconds=900, at=now - ago * 60 * MINUTE, values={"disk_free": free})
    type(client).objects.update(machine={"disk_bytes": 100}, vitals={"disk_free": 7.0})
    assert [(at, until) for _, at, until in found(federation, Kind.DISK_LOW, percent=10)] == [
        (now - 4 * 60 * MINUTE, now - 3 * 60 * MINUTE),
        (now - 2 * 60 * MINUTE, None),
    ]
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1, "total": 100})())
    assert "The server’s disk is nearly full" in [title for title, *_ in found(federation, Kind.DISK_LOW)]


def test_quorums_missed(federation: Federation, owner: User) -> None:
    run, now = a_run(federation, owner), timezone.now()
    for number, reason in enumerate(
        ["The deadline passed with 1 updates; the quorum is 2.", "Only 1 of 2 updates were still possible."]
    ):
        a_round(run, 1, now - (9 - number) * MINUTE, abandoned=reason, attempt=number + 1)
    a_round(run, 1, now - 5 * MINUTE, attempt=3)
    a_round(run, 2, now - 4 * MINUTE, abandoned="The run was paused.")
    assert found(federation, Kind.QUORUM_MISSED, rounds=2) == [
        ("Run first has missed its quorum", now - 8 * MINUTE, now - 5 * MINUTE)
    ]


def test_the_engine_says_so_in_the_words_that_are_looked_for() -> None:
    reasons = []
    for event in (DeadlinePassed(9), ClientEnded(1, "a", EngineOutcome.LOST, "gone")):
        machine = RoundMachine(["a", "b"], wanted=2, quorum=2, deadline_seconds=9, evaluate=False)
        machine.start(0)
        reasons += [action.reason for action in machine.handle(event) if isinstance(action, Abandon)]
    assert len(reasons) == 2
    assert all(any(words in reason for words in QUORUM_WORDS) for reason in reasons)


def test_a_new_rule_doesnt_tell_of_old_events_but_of_what_lasts(federation: Federation, owner: User) -> None:
    AlertRule.objects.all().delete()
    now = timezone.now()
    Run.objects.filter(pk=a_run(federation, owner).pk).update(status=RunStatus.FAILED, ended_at=now - 60 * MINUTE)
    client = a_client(federation, "elm")
    type(client).objects.update(last_seen_at=now - 60 * MINUTE, lease_expires_at=now - 59 * MINUTE)
    for kind in (Kind.RUN_FAILED, Kind.CLIENT_OFFLINE):
        services.create_rule(federation, owner, services.RuleContent(kind.value, kind))
    evaluate(federation)
    assert [alert.kind for alert in Alert.objects.all()] == [Kind.CLIENT_OFFLINE]
