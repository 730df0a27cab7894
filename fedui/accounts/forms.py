from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib.auth.forms import BaseUserCreationForm

from fedui.accounts.models import User

if TYPE_CHECKING:
    _CreationForm = BaseUserCreationForm[User]
else:
    _CreationForm = BaseUserCreationForm


class NewAccountForm(_CreationForm):
    """An account for whoever follows an invitation. The address is for resetting the password."""

    email = forms.EmailField(required=False)

    class Meta:
        model = User
        fields = ("username", "email")


class EmailForm(forms.Form):
    email = forms.EmailField(required=False)


class AccountSearch(forms.Form):
    q = forms.CharField(required=False, max_length=150)

    def words(self) -> str:
        self.is_valid()
        text: Any = self.cleaned_data.get("q", "")
        return str(text)
