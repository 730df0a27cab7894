"""Certificates from the database's authority, a real engine and a real agent: renewal, rotation and revocation together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from cryptography import x509
from django.utils import timezone

from aggregator.engine import Engine
from aggregator.memory import MemoryEventSink, MemoryModelStore, MemoryRunStore
from client_agent import agent
from client_agent.certificates import certificate_of, new_key, private_pem, signing_request
from client_agent.departures import Departures
from client_agent.errors import Dismissed
from client_agent.identity import Enrolment, Home, Identities, Identity
from client_agent.ledger import Ledger
from client_agent.policy import Leave
from client_agent.renewal import Renewal
from client_agent.state import AgentState
from fedui.clients import rotation
from fedui.clients.admission import Applicant, enrol
from fedui.clients.authorities import trust
from fedui.clients.models import Certificate, Client
from fedui.clients.registry import DatabaseClientRegistry
from fedui.clients.server_tls import ServerTLS
from fedui.clients.services import create_token, revoke_client
from tests.support.domain import a_federation, a_user

pytestmark = pytest.mark.django_db(transaction=True)


class Site:
    """One enrolled machine, and the server that it belongs to."""

    def __init__(self, engine: Engine, home: Home, client: Client) -> None:
        self.engine, self.home, self.client = engine, home, client

    async def renew(self) -> None:
        """As the agent does when the certificate is due."""
        await sync_to_async(_make_due)(self.client)
        departures = Departures(Ledger(self.home.log_file), Leave, "tests")
        renewal = Renewal(Identities(self.home, self.home.load()), departures)
        await renewal._once()

    async def connect(self) -> None:
        """Run the agent until the server has welcomed it."""
        running = asyncio.create_task(agent.serve(self.home, self.home.load(), {}, max_delay=0.05))
        try:
            await self.until(lambda: AgentState.read(self.home.state_file).connected, running)
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running

    async def until(self, condition: Callable[[], bool], running: asyncio.Task[None]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                if running.done():
                    await running
                await asyncio.sleep(0.01)

    @property
    def issuer(self) -> x509.Name:
        return certificate_of(self.home.load()).issuer


def _make_due(client: Client) -> None:
    """The server lets no certificate be renewed that was issued a moment ago."""
    earlier = timezone.now() - timedelta(hours=16)
    newest = client.certificates.first()
    assert newest
    Certificate.objects.filter(pk=newest.pk).update(issued_at=earlier)


def _enrolled(home: Home, port: int) -> Client:
    owner = a_user("owner")
    _, text = create_token(a_federation("hearts", owner), owner)
    key = new_key()
    admission = enrol(text, signing_request(key, "site-1").decode(), Applicant("site-1"))
    assert admission.client
    assert admission.certificate
    row = admission.certificate
    dates = row.not_after.isoformat(), row.not_before.isoformat()
    enrolment = Enrolment(
        str(admission.client.pk), "site-1", "hearts", "http://127.0.0.1:1", f"127.0.0.1:{port}", *dates
    )
    home.save(Identity(enrolment, private_pem(key), row.pem.encode(), trust().bundle_pem))
    return admission.client


@pytest.fixture
async def site(transactional_db: None, settings: Any, tmp_path: Path) -> AsyncIterator[Site]:
    settings.PKI_DIR = tmp_path / "pki"
    engine = Engine(
        owner="test",
        bind="127.0.0.1:0",
        tls=ServerTLS(["127.0.0.1"]),
        registry=DatabaseClientRegistry(),
        store=MemoryRunStore(),
        models=MemoryModelStore(),
        events=MemoryEventSink(),
        find_evaluator=lambda app: None,
    )
    await engine.start()
    home = Home(tmp_path / "home")
    yield Site(engine, home, await sync_to_async(_enrolled)(home, engine.port))
    await engine.stop()


async def test_a_renewed_certificate_opens_and_the_old_one_is_replaced(site: Site) -> None:
    old = site.home.load()
    await site.connect()
    await site.renew()
    await site.connect()
    assert site.home.load().key_pem != old.key_pem
    replaced = await Certificate.objects.aget(serial=format(certificate_of(old).serial_number, "x"))
    assert replaced.superseded_at


async def test_an_agent_follows_a_rotation_of_the_authority(site: Site) -> None:
    first = trust().issuer.certificate.subject
    await site.connect()
    await sync_to_async(rotation.begin)("root")
    await site.renew()
    await site.connect()
    assert site.issuer == first

    await sync_to_async(rotation.switch)("root")
    second = trust().issuer.certificate.subject
    await site.connect()  # the server shows the new authority, the agent a certificate of the old one
    await site.renew()
    assert site.issuer == second
    await site.connect()

    await sync_to_async(rotation.finish)("root")
    await site.connect()
    await site.renew()
    assert site.home.load().ca_pem == trust().issuer.pem
    await site.connect()


async def test_a_revoked_agent_is_cut_off_and_told_why(site: Site) -> None:
    running = asyncio.create_task(agent.serve(site.home, site.home.load(), {}, max_delay=0.05))
    await site.until(lambda: AgentState.read(site.home.state_file).connected, running)
    begun = asyncio.get_running_loop().time()

    await sync_to_async(revoke_client)(site.client, await sync_to_async(lambda: a_user("operator"))())

    with pytest.raises(Dismissed, match="revoked by the federation's operator"):
        await asyncio.wait_for(running, 20)
    assert asyncio.get_running_loop().time() - begun < 2
