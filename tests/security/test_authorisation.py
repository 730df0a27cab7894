"""Every address, every method and every socket, tried by everybody in their own federation and in a foreign one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from asgiref.testing import ApplicationCommunicator
from django.conf import settings as django_settings
from django.db import transaction
from django.test import Client as Browser
from django.urls import URLPattern, URLResolver, get_resolver

from fedui.asgi import application
from fedui.routing import websocket_urlpatterns
from fedui.runs.consumers import NOT_FOUND, NOT_SIGNED_IN
from tests.security.authorisation import MAY, OUTSIDERS, ROLES, ROWS, SCOPES, SOCKET_ROWS, Row, document
from tests.security.world import Place, World

pytestmark = pytest.mark.django_db
DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "authorisation.md"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
EVERYBODY = (*ROLES, *OUTSIDERS)
ADDRESSES = sorted({row.address for row in ROWS})
PASSES, REFUSED, UNKNOWN, SIGN_IN, CLOSED = "passes", "refused", "unknown", "sign-in", "closed"
BY_NUMBER = ("api/v1/runs/", "api/v1/queries/")
"""Whose addresses name no federation: for a member who may not read them, they aren't there."""
SIGN_IN_PAGES = re.compile(r"^(/login/|/accounts/login/|/admin/login/)")


@pytest.fixture(autouse=True)
def _quietly(caplog: pytest.LogCaptureFixture) -> None:
    """Thousands of refusals, each with its line in the log, take longer to write than to try."""
    caplog.set_level("ERROR", logger="django.request")


# --- the table is whole ----------------------------------------------------------------------------------------------


def addresses(patterns: list[URLPattern | URLResolver], before: str = "") -> Iterator[str]:
    for pattern in patterns:
        address = before + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from addresses(pattern.url_patterns, address)
        elif not address.startswith("admin/") and getattr(pattern.callback, "__name__", "") != "nowhere":
            yield from plain(address)


def plain(address: str) -> Iterator[str]:
    """As the table has it: parameters by their names alone, one address for each alternative of an expression."""
    address = (
        re.sub(r"\(\?P<(\w+)>(?:[^()]*)\)", r"<\1>", re.sub(r"<\w+:", "<", address)).replace("^", "").replace("$", "")
    )
    choices = [part.split("|") for part in re.split(r"\(\?:([^)]*)\)", address)]
    yield from map("".join, product(*choices))


def test_every_address_has_a_row_and_every_row_an_address() -> None:
    assert set(addresses(get_resolver().url_patterns)) == set(ADDRESSES)


def test_every_socket_has_a_row() -> None:
    there = {re.sub(r"<\w+:", "<", str(pattern.pattern)) for pattern in websocket_urlpatterns}
    assert there == {row.address for row in SOCKET_ROWS}


def test_the_document_is_made_of_the_table() -> None:
    assert DOCUMENT.read_text() == document(), "make api"


# --- what the table says ---------------------------------------------------------------------------------------------


def expected(row: Row, caller: str) -> str:
    """Of a call to one's own federation's."""
    if row.right == "anybody":
        return PASSES
    if row.right == "scraper":
        return UNKNOWN
    if caller == "anonymous":
        return SIGN_IN
    if row.right in ("signed_in", "account"):
        return PASSES
    if row.right == "with_factor":
        return UNKNOWN
    if row.right == "installation":
        return PASSES if caller == "installation_admin" else UNKNOWN
    if caller in OUTSIDERS or (row.own_object and caller != "owner"):
        return UNKNOWN
    if row.address.startswith(BY_NUMBER) and caller not in MAY["read"]:
        return UNKNOWN
    return PASSES if caller in MAY[row.right] else REFUSED


def outcome(response: Any) -> str:
    if response.streaming:
        for close in response._resource_closers:  # not close(), which ends the transaction that all tests share
            close()
    assert response.status_code < 500, response
    if response.status_code == 401 or SIGN_IN_PAGES.match(response.headers.get("Location", "")):
        return SIGN_IN
    return {403: REFUSED, 404: UNKNOWN, 405: CLOSED}.get(response.status_code, PASSES)


