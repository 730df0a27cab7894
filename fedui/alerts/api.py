"""Alerts and rules over REST."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from django.utils import timezone
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from fedui.alerts import search, services
from fedui.alerts.kinds import Kind, Severity, clean_settings
from fedui.alerts.models import Alert, AlertRule, AlertStatus
from fedui.alerts.services import RuleContent
from fedui.api.serializers import Body, Gives, Nothing
from fedui.api.views import ApiView, ListView
from fedui.errors import ErrorCode
from fedui.federations.models import Act, Role

MOST_MUTE_HOURS = int(services.LONGEST_MUTE.total_seconds() // 3600)


class SeverityField(serializers.ChoiceField):
    """By its name."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(choices=[severity.name.lower() for severity in Severity], **kwargs)

    def to_representation(self, value: Any) -> str:
        return Severity(value).name.lower()

    def to_internal_value(self, data: Any) -> Any:
        return Severity[super().to_internal_value(data).upper()]


class AlertOut(serializers.Serializer[Alert]):
    id = serializers.IntegerField()
    kind = serializers.ChoiceField(choices=Kind.choices)
    severity = SeverityField()
    status = serializers.ChoiceField(choices=AlertStatus.choices)
    title = serializers.CharField()
    detail = serializers.CharField()
    subject = serializers.CharField(help_text="What it is about: client:<id>, run:<id>, server, authority:<name>.")
    rule = serializers.IntegerField(source="rule_id", allow_null=True, help_text="Null: the rule was removed.")
    client = serializers.UUIDField(source="client_id", allow_null=True)
    run = serializers.IntegerField(source="run_id", allow_null=True)
    times = serializers.IntegerField(help_text="How often it has begun anew.")
    fired_at = serializers.DateTimeField(help_text="Since when it has been so.")
    opened_at = serializers.DateTimeField(help_text="When it was noticed.")
    resolved_at = serializers.DateTimeField(allow_null=True)
    acknowledged_at = serializers.DateTimeField(allow_null=True)
    acknowledged_by = serializers.CharField(source="acknowledged_by.username", default=None, allow_null=True)
    muted_until = serializers.DateTimeField(allow_null=True)


class RuleOut(serializers.Serializer[AlertRule]):
    id = serializers.IntegerField()
    name = serializers.CharField()
    kind = serializers.ChoiceField(choices=Kind.choices)
    settings = serializers.DictField(help_text="Of the kind: docs/alerts.md.")
    severity = SeverityField()
    enabled = serializers.BooleanField()
    email_roles = serializers.ListField(child=serializers.ChoiceField(choices=Role.choices))
    webhooks = serializers.SerializerMethodField(help_text="Their ids.")
    tell_resolved = serializers.BooleanField()
    every_minutes = serializers.IntegerField(help_text="At most one message in so many minutes.")
    muted_until = serializers.DateTimeField(allow_null=True)
    created_at = serializers.DateTimeField()

    def get_webhooks(self, rule: AlertRule) -> list[str]:
        return [str(webhook.pk) for webhook in rule.webhooks.all()]


class RuleBody(Body):
    name = serializers.CharField(max_length=120)
    kind = serializers.ChoiceField(choices=Kind.choices)
    settings = serializers.DictField(default=dict, help_text="Of the kind; what isn't named is as usual.")
    severity = SeverityField(default=None, allow_null=True, help_text="Null: that of the kind.")
    enabled = serializers.BooleanField(default=True)
    email_roles = serializers.ListField(child=serializers.ChoiceField(choices=Role.choices), default=list, max_length=8)
    webhooks = serializers.ListField(child=serializers.UUIDField(), default=list, max_length=20)
    tell_resolved = serializers.BooleanField(default=True)
    every_minutes = serializers.IntegerField(default=5, min_value=1, max_value=1440)


class PreviewBody(Body):
    kind = serializers.ChoiceField(choices=Kind.choices)
    settings = serializers.DictField(default=dict)


class OccurrenceOut(serializers.Serializer[Any]):
    title = serializers.CharField()
    subject = serializers.CharField()
    at = serializers.DateTimeField()
    until = serializers.DateTimeField(allow_null=True, help_text="Null: it is so still.")


class PreviewOut(serializers.Serializer[Any]):
    times = serializers.IntegerField(help_text="How often the rule would have fired in the last seven days.")
    newest = OccurrenceOut(many=True)
    caveat = serializers.CharField(help_text="What can't be known of the past.")


class MuteBody(Body):
    hours = serializers.IntegerField(
        min_value=0, max_value=MOST_MUTE_HOURS, help_text="For how long nobody is told. 0: no longer muted."
    )


def _until(hours: int) -> Any:
    return timezone.now() + timedelta(hours=hours) if hours else None


class AlertView(ApiView):
    noun = "alerts"

    def alerts(self) -> QuerySet[Alert]:
        return Alert.objects.visible_to(self.membership).select_related("acknowledged_by", "federation")


class AlertList(AlertView, ListView):
    """What rules have found, the newest first. A site admin sees that of their own clients."""

    acts = {"GET": Act.SEE_CLIENTS}
    gives = {"GET": Gives(AlertOut, many=True)}
    queryset = Alert.objects.none()
    filterset_fields = ("status", "kind")
    ordering_fields = ("id",)

    def rows(self) -> QuerySet[Alert]:
        return self.alerts()


