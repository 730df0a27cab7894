"""Clients are found by their labels, whatever these are called, in the API and by the palette."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from django.test import Client as Browser

from fedui.accounts.models import User
from fedui.federations.models import Federation
from tests.support.domain import a_client

NAMES = ["region", "1", "9" * 30, "größe", "a.b", "it's", 'say "so"', "$", "日本"]


@pytest.mark.parametrize("name", NAMES)
def test_by_name_and_value(client: Browser, federation: Federation, owner: User, name: str) -> None:
    client.force_login(owner)
    for number, labels in enumerate([{name: "north"}, {name: "south"}, {"other": "north"}, {}]):
        hospital = a_client(federation, f"hosp-{number}")
        hospital.labels = labels
        hospital.save()

    asked = quote(f"{name}:north")
    listed = client.get(f"/api/v1/federations/hearts/clients?label={asked}").json()["results"]
    assert [row["name"] for row in listed] == ["hosp-0"]
    if " " not in name:  # words of a search are apart
        hits = client.get(f"/f/hearts/search/?q={asked}", headers={"accept": "application/json"}).json()["hits"]
        assert [hit["text"] for hit in hits if hit["group"] == "Clients"] == ["hosp-0"]
        both = client.get(f"/f/hearts/search/?q={asked}%20other:x", headers={"accept": "application/json"}).json()[
            "hits"
        ]
        assert [hit for hit in both if hit["group"] == "Clients"] == []
