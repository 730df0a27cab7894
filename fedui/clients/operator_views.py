"""The waiting room, and who may stay connected."""

from __future__ import annotations

from django import forms
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils import timezone

from fedui.clients.admission import admit as admit_client
from fedui.clients.admission import refuse as refuse_client
from fedui.clients.models import Admission
from fedui.clients.services import reinstate_client, suspend_client
from fedui.errors import DomainError
from fedui.federations.models import Act
from fedui.web.access import MemberRequest, address_of, member_view, page
from fedui.web.forms import ConfirmForm

MAX_SHOWN = 50


class RefusalForm(forms.Form):
    reason = forms.CharField(max_length=500)


@member_view(act=Act.MANAGE_CLIENTS)
def waiting(request: MemberRequest) -> HttpResponse:
    """A part of the page of clients, for those who may decide."""
    found = request.federation.admissions.waiting(timezone.now()).select_related("token", "returning")
    context = {"waiting": found.order_by("requested_at")[:MAX_SHOWN], "number": found.count()}
    return page(request, "clients/_waiting.html", context)


@member_view("POST", act=Act.MANAGE_CLIENTS)
def admit(request: MemberRequest, admission_id: str) -> HttpResponse:
    admission = get_object_or_404(request.federation.admissions.select_related("returning"), pk=admission_id)
    if admission.returning and not admission.proven:
        confirm = ConfirmForm(admission.returning.name, request.POST)
        if not confirm.is_valid():
            messages.error(request, f"Nobody was admitted. {confirm.errors['confirm'][0]}")
            return redirect("federation:clients", request.federation.slug)
    try:
        client = admit_client(admission, request.user, address=address_of(request))
    except DomainError as error:
        messages.error(request, f"{error} {error.hint}")
    else:
        messages.success(request, f"{client.name} is admitted. Its agent gets a certificate within seconds.")
    return redirect("federation:clients", request.federation.slug)


@member_view("POST", act=Act.MANAGE_CLIENTS)
def refuse(request: MemberRequest, admission_id: str) -> HttpResponse:
    admission: Admission = get_object_or_404(request.federation.admissions, pk=admission_id)
    form = RefusalForm(request.POST)
    if not form.is_valid():
        messages.error(request, f"Nobody was refused. {form.errors['reason'][0]}")
    else:
        try:
            refuse_client(admission, request.user, form.cleaned_data["reason"], address=address_of(request))
        except DomainError as error:
            messages.error(request, f"{error} {error.hint}")
        else:
            messages.success(request, f"{admission.name or 'The client'} is refused. Its agent is told why.")
    return redirect("federation:clients", request.federation.slug)


@member_view("POST", act=Act.MANAGE_CLIENTS)
def suspend(request: MemberRequest, client_id: str) -> HttpResponse:
    client = get_object_or_404(request.federation.clients, pk=client_id)
    try:
        suspend_client(client, request.user, address=address_of(request))
    except DomainError as error:
        messages.error(request, f"{error} {error.hint}")
    else:
        messages.success(request, f"{client.name} is suspended.")
    return redirect("federation:client", request.federation.slug, client.pk)


@member_view("POST", act=Act.MANAGE_CLIENTS)
def reinstate(request: MemberRequest, client_id: str) -> HttpResponse:
    client = get_object_or_404(request.federation.clients, pk=client_id)
    try:
        reinstate_client(client, request.user, address=address_of(request))
    except DomainError as error:
        messages.error(request, f"{error} {error.hint}")
    else:
        messages.success(request, f"{client.name} may connect again.")
    return redirect("federation:client", request.federation.slug, client.pk)
