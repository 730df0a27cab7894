"""Reports of runs over REST, and the links to them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models import QuerySet
from django.http import HttpResponseBase
from django.shortcuts import get_object_or_404
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from fedui.api.serializers import Body, Gives, Nothing
from fedui.api.views import ListView
from fedui.federations.models import Act
from fedui.reports.models import Naming, Share
from fedui.reports.rendering import report_response
from fedui.reports.shares import LONGEST, share, take_back
from fedui.runs.api import RunView


class ShareOut(serializers.Serializer[Share]):
    id = serializers.IntegerField()
    naming = serializers.ChoiceField(choices=Naming.choices, help_text="How clients and people are called.")
    note = serializers.CharField()
    created_by = serializers.CharField(source="created_by.username", default=None, allow_null=True)
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField()
    revoked_at = serializers.DateTimeField(allow_null=True)
    opened = serializers.IntegerField(help_text="How often.")
    last_opened_at = serializers.DateTimeField(allow_null=True)


class NewShareOut(ShareOut):
    link = serializers.CharField(help_text="Shown this once.")


class NewShare(Body):
    days = serializers.IntegerField(min_value=1, max_value=LONGEST.days, default=7, help_text="Until it expires.")
    naming = serializers.ChoiceField(choices=Naming.choices, default=Naming.NUMBERS.value)
    note = serializers.CharField(max_length=120, allow_blank=True, default="", help_text="Whom it is for.")


class ReportQuery(Body):
    naming = serializers.ChoiceField(choices=Naming.choices, default=Naming.NAMES.value)


class ShareView(RunView):
    noun = "shares"

    def shares(self) -> QuerySet[Share]:
        return Share.objects.filter(run=self.run()).select_related("created_by", "run__federation")


class ShareList(ShareView, ListView):
    """The links to a run's report, the newest first; those that are over, too."""

    acts = {"GET": Act.READ, "POST": Act.SHARE_REPORTS}
    takes = {"POST": NewShare}
    gives = {"GET": Gives(ShareOut, many=True), "POST": Gives(NewShareOut, 201)}
    queryset = Share.objects.none()
    ordering_fields = ("id", "expires_at")

    def rows(self) -> QuerySet[Share]:
        return self.shares()

    def post(self, request: Request, run_id: int) -> Response:
        """Make a link for whoever has it. It is in this answer and nowhere else."""
        wanted = self.body()
        made, link = share(
            self.run(), self.actor, naming=Naming(wanted["naming"]), lifetime=timedelta(days=wanted["days"]),
            note=wanted["note"], address=self.address,
        )  # fmt: skip
        return Response(ShareOut(made).data | {"link": link}, 201)


class RevokeShare(ShareView):
    """The link opens nothing any more."""

    verbs = {"POST": "revoke"}
    acts = {"POST": Act.SHARE_REPORTS}
    takes = {"POST": Nothing}
    gives = {"POST": Gives(ShareOut)}

    def post(self, request: Request, run_id: int, share_id: int) -> Response:
        self.body()
        found = get_object_or_404(self.shares().select_for_update(of=("self",)), pk=share_id)
        self.must_match(ShareOut(found).data)
        take_back(found, self.actor, address=self.address)
        return Response(ShareOut(self.shares().get(pk=share_id)).data)


class RunReport(RunView):
    """The report of a run: one HTML file that needs nothing beside it."""

    noun = "runs"
    verbs = {"GET": "get_report"}
    acts = {"GET": Act.READ}
    asks = ReportQuery
    gives = {"GET": Gives(media_type="text/html", description="The report.")}

    def get(self, request: Request, run_id: int) -> HttpResponseBase:
        wanted: Any = self.query()
        return report_response(self.run(), Naming(wanted["naming"]), download=True)
