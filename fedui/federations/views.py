from __future__ import annotations

from typing import Any

from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.db.models import Count, F, Prefetch, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from fedui.accounts.models import with_second_factor
from fedui.alerts.forms import WebhookForm
from fedui.alerts.rule_views import settings_context
from fedui.alerts.views import overview_alerts
from fedui.clients.listing import MANY
from fedui.clients.models import Client, ClientStatus, Presence
from fedui.errors import DomainError
from fedui.federations.forms import FederationForm, InvitationForm
from fedui.federations.models import ALLOWED, Act, Federation, Role, SecondFactor
from fedui.federations.services import create_federation
from fedui.runs.figures import with_figures
from fedui.runs.forms import RunRulesForm, rules_help
from fedui.runs.models import Event, RunRules
from fedui.runs.retention import policy_of
from fedui.web.access import MemberRequest, address_of, fragment_or_page, member_view, page
from fedui.web.forms import explain

RECENT_EVENTS = 8
ACTIVE_SHOWN = 8
MEMBERS_A_PAGE = 100
_UNSHOWN = ("apps", "cards", "labels", "machine", "vitals")
TELLING_KINDS = (
    "run.started", "run.resumed", "run.waiting", "run.paused", "run.retried", "run.extended", "run.finished",
    "round.committed", "round.abandoned", "client.failed", "client.refused",
)  # fmt: skip


@require_safe
@login_required
def home(request: HttpRequest) -> HttpResponse:
    """The first federation one is a member of; without any, the page that makes one."""
    federation = Federation.objects.visible_to(request.user, Act.SEE_CLIENTS).first()
    return redirect("federation:overview", federation.slug) if federation else redirect("federation-new")


@require_http_methods(["GET", "HEAD", "POST"])
@login_required
def new(request: Any) -> HttpResponse:
    form = FederationForm(request.POST or None)
    if form.is_valid() and (federation := _create(request, form)):
        return redirect("federation:overview", federation.slug)
    federations = Federation.objects.visible_to(request.user, Act.SEE_CLIENTS)
    status = 422 if form.errors else 200
    return render(request, "federations/new.html", {"form": form, "federations": federations}, status=status)


def _create(request: Any, form: FederationForm) -> Federation | None:
    name, slug = form.cleaned_data["name"], form.cleaned_data["slug"]
    try:
        return create_federation(name, slug, request.user, address=address_of(request))
    except DomainError as error:
        explain(form, error)
        return None


@member_view(act=Act.SEE_CLIENTS)
def overview(request: MemberRequest) -> HttpResponse:
    federation = request.federation
    if not request.membership.may(Act.READ):
        return redirect("federation:clients", federation.slug)
    clients = list(federation.clients.defer(*_UNSHOWN))
    active = federation.runs.unfinished()
    begun_first = active.select_related("strategy_version__strategy", "app").order_by(
        F("started_at").desc(nulls_last=True), "-pk"
    )
    context = {
        "clients": clients,
        "many": len(clients) > MANY,
        "presences": _presences(clients),
        "active_runs": with_figures(begun_first[:ACTIVE_SHOWN]),
        "active_count": active.count(),
        "events": _recent_events(federation),
        "steps": _first_steps(federation, clients),
        **overview_alerts(request),
    }
    return fragment_or_page(request, "federations/overview.html", "federations/_overview.html", context)


def _presences(clients: list[Client]) -> list[tuple[Presence, int]]:
    """How many clients are in each state of presence; rare states only where there are any."""
    counts = {state: sum(client.presence == state for client in clients) for state in Presence}
    common = {Presence.ONLINE, Presence.LATE, Presence.OFFLINE}
    return [(state, count) for state, count in counts.items() if count or state in common]


def _recent_events(federation: Federation) -> list[Event]:
    """What happened in runs lately, without what every round consists of."""
    events = Event.objects.filter(run__federation=federation, kind__in=TELLING_KINDS)
    return list(events.select_related("run", "client").order_by("-id")[:RECENT_EVENTS])


def _first_steps(federation: Federation, clients: list[Client]) -> dict[str, Any] | None:
    """What to do before the first run; None once there has been one."""
    if federation.runs.exists():
        return None
    return {
        "strategy": federation.strategies.first(),
        "clients": [client for client in clients if client.status == ClientStatus.ACTIVE],
        "apps": federation.apps.exists(),
    }


@member_view()
def settings(request: MemberRequest) -> HttpResponse:
    own = Prefetch("clients", Client.objects.only("name").order_by("name"), to_attr="own")
    found = request.federation.memberships.select_related("user").order_by("user__username").prefetch_related(own)
    members = Paginator(found, MEMBERS_A_PAGE).get_page(request.GET.get("page"))
    rights = [(act.label, [act in ALLOWED[role] for role in Role]) for act in Act]
    counts = Federation.objects.filter(pk=request.federation.pk).aggregate(
        runs=Count("runs", distinct=True),
        clients=Count("clients", distinct=True, filter=~Q(clients__status=ClientStatus.REVOKED)),
    )
    context = {
        "members": members,
        "with_factor": with_second_factor([member.user_id for member in members]),
        "roles": list(Role),
        "rights": rights,
        "counts": counts,
        "invitations": request.federation.invitations.open().select_related("created_by").prefetch_related("clients"),
        "clients": request.federation.clients.exclude(status=ClientStatus.REVOKED)
        .only("name", "federation")
        .order_by("name"),
        "form": InvitationForm(request.federation),
        "second_factors": SecondFactor.choices,
        "rules": RunRulesForm(instance=RunRules.objects.filter(federation=request.federation).first()),
        "help": rules_help(),
        "policy": policy_of(request.federation),
        "webhook_form": WebhookForm(),
        **settings_context(request),
    }
    return page(request, "federations/settings.html", context)
