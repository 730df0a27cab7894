from __future__ import annotations

from datetime import timedelta
from typing import Any

from django import forms
from django.utils.text import slugify

from fedui.clients.models import Client, ClientStatus
from fedui.federations.models import Federation, Role, SecondFactor


class FederationForm(forms.Form):
    name = forms.CharField(max_length=120)
    slug = forms.SlugField(max_length=63, required=False)

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        slug = cleaned.get("slug") or slugify(cleaned.get("name", ""))[:63].strip("-")
        if "name" in cleaned and "slug" not in self.errors:
            self._check_slug(slug)
        return cleaned | {"slug": slug}

    def _check_slug(self, slug: str) -> None:
        if not slug:
            self.add_error("slug", "The name has no letters or digits to make an address of. Write one here.")
        elif Federation.objects.filter(slug=slug).exists():
            self.add_error("slug", f"The address “{slug}” is taken. Choose another.")


class MemberForm(forms.Form):
    """A role, and for a site admin the clients that are theirs."""

    role = forms.ChoiceField(choices=Role.choices, initial=Role.RESEARCHER)
    clients = forms.ModelMultipleChoiceField(Client.objects.none(), required=False)

    def __init__(self, federation: Federation, data: Any = None, **kwargs: Any) -> None:
        super().__init__(data, **kwargs)
        chosen: Any = self.fields["clients"]
        chosen.queryset = federation.clients.exclude(status=ClientStatus.REVOKED)

    def clean_role(self) -> Role:
        return Role(self.cleaned_data["role"])


class InvitationForm(MemberForm):
    email = forms.EmailField(required=False)
    lifetime = forms.ChoiceField(choices=[("1", "1 day"), ("7", "7 days"), ("30", "30 days")], initial="7")

    def clean_lifetime(self) -> timedelta:
        return timedelta(days=int(self.cleaned_data["lifetime"]))


class GeneralForm(forms.Form):
    name = forms.CharField(max_length=120)
    second_factor = forms.ChoiceField(choices=SecondFactor.choices)

    def clean_second_factor(self) -> SecondFactor:
        return SecondFactor(self.cleaned_data["second_factor"])
