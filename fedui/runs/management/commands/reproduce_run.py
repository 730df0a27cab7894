from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management import BaseCommand, CommandError

from fedui.accounts.models import User
from fedui.errors import DomainError
from fedui.runs.commands import Order, reproduce
from fedui.runs.models import Run


class Command(BaseCommand):
    help = "Start a run again: the same strategy version, app, seed, rounds, beginning, and weights of clients."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("run", type=int, help="Number of the run.")
        parser.add_argument("--name", default="", help="Of the new run; else that of the old one, and “again”.")
        parser.add_argument("--user", default="", help="Who orders it; else who created the old one.")

    def handle(self, *args: Any, run: int, name: str, user: str, **options: Any) -> None:
        found = Run.objects.select_related("federation", "app", "strategy_version", "origin", "created_by").filter(
            pk=run
        )
        old = found.first()
        if old is None:
            raise CommandError(f"There is no run {run}.")
        actor = User.objects.filter(username=user).first() if user else old.created_by
        if actor is None:
            raise CommandError(
                "Nobody of that name is known." if user else "Who created the run is gone: name a --user."
            )
        try:
            again = reproduce(old, Order(actor), name=name)
        except DomainError as error:
            raise CommandError(f"{error} {error.hint}") from error
        self.stdout.write(f"Run {again.pk} is queued: {again.name}")
