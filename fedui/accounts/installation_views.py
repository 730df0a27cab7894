"""What installation administrators look after: accounts, and the audit log of the whole installation."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Count, Q
from django.http import Http404, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods

from fedui.accounts import administration
from fedui.accounts.forms import AccountSearch
from fedui.accounts.models import User, with_second_factor
from fedui.audit.models import AuditEvent
from fedui.audit.views import audit_context, export_response, verify_now
from fedui.errors import DomainError
from fedui.federations.models import Act, Federation, Membership, Role
from fedui.federations.services import appoint_owner
from fedui.web.access import address_of, ask_to_sign_in, pass_over_nul

PAGE_SIZE = 100
View = Callable[..., HttpResponseBase]


def administrator_view(*methods: str) -> Callable[[View], View]:
    """For installation administrators; for others there is no such page."""

    def decorate(view: View) -> View:
        @wraps(view)
        @require_http_methods(methods or ("GET", "HEAD"))
        def guarded(request: Any, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if not request.user.is_authenticated:
                return ask_to_sign_in(request)
            if not request.user.is_superuser:
                raise Http404
            if administration.lacks_second_factor(request.user):
                return render(request, "accounts/second_factor_needed.html", status=403)
            pass_over_nul(request)
            return view(request, *args, **kwargs)

        return guarded

    return decorate


def _frame(request: Any, current: str, **context: Any) -> dict[str, Any]:
    return {"federations": Federation.objects.visible_to(request.user, Act.SEE_CLIENTS), "current": current, **context}


@administrator_view()
def accounts(request: Any) -> HttpResponse:
    search = AccountSearch(request.GET)
    found = User.objects.annotate(number=Count("memberships")).order_by("username")
    for word in search.words().split():
        found = found.filter(Q(username__icontains=word) | Q(email__icontains=word))
    shown = Paginator(found, PAGE_SIZE).get_page(request.GET.get("page"))
    factors = with_second_factor([user.pk for user in shown])
    context = _frame(request, "accounts", shown=shown, text=search.words(), with_factor=factors)
    return render(request, "installation/accounts.html", context)


ACTS: dict[str, tuple[Callable[[User, User], object], str]] = {
    "deactivate": (administration.deactivate, "{} can't sign in any more, and is signed out."),
    "activate": (administration.activate, "{} can sign in again."),
    "promote": (administration.promote, "{} is an installation administrator."),
    "demote": (administration.demote, "{} is no installation administrator any more."),
    "reset-factor": (
        administration.reset_second_factor,
        "{} signs in without a second factor until a new one is set up.",
    ),
    "unlock": (administration.unlock, "{} may try to sign in again, from everywhere."),
}


@administrator_view("POST")
def change(request: Any, user_id: int, act: str) -> HttpResponse:
    user = get_object_or_404(User, pk=user_id)
    if act not in ACTS:
        raise Http404
    do, done = ACTS[act]
    try:
        do(user, request.user)
    except DomainError as error:
        messages.error(request, f"{error} {error.hint}")
    else:
        messages.success(request, done.format(user))
        _warn_of_ownerless(request, user)
    return redirect("installation")


def _warn_of_ownerless(request: Any, user: User) -> None:
    """What somebody who is deactivated leaves behind."""
    left = Federation.objects.with_owners().filter(
        owned=False, memberships__user=user, memberships__role=Role.OWNER, memberships__user__is_active=False
    )
    if names := ", ".join(one.name for one in left):
        messages.warning(request, f"Nobody can act for {names} any more. Appoint another owner under Federations.")


@administrator_view()
def federations(request: Any) -> HttpResponse:
    """That they are there, and which have nobody left who can act: no more is told of them."""
    found = Federation.objects.with_owners().annotate(member_count=Count("memberships")).order_by("owned", "name")
    shown = Paginator(found, PAGE_SIZE).get_page(request.GET.get("page"))
    orphaned = [one.pk for one in shown if not one.owned]
    members = Membership.objects.filter(federation__in=orphaned, user__is_active=True).select_related("user")
    context = _frame(request, "federations", shown=shown, members=members.order_by("user__username"))
    return render(request, "installation/federations.html", context)


@administrator_view("POST")
def appoint(request: Any, slug: str) -> HttpResponse:
    federation = get_object_or_404(Federation, slug=slug)
    name = request.POST.get("username", "").strip()
    user = User.objects.filter(username=name).first()
    if user is None:
        messages.error(request, f"There is no account named {name[:150]}. Choose one of those under Accounts.")
        return redirect("installation-federations")
    try:
        appoint_owner(federation, user, request.user, address=address_of(request))
    except DomainError as error:
        messages.error(request, f"{error} {error.hint}")
    else:
        messages.success(request, f"{user} is an owner of {federation}.")
    return redirect("installation-federations")


@administrator_view()
def audit(request: Any) -> HttpResponse:
    """All entries, of every federation and of none."""
    found = AuditEvent.objects.all()
    slug = request.GET.get("federation", "")
    if slug:
        found = found.filter(federation__slug=slug)
    context = _frame(request, "audit", **audit_context(request, found), chosen_federation=slug)
    context["federation_choices"] = Federation.objects.all()
    template = "audit/_list.html" if request.htmx else "installation/audit.html"
    response = render(request, template, context)
    response["Vary"] = "HX-Request"
    return response


@administrator_view()
def entry(request: Any, number: int) -> HttpResponse:
    return render(request, "audit/_entry.html", {"entry": get_object_or_404(AuditEvent, pk=number)})


@administrator_view("POST")
def verify(request: Any) -> HttpResponse:
    verify_now(request)
    return redirect("installation-audit")


@administrator_view("POST")
def export(request: Any) -> HttpResponseBase:
    return export_response(request, request.user, None)
