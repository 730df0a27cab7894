"""`make security`: one JSON object a line, with what was found (`value`) and what should be (`reference`). Ends with 1 where they differ.

The suites are those of `make test`; what they counted is read from their reports.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as Xml
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.security.checks import ROOT, Finding, bandit, deploy, pip_audit

WORKERS = 2
TOOLS = (bandit, pip_audit, deploy)
HEADERS_AND_SECRETS = ("tests/security/test_answers.py", "tests/security/test_outage.py", "tests/fedui/test_logging.py")
AUTHORISATION = ("tests/security/test_authorisation.py",)
IDEMPOTENCY = ("tests/fedui/test_api_nouns.py", "-k", "twice or keys or key_free or answered_again")
WEBHOOKS = ("tests/fedui/alerts/test_deliveries.py", "tests/fedui/alerts/test_outbound.py")
QUERY_COUNTS = (
    "tests/fedui/test_api_nouns.py", "tests/web/test_list_queries.py", "tests/fedui/test_ownerless.py", "tests/fedui/test_admin.py",
    "-k", "queries_for_500 or cost_the_same",
)  # fmt: skip
EDITS = 1000
AUDIT = ("tests/fedui/test_audit_chain.py", "tests/fedui/test_audit_concurrency.py")


@dataclass
class Line:
    name: str
    value: Any
    reference: Any
    faults: list[str]
    settings: dict[str, Any]

    @property
    def ok(self) -> bool:
        return not self.faults and self.value == self.reference

    def __str__(self) -> str:
        said = {"name": self.name, "ok": self.ok, "value": self.value, "reference": self.reference}
        return json.dumps(said | {"settings": self.settings, "faults": self.faults})


@dataclass
class Outcome:
    """Of some tests."""

    passed: int
    faults: list[str]
    properties: list[tuple[str, str]]
    """What they recorded."""


def outcome(arguments: tuple[str, ...]) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-n", str(WORKERS), "--tb=line", f"--junit-xml={report}"]
        done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        cases = list(Xml.parse(report).getroot().iter("testcase")) if report.exists() else []  # our own
    bad = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    faults = [f"{case.get('classname')}::{case.get('name')}" for case in bad]
    if done.returncode and not faults:
        faults = [(done.stdout + done.stderr)[-500:]]
    found = [(one.get("name", ""), one.get("value", "")) for case in cases for one in case.iter("property")]
    skipped = sum(case.find("skipped") is not None for case in cases)
    return Outcome(len(cases) - len(bad) - skipped, faults, found)


def suite(name: str, arguments: tuple[str, ...]) -> Line:
    """Its value is the number of tests that something failed."""
    done = outcome(arguments)
    return Line(name, len(done.faults), 0, done.faults, {"tests": " ".join(arguments), "passed": done.passed})


def audit() -> Line:
    """Its value is how many random edits of the stored chain `manage.py audit verify` has found."""
    done = outcome(AUDIT)
    found = sum(int(value) for name, value in done.properties if name == "edits_found")
    return Line("audit", found, EDITS, done.faults, {"edits": EDITS, "tests": " ".join(AUDIT), "passed": done.passed})


def security() -> Line:
    """What tools find in code, packages and settings; headers of every answer; and planted secrets, told again or logged."""
    findings: list[Finding] = [check() for check in TOOLS]
    suites = outcome(HEADERS_AND_SECRETS)
    faults = [f"{one.name}: {fault}" for one in findings for fault in one.faults] + suites.faults
    settings: dict[str, Any] = {one.name: {"ok": not one.faults, **one.more} for one in findings}
    settings["headers_and_secrets"] = {"tests": " ".join(HEADERS_AND_SECRETS), "passed": suites.passed}
    return Line("security", len(faults), 0, faults, settings)


LINES: tuple[Callable[[], Line], ...] = (
    security,
    partial(suite, "authorisation_matrix", AUTHORISATION),
    partial(suite, "idempotency", IDEMPOTENCY),
    audit,
    partial(suite, "webhooks", WEBHOOKS),
    partial(suite, "query_counts", QUERY_COUNTS),
)


def main() -> int:
    failed = False
    for measure in LINES:
        line = measure()
        print(line, flush=True)
        failed = failed or not line.ok
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
