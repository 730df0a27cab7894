"""Who sees a page. `/f/<slug>/…` exists for members of the federation; some pages and acts take a role."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse, HttpResponseBase, QueryDict
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_http_methods
from django_htmx.http import HttpResponseClientRedirect
from django_htmx.middleware import HtmxDetails

from fedui.accounts.models import User
from fedui.federations.models import ALLOWED, Act, Federation, Membership
from fedui.web.navigation import sections

P = ParamSpec("P")


class MemberRequest(HttpRequest):
    """A request by a member of the federation it is about."""

    user: User
    htmx: HtmxDetails
    federation: Federation
    membership: Membership


def member_view(
    *methods: str, act: Act = Act.READ
) -> Callable[[Callable[Concatenate[MemberRequest, P], HttpResponseBase]], Callable[..., HttpResponseBase]]:
    """Let a view answer members of the federation named by the URL's `slug`, if their role allows `act`.

    Everybody else learns nothing: a federation that one isn't a member of doesn't exist.
    """

    def decorate(view: Callable[Concatenate[MemberRequest, P], HttpResponseBase]) -> Callable[..., HttpResponseBase]:
        @wraps(view)
        @require_http_methods(methods or ("GET", "HEAD"))
        def guarded(request: Any, slug: str, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
            if not request.user.is_authenticated:
                return ask_to_sign_in(request)
            memberships = Membership.objects.select_related("federation").filter(federation__slug=slug)
            found = memberships.effective(request.user).first()
            if found is None:
                return ask_for_second_factor(request, get_object_or_404(memberships, user=request.user))
            request.membership, request.federation = found, found.federation
            pass_over_nul(request)
            if not found.may(act):
                return refuse(request, act)
            return view(request, *args, **kwargs)

        return guarded

    return decorate


def pass_over_nul(request: Any) -> None:
    """Nobody types the character, and no database takes it."""
    request.GET = _without_nul(request.GET)
    if request.method == "POST":
        request.POST = _without_nul(request.POST)


def _without_nul(values: QueryDict) -> QueryDict:
    if not any("\0" in text for name, texts in values.lists() for text in (name, *texts)):
        return values
    clean = QueryDict(mutable=True)
    for name, texts in values.lists():
        clean.setlist(name.replace("\0", ""), [text.replace("\0", "") for text in texts])
    clean._mutable = False  # noqa: SLF001  # as it was
    return clean


def ask_to_sign_in(request: Any) -> HttpResponse:
    """A fragment can't show the sign-in page: the whole window goes there."""
    if request.htmx:
        return HttpResponseClientRedirect(redirect_to_login(request.htmx.current_url_abs_path or "/").url)
    return redirect_to_login(request.get_full_path())


def ask_for_second_factor(request: Any, membership: Membership) -> HttpResponse:
    """403, and how to go on: the federation counts its member only with a second factor."""
    return render(request, "accounts/second_factor_needed.html", {"membership_of": membership.federation}, status=403)


def refuse(request: MemberRequest, act: Act) -> HttpResponse:
    """403, and who may."""
    may = [role.label.lower() for role, acts in ALLOWED.items() if act in acts]
    roles = f"{', '.join(may[:-1])} or {may[-1]}" if len(may) > 1 else may[0]
    context = {"act": act.label, "roles": roles, "role": request.membership.get_role_display().lower()}
    return page(request, "403.html", context, status=403)


def page(
    request: MemberRequest, template: str, context: dict[str, Any] | None = None, *, status: int = 200
) -> HttpResponse:
    """Render a page of the request's federation, with what its frame shows."""
    frame = {
        "federation": request.federation,
        "membership": request.membership,
        "federations": Federation.objects.visible_to(request.user, Act.SEE_CLIENTS),
        "sections": sections(request.federation, request.membership, request.resolver_match),
        "may": {act.value: request.membership.may(act) for act in Act},
    }
    return render(request, template, frame | (context or {}), status=status)


def fragment_or_page(request: MemberRequest, template: str, fragment: str, context: dict[str, Any]) -> HttpResponse:
    """The fragment for htmx, the whole page for everybody else: one address for both."""
    response = page(request, fragment if request.htmx else template, context)
    response["Vary"] = "HX-Request"
    return response


def address_of(request: HttpRequest) -> str | None:
    """Where a request came from, for the audit log."""
    return request.META.get("REMOTE_ADDR") or None
