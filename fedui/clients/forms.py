from __future__ import annotations

from datetime import timedelta

from django import forms

from fedui.web.forms import LabelsField

LIFETIMES = [("1", "1 h"), ("24", "24 h"), ("168", "7 days"), ("720", "30 days")]
MAX_USES = 1000


class TokenForm(forms.Form):
    note = forms.CharField(max_length=120)
    max_uses = forms.IntegerField(min_value=1, max_value=MAX_USES, initial=1)
    lifetime = forms.ChoiceField(choices=LIFETIMES, initial="24", widget=forms.RadioSelect)
    labels = LabelsField(required=False, max_length=500)
    requires_approval = forms.BooleanField(required=False)

    def clean_lifetime(self) -> timedelta:
        return timedelta(hours=int(self.cleaned_data["lifetime"]))
