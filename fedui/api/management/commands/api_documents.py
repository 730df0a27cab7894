"""Writes the OpenAPI schema and the catalogue of errors into docs/, or says what of them isn't up to date."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from drf_spectacular.drainage import GENERATOR_STATS
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiYamlRenderer
from drf_spectacular.validation import validate_schema

from fedui.api.catalogue import as_markdown

DOCS = Path(settings.BASE_DIR) / "docs"


class Command(BaseCommand):
    help = "Write docs/openapi.yaml and docs/errors.md anew."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--check", action="store_true", help="Write nothing; fail if a document isn't up to date.")

    def handle(self, *, check: bool, **_: Any) -> None:
        stale = [name for name, text in documents().items() if _read(name) != text]
        if check and stale:
            raise CommandError(f"Not up to date: {', '.join(stale)}. Run make api.")
        for name in stale:
            (DOCS / name).write_text(documents()[name])
        self.stdout.write(f"Written: {', '.join(stale)}." if stale else "All is up to date.")


def documents() -> Mapping[str, str]:
    """Raises `CommandError` where the schema isn't clean."""
    schema: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    validate_schema(schema)  # type: ignore[no-untyped-call]
    if GENERATOR_STATS:
        GENERATOR_STATS.emit_summary()
        raise CommandError("The schema has warnings.")
    text: str = OpenApiYamlRenderer().render(schema, renderer_context={}).decode()  # type: ignore[no-untyped-call]
    return {"openapi.yaml": text, "errors.md": as_markdown()}


def _read(name: str) -> str:
    path = DOCS / name
    return path.read_text() if path.exists() else ""
