"""What `fedagent log` shows: the entries, whether their chain holds, and whether the server has what they say."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from client_agent import ledger
from client_agent.errors import ConfigurationError
from client_agent.ledger import BrokenChain, Entry
from client_agent.terminal import printable

Verdict = tuple[bool, list[str]]
"""Whether all is as it should be, and lines that say so."""


def select(file: Path, kind: str | None, run: str | None, last: int | None) -> Iterable[Entry]:
    """Raises `ConfigurationError` for a file that is no log."""
    wanted = (
        entry
        for entry in _entries(file)
        if (kind is None or entry.get("kind") == kind) and (run is None or entry.get("run") == run)
    )
    return wanted if last is None else deque(wanted, maxlen=last)


def _entries(file: Path) -> Iterator[Entry]:
    try:
        yield from ledger.entries(file)
    except BrokenChain as broken:
        raise ConfigurationError(f"{file}: {broken} Look at it with: fedagent log --verify") from broken


def as_text(entry: Entry) -> str:
    about = [f"run {entry['run']} round {entry['round']} {entry['task']}"] if "run" in entry else []
    about += [f"{entry['messages']} messages"] if "messages" in entry else []
    about += [str(entry["outcome"])] if "outcome" in entry else []
    about += [f"{entry['examples']} examples"] if entry.get("examples") else []
    about += [_pairs(entry["metrics"])] if entry.get("metrics") else []
    about += [str(entry["detail"])] if entry.get("detail") else []
    words = printable("  ".join(about))  # the server names runs and apps
    return f"{entry['at']}  {entry['kind']:13}{entry['bytes']:>12,} B  {entry['sha256'][:12]}  {words}".rstrip()


def _pairs(metrics: dict[str, Any]) -> str:
    return " ".join(
        f"{name}={value:.6g}" if isinstance(value, float) else f"{name}={value}" for name, value in metrics.items()
    )


def verified(file: Path, head: str) -> Verdict:
    try:
        last = ledger.verify(file, head)
    except BrokenChain as broken:
        return False, [f"{file} is broken. {broken}"]
    if last is None:
        return True, [f"{file} has no entries: nothing has left this machine."]
    return True, [
        f"{last['seq']:,} entries, the last of {last['at']}; the chain is whole.",
        f"Hash of the last one: {last['hash']}",
        "Note it down. Later, fedagent log --verify --head HASH tells whether all of today's entries are still there.",
    ]


def compared(file: Path, receipt: Path) -> Verdict:
    """Updates that the server says it has counted, each against the log. Raises `ConfigurationError` for what is no receipt."""
    sent: dict[tuple[str, int], set[str]] = {}
    for entry in _entries(file):
        if entry.get("kind") == "update" and entry.get("task") == "train":
            sent.setdefault((str(entry["run"]), int(entry["round"])), set()).add(entry["sha256"])
    counted = _counted(receipt)
    lines = [
        f"Run {run} round {number}: the server counted {sha256}, which this machine has never sent."
        for run, number, sha256 in counted
        if sha256 not in sent.get((run, number), set())
    ]
    known = {(run, number) for run, number, _ in counted}
    uncounted = sum(key not in known for key in sent)
    alike = len(counted) - len(lines)
    told = f"{alike:,} of {len(counted):,} updates of the server's receipt are in the log with the same SHA-256."
    rest = f" {uncounted:,} rounds' updates were sent and aren't in the receipt." if uncounted else ""
    return not lines, [*lines, told + rest]


def _counted(receipt: Path) -> list[tuple[str, int, str]]:
    try:
        updates = json.loads(receipt.read_text())["updates"]
        return [(str(update["run"]), int(update["round"]), str(update["sha256"])) for update in updates]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{receipt} is no receipt ({error}). The operator downloads one from the client's page."
        ) from error
