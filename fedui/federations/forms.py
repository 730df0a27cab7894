from __future__ import annotations

from typing import Any

from django import forms
from django.utils.text import slugify

from fedui.federations.models import Federation


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
