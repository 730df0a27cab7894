"""How a machine becomes a client: a token, a signing request, where the token asks for it an operator's word, a certificate.

A machine that was a client before stays that client if it signs with the old key, or if an operator says so.
Every attempt is audited; a refused one spends no use of its token.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from itertools import count
from typing import Any
from uuid import UUID

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from django.db import transaction
from django.db.models import F, Max
from django.utils import timezone

from fedui.accounts.models import User
from fedui.api.throttles import attempts
from fedui.audit.origin import AGENT
from fedui.audit.services import record
from fedui.clients import names, pki
from fedui.clients.authorities import spki
from fedui.clients.models import Admission, AdmissionStatus, Certificate, Client, ClientStatus, EnrolmentToken
from fedui.clients.services import tell_pages
from fedui.clients.tokens import TokenRefused, TokenText, TokenThrottled
from fedui.errors import DomainError, ErrorCode, NameTaken
from fedui.federations.models import Federation
from fedui.runs import live
from protos.identity import proof_message

WRONG_SECRETS_PER_MINUTE = 10
"""Of one token, from all addresses together; wrong ones beyond are not looked at."""


class AdmissionRefused(DomainError):
    """The machine may not be the client that it says it is, or an operator has turned it away."""

    code = ErrorCode.ADMISSION_REFUSED


@dataclass(frozen=True, slots=True)
class Applicant:
    """What an agent says of itself; cut to what fits."""

    name: str = ""
    host: str = ""
    agent_version: str = ""
    platform: str = ""
    address: str | None = None


@dataclass(frozen=True, slots=True)
class Proof:
    """The certificate that the machine had, and a signature of the new key by the old one (base64)."""

    certificate_pem: str
    signature: str


def enrol(token_text: str, csr_pem: str, applicant: Applicant, proof: Proof | None = None) -> Admission:
    """Use a token. The admission has a client and its certificate at once, or waits for an operator.

    The same token and key again give the same admission. Raises `TokenRefused`, `TokenThrottled`, `SigningRequestRefused`,
    `NameRefused`, `NameTaken` or `AdmissionRefused`.
    """
    try:
        with transaction.atomic():
            token = _proven_token(token_text)
            public_key = pki.requested_key(csr_pem)
            known = Admission.objects.filter(token=token, fingerprint=pki.key_fingerprint(public_key)).first()
            if known is None:
                known = _request(token, csr_pem, public_key, applicant, proof)
        return collect(known.pk)
    except DomainError as error:
        if not isinstance(error, TokenThrottled) or error.first:
            _record_refusal(token_text, error, applicant.address)
        raise


def collect(admission_id: UUID) -> Admission:
    """What has become of a request; once it is admitted, with a certificate. Raises `AdmissionRefused`."""
    with transaction.atomic():
        rows = Admission.objects.select_for_update(of=("self",)).select_related("client__federation", "certificate")
        admission = rows.get(pk=admission_id)
        if admission.status == AdmissionStatus.REFUSED:
            raise AdmissionRefused(
                f"The operator has refused this client: {admission.reason.rstrip('.')}.",
                hint="Ask whoever runs the federation.",
            )
        if admission.has_lapsed:
            raise AdmissionRefused("Nobody has admitted this client in time.", hint="Ask for a new token.")
        if admission.client and not admission.certificate:
            _refuse_barred(Client.objects.select_for_update(no_key=True).get(pk=admission.client.pk))
            _refuse_outdated(admission)
            admission.certificate = pki.issue_client_certificate(admission.csr_pem, admission.client)
            admission.save(update_fields=["certificate"])
            _record_certificate(admission)
        return admission


@transaction.atomic
def admit(admission: Admission, actor: User | str, *, address: str | None = None) -> Client:
    """Make the machine a client, or the client that it was. Raises `IllegalTransition`, `NameTaken` or `AdmissionRefused`."""
    if admission.has_lapsed:
        raise AdmissionRefused("The request has waited too long.", hint="The site can ask again, with a new token.")
    # Admissions to one federation wait for each other here, so that numbers and names can't clash.
    federation = Federation.objects.select_for_update(no_key=True).get(pk=admission.federation_id)
    Admission.objects.select_for_update().get(pk=admission.pk)  # before the client, as `collect` does
    client = _return(admission, admission.returning) if admission.returning else _create(federation, admission)
    person = actor if isinstance(actor, User) else None
    admission.transition(AdmissionStatus.ADMITTED, client=client, decided_at=timezone.now(), decided_by=person)
    details: dict[str, Any] = {"token": admission.token.key_id, "fingerprint": admission.fingerprint}
    if admission.returning:
        details["proven"] = admission.proven
    record(
        federation,
        actor,
        "client.re_enrolled" if admission.returning else "client.enrolled",
        client,
        address=address,
        platform=client.platform,
        host=admission.host,
        **details,
    )
    tell_pages(federation)
    return client


@transaction.atomic
def refuse(admission: Admission, actor: User, reason: str, *, address: str | None = None) -> None:
    """Turn the machine away; its use of the token stays spent. Raises `IllegalTransition`."""
    admission.transition(AdmissionStatus.REFUSED, reason=reason, decided_at=timezone.now(), decided_by=actor)
    details: dict[str, Any] = {"reason": reason, "host": admission.host, "fingerprint": admission.fingerprint}
    record(admission.federation, actor, "client.admission_refused", admission, address=address, **details)
    tell_pages(admission.federation)


def _proven_token(token_text: str) -> EnrolmentToken:
    text = TokenText.parse(token_text)
    token = EnrolmentToken.objects.select_related("federation").filter(key_id=text.key_id).first()
    if text.proves(token):
        assert token
        # Uses of one token wait for each other here: an agent that asks twice at once gets one admission.
        return EnrolmentToken.objects.select_related("federation").select_for_update(of=("self",)).get(pk=token.pk)
    wrong = attempts(f"token:{text.key_id}")
    if wrong > WRONG_SECRETS_PER_MINUTE:
        raise TokenThrottled(first=wrong == WRONG_SECRETS_PER_MINUTE + 1)
    raise TokenRefused.invalid()


def _request(
    token: EnrolmentToken,
    csr_pem: str,
    public_key: ec.EllipticCurvePublicKey,
    applicant: Applicant,
    proof: Proof | None,
) -> Admission:
    """Take one use of the token. Of attempts at the last one, one gets it: the row count of the UPDATE decides."""
    if not EnrolmentToken.objects.filter(pk=token.pk).usable(timezone.now()).update(uses=F("uses") + 1):
        token.refresh_from_db()
        raise TokenRefused.unusable(token)
    client = _proven_client(token, public_key, proof)
    name, returning = (client.name, client) if client else _wanted(token, applicant.name)
    admission = Admission.objects.create(
        federation=token.federation,
        token=token,
        name=name,
        host=_line(applicant.host, 255),
        agent_version=_line(applicant.agent_version, 32),
        platform=_line(applicant.platform, 120),
        address=applicant.address,
        csr_pem=csr_pem,
        fingerprint=pki.key_fingerprint(public_key),
        returning=returning,
        proven=client is not None,
    )
    if token.requires_approval:
        _record_request(admission)
        tell_pages(token.federation)
    else:
        admit(admission, AGENT, address=applicant.address)
    return admission


def _line(words: str, most: int) -> str:
    """What an agent says of itself, fit for an operator's eye: without control and bidirectional characters."""
    return "".join(c if c.isprintable() else " " for c in words[:most]).strip()


