"""What changes clients and their tokens: enrolment, suspension, revocation. Everything here is audited."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from itertools import count

from asgiref.sync import async_to_sync
from django.db import transaction
from django.db.models import F, Max
from django.utils import timezone

from fedui.accounts.models import User
from fedui.audit.services import record
from fedui.clients import names, pki
from fedui.clients.models import Client, ClientStatus, EnrolmentToken
from fedui.clients.tokens import TokenRefused, TokenText
from fedui.errors import DomainError, NameTaken
from fedui.federations.models import Federation
from fedui.runs import live

AGENT = "agent"
"""Who acts in the audit log when an agent does."""


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What a new client is given."""

    client: Client
    certificate_pem: str


@transaction.atomic
def create_token(
    federation: Federation,
    actor: User,
    *,
    note: str = "",
    labels: Mapping[str, str] | None = None,
    max_uses: int = 1,
    lifetime: timedelta = timedelta(days=1),
    address: str | None = None,
) -> tuple[EnrolmentToken, str]:
    """A token and its text. The text can't be had again: only a hash of its secret is stored."""
    text = TokenText.new(pki.fingerprint())
    token = EnrolmentToken.objects.create(
        federation=federation,
        key_id=text.key_id,
        secret_sha256=text.secret_sha256,
        note=note,
        labels=dict(labels or {}),
        max_uses=max_uses,
        created_by=actor,
        expires_at=timezone.now() + lifetime,
    )
    record(federation, actor, "token.created", token, address=address, max_uses=max_uses, note=note)
    return token, str(text)


@transaction.atomic
def revoke_token(token: EnrolmentToken, actor: User, *, address: str | None = None) -> None:
    """No more clients by this token. Those it has enrolled stay."""
    if EnrolmentToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=timezone.now()):
        record(token.federation, actor, "token.revoked", token, address=address, uses=token.uses)
    token.refresh_from_db()


def enrol(
    token_text: str, csr_pem: str, name: str, agent_version: str, platform: str, address: str | None
) -> Enrolment:
    """Make the holder of a token a client, with a certificate. An empty `name` gets one made for it.

    Raises `TokenRefused`, `SigningRequestRefused`, `NameRefused` or `NameTaken`; a refused attempt is audited, and
    does not spend the token.
    """
    try:
        with transaction.atomic():
            token = _spend(token_text)
            client = _admit(token, name, agent_version, platform)
            certificate_pem = pki.issue_client_certificate(csr_pem, client)
            record(
                client.federation,
                AGENT,
                "client.enrolled",
                client,
                address=address,
                token=token.key_id,
                platform=client.platform,
            )
            _tell_pages(client.federation)
    except DomainError as error:
        _record_refusal(token_text, error, address)
        raise
    return Enrolment(client, certificate_pem)


def suspend_client(client: Client, actor: User, *, address: str | None = None) -> None:
    """Cut the client off until it is reinstated."""
    _set_status(client, ClientStatus.SUSPENDED, actor, "client.suspended", address)


def reinstate_client(client: Client, actor: User, *, address: str | None = None) -> None:
    _set_status(client, ClientStatus.ACTIVE, actor, "client.reinstated", address)


@transaction.atomic
def revoke_client(client: Client, actor: User, *, address: str | None = None) -> None:
    """Cut the client off for good, also in the middle of a round. To come back it must enrol anew."""
    _set_status(client, ClientStatus.REVOKED, actor, "client.revoked", address)
    client.certificates.filter(revoked_at=None).update(revoked_at=timezone.now())


@transaction.atomic
def _set_status(client: Client, status: ClientStatus, actor: User, action: str, address: str | None) -> None:
    client.transition(status)
    record(client.federation, actor, action, client, address=address)
    if status == ClientStatus.ACTIVE:
        _tell_pages(client.federation)
    else:
        transaction.on_commit(lambda: live.client_revoked(client), robust=True)


def _tell_pages(federation: Federation) -> None:
    transaction.on_commit(lambda: async_to_sync(live.clients_changed)(str(federation.pk)), robust=True)


def _spend(token_text: str) -> EnrolmentToken:
    """Take one use of a token. Of attempts at the last one, one gets it: the row count of the UPDATE decides."""
    text = TokenText.parse(token_text)
    token = EnrolmentToken.objects.select_related("federation").filter(key_id=text.key_id).first()
    if token is None or not text.proves(token):
        raise TokenRefused.invalid()
    if not EnrolmentToken.objects.filter(pk=token.pk).usable(timezone.now()).update(uses=F("uses") + 1):
        token.refresh_from_db()
        raise TokenRefused.unusable(token)
    return token


def _admit(token: EnrolmentToken, name: str, agent_version: str, platform: str) -> Client:
    # Enrolments of one federation wait for each other here, so that numbers and names can't clash.
    federation = Federation.objects.select_for_update(no_key=True).get(pk=token.federation_id)
    number = (federation.clients.aggregate(last=Max("number"))["last"] or 0) + 1
    return Client.objects.create(
        federation=federation,
        name=_free_name(federation, name, number),
        number=number,
        labels=token.labels,
        agent_version=agent_version[:32],
        platform=platform[:120],
    )


def _free_name(federation: Federation, wanted: str, number: int) -> str:
    if not wanted.strip():
        return next(name for n in count(number) if not _taken(federation, name := f"client-{n}"))
    name = names.cleaned(wanted)
    if _taken(federation, name):
        raise NameTaken(
            f"{federation} has a client {name} already.",
            hint="Choose another with --name. A client that lost its key enrols under a new name.",
        )
    return name


def _taken(federation: Federation, name: str) -> bool:
    return federation.clients.filter(name__iexact=name).exists()


def _record_refusal(token_text: str, error: DomainError, address: str | None) -> None:
    """Outside the transaction of the attempt, which is rolled back. The token is named by its id alone."""
    try:
        token = EnrolmentToken.objects.filter(key_id=TokenText.parse(token_text).key_id).first()
    except TokenRefused:
        token = None
    record(
        token.federation if token else None,
        AGENT,
        "client.enrolment_refused",
        token or "unknown token",
        address=address,
        code=error.code.value,
        reason=str(error),
    )