BODIES: dict[str, dict[str, Any]] = {
    "api/v1/federations/<slug>/admissions/<admission_id>/refuse": {"reason": "no"},
    "api/v1/federations/<slug>/alert-rules/<rule_id>": {"name": "n", "kind": "run_failed"},
    "api/v1/federations/<slug>/alert-rules/<rule_id>/mute": {"hours": 1},
    "api/v1/federations/<slug>/alerts/<alert_id>/mute": {"hours": 1},
    "api/v1/federations/<slug>/clients/<client_id>/labels": {"labels": {"region": "north"}},
    "api/v1/federations/<slug>/members/<member_id>": {"role": "auditor"},
    "api/v1/federations/<slug>/models/<name>": {"description": "d"},
    "api/v1/federations/<slug>/models/<name>/versions/<number>": {"notes": "n"},
    "api/v1/federations/<slug>/models/<name>/versions/<number>/stage": {"stage": "staging"},
    "api/v1/federations/<slug>/strategies/<name>/versions": {"config": {}},
    "api/v1/federations/<slug>/webhooks/<webhook_id>": {"name": "n", "url": "https://a.example/", "enabled": False},
}
"""What would be done to an object, where the object is looked for only once that is clear."""


def call(browser: Browser, method: str, path: str, sent: dict[str, Any] | None = None, **headers: str) -> Any:
    """Undone, whatever it did."""
    cookies: Any = browser.cookies.copy()
    with transaction.atomic():
        body: dict[str, Any] = {}
        if method not in ("GET", "HEAD"):
            json = path.startswith("api/") or method != "POST"
            body = {"data": sent or {}, "content_type": "application/json"} if json else {"data": {}}
        response = getattr(browser, method.lower())(f"/{path}", headers=headers, **body)
        transaction.set_rollback(True)
    browser.cookies = cookies
    return response


def rows_of(address: str) -> dict[str, Row]:
    """By method."""
    return {row.method: row for row in ROWS if row.address == address}


def found(world: World, address: str, place: Place, **instead: str) -> dict[tuple[str, str], str]:
    path = place.address(address, **instead)
    return {
        (method, caller): outcome(call(world.browsers[caller], method, path, BODIES.get(address)))
        for method, caller in product(rows_of(address), EVERYBODY)
    }


def of_a_federation(row: Row) -> bool:
    return row.right in MAY


@pytest.mark.parametrize("address", ADDRESSES)
def test_everybody_in_their_own_federation(world: World, address: str) -> None:
    there, rows = found(world, address, world.own), rows_of(address)
    assert {
        f"{caller}: {method}": said
        for (method, caller), said in there.items()
        if rows[method].right != "underway" and said != expected(rows[method], caller)
    } == {}


FOREIGN = [address for address in ADDRESSES if all(map(of_a_federation, rows_of(address).values()))]


@pytest.mark.parametrize("address", FOREIGN)
def test_a_foreign_federation_is_not_there(world: World, address: str) -> None:
    """The member of the other one is at home there."""
    there = found(world, address, world.foreign)
    assert {
        (method, caller): said
        for (method, caller), said in there.items()
        if said != (SIGN_IN if caller == "anonymous" else UNKNOWN) and caller != "other_member"
    } == {}


MIXED = [
    address
    for address in FOREIGN
    if "<slug>" in address
    and re.search(r"<(\w+_id|name|number)>", address)
    and not address.endswith("models/<name>/versions")  # names the model that a POST makes
]


@pytest.mark.parametrize("address", MIXED)
def test_a_foreign_object_is_not_in_ones_own_federation(world: World, address: str) -> None:
    there = found(world, address, world.foreign, slug=world.own.named["slug"])
    for (method, caller), said in there.items():
        may = caller in OUTSIDERS or caller in MAY[rows_of(address)[method].right]
        told = {SIGN_IN} if caller == "anonymous" else {UNKNOWN} if may else {UNKNOWN, REFUSED}
        assert said in told, (method, caller)


@pytest.mark.parametrize("address", [address for address in FOREIGN if "<client_id>" in address])
def test_another_sites_client_is_not_there_for_a_site_admin(world: World, address: str) -> None:
    path = world.own.address(address, client_id=str(world.own.other_client.pk))
    for method, row in rows_of(address).items():
        said = outcome(call(world.browsers["site_admin"], method, path))
        unknown = "site_admin" in MAY[row.right] or address.startswith("api/v1/runs/")  # to them there are no runs
        assert said == (UNKNOWN if unknown else REFUSED), method


@pytest.mark.parametrize(
    "address", [address for address in ADDRESSES if not address.startswith(("accounts/", "login/"))]
)
def test_other_methods_are_closed(world: World, address: str) -> None:
    for method in METHODS:
        if method not in rows_of(address) and (method != "OPTIONS" or address.startswith("api/")):
            assert outcome(call(world.browsers["owner"], method, world.own.address(address))) != PASSES, method


