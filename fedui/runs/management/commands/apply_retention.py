from __future__ import annotations

from typing import Any

from django.core.management import BaseCommand, CommandParser

from fedui.runs.retention import Removal, apply_everywhere
from fedui.runs.store import model_files
from fedui.web.figures import byte_size


class Command(BaseCommand):
    help = (
        "Remove what no retention policy keeps, and what crashes have left in the model store. Beat does so every hour."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="Only say what would be removed.")

    def handle(self, *args: Any, dry_run: bool, **options: Any) -> None:
        would = "would be removed" if dry_run else "removed"
        for federation, removal in apply_everywhere(model_files(), dry_run=dry_run).items():
            self.stdout.write(f"{federation or 'Model store'}: {_words(removal)} {would}")


def _words(removal: Removal) -> str:
    parts = [
        f"{removal.models:,} models ({byte_size(removal.model_bytes)})" if removal.models else "",
        f"{removal.progress_events:,} events of progress" if removal.progress_events else "",
        f"{removal.log_events:,} events of logs" if removal.log_events else "",
        f"{removal.orphans:,} files without a model ({byte_size(removal.orphan_bytes)})" if removal.orphans else "",
    ]
    return ", ".join(filter(None, parts)) or "nothing"