def _wanted(token: EnrolmentToken, wanted: str) -> tuple[str, Client | None]:
    """The name, and the client that has it already, whom only an operator can let the machine be."""
    if not wanted.strip():
        return "", None
    name = names.cleaned(wanted)
    holder = token.federation.clients.filter(name__iexact=name).first()
    if holder and not (token.requires_approval and holder.status == ClientStatus.ACTIVE):
        raise _name_taken(token.federation, name)
    return (holder.name, holder) if holder else (name, None)


def _name_taken(federation: Federation, name: str) -> NameTaken:
    return NameTaken(
        f"{federation} has a client {name} already.",
        hint="Choose another with --name. If this is the machine of that client, enrol from the same --home, or by a token "
        "with approval: then an operator can let it be that client again.",
    )


def _proven_client(token: EnrolmentToken, new_key: ec.EllipticCurvePublicKey, proof: Proof | None) -> Client | None:
    """The client of this federation whose newest key has signed the new one; None for a machine that is new here."""
    if proof is None:
        return None
    try:
        old = x509.load_pem_x509_certificate(proof.certificate_pem.encode())
        old_key, signature = old.public_key(), base64.b64decode(proof.signature, validate=True)
    except (ValueError, UnsupportedAlgorithm):
        return None
    if not isinstance(old_key, ec.EllipticCurvePublicKey):
        return None
    good = Certificate.objects.good(timezone.now()).select_related("client__federation")
    serial, fingerprint = format(old.serial_number, "x"), pki.key_fingerprint(old_key)
    known = good.filter(serial=serial, fingerprint=fingerprint, client__federation=token.federation).first()
    if known is None:
        return None
    try:
        old_key.verify(signature, proof_message(token.key_id, spki(new_key)), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise AdmissionRefused(
            "The proof of the old key is wrong.", hint="Enrol from the folder of that key."
        ) from None
    _refuse_barred(known.client)
    return known.client


def _refuse_barred(client: Client) -> None:
    if client.status != ClientStatus.ACTIVE:
        raise AdmissionRefused(f"{client} is {client.status}.", hint="Ask the federation's operator.")


def _refuse_outdated(admission: Admission) -> None:
    """Who was let be the client later, with another key, is it alone."""
    if Admission.objects.filter(client=admission.client, decided_at__gt=admission.decided_at).exists():
        raise AdmissionRefused(
            "This client has been admitted again since, with another key.", hint="Enrol again with a new token."
        )


def _create(federation: Federation, admission: Admission) -> Client:
    number = (federation.clients.aggregate(last=Max("number"))["last"] or 0) + 1
    return Client.objects.create(
        federation=federation,
        name=_free_name(federation, admission.name, number),
        number=number,
        labels=admission.token.labels,
        agent_version=admission.agent_version,
        platform=admission.platform,
    )


def _return(admission: Admission, client: Client) -> Client:
    """The client goes on under a new key, with its name, labels and history."""
    client.refresh_from_db()
    _refuse_barred(client)
    client.agent_version, client.platform = admission.agent_version, admission.platform
    client.save(update_fields=["agent_version", "platform"])
    if not admission.proven:  # The old key may be in other hands: it is void at once, and its stream is cut.
        client.certificates.filter(revoked_at=None).update(revoked_at=timezone.now())
        Client.objects.filter(pk=client.pk).update(barred_at=timezone.now())
        transaction.on_commit(lambda: live.client_barred(client), robust=True)
    return client


def _free_name(federation: Federation, wanted: str, number: int) -> str:
    taken = federation.clients.filter
    if not wanted:
        return next(name for n in count(number) if not taken(name__iexact=(name := f"client-{n}")).exists())
    if taken(name__iexact=wanted).exists():
        raise _name_taken(federation, wanted)
    return wanted


def _record_request(admission: Admission) -> None:
    details: dict[str, Any] = {"host": admission.host, "fingerprint": admission.fingerprint, "proven": admission.proven}
    returning = str(admission.returning) if admission.returning else None
    record(
        admission.federation,
        AGENT,
        "client.admission_requested",
        admission,
        address=admission.address,
        token=admission.token.key_id,
        returning=returning,
        **details,
    )


def _record_certificate(admission: Admission) -> None:
    certificate = admission.certificate
    assert admission.client and certificate
    until = certificate.not_after.isoformat(timespec="seconds")
    details: dict[str, Any] = {"serial": certificate.serial, "fingerprint": certificate.fingerprint, "until": until}
    federation, address = admission.client.federation, admission.address
    record(federation, AGENT, "certificate.issued", admission.client, address=address, **details)


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
