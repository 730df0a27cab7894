"""The saved views of the page that is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django import template

from fedui.bookmarks.models import SavedView
from fedui.bookmarks.services import PAGES

register = template.Library()

MOST_SHOWN = 30


@dataclass(frozen=True, slots=True)
class PageViews:
    views: list[SavedView]
    can_save: bool


@register.simple_tag(takes_context=True)
def page_views(context: template.Context) -> PageViews:
    """One query a page, whatever asks for them."""
    request: Any = context["request"]
    known = request.__dict__.get("_page_views")
    if known is None:
        page = request.resolver_match.url_name if request.resolver_match else ""
        known = request.__dict__["_page_views"] = PageViews(_views(request, page), page in PAGES)
    return known  # type: ignore[no-any-return]


def _views(request: Any, page: str) -> list[SavedView]:
    if page not in PAGES:
        return []
    found = SavedView.objects.visible_to(request.membership).filter(page=page)
    return list(found.select_related("federation")[:MOST_SHOWN])
