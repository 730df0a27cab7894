"""The audit log over REST: entries, the export that the chain is verified by, and verification."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpResponseBase
from django.shortcuts import get_object_or_404
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from fedui.api import filters
from fedui.api.serializers import Gives, Nothing
from fedui.api.views import ApiView, ListView
from fedui.audit import tasks
from fedui.audit.models import AuditEvent, ChainCheck, Via
from fedui.audit.search import KINDS
from fedui.audit.services import check_log, head_of_chain
from fedui.audit.views import AT_ONCE, export_response
from fedui.federations.models import Act


class EntryOut(serializers.Serializer[AuditEvent]):
    id = serializers.IntegerField(help_text="Its number in the chain.")
    at = serializers.DateTimeField()
    actor = serializers.CharField(source="actor_name")
    address = serializers.CharField(allow_null=True)
    via = serializers.ChoiceField(choices=Via.choices, allow_blank=True)
    action = serializers.CharField()
    subject = serializers.CharField()
    details = serializers.DictField()
    before = serializers.DictField(allow_null=True)
    after = serializers.DictField(allow_null=True)
    hash = serializers.CharField()
    previous_hash = serializers.CharField()


class EntryFilters(filters.Filters):
    actor = filters.CharFilter(field_name="actor_name", lookup_expr="icontains", help_text="Part of the name.")
    action = filters.CharFilter(help_text="member.added, say.")
    kind = filters.ChoiceFilter(choices=list(KINDS.items()), method="of_kind")
    via = filters.ChoiceFilter(choices=Via.choices)
    since = filters.IsoDateTimeFilter(field_name="at", lookup_expr="gte")
    until = filters.IsoDateTimeFilter(field_name="at", lookup_expr="lt")

    def of_kind(self, found: QuerySet[AuditEvent], _: str, value: str) -> QuerySet[AuditEvent]:
        return found.filter(action__startswith=f"{value}.")


class AuditView(ApiView):
    noun = "audit"

    def entries(self) -> QuerySet[AuditEvent]:
        return AuditEvent.objects.filter(federation=self.membership.federation_id)


class EntryList(AuditView, ListView):
    """The entries of a federation, the newest first."""

    acts = {"GET": Act.READ_AUDIT}
    gives = {"GET": Gives(EntryOut, many=True)}
    queryset = AuditEvent.objects.none()
    filterset_class = EntryFilters

    def rows(self) -> QuerySet[AuditEvent]:
        return self.entries()


class EntryDetail(AuditView):
    """One entry."""

    acts = {"GET": Act.READ_AUDIT}
    gives = {"GET": Gives(EntryOut)}

    def get(self, request: Request, slug: str, number: int) -> Response:
        return Response(EntryOut(get_object_or_404(self.entries(), pk=number)).data)


class Export(AuditView):
    """The whole chain as JSON Lines, which `manage.py audit verify` takes. Of other federations' entries only what holds it together.

    The log tells that it was exported.
    """

    verbs = {"GET": "export"}
    acts = {"GET": Act.READ_AUDIT}
    gives = {"GET": Gives(media_type="application/jsonl", description="One entry a line.")}

    def get(self, request: Request, slug: str) -> HttpResponseBase:
        return export_response(request._request, self.actor, self.federation)  # noqa: SLF001  # Django's own request


class CheckOut(serializers.Serializer[Any]):
    entries_now = serializers.IntegerField(help_text="Of the whole chain.")
    checked_at = serializers.DateTimeField(allow_null=True, help_text="Null: never yet.")
    checked_entries = serializers.IntegerField(allow_null=True)
    whole = serializers.BooleanField(allow_null=True, help_text="Whether the log was as it had been written.")
    faults = serializers.ListField(child=serializers.CharField())


class Verification(AuditView):
    """What came of the last verification of the whole log."""

    verbs = {"GET": "get_verification", "POST": "verify"}
    acts = {"GET": Act.READ_AUDIT, "POST": Act.READ_AUDIT}
    takes = {"POST": Nothing}
    gives = {"GET": Gives(CheckOut), "POST": Gives(CheckOut)}

    def get(self, request: Request, slug: str) -> Response:
        return Response(_checked())

    def post(self, request: Request, slug: str) -> Response:
        """Verify it now; a long log by a worker: then `checked_at` tells when it is done."""
        self.body()
        if head_of_chain().number > AT_ONCE:
            transaction.on_commit(tasks.verify.delay, robust=True)
        else:
            check_log()
        return Response(_checked())


def _checked() -> Any:
    check = ChainCheck.objects.first()
    return CheckOut(
        {
            "entries_now": head_of_chain().number,
            "checked_at": check.at if check else None,
            "checked_entries": check.entries if check else None,
            "whole": not check.faults if check else None,
            "faults": check.faults if check else [],
        }
    ).data
