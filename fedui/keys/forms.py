from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms

from fedui.federations.models import Membership
from fedui.keys.scopes import Scope
from fedui.keys.services import scopes_of

LIFETIMES = [("7", "7 days"), ("30", "30 days"), ("90", "90 days"), ("365", "1 year")]


class KeyForm(forms.Form):
    """A new key. Its scopes are those that are of use to the member."""

    name = forms.CharField(max_length=120)
    scopes = forms.MultipleChoiceField(
        widget=forms.CheckboxSelectMultiple,
        initial=[Scope.READ.value],
        error_messages={"required": "Choose at least one."},
    )
    lifetime = forms.ChoiceField(choices=LIFETIMES, initial="90", widget=forms.RadioSelect)

    def __init__(self, membership: Membership, data: Any = None) -> None:
        super().__init__(data)
        scopes: Any = self.fields["scopes"]
        scopes.choices = [(scope.value, scope.label) for scope in scopes_of(membership)]

    def clean_scopes(self) -> list[Scope]:
        return [Scope(name) for name in self.cleaned_data["scopes"]]

    def clean_lifetime(self) -> timedelta:
        return timedelta(days=int(self.cleaned_data["lifetime"]))
