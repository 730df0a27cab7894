"""The certificate authority is replaced with an overlap in which both are trusted."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import pytest
from cryptography import x509
from django.core.management import CommandError, call_command
from django.utils import timezone
from pytest_django import Settings

from aggregator.transport.server import TLSMaterial
from fedui.accounts.models import User
from fedui.audit.models import AuditEvent
from fedui.clients import pki, rotation
from fedui.clients.authorities import RotationRefused, Stage, trust
from fedui.clients.models import Client
from fedui.clients.server_tls import ServerTLS
from fedui.clients.services import create_token, revoke_client
from fedui.clients.tokens import TokenText
from fedui.federations.models import Federation
from tests.support.domain import a_client, a_csr


@pytest.fixture(autouse=True)
def folder(settings: Settings, tmp_path: Path) -> Path:
    settings.PKI_DIR = tmp_path / "pki"
    return tmp_path / "pki"


def authorities(pem: bytes) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(pem)


def issuer_of(client: Client) -> x509.Name:
    certificate = client.certificates.first()
    assert certificate
    return x509.load_pem_x509_certificate(certificate.pem.encode()).issuer


def renew(client: Client) -> None:
    """As its agent will, a second later than the step before."""
    certificate = pki.issue_client_certificate(a_csr(), client)
    certificate.confirm(timezone.now())


def test_a_whole_rotation(federation: Federation, folder: Path) -> None:
    client, first = a_client(federation), trust()

    begun = rotation.begin("root")
    assert begun.stage == Stage.BEGUN
    assert begun.issuer.fingerprint == first.issuer.fingerprint
    assert begun.other
    second = begun.other
    assert authorities(begun.bundle_pem) == [first.issuer.certificate, second.certificate]
    assert second.certificate.subject != first.issuer.certificate.subject
    renew(client)
    assert issuer_of(client) == first.issuer.certificate.subject

    switched = rotation.switch("root")
    assert switched.stage == Stage.SWITCHED
    assert authorities(switched.bundle_pem) == [second.certificate, first.issuer.certificate]
    renew(client)
    assert issuer_of(client) == second.certificate.subject

    finished = rotation.finish("root")
    assert (finished.stage, finished.other) == (Stage.STEADY, None)
    assert finished.bundle_pem == second.pem
    assert not (folder / "ca.key").exists()
    assert stat.S_IMODE((folder / "ca-2.key").stat().st_mode) == 0o600

    assert rotation.begin("root").other is not None
    assert (folder / "ca-3.key").exists()


def test_each_of_the_two_vouches_for_the_other(federation: Federation) -> None:
    first = trust().issuer
    begun = rotation.begin("root")
    assert begun.other
    new_by_old, old_by_new = authorities(begun.links_pem)
    new_by_old.verify_directly_issued_by(first.certificate)
    old_by_new.verify_directly_issued_by(begun.other.certificate)
    assert new_by_old.public_key() == begun.other.certificate.public_key()
    assert old_by_new.public_key() == first.certificate.public_key()


def test_no_step_leaves_an_agent_behind_unless_one_insists(federation: Federation, owner: User) -> None:
    behind, gone = a_client(federation, "hosp-1"), a_client(federation, "hosp-2")
    revoke_client(gone, owner)
    rotation.begin("root")
    with pytest.raises(RotationRefused, match=r"1 clients have not heard .*: hosp-1\.") as caught:
        rotation.switch("root")
    assert "--force" in caught.value.hint
    renew(behind)
    rotation.switch("root")
    with pytest.raises(RotationRefused, match="certificate from the former authority"):
        rotation.finish("root")
    assert rotation.finish("root", force=True).stage == Stage.STEADY


def test_a_certificate_that_may_not_have_arrived_tells_nothing_of_its_agent(federation: Federation) -> None:
    client = a_client(federation, "hosp-1")
    rotation.begin("root")
    answer = pki.issue_client_certificate(a_csr(), client)
    with pytest.raises(RotationRefused, match="hosp-1"):
        rotation.switch("root")
    answer.confirm(timezone.now())
    assert rotation.switch("root").stage == Stage.SWITCHED


def test_an_agent_whose_certificate_has_ended_holds_nobody_up(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_client(federation)
    rotation.begin("root")
    later = timezone.now() + timedelta(hours=25)
    monkeypatch.setattr(timezone, "now", lambda: later)
    assert rotation.switch("root").stage == Stage.SWITCHED


def test_steps_come_in_their_order(federation: Federation) -> None:
    for step in (rotation.switch, rotation.finish):
        with pytest.raises(RotationRefused):
            step("root")
    rotation.begin("root")
    for wrong in (rotation.begin, rotation.finish):
        with pytest.raises(RotationRefused):
            wrong("root")


def test_tokens_name_the_authority_that_issues(federation: Federation, owner: User) -> None:
    def pinned() -> str:
        return TokenText.parse(create_token(federation, owner)[1]).fingerprint

    first = trust().issuer.fingerprint
    rotation.begin("root")
    assert pinned() == first
    second = rotation.switch("root").issuer.fingerprint
    assert pinned() == second != first
    assert rotation.outdated_tokens() == 1
    rotation.finish("root")
    assert rotation.outdated_tokens() == 0


def test_the_server_shows_a_certificate_of_the_authority_that_issues(federation: Federation) -> None:
    source = ServerTLS(["localhost"])

    def shown() -> tuple[x509.Name, list[x509.Name]]:
        tls: TLSMaterial = source()
        certificate = x509.load_pem_x509_certificate(tls.certificate)
        return certificate.issuer, [ca.subject for ca in authorities(tls.client_ca)]

    first = trust().issuer.certificate.subject
    assert shown() == (first, [first])
    assert source() is source()
    begun = rotation.begin("root")
    assert begun.other
    second = begun.other.certificate.subject
    assert shown() == (first, [first, second])
    rotation.switch("root")
    assert shown() == (second, [second, first])
    rotation.finish("root")
    assert shown() == (second, [second])


def test_the_servers_certificate_is_renewed_before_it_ends(federation: Federation) -> None:
    now = datetime.now(UTC)
    source = ServerTLS(["localhost"], clock=lambda: now)
    first = source()
    now += timedelta(days=59)
    assert source() is first
    now += timedelta(days=2)
    assert source() is not first


def test_rotations_are_audited_everywhere(federation: Federation) -> None:
    rotation.begin("root on the server")
    found = AuditEvent.objects.filter(action="authority.rotation_begun")
    assert {event.federation for event in found} == {None, federation}
    assert {event.actor_name for event in found} == {"root on the server"}


def test_the_operators_command(federation: Federation, owner: User) -> None:
    client = a_client(federation, "hosp-1")

    def run(*arguments: str) -> str:
        out = StringIO()
        call_command("rotate_ca", *arguments, stdout=out)
        return out.getvalue()

    assert "No rotation is under way" in run("status")
    assert "has not renewed yet: hosp-1" in run("begin")
    with pytest.raises(CommandError, match="hosp-1"):
        run("switch")
    renew(client)
    create_token(federation, owner)
    assert "1 unused tokens name the old authority" in run("switch")
    told = run("finish", "--force")
    assert "No rotation" in told
    assert "hosp-1" not in told
