"""Saved views: names for addresses of a federation's pages, for oneself or for all its members."""

from __future__ import annotations

import pytest
from django.test import Client as Browser

from fedui.audit.models import AuditEvent
from fedui.bookmarks.models import SavedView
from fedui.bookmarks.services import MOST_VIEWS, ViewRefused, save_view
from fedui.errors import NameTaken
from fedui.federations.models import Role
from fedui.federations.services import add_member
from tests.support.population import World, populate


@pytest.fixture
def world(db: None) -> World:
    return populate()


def test_a_view_is_saved_opened_renamed_and_deleted(world: World, client: Browser) -> None:
    client.force_login(world.owner)
    address = f"{world.root}runs/?status=completed&q=dig&page=3"
    made = client.post(f"{world.root}views/", {"name": "الجولات", "address": address})
    view = SavedView.objects.get()
    assert made.headers["Location"] == view.address == f"{world.root}runs/?status=completed&q=dig"
    assert "الجولات" in client.get(view.address).content.decode()
    assert client.get(f"{world.root}clients/").content.decode().count("None yet.") == 1
    client.post(f"{world.root}views/{view.pk}/change/", {"name": "Done", "shared": "on"})
    view.refresh_from_db()
    assert (view.name, view.shared) == ("Done", True)
    assert AuditEvent.objects.filter(action="view.shared").exists()
    client.post(f"{world.root}views/{view.pk}/delete/")
    assert not SavedView.objects.exists()


@pytest.mark.parametrize(
    "address",
    [
        "https://elsewhere.example/f/north/runs/", "//elsewhere.example/", "/f/other/runs/", "javascript:alert(1)", "/f/north/../../admin/",
        "/f/north/settings/", "/f/north/nothing/", "/admin/", f"/f/north/runs/?q={'x' * 2100}",
    ],
)  # fmt: skip
def test_a_view_leads_nowhere_else(world: World, address: str) -> None:
    if address.startswith("https:"):
        view = save_view(world.federation, world.owner, "safe", address)
        assert view.address == f"{world.root}runs/"
        return
    with pytest.raises(ViewRefused):
        save_view(world.federation, world.owner, "bad", address)


def test_names_are_ones_own_and_views_bounded(world: World) -> None:
    for number in range(MOST_VIEWS):
        save_view(world.federation, world.owner, f"view {number}", f"{world.root}runs/")
        if not number:
            with pytest.raises(NameTaken):
                save_view(world.federation, world.owner, "view 0", f"{world.root}runs/")
    with pytest.raises(ViewRefused):
        save_view(world.federation, world.owner, "one more", f"{world.root}runs/")
    save_view(world.federation, world.researcher, "view 0", f"{world.root}runs/")


def test_others_see_what_is_shared_and_change_nothing(world: World, client: Browser) -> None:
    own = save_view(world.federation, world.owner, "own", f"{world.root}runs/?q=a")
    shared = save_view(world.federation, world.owner, "for all", f"{world.root}runs/?q=b", shared=True)
    client.force_login(world.researcher)
    listed = client.get(f"{world.root}views/").content.decode()
    assert "for all" in listed and "?q=a" not in listed
    for view in (own, shared):
        assert client.post(f"{world.root}views/{view.pk}/delete/").status_code == 404
    client.force_login(world.stranger)
    assert client.get(f"{world.root}views/").status_code == 404
    add_member(world.federation, world.stranger, Role.SITE_ADMIN, world.owner, clients=[world.client])
    assert "for all" not in client.get(f"{world.root}views/").content.decode()
    client.post(f"{world.root}views/", {"name": "mine", "address": f"{world.root}clients/", "shared": "on"})
    assert not SavedView.objects.get(name="mine").shared