@pytest.mark.parametrize("address", [address for address in ADDRESSES if address.startswith("api/")])
def test_an_api_key_opens_what_its_scope_says(world: World, address: str) -> None:
    """In its own federation alone."""
    for (method, row), (scope, key) in product(rows_of(address).items(), world.keys.items()):
        open_to = row.right == "anybody" or SCOPES.get(row.right) == scope
        said = outcome(call(Browser(), method, world.own.address(address), **key.headers))
        assert said == (PASSES if open_to else REFUSED), (method, scope)
        if open_to and of_a_federation(row):
            abroad = outcome(call(Browser(), method, world.foreign.address(address), **key.headers))
            assert abroad == UNKNOWN, (method, scope)


@pytest.mark.parametrize("address", [address for address in ADDRESSES if not address.startswith("api/")])
def test_no_api_key_opens_a_page(world: World, address: str) -> None:
    for method, row in rows_of(address).items():
        said = outcome(call(Browser(), method, world.own.address(address), **world.keys["read"].headers))
        assert row.right == "underway" or said == expected(row, "anonymous"), method


@pytest.mark.parametrize("address", ADDRESSES)
def test_nothing_is_done_for_a_page_of_another_site(world: World, address: str) -> None:
    """A form that lacks the token is refused, whoever sends it."""
    browser = Browser(enforce_csrf_checks=True)
    browser.cookies = world.browsers["owner"].cookies
    for method in set(rows_of(address)) - {"GET", "HEAD"}:
        if address == "api/v1/enroll":  # asks for no session, but for a token of its own
            continue
        assert outcome(call(browser, method, world.own.address(address))) == REFUSED, method


# --- Django's admin --------------------------------------------------------------------------------------------------


def admin_addresses() -> list[str]:
    patterns: Any = next(one for one in get_resolver().url_patterns if str(one.pattern) == "admin/")
    found = (f"admin/{one.pattern}" for one in _leaves(patterns.url_patterns))
    return sorted({re.sub(r"<[^>]*>", "1", address) for address in found if "(" not in address} - {"admin/logout/"})


def _leaves(patterns: Any, before: str = "") -> Iterator[Any]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            for leaf in _leaves(pattern.url_patterns):
                yield type("Leaf", (), {"pattern": f"{pattern.pattern}{leaf.pattern}"})
        else:
            yield pattern


def test_the_admin_is_for_installation_administrators(world: World) -> None:
    everybody_else = set(EVERYBODY) - {"installation_admin"}
    for address, caller, method in product(admin_addresses(), everybody_else, ("GET", "POST")):
        said = outcome(call(world.browsers[caller], method, address))
        assert said != PASSES, (address, caller, method)


# --- WebSockets ------------------------------------------------------------------------------------------------------


def socket(browser: Browser, path: str) -> str:
    cookie = browser.cookies.get(django_settings.SESSION_COOKIE_NAME)
    headers = [(b"origin", b"http://testserver"), (b"host", b"testserver")]
    if cookie:
        headers.append((b"cookie", f"{cookie.key}={cookie.value}".encode()))
    return str(async_to_sync(_tried)(f"/{path}", headers))


async def _tried(path: str, headers: list[tuple[bytes, bytes]]) -> str:
    scope = {"type": "websocket", "path": path, "headers": headers, "query_string": b"", "subprotocols": []}
    communicator: Any = ApplicationCommunicator(application, scope)  # type: ignore[no-untyped-call]
    await communicator.send_input({"type": "websocket.connect"})
    assert (await communicator.receive_output(timeout=20))["type"] == "websocket.accept"
    first = await communicator.receive_output(timeout=20)
    await communicator.send_input({"type": "websocket.disconnect", "code": 1000})
    await communicator.wait(timeout=20)
    codes = {NOT_SIGNED_IN: SIGN_IN, NOT_FOUND: UNKNOWN}
    return codes[first["code"]] if first["type"] == "websocket.close" else PASSES


@pytest.mark.parametrize("row", SOCKET_ROWS, ids=lambda row: row.address)
def test_sockets(world: World, row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who may not is told nothing, a member neither: a page that such a socket belongs to is closed to them."""
    monkeypatch.setattr("channels.db.close_old_connections", lambda: None)  # it would end the tests' transaction
    for caller in EVERYBODY:
        said = socket(world.browsers[caller], world.own.address(row.address))
        asked = expected(row, caller)
        assert said == (UNKNOWN if asked == REFUSED else asked), caller
        abroad = socket(world.browsers[caller], world.foreign.address(row.address))
        at_home = caller == "other_member"
        assert abroad == (PASSES if at_home else SIGN_IN if caller == "anonymous" else UNKNOWN), caller
