"""The page of alerts."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils import timezone

from fedui.alerts.forms import MUTES, MuteForm
from fedui.alerts.kinds import Kind
from fedui.alerts.models import Alert, AlertStatus
from fedui.alerts.services import acknowledge, mute
from fedui.federations.models import Act
from fedui.web.access import MemberRequest, address_of, fragment_or_page, member_view, page

PAGE_SIZE = 50


@member_view(act=Act.SEE_CLIENTS)
def alerts(request: MemberRequest) -> HttpResponse:
    """Open ones, the new ones first; or those of the past."""
    history = request.GET.get("show") == "history"
    kind = request.GET.get("kind", "")
    found = Alert.objects.visible_to(request.membership).select_related("client", "run", "rule", "acknowledged_by")
    if kind in Kind.values:
        found = found.filter(kind=kind)
    resolved, opened = found.filter(status=AlertStatus.RESOLVED).order_by("-resolved_at", "-pk"), found.open()
    shown = resolved if history else opened.order_by("-severity", "-opened_at", "-pk")
    context = {
        "shown": Paginator(shown, PAGE_SIZE).get_page(request.GET.get("page")),
        "history": history,
        "open_count": opened.count(),
        "waiting": opened.waiting(timezone.now()).count(),
        "kinds": Kind.choices,
        "kind": kind,
        "mutes": MUTES,
        "rules": request.federation.alert_rules.filter(enabled=True).count(),
    }
    return fragment_or_page(request, "alerts/list.html", "alerts/_list.html", context)


@member_view(act=Act.SEE_CLIENTS)
def count(request: MemberRequest) -> HttpResponse:
    """What the navigation shows."""
    return page(request, "alerts/_count.html", {"count": waiting_count(request)})


def waiting_count(request: MemberRequest) -> int:
    return Alert.objects.visible_to(request.membership).waiting(timezone.now()).count()


@member_view("POST", act=Act.MANAGE_ALERTS)
def acknowledge_one(request: MemberRequest, alert_id: int) -> HttpResponse:
    acknowledge([_alert(request, alert_id)], request.user, address=address_of(request))
    return _after(request)


@member_view("POST", act=Act.MANAGE_ALERTS)
def acknowledge_all(request: MemberRequest) -> HttpResponse:
    waiting = Alert.objects.visible_to(request.membership).waiting(timezone.now()).select_related("federation")
    number = acknowledge(list(waiting), request.user, address=address_of(request))
    messages.success(request, f"{number} alert{'' if number == 1 else 's'} acknowledged.")
    return _after(request)


@member_view("POST", act=Act.MANAGE_ALERTS)
def mute_one(request: MemberRequest, alert_id: int) -> HttpResponse:
    alert, form = _alert(request, alert_id), MuteForm(request.POST)
    if form.is_valid():
        mute(alert, request.user, form.until, address=address_of(request))
        messages.success(request, f"“{alert.title}” is {'muted' if form.until else 'no longer muted'}.")
    else:
        messages.error(request, "Nothing was muted: choose how long.")
    return _after(request)


def _alert(request: MemberRequest, alert_id: int) -> Alert:
    visible = Alert.objects.visible_to(request.membership).select_related("federation")
    return get_object_or_404(visible, pk=alert_id)


def _after(request: MemberRequest) -> HttpResponse:
    return redirect("federation:alerts", request.federation.slug)


def overview_alerts(request: MemberRequest) -> dict[str, Any]:
    """For the page that greets: the weightiest open ones."""
    found = Alert.objects.visible_to(request.membership)
    shown = found.waiting(timezone.now()).select_related("client", "run").order_by("-severity", "-opened_at")
    rules = request.federation.alert_rules.filter(enabled=True).count()
    return {"alerts": list(shown[:4]), "alert_count": shown.count(), "rule_count": rules}
