"""API keys on the pages: one's own, and for who manages members those of all."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.cache import never_cache
from django_htmx.http import trigger_client_event

from fedui.errors import DomainError
from fedui.federations.models import Act
from fedui.keys.forms import KeyForm
from fedui.keys.models import ApiKey
from fedui.keys.services import create_key, revoke_key
from fedui.web.access import MemberRequest, address_of, fragment_or_page, member_view, page
from fedui.web.forms import ConfirmForm, explain


@member_view(act=Act.HAVE_KEYS)
def keys(request: MemberRequest) -> HttpResponse:
    found = ApiKey.objects.visible_to(request.membership).select_related("user")
    context = {"keys": found, "form": KeyForm(request.membership)}
    return fragment_or_page(request, "keys/list.html", "keys/_list.html", context)


@never_cache
@member_view("POST", act=Act.HAVE_KEYS)
def new(request: MemberRequest) -> HttpResponse:
    """Make a key and show it, this once."""
    form = KeyForm(request.membership, request.POST)
    if not form.is_valid():
        return page(request, "keys/_form.html", {"form": form})
    try:
        key, text = create_key(request.membership, **form.cleaned_data, address=address_of(request))
    except DomainError as error:
        explain(form, error)
        return page(request, "keys/_form.html", {"form": form})
    context = {"key": key, "text": text, "form": KeyForm(request.membership)}
    return trigger_client_event(page(request, "keys/_reveal.html", context), "keys-changed")


@member_view("POST", act=Act.HAVE_KEYS)
def revoke(request: MemberRequest, key_id: int) -> HttpResponse:
    key = get_object_or_404(ApiKey.objects.visible_to(request.membership), pk=key_id)
    confirm = ConfirmForm(key.prefix, request.POST)
    if confirm.is_valid():
        revoke_key(key, request.user, address=address_of(request))
        messages.success(request, f"The key {key.prefix} is revoked.")
    else:
        messages.error(request, f"The key was not revoked. {confirm.errors['confirm'][0]}")
    return redirect("federation:keys", request.federation.slug)
