"""Runs over REST: which there are, what they are, and orders to them."""

from __future__ import annotations

from typing import Any, cast

from django.db.models import Q, QuerySet
from django.shortcuts import get_object_or_404
from django.utils.decorators import method_decorator
from django.views.decorators.gzip import gzip_page
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from fedui.api import filters
from fedui.api.serializers import Gives
from fedui.api.views import ApiView, ListView
from fedui.errors import ErrorCode
from fedui.federations.models import Act, Membership, roles_that_may
from fedui.runs.commands import Order, note_derived
from fedui.runs.condition import prefill
from fedui.runs.models import CommandKind, ModelVersion, Run, RunCommand, RunStatus
from fedui.runs.orders import BadOrder, obey
from fedui.runs.outs import CommandOut, NewCommand, NewRun, ObeyedOut, RunOut
from fedui.runs.panels_outs import SnapshotOut
from fedui.runs.services import Plan, create_run
from fedui.runs.snapshot import snapshot_of
from fedui.strategies.models import StrategyVersion

RELATED = ("federation", "app", "strategy_version__strategy", "origin__run")


class RunFilters(filters.Filters):
    status = filters.ChoiceFilter(choices=RunStatus.choices)
    app = filters.CharFilter(field_name="app__name")
    strategy = filters.CharFilter(field_name="strategy_version__strategy__name")
    created_since = filters.IsoDateTimeFilter(field_name="created_at", lookup_expr="gte")
    created_until = filters.IsoDateTimeFilter(field_name="created_at", lookup_expr="lt")
    q = filters.CharFilter(method="with_words", help_text="Part of the name of the run, its strategy or its app.")

    def with_words(self, found: QuerySet[Run], _: str, value: str) -> QuerySet[Run]:
        by_app = Q(app__name__icontains=value)
        return found.filter(Q(name__icontains=value) | Q(strategy_version__strategy__name__icontains=value) | by_app)


class RunList(ListView):
    """The runs of a federation, the newest first."""

    noun = "runs"
    acts = {"GET": Act.READ, "POST": Act.MANAGE_RUNS}
    takes = {"POST": NewRun}
    gives = {"GET": Gives(RunOut, many=True), "POST": Gives(RunOut, 201)}
    refusals = {"POST": (ErrorCode.RUN_REFUSED,)}
    queryset = Run.objects.none()
    filterset_class = RunFilters
    ordering_fields = ("id", "created_at")

    def rows(self) -> QuerySet[Run]:
        return Run.objects.filter(federation=self.membership.federation_id).select_related(*RELATED)

    def prepared(self, page: list[Run]) -> list[Run]:
        prefill(page)
        return page

    def post(self, request: Request, slug: str) -> Response:
        """Start a run, or schedule it. It waits for its clients; `readiness` says who would take part."""
        wanted = self.body()
        origin = self._origin(wanted.get("origin"))
        run = create_run(
            self.federation, self.actor, name=wanted["name"], strategy_version=self._strategy_version(wanted),
            app=get_object_or_404(self.federation.apps, name=wanted["app"], version=wanted["app_version"]),
            num_rounds=wanted["num_rounds"], seed=wanted["seed"], origin=origin, address=self.address,
            plan=Plan(wanted["priority"], wanted.get("start_at"), wanted["max_retries"]),
        )  # fmt: skip
        if origin:
            order = Order(self.actor, f"made-{run.pk}", self.address)
            note_derived(origin.run, order, CommandKind.FORK, run, {"round": origin.round_number})
        return Response(RunOut(run).data, 201)

    def _strategy_version(self, wanted: dict[str, Any]) -> StrategyVersion:
        versions = StrategyVersion.objects.filter(
            strategy__federation=self.federation, strategy__name=wanted["strategy"]
        )
        if "strategy_version" in wanted:
            versions = versions.filter(number=wanted["strategy_version"])
        return get_object_or_404(versions.select_related("strategy").order_by("-number")[:1])

    def _origin(self, wanted: dict[str, int] | None) -> ModelVersion | None:
        if wanted is None:
            return None
        models = ModelVersion.objects.filter(run__federation=self.federation).select_related("run")
        return get_object_or_404(models, run_id=wanted["run"], round_number=wanted["round"])


class RunView(ApiView):
    """Something of one run. For those who are no members of its federation the run doesn't exist."""

    noun = "runs"

    def memberships(self) -> QuerySet[Membership]:
        """A site admin sees none of it: to them it doesn't exist, whatever its number."""
        return super().memberships().filter(role__in=roles_that_may(Act.READ))

    def place(self) -> dict[str, Any]:
        return {"federation__runs": self.kwargs["run_id"]}

    def run(self, run_id: int | None = None) -> Run:
        found = Run.objects.filter(federation=self.membership.federation_id).select_related(*RELATED)
        return get_object_or_404(found, pk=run_id or self.kwargs["run_id"])


class RunDetail(RunView):
    """One run."""

    acts = {"GET": Act.READ}
    gives = {"GET": Gives(RunOut)}

    def get(self, request: Request, run_id: int) -> Response:
        return Response(RunOut(self.run()).data)


@method_decorator(gzip_page, name="dispatch")
class RunPanel(RunView):
    """What a run's page draws: some 100 kB of numbers, and nothing that is a secret, so that their size after packing betrays none."""


class RunSnapshot(RunPanel):
    """All that a page needs to draw the run before it follows the events: rounds, curves, the last participations, models, orders.

    Tables come by columns.
    """

    verbs = {"GET": "get_snapshot"}
    acts = {"GET": Act.READ}
    gives = {"GET": Gives(SnapshotOut)}

    def get(self, request: Request, run_id: int) -> Response:
        return Response(snapshot_of(self.run()))


class RunCommands(RunView, ListView):
    """What people have done to a run, the first at the top."""

    verbs = {"GET": "list_commands", "POST": "command"}
    acts = {"GET": Act.READ, "POST": Act.MANAGE_RUNS}
    takes = {"POST": NewCommand}
    gives = {"GET": Gives(CommandOut, many=True), "POST": Gives(ObeyedOut)}
    refusals = {"POST": (ErrorCode.RUN_REFUSED, ErrorCode.ILLEGAL_TRANSITION)}
    queryset = RunCommand.objects.none()
    ordering = "id"

    def rows(self) -> QuerySet[RunCommand]:
        return self.run().commands.all()

    def post(self, request: Request, run_id: int) -> Response:
        """Give an order, with its parameters: start, schedule, prioritise, pause, resume, stop, cancel, extend, weigh, clone or fork."""
        wanted, run = self.body(), self.run()
        self.must_match(RunOut(run).data)
        order = Order(self.actor, wanted["key"], self.address)
        try:
            made = obey(run, order, CommandKind(wanted["command"]), cast(dict[str, Any], request.data))
        except BadOrder as error:
            raise serializers.ValidationError(dict(error.errors)) from error
        return Response({"run": RunOut(self.run(made.pk if made else None)).data})
