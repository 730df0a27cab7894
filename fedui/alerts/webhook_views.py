"""Webhooks: made in a dialog of the settings, looked after on a page of their own."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.views.decorators.cache import never_cache

from fedui.alerts import webhooks
from fedui.alerts.forms import WebhookForm
from fedui.alerts.models import Webhook
from fedui.errors import DomainError
from fedui.federations.models import Act
from fedui.web.access import MemberRequest, address_of, fragment_or_page, member_view, page
from fedui.web.forms import ConfirmForm, explain

PAGE_SIZE = 25


@never_cache
@member_view("POST", act=Act.MANAGE_WEBHOOKS)
def new(request: MemberRequest) -> HttpResponse:
    """Make one and show its secret, this once."""
    form = WebhookForm(request.POST)
    if form.is_valid():
        try:
            webhook, secret = webhooks.create_webhook(
                request.federation, request.user, name=form.cleaned_data["name"], url=form.cleaned_data["url"].strip(),
                address=address_of(request),
            )  # fmt: skip
        except DomainError as error:
            explain(form, error)
        else:
            context = {"webhook_form": WebhookForm(), "webhook": webhook, "secret": secret, "made": True}
            return page(request, "alerts/_webhook_reveal.html", context)
    return page(request, "alerts/_webhook_form.html", {"webhook_form": form})


@member_view("GET", "HEAD", "POST", act=Act.MANAGE_WEBHOOKS)
def webhook(request: MemberRequest, webhook_id: UUID) -> HttpResponse:
    """What was delivered, and the form that changes it."""
    found = _webhook(request, webhook_id)
    shown = {"name": found.name, "url": found.url, "enabled": found.enabled}
    form = WebhookForm(request.POST or None, initial=shown)
    if request.method == "POST" and form.is_valid():
        wanted: dict[str, Any] = form.cleaned_data | {"url": form.cleaned_data["url"].strip()}
        try:
            webhooks.change_webhook(found, request.user, **wanted, address=address_of(request))
        except DomainError as error:
            explain(form, error)
        else:
            messages.success(request, "The webhook is saved.")
            return _back(request, found)
    context = {
        "webhook": found,
        "form": form,
        "shown": Paginator(found.deliveries.all(), PAGE_SIZE).get_page(request.GET.get("page")),
    }
    if form.errors:
        return page(request, "alerts/webhook.html", context, status=422)
    return fragment_or_page(request, "alerts/webhook.html", "alerts/_deliveries.html", context)


@never_cache
@member_view("POST", act=Act.MANAGE_WEBHOOKS)
def rotate(request: MemberRequest, webhook_id: UUID) -> HttpResponse:
    found = _webhook(request, webhook_id)
    secret = webhooks.rotate_secret(found, request.user, address=address_of(request))
    return page(request, "alerts/_webhook_reveal.html", {"webhook": found, "secret": secret})


@member_view("POST", act=Act.MANAGE_WEBHOOKS)
def test(request: MemberRequest, webhook_id: UUID) -> HttpResponse:
    found = _webhook(request, webhook_id)
    try:
        webhooks.send_test(found, request.user, address=address_of(request))
    except DomainError as error:
        messages.error(request, f"{error} {error.hint}")
    else:
        messages.success(request, "A test is on its way: its row below tells what comes of it.")
    return _back(request, found)


@member_view("POST", act=Act.MANAGE_WEBHOOKS)
def redeliver(request: MemberRequest, webhook_id: UUID, delivery_id: UUID) -> HttpResponse:
    found = _webhook(request, webhook_id)
    delivery = get_object_or_404(found.deliveries.select_related("federation", "rule", "webhook"), pk=delivery_id)
    try:
        webhooks.redeliver(delivery, request.user, address=address_of(request))
    except DomainError as error:
        messages.error(request, f"{error} {error.hint}")
    else:
        messages.success(request, "The message is on its way again, under a new id.")
    return _back(request, found)


@member_view("POST", act=Act.MANAGE_WEBHOOKS)
def remove(request: MemberRequest, webhook_id: UUID) -> HttpResponse:
    found = _webhook(request, webhook_id)
    confirm = ConfirmForm(found.name, request.POST)
    if not confirm.is_valid():
        messages.error(request, f"Nothing was removed. {confirm.errors['confirm'][0]}")
        return _back(request, found)
    webhooks.remove_webhook(found, request.user, address=address_of(request))
    messages.success(request, f"Webhook {found.name} and its log are removed.")
    return redirect(f"{reverse('federation:settings', args=[request.federation.slug])}#alerts")


def _webhook(request: MemberRequest, webhook_id: UUID) -> Webhook:
    return get_object_or_404(request.federation.webhooks.select_related("federation"), pk=webhook_id)


def _back(request: MemberRequest, found: Webhook) -> HttpResponse:
    return redirect("federation:webhook", request.federation.slug, found.pk)
