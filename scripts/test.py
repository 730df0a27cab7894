"""`make test`: linters, type checks, and all tests that this machine allows. With CI set, what can't run is a failure."""

import argparse
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import psycopg
import redis

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
PICTURES = ROOT / "var" / "browser"
"""What the browser tests leave: every page, and what looks otherwise than it did."""
POSTGRES = os.environ.get("FEDUI_TEST_DATABASE_URL", "postgres://postgres@127.0.0.1:5432/postgres")
REDIS = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/15")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome") or ""
PYTEST = ["pytest", "-q"]
TWO_FILES = ["-n", "2", "--dist", "loadfile"]
"""At a time, the tests of each one after the other."""
DATABASE_TESTS = ["tests/fedui", "tests/contracts", "tests/integration"]
LINT = {
    "ruff": ["ruff", "check", "."],
    "ruff format": ["ruff", "format", "--check", "."],
    "mypy": ["mypy", "fedui", "aggregator", "client_agent", "protos", "tests", "benchmarks"],
    "imports": ["lint-imports"],
    "djlint": ["djlint", "--lint", "templates"],
    "migrations": [sys.executable, "manage.py", "makemigrations", "--check", "--dry-run"],
}


@dataclass
class Session:
    """What was run, how it went, and what could not be run."""

    failed: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def run(self, name: str, command: list[str], **environment: str) -> None:
        print(f"\n── {name} ──", flush=True)
        begun = time.monotonic()
        executable = command[0] if Path(command[0]).is_absolute() else str(BIN / command[0])
        code = subprocess.run(
            [executable, *command[1:]], cwd=ROOT, env=os.environ | environment, check=False
        ).returncode
        print(f"   {name}: {'failed' if code else 'ok'}, {time.monotonic() - begun:.0f} s", flush=True)
        if code:
            self.failed.append(name)

    def has(self, what: str, there: bool, consequence: str) -> bool:
        if not there:
            self.left_out.append(f"{what} is not here: {consequence}")
        return there


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-lint", action="store_true")
    parser.add_argument("--quick", action="store_true", help="without the browser and the end-to-end tests")
    parser.add_argument("--browser", action="store_true", help="what drives Chromium, and nothing else")
    options = parser.parse_args()
    session = Session()
    if options.browser:
        run_in_browser(session, "browser and e2e")
        return report(session)
    if not options.no_lint:
        for name, command in LINT.items():
            session.run(name, command)
    run_tests(session, quick=options.quick)
    return report(session)


def run_tests(session: Session, *, quick: bool) -> None:
    environment = environment_of_tests()
    session.has("Redis", "REDIS_URL" in environment, "tests ran on the embedded server alone")
    session.has("torch", find_spec("torch") is not None, "tests of the torch app were left out (make setup TORCH=1)")
    session.run("tests", [*PYTEST, "-n", "2", "-m", "not browser and not e2e"], **environment)
    if session.has("PostgreSQL", postgres_answers(), "database tests ran on SQLite alone"):
        on_postgres = environment | {"FEDUI_TEST_DATABASE": "postgres", "FEDUI_TEST_DATABASE_URL": POSTGRES}
        session.run("tests on PostgreSQL", [*PYTEST, "-n", "2", *DATABASE_TESTS], **on_postgres)
    if not quick and not run_in_browser(session, "e2e"):
        session.run("whole platform", [*PYTEST, *TWO_FILES, "-m", "e2e and not browser"], **environment)


def run_in_browser(session: Session, whole_platform: str) -> bool:
    """Whether there is a browser. The whole platform is tested after the pages."""
    browser = session.has("Chromium", bool(CHROMIUM), "browser tests were left out (CHROMIUM names one)")
    if browser:
        shutil.rmtree(PICTURES, ignore_errors=True)
        environment = environment_of_tests()
        session.run("browser", [*PYTEST, "-n", "2", "-m", "browser and not e2e"], **environment)
        session.run("whole platform", [*PYTEST, *TWO_FILES, "-m", whole_platform], **environment)
    return browser


def environment_of_tests() -> dict[str, str]:
    found = {"CHROMIUM": CHROMIUM, "DJANGO_ALLOW_ASYNC_UNSAFE": "1"}
    return found | ({"REDIS_URL": REDIS} if redis_answers() else {})


def report(session: Session) -> int:
    print()
    if PICTURES.exists():
        print(f"Screenshots: {PICTURES}.")
    for line in session.left_out:
        print(f"Left out: {line}.")
    if session.left_out and os.environ.get("CI"):
        session.failed.append("what was left out: in CI nothing may be")
    print(f"Failed: {'; '.join(session.failed)}." if session.failed else "All passed.")
    return 1 if session.failed else 0


def postgres_answers() -> bool:
    try:
        psycopg.connect(POSTGRES.replace("postgres://", "postgresql://"), connect_timeout=2).close()
    except psycopg.Error:
        return False
    return True


def redis_answers() -> bool:
    try:
        redis.Redis.from_url(REDIS, socket_connect_timeout=2).ping()
    except redis.RedisError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
