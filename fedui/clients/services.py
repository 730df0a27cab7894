"""What operators do to tokens and clients. Everything here is audited."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from asgiref.sync import async_to_sync
from django.db import transaction
from django.utils import timezone

from fedui.accounts.models import User
from fedui.audit.services import record
from fedui.clients.authorities import trust
from fedui.clients.models import Client, ClientStatus, EnrolmentToken
from fedui.clients.tokens import TokenText
from fedui.federations.models import Federation
from fedui.runs import live


@transaction.atomic
def create_token(
    federation: Federation,
    actor: User,
    *,
    note: str = "",
    labels: Mapping[str, str] | None = None,
    max_uses: int = 1,
    requires_approval: bool = False,
    lifetime: timedelta = timedelta(days=1),
    address: str | None = None,
) -> tuple[EnrolmentToken, str]:
    """A token and its text. The text can't be had again: only a hash of its secret is stored."""
    text = TokenText.new(trust().issuer.fingerprint)
    token = EnrolmentToken.objects.create(
        federation=federation,
        key_id=text.key_id,
        secret_sha256=text.secret_sha256,
        note=note,
        labels=dict(labels or {}),
        max_uses=max_uses,
        requires_approval=requires_approval,
        created_by=actor,
        expires_at=timezone.now() + lifetime,
    )
    record(
        federation,
        actor,
        "token.created",
        token,
        address=address,
        max_uses=max_uses,
        note=note,
        requires_approval=requires_approval,
    )
    return token, str(text)


@transaction.atomic
def revoke_token(token: EnrolmentToken, actor: User, *, address: str | None = None) -> None:
    """No more clients by this token. Those it has enrolled stay."""
    if EnrolmentToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=timezone.now()):
        record(token.federation, actor, "token.revoked", token, address=address, uses=token.uses)
    token.refresh_from_db()


@transaction.atomic
def suspend_client(client: Client, actor: User, *, address: str | None = None) -> None:
    """Cut the client off until it is reinstated; its certificate isn't renewed meanwhile."""
    before = {"status": client.status}
    client.transition(ClientStatus.SUSPENDED, barred_at=timezone.now())
    _tell_of_barring(client, actor, "client.suspended", address, before)


@transaction.atomic
def reinstate_client(client: Client, actor: User, *, address: str | None = None) -> None:
    """Its agent comes back by itself, unless its certificate has expired meanwhile."""
    before = {"status": client.status}
    client.transition(ClientStatus.ACTIVE)
    after = {"status": client.status}
    record(client.federation, actor, "client.reinstated", client, address=address, before=before, after=after)
    tell_pages(client.federation)


@transaction.atomic
def revoke_client(client: Client, actor: User, *, address: str | None = None) -> None:
    """Cut the client off for good, also in the middle of a round. To come back it must enrol anew."""
    before = {"status": client.status}
    client.transition(ClientStatus.REVOKED, barred_at=timezone.now())
    client.certificates.filter(revoked_at=None).update(revoked_at=timezone.now())
    _tell_of_barring(client, actor, "client.revoked", address, before)


@transaction.atomic
def label_client(client: Client, actor: User, labels: Mapping[str, str], *, address: str | None = None) -> None:
    """Give it these labels, and no others. They count for cohorts that are selected from now on."""
    before = {"labels": client.labels}
    if client.labels == dict(labels):
        return
    client.labels = dict(labels)
    client.save(update_fields=["labels"])
    after = {"labels": client.labels}
    record(client.federation, actor, "client.labelled", client, address=address, before=before, after=after)
    tell_pages(client.federation)


def _tell_of_barring(client: Client, actor: User, action: str, address: str | None, before: dict[str, str]) -> None:
    record(client.federation, actor, action, client, address=address, before=before, after={"status": client.status})
    transaction.on_commit(lambda: live.client_barred(client), robust=True)


def tell_pages(federation: Federation) -> None:
    transaction.on_commit(lambda: async_to_sync(live.clients_changed)(str(federation.pk)), robust=True)
