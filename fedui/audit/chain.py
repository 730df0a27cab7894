"""The hash chain of the audit log: what an entry's hash is made of, and what a whole chain must satisfy.

Pure, so that an exported log can be verified far from the database. An entry's hash is the SHA-256 of its canonical content, in which the
hash of its predecessor stands; entries are numbered by `id`, from 1 upwards.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

GENESIS = "0" * 64
"""What stands in the first entry for the hash of its predecessor."""
CONTENT = (
    "id", "at", "federation", "actor", "actor_name", "address", "via", "action", "subject", "details", "before", "after",
    "nonce", "previous_hash",
)  # fmt: skip
MOST_FAULTS = 20
"""That are told of: after the first, people look for themselves."""
_VERSION = 1
WITHHELD = frozenset({"id", "previous_hash", "hash"})
"""What an export holds of entries that its reader may not see: enough to follow the chain. Their nonces keep their hashes from telling
anything about their content."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with the chain, and at which entry."""

    entry: int
    what: str

    def __str__(self) -> str:
        return f"Entry {self.entry}: {self.what}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verification has found. `number` and `head` are of the last entry that was read; of `withheld` entries it saw no content."""

    number: int = 0
    head: str = GENESIS
    entries: int = 0
    faults: tuple[Fault, ...] = ()
    withheld: int = 0

    @property
    def whole(self) -> bool:
        return not self.faults

    def with_faults(self, more: Iterable[Fault]) -> Verdict:
        return replace(self, faults=(*self.faults, *more))


def settled(value: Any) -> Any:
    """`value` as it comes back from any database's JSON: strings for floats that have no plain decimal notation, and for
    whatever JSON doesn't know; no character that PostgreSQL refuses."""
    match value:
        case None | bool() | int():
            return value
        case float():
            return _settled_float(value)
        case Mapping():
            return {text(key): settled(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [settled(item) for item in value]
    return text(value)


def _settled_float(value: float) -> Any:
    written = repr(value)
    if not math.isfinite(value) or "e" in written:
        return written
    return int(value) if value.is_integer() else value


def text(value: object) -> str:
    """`value` in characters that any database stores."""
    return str(value).encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def address(value: str | None) -> str | None:
    """An IP address in its one spelling; None for what is none."""
    try:
        parsed = ipaddress.ip_address((value or "").partition("%")[0])
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return str(mapped or parsed)


def timestamp(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def entry_hash(content: Mapping[str, Any]) -> str:
    """SHA-256, in hexadecimal, of an entry as `CONTENT` lists it: `at` by `timestamp`, identities as text or number."""
    canonical = {"v": _VERSION} | {name: content[name] for name in CONTENT}
    encoded = json.dumps(canonical, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(encoded.encode()).hexdigest()


def verify(entries: Iterable[Mapping[str, Any]], begun: Verdict | None = None) -> Verdict:
    """Walk along `entries` (each as exported: `CONTENT` and `hash`), the oldest first; on from `begun`.

    After a fault the walk goes on from the entry as it stands, so that one changed entry is told of once.
    """
    begun = begun or Verdict()
    number, previous, read, withheld, faults = (
        begun.number,
        begun.head,
        begun.entries,
        begun.withheld,
        list(begun.faults),
    )
    for entry in entries:
        read += 1
        withheld += entry.keys() == WITHHELD
        faults += [Fault(_number(entry), what) for what in _faults_of(entry, previous, number)]
        del faults[MOST_FAULTS:]
        previous, number = str(entry.get("hash")), _number(entry)
    return Verdict(number, previous, read, tuple(faults), withheld)


def _number(entry: Mapping[str, Any]) -> int:
    number = entry.get("id")
    return number if isinstance(number, int) else 0


def _faults_of(entry: Mapping[str, Any], previous: str, number: int) -> Iterator[str]:
    withheld = entry.keys() == WITHHELD
    if not withheld and (missing := [name for name in (*CONTENT, "hash") if name not in entry]):
        yield f"{', '.join(missing)} is missing."
        return
    if _number(entry) <= number:
        yield f"it stands after entry {number}."
    if entry["previous_hash"] != previous:
        yield "it doesn't follow on the entry before: one was removed, inserted or moved here."
    if withheld:
        return
    try:
        fits = entry_hash(entry) == entry["hash"]
    except (TypeError, ValueError):
        fits = False
    if not fits:
        yield "its content isn't what its hash was made of: it was changed."