class AlertDetail(AlertView):
    """One alert."""

    acts = {"GET": Act.SEE_CLIENTS}
    gives = {"GET": Gives(AlertOut)}

    def get(self, request: Request, slug: str, alert_id: int) -> Response:
        return Response(AlertOut(get_object_or_404(self.alerts(), pk=alert_id)).data)


class AcknowledgeAlert(AlertView):
    """Somebody looks after it: it is told no more."""

    verbs = {"POST": "acknowledge"}
    acts = {"POST": Act.MANAGE_ALERTS}
    takes = {"POST": Nothing}
    gives = {"POST": Gives(AlertOut)}

    def post(self, request: Request, slug: str, alert_id: int) -> Response:
        self.body()
        alert = get_object_or_404(self.alerts(), pk=alert_id)
        self.must_match(AlertOut(alert).data)
        services.acknowledge([alert], self.actor, address=self.address)
        return Response(AlertOut(self.alerts().get(pk=alert.pk)).data)


class MuteAlert(AlertView):
    """Of its subject its rule tells nobody for a while."""

    verbs = {"POST": "mute"}
    acts = {"POST": Act.MANAGE_ALERTS}
    takes = {"POST": MuteBody}
    gives = {"POST": Gives(AlertOut)}

    def post(self, request: Request, slug: str, alert_id: int) -> Response:
        hours = self.body()["hours"]
        alert = get_object_or_404(self.alerts(), pk=alert_id)
        self.must_match(AlertOut(alert).data)
        services.mute(alert, self.actor, _until(hours), address=self.address)
        return Response(AlertOut(alert).data)


class RuleView(ApiView):
    noun = "alert_rules"

    def rules(self) -> QuerySet[AlertRule]:
        found = AlertRule.objects.filter(federation=self.membership.federation_id)
        return found.select_related("federation").prefetch_related("webhooks")

    def locked(self, rule_id: int) -> AlertRule:
        services.lock(self.federation)
        get_object_or_404(AlertRule.objects.select_for_update(), pk=rule_id, federation=self.membership.federation_id)
        rule = self.rules().get(pk=rule_id)
        self.must_match(RuleOut(rule).data)
        return rule


class RuleList(RuleView, ListView):
    """What is watched for."""

    acts = {"GET": Act.READ, "POST": Act.MANAGE_ALERTS}
    takes = {"POST": RuleBody}
    gives = {"GET": Gives(RuleOut, many=True), "POST": Gives(RuleOut, 201)}
    refusals = {"POST": (ErrorCode.NAME_TAKEN,)}
    queryset = AlertRule.objects.none()
    filterset_fields = ("kind", "enabled")
    ordering_fields = ("id",)

    def rows(self) -> QuerySet[AlertRule]:
        return self.rules()

    def post(self, request: Request, slug: str) -> Response:
        """Make a rule. It tells of what happens from now on, and of what lasts."""
        rule = services.create_rule(self.federation, self.actor, content_in(self), address=self.address)
        return Response(RuleOut(rule).data, 201)


class RuleDetail(RuleView):
    """One rule."""

    acts = {"GET": Act.READ, "PUT": Act.MANAGE_ALERTS, "DELETE": Act.MANAGE_ALERTS}
    takes = {"PUT": RuleBody}
    gives = {"GET": Gives(RuleOut), "PUT": Gives(RuleOut)}
    refusals = {"PUT": (ErrorCode.NAME_TAKEN,)}

    def get(self, request: Request, slug: str, rule_id: int) -> Response:
        return Response(RuleOut(get_object_or_404(self.rules(), pk=rule_id)).data)

    def put(self, request: Request, slug: str, rule_id: int) -> Response:
        """With other settings it watches anew, and its open alerts end."""
        rule, content = self.locked(rule_id), content_in(self)
        services.change_rule(rule, self.actor, content, address=self.address)
        return Response(RuleOut(self.rules().get(pk=rule_id)).data)

    def delete(self, request: Request, slug: str, rule_id: int) -> Response:
        """Its alerts end, and stay in the history."""
        services.remove_rule(self.locked(rule_id), self.actor, address=self.address)
        return Response(status=204)


class MuteRule(RuleView):
    """Its alerts are told to nobody for a while."""

    verbs = {"POST": "mute"}
    acts = {"POST": Act.MANAGE_ALERTS}
    takes = {"POST": MuteBody}
    gives = {"POST": Gives(RuleOut)}

    def post(self, request: Request, slug: str, rule_id: int) -> Response:
        hours = self.body()["hours"]
        rule = self.locked(rule_id)
        services.mute_rule(rule, self.actor, _until(hours), address=self.address)
        return Response(RuleOut(rule).data)


class RulePreview(RuleView):
    """When such a rule would have fired in the last seven days. Changes nothing."""

    verbs = {"POST": "preview"}
    acts = {"POST": Act.MANAGE_ALERTS}
    takes = {"POST": PreviewBody}
    gives = {"POST": Gives(PreviewOut)}

    def post(self, request: Request, slug: str) -> Response:
        wanted = self.body()
        kind = Kind(wanted["kind"])
        found = search.preview(kind, self.federation, clean_settings(kind, wanted["settings"]), timezone.now())
        caveat = search.KNOWN_OF.get(kind, "")
        return Response(PreviewOut({"times": len(found), "newest": found[: search.SHOWN], "caveat": caveat}).data)


def content_in(view: ApiView) -> RuleContent:
    """What a call says of a rule."""
    wanted = view.body()
    return RuleContent(
        **wanted | {"kind": Kind(wanted["kind"]), "webhooks": [str(webhook) for webhook in wanted["webhooks"]]}
    )
