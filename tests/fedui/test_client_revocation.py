"""Clients that are cut off, for a while or for good."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pytest_django import DjangoCaptureOnCommitCallbacks

from fedui.accounts.models import User
from fedui.audit.models import AuditEvent
from fedui.clients.models import Client, ClientStatus, Presence
from fedui.clients.services import reinstate_client, revoke_client, suspend_client
from fedui.federations.models import Federation
from fedui.runs import live
from fedui.transitions import IllegalTransition
from tests.support.domain import a_client


@pytest.fixture
def client_row(federation: Federation) -> Client:
    return a_client(federation, "hosp-1")


def test_revocation_takes_the_certificates_too(client_row: Client, owner: User) -> None:
    revoke_client(client_row, owner, address="192.0.2.1")

    client_row.refresh_from_db()
    assert client_row.presence == Presence.REVOKED
    assert not client_row.certificates.filter(revoked_at=None).exists()
    event = AuditEvent.objects.get(action="client.revoked")
    assert (event.actor, event.subject, event.address) == (owner, "Client hosp-1", "192.0.2.1")


def test_a_revoked_client_stays_revoked(client_row: Client, owner: User) -> None:
    revoke_client(client_row, owner)

    for change in (revoke_client, suspend_client, reinstate_client):
        with pytest.raises(IllegalTransition, match="is revoked"):
            change(client_row, owner)
    assert AuditEvent.objects.filter(action__startswith="client.").exclude(action="client.enrolled").count() == 1


def test_a_suspended_client_can_come_back_with_its_certificate(client_row: Client, owner: User) -> None:
    suspend_client(client_row, owner)
    assert client_row.presence == Presence.SUSPENDED

    reinstate_client(client_row, owner)

    assert client_row.status == ClientStatus.ACTIVE
    assert client_row.certificates.filter(revoked_at=None).exists()


@pytest.mark.parametrize("cut_off", [suspend_client, revoke_client])
def test_the_engine_is_told_once_it_is_so(
    client_row: Client,
    owner: User,
    cut_off: Callable[[Client, User], None],
    monkeypatch: pytest.MonkeyPatch,
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    told: list[Client] = []
    monkeypatch.setattr(live, "client_barred", told.append)

    with django_capture_on_commit_callbacks(execute=True):
        cut_off(client_row, owner)
        assert told == []

    assert told == [client_row]
