"""What the server keeps of a client's updates, for its owner to hold against the agent's own log; and what owners say."""

from __future__ import annotations

import pytest
from asgiref.sync import async_to_sync
from django.test import Client as Browser

from aggregator.ports import AgentInfo
from fedui.accounts.models import User
from fedui.clients.models import Client
from fedui.clients.registry import DatabaseClientRegistry
from fedui.federations.models import Federation, Role
from fedui.runs.models import Outcome, Participation, Run
from tests.support.domain import a_client, a_member, a_run, with_rounds

PAUSED = "Paused by its owner."


@pytest.fixture
def client_of_two_rounds(federation: Federation, owner: User) -> Client:
    client = a_client(federation, "hosp-1")
    with_rounds(a_run(federation, owner), [client], 2)
    Participation.objects.filter(round__number=1).update(update_sha256="a" * 64)
    Participation.objects.filter(round__number=2).update(outcome=Outcome.REFUSED, reason="The cohort is too small.")
    return client


def url(client: Client, slug: str = "hearts") -> str:
    return f"/api/v1/federations/{slug}/clients/{client.pk}/updates"


def signed_in(user: User) -> Browser:
    browser = Browser()
    browser.force_login(user)
    return browser


def test_the_receipt_holds_the_updates_that_were_counted(client_of_two_rounds: Client, federation: Federation) -> None:
    auditor = a_member(federation, Role.AUDITOR)
    receipt = signed_in(auditor).get(url(client_of_two_rounds)).json()
    run = Run.objects.get()
    counted = {"run": run.pk, "round": 1, "attempt": 1, "sha256": "a" * 64, "bytes": 100}
    assert receipt == {"client": str(client_of_two_rounds.pk), "updates": [counted], "more": False}


def test_strangers_get_no_receipt(client_of_two_rounds: Client, stranger: User) -> None:
    assert signed_in(stranger).get(url(client_of_two_rounds)).status_code == 404
    assert signed_in(stranger).get(url(client_of_two_rounds, "lungs")).status_code == 404
    assert Browser().get(url(client_of_two_rounds)).status_code == 401


def test_the_clients_page_shows_hashes_and_why_it_refused(client_of_two_rounds: Client, owner: User) -> None:
    page = signed_in(owner).get(f"/f/hearts/clients/{client_of_two_rounds.pk}/").content.decode()
    assert f'<span title="{"a" * 64}">{"a" * 12}</span>' in page
    assert "The cohort is too small." in page
    assert "status failed" not in page


@pytest.mark.django_db(transaction=True)
def test_pages_say_that_an_agent_takes_no_tasks_until_it_does(federation: Federation, owner: User) -> None:
    client, registry = a_client(federation, "hosp-1"), DatabaseClientRegistry()
    connected, changed = async_to_sync(registry.connected), async_to_sync(registry.availability)
    connected(str(client.pk), "s", AgentInfo("0.1.0", "Linux", [], {}, 2, PAUSED))
    detail, listed = f"/f/hearts/clients/{client.pk}/", "/f/hearts/clients/"
    assert all(PAUSED in signed_in(owner).get(page).content.decode() for page in (detail, listed))
    changed(str(client.pk), "s", "")
    assert not any(PAUSED in signed_in(owner).get(page).content.decode() for page in (detail, listed))
    changed(str(client.pk), "s", PAUSED)
    connected(str(client.pk), "t", AgentInfo("0.1.0", "Linux", [], {}, 2))
    assert Client.objects.get().unavailable == ""
