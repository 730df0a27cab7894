"""Rules, on the page of settings and a page of their own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils import timezone

from fedui.alerts import search, services
from fedui.alerts.forms import MUTES, MuteForm, RuleForm
from fedui.alerts.kinds import BadRule, Kind, clean_settings
from fedui.alerts.models import AlertRule
from fedui.errors import DomainError
from fedui.federations.models import Act
from fedui.web.access import MemberRequest, address_of, member_view, page

PREVIEW_SHOWN = 8


@member_view("GET", "HEAD", "POST", act=Act.MANAGE_ALERTS)
def new(request: MemberRequest) -> HttpResponse:
    """A form for the kind that the address names; a POST makes the rule."""
    form = RuleForm(request.federation, _kind(request), request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            rule = services.create_rule(request.federation, request.user, form.content(), address=address_of(request))
        except DomainError as error:
            form.explain(error)
        else:
            messages.success(request, f"“{rule.name}” watches from now on.")
            return _settings(request)
    return _form(request, form, None)


@member_view("GET", "HEAD", "POST", act=Act.MANAGE_ALERTS)
def change(request: MemberRequest, rule_id: int) -> HttpResponse:
    rule = _rule(request, rule_id)
    form = RuleForm(request.federation, Kind(rule.kind), request.POST or None, rule)
    if request.method == "POST" and form.is_valid():
        try:
            services.change_rule(rule, request.user, form.content(), address=address_of(request))
        except DomainError as error:
            form.explain(error)
        else:
            messages.success(request, "The rule is saved.")
            return _settings(request)
    return _form(request, form, rule)


@member_view("POST", act=Act.MANAGE_ALERTS)
def preview(request: MemberRequest) -> HttpResponse:
    """What the form as it stands would have found."""
    form = RuleForm(request.federation, _kind(request), request.POST)
    return page(request, "alerts/_preview.html", _preview(request, form))


@member_view("POST", act=Act.MANAGE_ALERTS)
def switch(request: MemberRequest, rule_id: int) -> HttpResponse:
    """On or off."""
    rule = _rule(request, rule_id)
    content = services.content_of(rule)
    services.change_rule(rule, request.user, _with(content, enabled=not rule.enabled), address=address_of(request))
    messages.success(request, f"“{rule.name}” is {'off' if rule.enabled else 'on'}.")
    return _settings(request)


@member_view("POST", act=Act.MANAGE_ALERTS)
def mute(request: MemberRequest, rule_id: int) -> HttpResponse:
    rule, form = _rule(request, rule_id), MuteForm(request.POST)
    if form.is_valid():
        services.mute_rule(rule, request.user, form.until, address=address_of(request))
        messages.success(request, f"“{rule.name}” is {'muted' if form.until else 'no longer muted'}.")
    else:
        messages.error(request, "Nothing was muted: choose how long.")
    return _settings(request)


@member_view("POST", act=Act.MANAGE_ALERTS)
def remove(request: MemberRequest, rule_id: int) -> HttpResponse:
    rule = _rule(request, rule_id)
    services.remove_rule(rule, request.user, address=address_of(request))
    messages.success(request, f"“{rule.name}” is removed; its alerts stay in the history.")
    return _settings(request)


def settings_context(request: MemberRequest) -> dict[str, Any]:
    rules = request.federation.alert_rules.prefetch_related("webhooks")
    webhooks = request.federation.webhooks.all() if request.membership.may(Act.MANAGE_WEBHOOKS) else []
    return {"alert_rules": rules, "webhooks": webhooks, "mutes": MUTES}


def _with(content: services.RuleContent, **changes: Any) -> services.RuleContent:
    return replace(content, **changes)


def _rule(request: MemberRequest, rule_id: int) -> AlertRule:
    return get_object_or_404(request.federation.alert_rules.select_related("federation"), pk=rule_id)


def _kind(request: MemberRequest) -> Kind:
    named = request.POST.get("kind") or request.GET.get("kind")
    return Kind(named) if named in Kind.values else Kind.CLIENT_OFFLINE


def _form(request: MemberRequest, form: RuleForm, rule: AlertRule | None) -> HttpResponse:
    context = {"form": form, "rule": rule, "kinds": Kind.choices, **_preview(request, form)}
    return page(request, "alerts/rule.html", context, status=422 if form.errors else 200)


def _preview(request: MemberRequest, form: RuleForm) -> dict[str, Any]:
    kind = form.rule_kind
    try:
        settings = clean_settings(kind, form.settings())
    except BadRule as error:
        return {"preview_error": str(error)}
    found = search.preview(kind, request.federation, settings, timezone.now())
    return {"found": found[:PREVIEW_SHOWN], "found_count": len(found), "known_of": search.KNOWN_OF.get(kind, "")}


def _settings(request: MemberRequest) -> HttpResponse:
    return redirect(f"{reverse('federation:settings', args=[request.federation.slug])}#alerts")
