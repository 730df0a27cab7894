from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any

from django.core.management.base import BaseCommand, CommandError

from fedui.audit import chain
from fedui.audit.origin import acting
from fedui.audit.services import entries, exported_lines, has_entry, head_of_chain, is_sealed, reseal, verify_log


class Command(BaseCommand):
    help = "The audit log: verify its chain, export it, tell its head."

    def add_arguments(self, parser: ArgumentParser) -> None:
        steps = parser.add_subparsers(dest="step", required=True)
        verify = steps.add_parser("verify", help="find entries that were changed, removed or inserted")
        verify.add_argument("file", nargs="?", help="an export to verify instead of the database; - for standard input")
        verify.add_argument(
            "--head", default="", help="a head that was noted before, NUMBER:HASH: it must be in the chain"
        )
        export = steps.add_parser("export", help="write all entries as JSON Lines")
        export.add_argument("--after", type=int, default=0, metavar="NUMBER", help="only those that follow this entry")
        export.add_argument("--output", default="-", metavar="FILE")
        steps.add_parser("head", help="print number and hash of the last entry, to note elsewhere")
        again = steps.add_parser("reseal", help="seal the head again, after looking into why its seal is broken")
        again.add_argument("--reason", required=True)

    def handle(self, *args: Any, step: str, **options: Any) -> None:
        getattr(self, f"_{step}")(**options)

    def _verify(self, file: str | None, head: str, **_: Any) -> None:
        noted = _noted(head)
        verdict = chain.verify(_watched(_read(file), noted)) if file else verify_log()
        if not file:
            noted = {number: hash_ for number, hash_ in noted.items() if not has_entry(number, hash_)}
        verdict = verdict.with_faults(
            chain.Fault(number, "it was noted with another hash, or is gone.") for number in noted
        )
        for fault in verdict.faults:
            self.stderr.write(str(fault))
        if not verdict.whole:
            raise CommandError("The audit log is not as it was written.")
        withheld = f", the content of {verdict.withheld} withheld" if verdict.withheld else ""
        self.stdout.write(f"{verdict.entries} entries{withheld}, all as they were written.")
        self.stdout.write(f"Head {verdict.number}:{verdict.head}")

    def _export(self, after: int, output: str, **_: Any) -> None:
        with Path(output).open("w") if output != "-" else nullcontext(self.stdout) as out:
            for line in exported_lines(entries(after)):
                out.write(line)

    def _head(self, **_: Any) -> None:
        head = head_of_chain()
        self.stdout.write(str(head))
        if not is_sealed(head):
            raise CommandError("The head's seal is broken: run `audit verify`.")

    def _reseal(self, reason: str, **_: Any) -> None:
        entry = reseal(acting(), reason)
        self.stdout.write(f"Sealed. Head {entry.pk}:{entry.hash}")


def _noted(head: str) -> dict[int, str]:
    """Number and hash of a head that somebody has noted."""
    number, _, hash_ = head.partition(":")
    if head and not (number.isdecimal() and len(hash_) == len(chain.GENESIS)):
        raise CommandError("--head reads NUMBER:HASH, as `audit head` prints it.")
    return {int(number): hash_} if head else {}


def _watched(exported: Iterator[dict[str, Any]], noted: dict[int, str]) -> Iterator[dict[str, Any]]:
    """The same entries; those that were noted are taken out of `noted`."""
    for entry in exported:
        if noted.get(entry.get("id", 0)) == entry.get("hash", ""):
            del noted[entry["id"]]
        yield entry


def _read(file: str) -> Iterator[dict[str, Any]]:
    source: IO[str] = sys.stdin if file == "-" else Path(file).open()  # noqa: SIM115  # closed below
    with source:
        for number, line in enumerate(source, start=1):
            try:
                entry = json.loads(line)
            except ValueError as error:
                raise CommandError(f"Line {number} is no JSON: {error}") from error
            yield entry if isinstance(entry, dict) else {}
