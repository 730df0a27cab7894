"""The waiting room, and machines that enrol again."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from django.utils import timezone

from fedui.accounts.models import User
from fedui.audit.models import AuditEvent
from fedui.clients import admission as admissions
from fedui.clients.admission import AdmissionRefused, Applicant, Proof, admit, collect, enrol, refuse
from fedui.clients.authorities import spki
from fedui.clients.models import Admission, AdmissionStatus, Client, EnrolmentToken
from fedui.clients.services import create_token, revoke_client, suspend_client
from fedui.clients.tokens import TokenRefused, TokenText, TokenThrottled
from fedui.errors import NameTaken
from fedui.federations.models import Federation
from fedui.transitions import IllegalTransition
from protos.identity import proof_message
from tests.support.domain import a_csr, a_federation

Key = ec.EllipticCurvePrivateKey


def new_key() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


def applicant(name: str = "hosp-1") -> Applicant:
    return Applicant(name, "ward-pc-7", "0.2.0", "Linux", "192.0.2.1")


@pytest.fixture
def token(federation: Federation, owner: User) -> tuple[EnrolmentToken, str]:
    return create_token(federation, owner, max_uses=5, requires_approval=True, labels={"region": "north"})


@pytest.fixture
def open_token(federation: Federation, owner: User) -> str:
    return create_token(federation, owner, max_uses=5)[1]


def proof_by(old_key: Key, client: Client, text: str, new: Key) -> Proof:
    certificate = client.certificates.first()
    assert certificate
    message = proof_message(TokenText.parse(text).key_id, spki(new.public_key()))
    signature = base64.b64encode(old_key.sign(message, ec.ECDSA(hashes.SHA256()))).decode()
    return Proof(certificate.pem, signature)


def actions() -> list[str]:
    return list(AuditEvent.objects.order_by("id").values_list("action", flat=True))


# --- the waiting room ------------------------------------------------------------------------------------------------


def test_with_approval_a_machine_waits_and_is_no_client(token: tuple[EnrolmentToken, str]) -> None:
    waiting = enrol(token[1], a_csr(), applicant())

    assert (waiting.status, waiting.client, waiting.certificate) == (AdmissionStatus.WAITING, None, None)
    assert (waiting.name, waiting.host, waiting.address) == ("hosp-1", "ward-pc-7", "192.0.2.1")
    assert len(waiting.spaced_fingerprint.split()) == 16
    assert not Client.objects.exists()
    token[0].refresh_from_db()
    assert token[0].uses == 1


def test_once_admitted_it_gets_a_certificate_for_its_key(token: tuple[EnrolmentToken, str], owner: User) -> None:
    waiting = enrol(token[1], a_csr(), applicant())

    client = admit(waiting, owner, address="192.0.2.9")
    first, again = collect(waiting.pk), collect(waiting.pk)

    assert (client.name, client.labels, client.number) == ("hosp-1", {"region": "north"}, 1)
    assert first.certificate
    assert first.certificate.fingerprint == waiting.fingerprint
    assert again.certificate == first.certificate
    assert (first.decided_by, first.client) == (owner, client)
    assert actions()[-3:] == ["client.admission_requested", "client.enrolled", "certificate.issued"]
    assert AuditEvent.objects.get(action="client.enrolled").actor == owner


def test_a_refused_machine_is_told_why_and_can_not_be_admitted(token: tuple[EnrolmentToken, str], owner: User) -> None:
    waiting = enrol(token[1], a_csr(), applicant())

    refuse(waiting, owner, "Nobody there knows of it.")

    with pytest.raises(AdmissionRefused, match="Nobody there knows of it"):
        collect(waiting.pk)
    with pytest.raises(IllegalTransition):
        admit(waiting, owner)
    assert not Client.objects.exists()
    assert AuditEvent.objects.get(action="client.admission_refused").details["reason"] == "Nobody there knows of it."


def test_the_same_key_asks_again_without_another_use(token: tuple[EnrolmentToken, str], owner: User) -> None:
    csr = a_csr()
    first = enrol(token[1], csr, applicant())
    admit(first, owner)

    again = enrol(token[1], csr, applicant())

    assert again == first
    assert again.client
    token[0].refresh_from_db()
    assert token[0].uses == 1


def test_an_answer_that_was_lost_can_be_asked_for_again(federation: Federation, owner: User) -> None:
    _, text = create_token(federation, owner)  # a single use
    csr = a_csr()
    first = enrol(text, csr, applicant())
    assert enrol(text, csr, applicant()).certificate == first.certificate
    with pytest.raises(TokenRefused, match="has been used"):
        enrol(text, a_csr(), applicant("hosp-2"))


def test_nobody_is_admitted_after_a_week(
    token: tuple[EnrolmentToken, str], owner: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = enrol(token[1], a_csr(), applicant())
    later = timezone.now() + timedelta(days=7, seconds=1)
    monkeypatch.setattr(timezone, "now", lambda: later)

    with pytest.raises(AdmissionRefused, match="too long"):
        admit(waiting, owner)
    with pytest.raises(AdmissionRefused, match="in time"):
        collect(waiting.pk)
    assert not Admission.objects.waiting(later).exists()


def test_a_client_that_is_revoked_before_it_comes_for_its_certificate_gets_none(
    token: tuple[EnrolmentToken, str], owner: User
) -> None:
    waiting = enrol(token[1], a_csr(), applicant())
    revoke_client(admit(waiting, owner), owner)
    with pytest.raises(AdmissionRefused, match="is revoked"):
        collect(waiting.pk)


def test_of_two_that_want_one_name_the_second_is_not_admitted(token: tuple[EnrolmentToken, str], owner: User) -> None:
    first, second = (enrol(token[1], a_csr(), applicant()) for _ in range(2))
    admit(first, owner)
    with pytest.raises(NameTaken):
        admit(second, owner)
    second.refresh_from_db()
    assert second.status == AdmissionStatus.WAITING


# --- enrolling again -------------------------------------------------------------------------------------------------


def test_who_signs_with_the_old_key_is_the_client_it_was(federation: Federation, open_token: str) -> None:
    old, new = new_key(), new_key()
    client = enrol(open_token, a_csr(old), applicant()).client
    assert client

    again = enrol(open_token, a_csr(new), applicant("another-name"), proof_by(old, client, open_token, new))

    assert again.client == client
    assert federation.clients.count() == 1
    assert client.certificates.count() == 2
    event = AuditEvent.objects.get(action="client.re_enrolled")
    assert (event.subject, event.details["proven"]) == ("Client hosp-1", True)


def test_with_approval_it_waits_all_the_same(open_token: str, token: tuple[EnrolmentToken, str]) -> None:
    old, new = new_key(), new_key()
    client = enrol(open_token, a_csr(old), applicant()).client
    assert client
    waiting = enrol(token[1], a_csr(new), applicant(), proof_by(old, client, token[1], new))
    assert (waiting.status, waiting.returning, waiting.proven) == (AdmissionStatus.WAITING, client, True)


@pytest.mark.parametrize("forge", ["other key", "other token", "other new key"])
def test_a_proof_is_good_for_one_key_one_token_and_one_new_key(
    open_token: str, token: tuple[EnrolmentToken, str], forge: str
) -> None:
    old, new = new_key(), new_key()
    client = enrol(open_token, a_csr(old), applicant()).client
    assert client
    proof = proof_by(
        new_key() if forge == "other key" else old,
        client,
        token[1] if forge == "other token" else open_token,
        new_key() if forge == "other new key" else new,
    )
    with pytest.raises(AdmissionRefused, match="proof"):
        enrol(open_token, a_csr(new), applicant("hosp-2"), proof)
    assert Client.objects.count() == 1


def test_a_certificate_with_a_key_that_nobody_knows_proves_nothing(
    open_token: str, token: tuple[EnrolmentToken, str]
) -> None:
    old, new = new_key(), new_key()
    client = enrol(open_token, a_csr(old), applicant()).client
    assert client
    proof = proof_by(old, client, token[1], new)
    elliptic, unknown = bytes.fromhex("06072a8648ce3d0201"), bytes.fromhex("06072a8648ce3d0209")
    der = x509.load_pem_x509_certificate(proof.certificate_pem.encode()).public_bytes(serialization.Encoding.DER)
    forged = x509.load_der_x509_certificate(der.replace(elliptic, unknown)).public_bytes(serialization.Encoding.PEM)

    assert not enrol(token[1], a_csr(new), applicant("hosp-2"), Proof(forged.decode(), proof.signature)).proven


def test_a_key_that_was_replaced_proves_nothing(open_token: str) -> None:
    old, newer, new = new_key(), new_key(), new_key()
    client = enrol(open_token, a_csr(old), applicant()).client
    assert client
    stolen = proof_by(old, client, open_token, new)
    enrol(open_token, a_csr(newer), applicant(), proof_by(old, client, open_token, newer))
    newest = client.certificates.first()
    assert newest
    newest.confirm(timezone.now() - timedelta(minutes=2))

    with pytest.raises(NameTaken):
        enrol(open_token, a_csr(new), applicant(), stolen)


@pytest.mark.parametrize("bar", [suspend_client, revoke_client])
def test_the_key_of_a_barred_client_opens_nothing(
    open_token: str, owner: User, bar: Callable[[Client, User], None]
) -> None:
    old, new = new_key(), new_key()
    client = enrol(open_token, a_csr(old), applicant()).client
    assert client
    proof = proof_by(old, client, open_token, new)
    bar(client, owner)
    with pytest.raises((AdmissionRefused, NameTaken)):
        enrol(open_token, a_csr(new), applicant(), proof)
    assert client.certificates.count() == 1


def test_a_proof_of_another_federation_is_nothing_here(owner: User, open_token: str) -> None:
    old, new = new_key(), new_key()
    client = enrol(open_token, a_csr(old), applicant()).client
    assert client
    other = a_federation("lungs", owner)
    text = create_token(other, owner)[1]
    found = enrol(text, a_csr(new), applicant(), proof_by(old, client, text, new)).client
    assert found
    assert (found.federation, found == client) == (other, False)


def test_without_the_old_key_only_an_operator_can_give_a_name_back(
    open_token: str, token: tuple[EnrolmentToken, str], owner: User
) -> None:
    client = enrol(open_token, a_csr(), applicant()).client
    assert client
    with pytest.raises(NameTaken):
        enrol(open_token, a_csr(), applicant())

    waiting = enrol(token[1], a_csr(), applicant())
    assert (waiting.returning, waiting.proven, waiting.labels) == (client, False, {})
    assert client.certificates.filter(revoked_at=None).count() == 1
    admit(waiting, owner)
    collected = collect(waiting.pk)

    assert collected.client == client
    assert list(client.certificates.filter(revoked_at=None)) == [collected.certificate]
    client.refresh_from_db()
    assert client.barred_at  # the machine with the old key is cut off
    assert client.labels == {}  # its own, not the token's


def test_of_two_machines_that_were_let_be_one_client_the_last_is_it(
    token: tuple[EnrolmentToken, str], open_token: str, owner: User
) -> None:
    client = enrol(open_token, a_csr(), applicant()).client
    assert client
    lost, found = (enrol(token[1], a_csr(), applicant()) for _ in range(2))
    admit(lost, owner)  # and it is switched off before it comes for its certificate
    admit(found, owner)
    collected = collect(found.pk)
    with pytest.raises(AdmissionRefused, match="admitted again since"):
        collect(lost.pk)
    assert list(client.certificates.filter(revoked_at=None)) == [collected.certificate]


def test_what_a_machine_says_of_itself_can_not_mislead_the_eye(token: tuple[EnrolmentToken, str]) -> None:
    liar = Applicant("hosp-1", "evil\u202egro.latipsoh\x1b[2J", "0.2\n", "Linux\u2066")
    waiting = enrol(token[1], a_csr(), liar)
    assert (waiting.host, waiting.agent_version, waiting.platform) == ("evil gro.latipsoh [2J", "0.2", "Linux")


# --- guessing --------------------------------------------------------------------------------------------------------


def test_wrong_secrets_of_one_token_are_throttled_and_the_right_one_is_not(federation: Federation, owner: User) -> None:
    token, text = create_token(federation, owner)
    wrong = str(TokenText(token.key_id, TokenText.new("f" * 43).secret, "f" * 43))
    outcomes = []
    for _ in range(1000):
        with pytest.raises((TokenRefused, TokenThrottled)) as caught:
            enrol(wrong, a_csr_once(), applicant())
        outcomes.append(type(caught.value))

    assert outcomes.count(TokenRefused) <= 2 * admissions.WRONG_SECRETS_PER_MINUTE  # the minute may end meanwhile
    assert outcomes[-1] is TokenThrottled
    refused = AuditEvent.objects.filter(action="client.enrolment_refused")
    assert refused.count() <= 2 * admissions.WRONG_SECRETS_PER_MINUTE + 2
    assert refused.filter(details__code="throttled").exists()
    assert enrol(text, a_csr(), applicant()).client


_CSR = a_csr()


def a_csr_once() -> str:
    """Signing a thousand would take longer than refusing them."""
    return _CSR
