"""Certificates are renewed in two steps, so that an answer that is lost locks nobody out."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from aggregator.ports import AgentInfo, AppOffer, ClientRefused, RenewalRefused
from fedui.accounts.models import User
from fedui.audit.models import AuditEvent
from fedui.clients import pki, presence
from fedui.clients.admission import Applicant, admit, collect, enrol
from fedui.clients.models import Certificate, Client
from fedui.clients.registry import DatabaseClientRegistry, _authenticate, _renew
from fedui.clients.services import create_token, reinstate_client, revoke_client, suspend_client
from fedui.federations.models import Federation
from protos.tensors import Signature
from tests.support.domain import a_client, a_csr

HOUR = timedelta(hours=1)


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(tz=timezone.get_current_timezone())

    def __call__(self) -> datetime:
        return self.now

    def forward(self, step: timedelta) -> None:
        self.now += step


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timezone, "now", clock)
    return clock


@pytest.fixture
def client_row(federation: Federation, clock: Clock) -> Client:
    return a_client(federation, "hosp-1")


def newest(client: Client) -> Certificate:
    found = client.certificates.first()
    assert found
    return found


def connect(client: Client, certificate: Certificate) -> None:
    assert _authenticate(str(client.pk), certificate.serial).name == client.name


def renewed(client: Client, certificate: Certificate) -> Certificate:
    answer = _renew(str(client.pk), certificate.serial, a_csr())
    found = newest(client)
    assert answer.certificate == found.pem
    return found


def test_a_call_of_a_known_agent_is_one_query(
    client_row: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    certificate = newest(client_row)
    connect(client_row, certificate)
    with django_assert_num_queries(1):
        connect(client_row, certificate)


def test_certificates_live_a_day(client_row: Client) -> None:
    certificate = x509.load_pem_x509_certificate(newest(client_row).pem.encode())
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert life == timedelta(hours=26)


def test_their_life_is_a_setting_and_their_backdating_in_proportion(client_row: Client, settings: Settings) -> None:
    settings.CLIENT_CERTIFICATE_HOURS = 0.5
    certificate = a_client(client_row.federation).certificates.get()
    assert certificate.not_after - certificate.not_before == timedelta(minutes=33)


def test_the_old_certificate_works_until_the_new_one_is_used_and_a_minute_longer(
    client_row: Client, clock: Clock
) -> None:
    old = newest(client_row)
    connect(client_row, old)
    clock.forward(16 * HOUR)
    new = renewed(client_row, old)
    clock.forward(HOUR)
    connect(client_row, old)  # the answer may have been lost

    connect(client_row, new)
    clock.forward(timedelta(seconds=59))
    connect(client_row, old)  # a call that was under way
    clock.forward(timedelta(seconds=2))
    with pytest.raises(ClientRefused, match="replaced by a newer one"):
        connect(client_row, old)
    connect(client_row, new)


def test_renewals_whose_answers_were_lost_leave_nothing(client_row: Client, clock: Clock) -> None:
    old = newest(client_row)
    connect(client_row, old)
    clock.forward(16 * HOUR)
    lost = renewed(client_row, old)
    kept = renewed(client_row, old)

    assert set(client_row.certificates.all()) == {old, kept}
    with pytest.raises(ClientRefused):
        connect(client_row, lost)
    connect(client_row, kept)


def test_a_fresh_certificate_is_not_renewed(client_row: Client, clock: Clock) -> None:
    clock.forward(2 * HOUR)
    with pytest.raises(RenewalRefused, match="too new"):
        renewed(client_row, newest(client_row))
    clock.forward(HOUR)
    renewed(client_row, newest(client_row))


def test_a_bad_signing_request_is_refused(client_row: Client, clock: Clock) -> None:
    clock.forward(16 * HOUR)
    with pytest.raises(RenewalRefused, match="can't be read"):
        _renew(str(client_row.pk), newest(client_row).serial, "garbage")
    assert client_row.certificates.count() == 1


def test_long_ended_certificates_are_forgotten(client_row: Client, clock: Clock) -> None:
    serials = []
    for _ in range(3):
        connect(client_row, newest(client_row))
        clock.forward(timedelta(days=60))
        serials.append(renewed(client_row, newest(client_row)).serial)
    # The first one is kept as that of the enrolment.
    assert set(client_row.certificates.values_list("serial", flat=True)) >= set(serials[1:])
    assert client_row.certificates.count() == 3


def test_renewals_are_audited(client_row: Client, clock: Clock) -> None:
    old = newest(client_row)
    clock.forward(16 * HOUR)
    new = renewed(client_row, old)
    event = AuditEvent.objects.get(action="certificate.renewed")
    assert (event.subject, event.federation) == ("Client hosp-1", client_row.federation)
    assert (event.details["serial"], event.details["replaces"]) == (new.serial, old.serial)


@pytest.mark.parametrize("bar", [suspend_client, revoke_client])
def test_barred_clients_neither_connect_nor_renew(
    client_row: Client, owner: User, bar: Callable[[Client, User], None]
) -> None:
    bar(client_row, owner)
    with pytest.raises(ClientRefused, match="suspended|revoked"):
        connect(client_row, newest(client_row))


def test_a_reinstated_client_connects_with_the_certificate_it_has(client_row: Client, owner: User) -> None:
    suspend_client(client_row, owner)
    reinstate_client(client_row, owner)
    connect(client_row, newest(client_row))


@pytest.mark.django_db(transaction=True)
async def test_the_engine_reads_who_is_barred() -> None:
    from asgiref.sync import sync_to_async

    from tests.support.domain import a_federation, a_user

    registry, before = DatabaseClientRegistry(), timezone.now()
    owner = await sync_to_async(a_user)("owner")
    federation = await sync_to_async(a_federation)("hearts", owner)
    suspended, revoked, _ = [await sync_to_async(a_client)(federation) for _ in range(3)]
    assert list(await registry.barred(before)) == []

    await sync_to_async(suspend_client)(suspended, owner)
    await sync_to_async(revoke_client)(revoked, owner)

    found = {bar.client_id: bar for bar in await registry.barred(before)}
    assert found.keys() == {str(suspended.pk), str(revoked.pk)}
    assert (found[str(suspended.pk)].may_return, found[str(suspended.pk)].active) == (True, False)
    assert (found[str(revoked.pk)].may_return, found[str(revoked.pk)].active) == (False, False)
    assert list(await registry.barred(timezone.now())) == []


# --- between the look at a certificate and its renewal ---------------------------------------------------------------


@pytest.mark.parametrize("bar", [suspend_client, revoke_client])
def test_a_client_that_is_barred_after_it_authenticated_renews_nothing(
    client_row: Client, clock: Clock, owner: User, bar: Callable[[Client, User], None]
) -> None:
    clock.forward(16 * HOUR)
    old = newest(client_row)
    connect(client_row, old)
    bar(client_row, owner)
    with pytest.raises(RenewalRefused, match="renewed no longer"):
        _renew(str(client_row.pk), old.serial, a_csr())
    assert client_row.certificates.count() == 1


def test_a_key_that_an_operator_has_replaced_renews_nothing(client_row: Client, clock: Clock, owner: User) -> None:
    clock.forward(16 * HOUR)
    stolen = newest(client_row)
    connect(client_row, stolen)
    _, text = create_token(client_row.federation, owner, requires_approval=True)
    waiting = enrol(text, a_csr(), Applicant(client_row.name))
    admit(waiting, owner)
    collect(waiting.pk)
    with pytest.raises(RenewalRefused, match="renewed no longer"):
        _renew(str(client_row.pk), stolen.serial, a_csr())


def test_a_certificate_that_was_replaced_is_not_renewed_while_it_serves_out(client_row: Client, clock: Clock) -> None:
    clock.forward(16 * HOUR)
    old = newest(client_row)
    connect(client_row, old)
    connect(client_row, renewed(client_row, old))
    connect(client_row, old)
    with pytest.raises(RenewalRefused, match="renewed no longer"):
        _renew(str(client_row.pk), old.serial, a_csr())


def test_of_two_new_certificates_used_at_once_one_stays(client_row: Client, clock: Clock) -> None:
    first, second = (pki.issue_client_certificate(a_csr(), client_row) for _ in range(2))
    for certificate in (first, second):  # both calls have seen theirs unused
        certificate.confirm(clock.now)
    assert list(client_row.certificates.filter(superseded_at=None)) == [first]


def test_the_doctor_who_offers_no_app_wipes_nothing(client_row: Client) -> None:
    offer = AppOffer("digits", "1", "numpy", Signature(()), ())
    presence.connect(str(client_row.pk), "s", AgentInfo("1", "Linux", [offer], {"num_examples": 12}, 2, ""))
    presence.connect(str(client_row.pk), "t", AgentInfo("1", "Linux", [], {}, 2, ""))
    client_row.refresh_from_db()
    assert client_row.properties
    assert client_row.apps
