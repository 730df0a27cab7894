"""The one way to change how a federation runs and what it keeps."""

from __future__ import annotations

from django.db import transaction

from fedui.accounts.models import User
from fedui.audit.services import record
from fedui.runs.forms import RunRulesForm


@transaction.atomic
def save_rules(form: RunRulesForm, actor: User, *, address: str | None = None) -> None:
    """`form` is valid, and about the rules of a federation."""
    rules = form.save()
    details = {name: form.cleaned_data[name] for name in form.changed_data}
    record(rules.federation, actor, "federation.run_rules", rules.federation, address=address, **details)
