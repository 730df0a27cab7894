from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.http import QueryDict
from django.utils import timezone

from fedui.alerts.kinds import TRAITS, BadRule, Choice, Kind, Number, Severity
from fedui.alerts.models import AlertRule
from fedui.alerts.services import RuleContent, content_of
from fedui.errors import DomainError
from fedui.federations.models import Federation, Role
from fedui.web.forms import explain

MUTES = ((1, "1 hour"), (8, "8 hours"), (24, "1 day"), (168, "7 days"), (0, "Not any more"))
SETTING = "setting_"


class MuteForm(forms.Form):
    hours = forms.TypedChoiceField(choices=MUTES, coerce=int, empty_value=None)

    @property
    def until(self) -> datetime | None:
        hours = self.cleaned_data["hours"]
        return timezone.now() + timedelta(hours=hours) if hours else None


class WebhookForm(forms.Form):
    name = forms.CharField(max_length=80)
    url = forms.CharField(max_length=500)
    enabled = forms.BooleanField(required=False)


class RuleForm(forms.Form):
    """A rule of one kind; the kind's settings are fields with a prefix. What they may be is said by `fedui.alerts.kinds`."""

    name = forms.CharField(max_length=120)
    kind = forms.ChoiceField(choices=Kind.choices)
    severity = forms.TypedChoiceField(choices=Severity.choices, coerce=int)
    every_minutes = forms.IntegerField(min_value=1, max_value=1440)
    email_roles = forms.MultipleChoiceField(choices=Role.choices, required=False)
    webhooks = forms.MultipleChoiceField(required=False)
    tell_resolved = forms.BooleanField(required=False)
    enabled = forms.BooleanField(required=False)

    def __init__(
        self, federation: Federation, kind: Kind, data: QueryDict | None = None, rule: AlertRule | None = None
    ) -> None:
        self.rule_kind, self.traits = kind, TRAITS[kind]
        super().__init__(data, initial=self._initial(kind, rule))
        self.choices_of("webhooks", [(str(hook.pk), hook.name) for hook in federation.webhooks.all()])
        for setting in self.traits.settings:
            self.fields[f"{SETTING}{setting.name}"] = forms.CharField(max_length=63, label=setting.label)
            if isinstance(setting, Choice):
                self.fields[f"{SETTING}{setting.name}"] = forms.ChoiceField(
                    choices=setting.choices, label=setting.label
                )

    def choices_of(self, name: str, choices: list[tuple[str, str]]) -> None:
        field = self.fields[name]
        assert isinstance(field, forms.MultipleChoiceField)
        field.choices = choices

    @staticmethod
    def _initial(kind: Kind, rule: AlertRule | None) -> dict[str, Any]:
        if rule is None or rule.kind != kind:
            settings: dict[str, Any] = {setting.name: setting.default for setting in TRAITS[kind].settings}
        else:
            settings = rule.settings
        shown = {f"{SETTING}{name}": value for name, value in settings.items()}
        if rule is None:
            fresh = {"name": kind.label, "severity": TRAITS[kind].severity, "every_minutes": 5, "tell_resolved": True}
            return fresh | {"kind": kind, "enabled": True, "email_roles": [Role.OWNER, Role.OPERATOR]} | shown
        content = content_of(rule)
        return {
            "name": content.name,
            "kind": kind,
            "severity": content.severity,
            "every_minutes": content.every_minutes,
            "tell_resolved": content.tell_resolved,
            "enabled": content.enabled,
            "email_roles": list(content.email_roles),
            "webhooks": list(content.webhooks),
            **shown,
        }

    def setting_fields(self) -> list[tuple[forms.BoundField, str]]:
        """With their units."""
        return [
            (self[f"{SETTING}{setting.name}"], setting.unit if isinstance(setting, Number) else "")
            for setting in self.traits.settings
        ]

    def settings(self) -> dict[str, Any]:
        """As they stand, also where the form isn't valid."""
        return {setting.name: self[f"{SETTING}{setting.name}"].value() for setting in self.traits.settings}

    def content(self) -> RuleContent:
        """Of a valid form."""
        clean = self.cleaned_data
        return RuleContent(
            name=clean["name"],
            kind=self.rule_kind,
            settings={setting.name: clean[f"{SETTING}{setting.name}"] for setting in self.traits.settings},
            severity=Severity(clean["severity"]),
            enabled=clean["enabled"],
            email_roles=clean["email_roles"],
            webhooks=clean["webhooks"],
            tell_resolved=clean["tell_resolved"],
            every_minutes=clean["every_minutes"],
        )

    def explain(self, error: DomainError) -> None:
        """Beside the field that it is about, where there is one."""
        field = error.field if isinstance(error, BadRule) else ""
        for name in (field, f"{SETTING}{field}"):
            if name in self.fields:
                self.add_error(name, f"{error} {error.hint}".strip())
                return
        explain(self, error)
