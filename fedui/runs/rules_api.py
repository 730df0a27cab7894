"""How a federation runs and what it keeps, over REST."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.utils import timezone
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from fedui.api.serializers import Body, Gives, messages_of
from fedui.api.views import ApiView
from fedui.federations.models import Act
from fedui.runs.forms import RunRulesForm
from fedui.runs.models import MOST_DAYS, KeepCheckpoints, RunRules
from fedui.runs.retention import apply_policy
from fedui.runs.rules import save_rules
from fedui.runs.store import model_files

MOST = 2**31 - 1


class RulesOut(serializers.Serializer[RunRules]):
    max_runs = serializers.IntegerField(allow_null=True, help_text="That run at once.")
    checkpoints = serializers.ChoiceField(choices=KeepCheckpoints.choices, allow_blank=True)
    checkpoints_every = serializers.IntegerField(allow_null=True)
    progress_days = serializers.IntegerField(allow_null=True, help_text="0: for ever.")
    log_days = serializers.IntegerField(allow_null=True, help_text="0: for ever.")


class RulesBody(Body):
    """Null, or nothing, leaves it to the installation."""

    max_runs = serializers.IntegerField(min_value=0, max_value=MOST, allow_null=True, default=None)
    checkpoints = serializers.ChoiceField(choices=KeepCheckpoints.choices, allow_blank=True, default="")
    checkpoints_every = serializers.IntegerField(min_value=1, max_value=MOST, allow_null=True, default=None)
    progress_days = serializers.IntegerField(min_value=0, max_value=MOST_DAYS, allow_null=True, default=None)
    log_days = serializers.IntegerField(min_value=0, max_value=MOST_DAYS, allow_null=True, default=None)


class Rules(ApiView):
    """How many runs a federation has at once, and what is kept of them. Null and the empty text: as the installation says."""

    noun = "rules"
    acts = {"GET": Act.READ, "PUT": Act.MANAGE_SETTINGS}
    takes = {"PUT": RulesBody}
    gives = {"GET": Gives(RulesOut), "PUT": Gives(RulesOut)}

    def get(self, request: Request, slug: str) -> Response:
        rules = RunRules.objects.filter(federation=self.federation).first()
        return Response(RulesOut(rules or RunRules()).data)

    def put(self, request: Request, slug: str) -> Response:
        """Set them anew."""
        wanted = self.body()
        RunRules.objects.get_or_create(federation=self.federation)
        rules = RunRules.objects.select_for_update().get(federation=self.federation)
        self.must_match(RulesOut(rules).data)
        form = RunRulesForm(wanted, instance=rules)
        if not form.is_valid():
            raise serializers.ValidationError(messages_of(form))
        save_rules(form, self.actor, address=self.address)
        return Response(RulesOut(rules).data)


class RemovalOut(serializers.Serializer[Any]):
    models = serializers.IntegerField()
    model_bytes = serializers.IntegerField()
    progress_events = serializers.IntegerField()
    log_events = serializers.IntegerField()
    orphans = serializers.IntegerField(help_text="Files that no model is recorded for.")
    orphan_bytes = serializers.IntegerField()


class RetentionPreview(ApiView):
    """What would be removed, if the hourly job came by now."""

    noun = "rules"
    verbs = {"GET": "preview"}
    acts = {"GET": Act.MANAGE_SETTINGS}
    gives = {"GET": Gives(RemovalOut)}

    def get(self, request: Request, slug: str) -> Response:
        removal = apply_policy(self.federation, model_files(), timezone.now(), dry_run=True)
        return Response(RemovalOut(asdict(removal)).data)
