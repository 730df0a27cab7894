"""`make security`: one JSON object a line. Ends with 1 where anything was found that has no reason."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.security.checks import ROOT, Finding, bandit, deploy, pip_audit

SUITES = {"authorisation_matrix": "test_authorisation.py", "answers_and_secrets": "test_answers.py"}


def suite(name: str, module: str) -> Finding:
    """The tests of one module, which the test-suite runs too."""
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--tb=line", f"tests/security/{module}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    passed = re.search(r"(\d+) passed", done.stdout)
    faults = re.findall(r"^(?:FAILED|ERROR) (.*)$", done.stdout, re.MULTILINE)
    if done.returncode and not faults:
        faults = [(done.stdout + done.stderr)[-500:]]
    return Finding(name, faults, {"passed": int(passed[1]) if passed else 0})


def main() -> int:
    checks = [
        bandit,
        pip_audit,
        deploy,
        *(lambda name=name, module=module: suite(name, module) for name, module in SUITES.items()),
    ]
    failed = False
    for check in checks:
        finding = check()
        print(finding.line(), flush=True)
        failed = failed or bool(finding.faults)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
