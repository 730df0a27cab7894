"""Checks that tools make: of the code, of the packages, of the settings. Each gives one finding; exceptions carry reasons."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("fedui", "aggregator", "client_agent", "protos")

JITTER = "jitter of pauses is no secret"
STARTS = "starts FedUI's own programs, from a list of arguments and without a shell"
CHECKED = "the address was checked to be http or https"
EVERYWHERE = {"B101": "assert states what the types can't say; nothing rests on it"}
ACCEPTED = {
    ("B506", "aggregator/core/plain_yaml.py"): "the loader is PyYAML's safe one, without tags and aliases",
    ("B310", "client_agent/doctor.py"): CHECKED,
    ("B310", "client_agent/enrolment.py"): CHECKED,
    ("B104", "fedui/checks.py"): "a comparison, which warns of such an address",
    ("B104", "fedui/supervisor/stack.py"): "a comparison, which replaces such an address",
    ("B105", "fedui/accounts/adapters.py"): "a message about passwords",
    ("B105", "fedui/audit/search.py"): "the name of an action",
    ("B105", "fedui/errors.py"): "codes of errors",
    ("B311", "client_agent/backoff.py"): JITTER,
    ("B311", "client_agent/connection.py"): JITTER,
    ("B311", "client_agent/renewal.py"): JITTER,
    ("B311", "fedui/alerts/deliveries.py"): JITTER,
    ("B311", "protos/wire_forms.py"): "seeded on purpose: both sides must draw the same",
    ("B404", "fedui/supervisor/children.py"): STARTS,
    ("B603", "fedui/supervisor/children.py"): STARTS,
    ("B404", "fedui/supervisor/demo.py"): STARTS,
    ("B603", "fedui/supervisor/demo.py"): STARTS,
}
"""What bandit finds and we have looked at. One that is found no more is a fault of this table."""


PROXY = "the proxy with TLS decides: the web process speaks plain HTTP behind it (docs/configuration.md)"
DOMAIN = "it would bind hosts that are not FedUI's: whoever has the whole domain can say so at the proxy"
LEFT_TO_THE_INSTALLATION = {"security.W008": PROXY, "security.W005": DOMAIN, "security.W021": DOMAIN}
"""What `check --deploy` says and we have looked at."""


@dataclass
class Finding:
    name: str
    faults: list[str] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)


def bandit() -> Finding:
    command = [sys.executable, "-m", "bandit", "-q", "-r", *PACKAGES, "-f", "json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    results = json.loads(done.stdout)["results"]
    places = {(one["test_id"], one["filename"].removeprefix("./")): one for one in results}
    new = [
        f"{path}:{one['line_number']}: {test} {one['issue_text']}"
        for (test, path), one in places.items()
        if test not in EVERYWHERE and (test, path) not in ACCEPTED
    ]
    stale = [f"{path}: {test} is found no more: drop its exception" for test, path in set(ACCEPTED) - set(places)]
    return Finding(
        "bandit", new + stale, {"accepted": {f"{t} {p}": why for (t, p), why in ACCEPTED.items()} | EVERYWHERE}
    )


def pip_audit(seconds: float = 120) -> Finding:
    """Where its database can be reached; else the line says that nothing was looked up."""
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "-r", "requirements.lock"]
    options = ["--format", "json", "--progress-spinner", "off"]
    try:
        done = subprocess.run(
            [*command, *options], cwd=ROOT, capture_output=True, text=True, check=False, timeout=seconds
        )
        packages = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError) as error:
        said = "it did not answer in time" if isinstance(error, subprocess.TimeoutExpired) else done.stderr.strip()
        return Finding("pip_audit", more={"looked_up": 0, "left_out": f"The database can't be reached: {said[-200:]}"})
    looked_up = [one for one in packages if "skip_reason" not in one]
    if not looked_up:
        return Finding("pip_audit", more={"looked_up": 0, "left_out": "The database knows none of the packages here."})
    known = [f"{one['name']} {one['version']}: {hole['id']}" for one in packages for hole in one.get("vulns", ())]
    return Finding("pip_audit", known, {"looked_up": len(looked_up)})


def deploy() -> Finding:
    """`manage.py check --deploy` with the settings of a server that people reach."""
    command = [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"]
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            "PATH": os.environ["PATH"],
            "FEDUI_DATA_DIR": folder,
            "FEDUI_ALLOWED_HOSTS": "fedui.example",
            "FEDUI_PUBLIC_URL": "https://fedui.example",
            "FEDUI_GRPC_ADDRESS": "fedui.example:50051",
        }
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    told = re.findall(r"^\S*: \((\S+)\) (.*)$", done.stderr, re.MULTILINE)
    faults = [f"{code}: {text}" for code, text in told if code not in LEFT_TO_THE_INSTALLATION]
    if done.returncode and not told:
        faults = [done.stderr.strip()[-500:]]
    return Finding("check_deploy", faults, {"accepted": LEFT_TO_THE_INSTALLATION})
