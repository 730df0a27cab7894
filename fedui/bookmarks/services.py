"""Saved views: names for addresses of a federation's pages."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode, urlsplit

from django.db import IntegrityError, transaction
from django.urls import Resolver404, resolve

from fedui.accounts.models import User
from fedui.audit.services import record
from fedui.bookmarks.models import SavedView
from fedui.errors import DomainError, ErrorCode, NameTaken
from fedui.federations.models import Federation

MOST_VIEWS = 100
"""Of one member."""
MAX_QUERY, MAX_PATH = 2000, 200
_OF_THE_MOMENT = frozenset({"page", "dialog"})
"""Parameters that belong to a visit, not to a view."""
PAGES = frozenset(
    {
        "overview", "runs", "run", "runs-compare", "clients", "client", "readiness", "strategies", "strategy", "apps",
        "models", "model", "model-version", "queries", "query", "tokens", "audit", "alerts",
    }
)  # fmt: skip


class ViewRefused(DomainError):
    """The address is no view of a page of the federation."""

    code = ErrorCode.INVALID_REQUEST


def save_view(
    federation: Federation,
    owner: User,
    name: str,
    address: str,
    *,
    shared: bool = False,
    from_address: str | None = None,
) -> SavedView:
    """Raises `ViewRefused` and `NameTaken`. Of `address`, only path and query count: no view leads elsewhere."""
    page, path, query = checked_address(federation, address)
    if owner.saved_views.filter(federation=federation).count() >= MOST_VIEWS:
        raise ViewRefused(f"You have {MOST_VIEWS} saved views here.", hint="Delete one first.")
    with transaction.atomic():
        view = SavedView(
            federation=federation, owner=owner, name=name, page=page, path=path, query=query, shared=shared
        )
        _save(view)
        if shared:
            record(federation, owner, "view.shared", name, address=from_address, path=f"{path}?{query}")
    return view


def change_view(view: SavedView, actor: User, name: str, *, shared: bool, from_address: str | None = None) -> None:
    """Another name; shared or not. Raises `NameTaken`."""
    was_shared, view.name, view.shared = view.shared, name, shared
    with transaction.atomic():
        _save(view)
        if was_shared != shared:
            action = "view.shared" if shared else "view.unshared"
            record(view.federation, actor, action, name, address=from_address, path=f"{view.path}?{view.query}")


@transaction.atomic
def delete_view(view: SavedView, actor: User, *, from_address: str | None = None) -> None:
    view.delete()
    if view.shared:
        record(view.federation, actor, "view.deleted", view.name, address=from_address)


def _save(view: SavedView) -> None:
    try:
        with transaction.atomic():
            view.save()
    except IntegrityError as error:
        raise NameTaken(f"You have a saved view “{view.name}” already.", hint="Choose another name.") from error


def checked_address(federation: Federation, address: str) -> tuple[str, str, str]:
    """Page, path within the federation and query of an address. Raises `ViewRefused`."""
    root = f"/f/{federation.slug}/"
    try:
        parts = urlsplit(address)
    except ValueError as error:
        raise ViewRefused("This is no address.", hint="Save the view on the page that it is of.") from error
    if not parts.path.startswith(root):
        raise ViewRefused("Only pages of this federation can be saved as views.")
    try:
        page = resolve(parts.path).url_name or ""
    except Resolver404:
        page = ""
    if page not in PAGES:
        raise ViewRefused("This page has no view to save.")
    query = urlencode([(key, value) for key, value in parse_qsl(parts.query) if key not in _OF_THE_MOMENT])
    path = parts.path.removeprefix(root)
    if len(query) > MAX_QUERY or len(path) > MAX_PATH:
        raise ViewRefused("The view is too large to be saved.", hint="Select less.")
    return page, path, query
