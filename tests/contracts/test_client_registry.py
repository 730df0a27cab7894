"""What the database keeps of an agent that connects."""

from __future__ import annotations

import pytest
from asgiref.sync import sync_to_async

from aggregator.ports import AgentInfo, AppOffer
from fedui.catalog.models import App
from fedui.clients import registry
from fedui.clients.models import Client
from fedui.clients.registry import DatabaseClientRegistry
from protos.convert import Scalars
from tests.contracts.test_run_store import SIGNATURE, in_database

pytestmark = pytest.mark.django_db(transaction=True)


async def test_what_an_agent_says_of_itself_is_kept(transactional_db: None) -> None:
    client_id = (await sync_to_async(in_database)()).clients[0]
    properties: Scalars = {"cores": 8, "key": b"\x01", "site": "north"}
    await DatabaseClientRegistry().connected(client_id, AgentInfo("0.1.0", "Linux", [], properties, 1))
    client = await Client.objects.aget(pk=client_id)
    assert (client.agent_version, client.platform, client.protocol_minor) == ("0.1.0", "Linux", 1)
    assert client.properties == {"cores": 8, "key": "01", "site": "north"}


async def test_an_agent_that_invents_apps_fills_no_database(
    transactional_db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "MOST_APPS", 3)
    harness = await sync_to_async(in_database)()
    offers = [AppOffer(f"invented-{i}", "1", "numpy", SIGNATURE) for i in range(5)]
    offers.append(AppOffer("toy", "1", "numpy", SIGNATURE))
    await DatabaseClientRegistry().connected(harness.clients[0], AgentInfo("0.1.0", "Linux", offers, {}, 1))
    assert await App.objects.acount() == 3
    client = await Client.objects.aget(pk=harness.clients[0])
    full = "The federation knows 3 apps already, and this is none of them"
    assert [app["problem"] for app in client.apps] == ["", "", full, full, full, ""]
