"""What owners do on the page of settings: members, invitations, the federation itself."""

from __future__ import annotations

from django import forms
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.cache import never_cache

from fedui.errors import DomainError
from fedui.federations import invitations
from fedui.federations.forms import GeneralForm, InvitationForm, MemberForm
from fedui.federations.models import Act, Membership
from fedui.federations.services import add_member, change_federation, remove_member
from fedui.web.access import MemberRequest, address_of, fragment_or_page, member_view, page
from fedui.web.forms import ConfirmForm, explain


def _first_error(form: forms.Form) -> str:
    return next(str(errors[0]) for errors in form.errors.values())


def _back(request: MemberRequest) -> HttpResponse:
    return redirect("federation:settings", request.federation.slug)


@member_view("GET", "HEAD", "POST", act=Act.MANAGE_MEMBERS)
def change(request: MemberRequest, member_id: int) -> HttpResponse:
    """Role and clients of a member: the form, for htmx as a dialog, and what it sends."""
    member: Membership = get_object_or_404(request.federation.memberships.select_related("user"), pk=member_id)
    if request.method != "POST":
        form = MemberForm(request.federation)
        context = {"member": member, "form": form, "clients": form.fields["clients"].queryset}  # type: ignore[attr-defined]
        return fragment_or_page(request, "federations/member.html", "federations/_member_dialog.html", context)
    form = MemberForm(request.federation, request.POST)
    if not form.is_valid():
        messages.error(request, f"Nothing was changed. {_first_error(form)}")
        return _back(request)
    try:
        changed = add_member(
            request.federation, member.user, form.cleaned_data["role"], request.user,
            clients=form.cleaned_data["clients"], address=address_of(request),
        )  # fmt: skip
    except DomainError as error:
        messages.error(request, f"{error} {error.hint}")
    else:
        messages.success(request, f"{member.user} is {changed.get_role_display().lower()} now.")
    return _back(request)


@member_view("POST", act=Act.MANAGE_MEMBERS)
def remove(request: MemberRequest, member_id: int) -> HttpResponse:
    member: Membership = get_object_or_404(request.federation.memberships.select_related("user"), pk=member_id)
    confirm = ConfirmForm(member.user.get_username(), request.POST)
    if not confirm.is_valid():
        messages.error(request, f"Nobody was removed. {confirm.errors['confirm'][0]}")
        return _back(request)
    try:
        remove_member(member, request.user, address=address_of(request))
    except DomainError as error:
        messages.error(request, f"{error} {error.hint}")
        return _back(request)
    messages.success(request, f"{member.user} is no member any more.")
    return redirect("home") if member.user == request.user else _back(request)


@never_cache
@member_view("POST", act=Act.MANAGE_MEMBERS)
def invite(request: MemberRequest) -> HttpResponse:
    """Make an invitation and show its link, this once."""
    form = InvitationForm(request.federation, request.POST)
    context = {"form": form, "clients": form.fields["clients"].queryset}  # type: ignore[attr-defined]
    if not form.is_valid():
        return page(request, "federations/_invite_form.html", context)
    wanted = form.cleaned_data
    try:
        invitation, link = invitations.invite(
            request.federation, request.user, wanted["role"], clients=wanted["clients"], email=wanted["email"],
            lifetime=wanted["lifetime"], address=address_of(request),
        )  # fmt: skip
    except DomainError as error:
        explain(form, error)
        return page(request, "federations/_invite_form.html", context)
    context |= {"form": InvitationForm(request.federation), "invitation": invitation, "link": link}
    return page(request, "federations/_invite_reveal.html", context)


@member_view("POST", act=Act.MANAGE_MEMBERS)
def revoke(request: MemberRequest, invitation_id: int) -> HttpResponse:
    invitation = get_object_or_404(request.federation.invitations, pk=invitation_id)
    invitations.revoke(invitation, request.user, address=address_of(request))
    messages.success(request, "The invitation is taken back: its link leads nowhere.")
    return _back(request)


@member_view("POST", act=Act.MANAGE_MEMBERS)
def general(request: MemberRequest) -> HttpResponse:
    form = GeneralForm(request.POST)
    if form.is_valid():
        change_federation(request.federation, request.user, **form.cleaned_data, address=address_of(request))
        messages.success(request, "The settings are saved.")
    else:
        messages.error(request, f"Nothing was saved. {_first_error(form)}")
    return _back(request)
