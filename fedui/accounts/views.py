"""One's own account, and how one gets one by an invitation. Passwords, second factors and single sign-on are django-allauth's."""

from __future__ import annotations

from typing import Any

from allauth.account.decorators import reauthentication_required
from allauth.account.models import EmailAddress
from allauth.account.utils import perform_login
from allauth.account.views import LoginView
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from allauth.usersessions.models import UserSession
from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from fedui.accounts.forms import EmailForm, NewAccountForm
from fedui.accounts.models import User
from fedui.accounts.trail import end_sessions
from fedui.errors import DomainError
from fedui.federations.invitations import InvitationRefused, accept, find, remember
from fedui.federations.models import Act, Federation, Invitation, Membership, needing_second_factor
from fedui.web.access import address_of


class SignIn(LoginView):
    """Single sign-on first, where there is one; else account and password."""

    template_name = "account/login.html"


def locked_out(request: HttpRequest, response: HttpResponse | None, credentials: dict[str, Any] | None) -> HttpResponse:
    """In place of the answer to a sign-in that isn't looked at."""
    minutes = int(settings.AXES_COOLOFF_TIME.total_seconds()) // 60
    return render(request, "account/login.html", {"locked_minutes": minutes}, status=429)


@require_safe
@login_required
def account(request: Any) -> HttpResponse:
    user = request.user
    own = Membership.objects.filter(user=user)
    sessions = UserSession.objects.purge_and_list(user)
    context = {
        "federations": Federation.objects.visible_to(user, Act.SEE_CLIENTS),
        "memberships": own.select_related("federation").order_by("federation__name"),
        "totp": Authenticator.objects.filter(user=user, type=Authenticator.Type.TOTP).first(),
        "codes": _unused_codes(user),
        "wants_second_factor": own.filter(needing_second_factor()).exists() and not user.has_second_factor(),
        "links": SocialAccount.objects.filter(user=user),
        "oidc": settings.OIDC,
        "sessions": sorted(sessions, key=lambda session: session.created_at, reverse=True),
        "form": EmailForm(initial={"email": user.email}),
    }
    return render(request, "accounts/account.html", context)


def _unused_codes(user: User) -> int:
    found = Authenticator.objects.filter(user=user, type=Authenticator.Type.RECOVERY_CODES).first()
    return len(found.wrap().get_unused_codes()) if found else 0


@require_POST
@login_required
@reauthentication_required
def email(request: Any) -> HttpResponse:
    """Where the link goes that resets the password: so whoever changes it has just signed in, or does so again."""
    form = EmailForm(request.POST)
    if form.is_valid():
        _change_email(request.user, form.cleaned_data["email"])
        messages.success(request, "The e-mail address is saved.")
    else:
        messages.error(request, f"The address was not saved. {form.errors['email'][0]}")
    return redirect("account")


@transaction.atomic
def _change_email(user: User, address: str) -> None:
    EmailAddress.objects.filter(user=user).delete()
    user.email = address
    user.save(update_fields=["email"])


@require_POST
@login_required
def end_session(request: Any) -> HttpResponse:
    """One of one's sessions, or all but this one."""
    number = request.POST.get("session", "")
    is_number = number.isascii() and number.isdecimal() and len(number) < 19
    one = int(number) if is_number else 0  # which none has
    ended = end_sessions(request.user, keep=request.session.session_key, only=one if number else None)
    messages.success(request, f"{ended} session{'' if ended == 1 else 's'} ended.")
    return redirect("account")


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def invitation(request: Any, secret: str) -> HttpResponse:
    """What one is invited to; by POST, accept it, with a new account for those who have none."""
    try:
        found = find(secret)
        if request.method == "POST" and request.user.is_authenticated:
            membership = accept(secret, request.user, address=address_of(request))
            return redirect("federation:overview", membership.federation.slug)
    except InvitationRefused as refusal:
        return render(request, "accounts/invitation_refused.html", {"refusal": refusal}, status=404)
    remember(request, secret)
    if request.method == "POST":
        return _accept_with_new_account(request, secret, found)
    form = NewAccountForm(initial={"email": found.email})
    return _shown_invitation(request, secret, found, form)


def _accept_with_new_account(request: Any, secret: str, found: Invitation) -> HttpResponse:
    form = NewAccountForm(request.POST)
    if not form.is_valid():
        return _shown_invitation(request, secret, found, form, status=422)
    try:
        with transaction.atomic():
            user = form.save()
            membership = accept(secret, user, address=address_of(request))
    except DomainError as refusal:
        return render(request, "accounts/invitation_refused.html", {"refusal": refusal}, status=404)
    address = reverse("federation:overview", args=[membership.federation.slug])
    answer: HttpResponse = perform_login(request, user, redirect_url=address)
    return answer


def _shown_invitation(
    request: HttpRequest, secret: str, found: Invitation, form: NewAccountForm, status: int = 200
) -> HttpResponse:
    context = {
        "invitation": found, "form": form, "here": reverse("invitation", args=[secret]), "oidc": settings.OIDC,
    }  # fmt: skip
    return render(request, "accounts/invitation.html", context, status=status)
