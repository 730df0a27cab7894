"""The log of what left this machine: a file that only grows, each entry chained to the one before by its hash.

One JSON object a line, its keys sorted, without spaces. `hash` is the SHA-256 of the line without it; `previous` is that of
the line before, so that no entry can be changed, removed, inserted or moved without a trace in all that follow. What
was cut off at the end shows only to who knows the hash of an entry that should be there: note it down from time to time.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from client_agent.errors import ConfigurationError
from client_agent.identity import BINARY

if os.name == "posix":
    import fcntl

BEGINNING = "0" * 64
"""The `previous` of the first entry."""
_TAIL_BYTES = (64 * 1024, 4 * 1024**2)
"""How much of the end is read for the last entry: mostly enough, and more than the longest."""

Entry = dict[str, Any]


class BrokenChain(Exception):
    """The log isn't what was written. The text says where, and what is wrong."""


class Ledger:
    """Appends entries. An entry is on the disk when `append` returns."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def append(self, *entries: Mapping[str, Any]) -> Entry:
        """The last entry as it stands in the log. Raises `ConfigurationError` if they can't be written: then nothing must leave."""
        try:
            descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_APPEND | BINARY, 0o600)
            with os.fdopen(descriptor, "rb+", buffering=0) as file:
                _lock(file)  # `fedagent enroll` and `doctor` write too
                return _append(file, entries)
        except (OSError, ValueError, KeyError) as error:
            raise ConfigurationError(
                f"{self._file} can't be added to ({error}), and nothing leaves this machine unlisted."
            ) from error


def _lock(file: BinaryIO) -> None:
    if os.name == "posix":
        fcntl.flock(file, fcntl.LOCK_EX)


def _append(file: BinaryIO, entries: Sequence[Mapping[str, Any]]) -> Entry:
    last, lines = _last_entry(file), []
    for entry in entries:
        last = _chained(entry, last)
        lines.append(_line(last) + b"\n")
    rest = memoryview(b"".join(lines))
    while rest:  # a disk that is filling up takes the first part and tells no error before the second
        rest = rest[file.write(rest) :]
    os.fsync(file.fileno())
    assert last is not None  # one was given
    return last


def _chained(entry: Mapping[str, Any], last: Entry | None) -> Entry:
    chained = {
        "seq": last["seq"] + 1 if last else 1,
        **entry,
        "previous": last["hash"] if last else BEGINNING,
    }
    chained["hash"] = _hash(chained)
    return chained


def _last_entry(file: BinaryIO) -> Entry | None:
    """Cuts off an entry that a crash has left half written: it was to be on the disk before what it lists left."""
    size = file.seek(0, os.SEEK_END)
    for most in _TAIL_BYTES:
        begin = file.seek(max(0, size - most))
        tail = file.read(size - begin)
        whole = tail[: tail.rfind(b"\n") + 1]
        line = whole[whole.rfind(b"\n", 0, -1) + 1 :]
        if not begin or len(line) < len(whole):
            break
    else:
        raise ValueError("its last line is no entry")
    if len(whole) < len(tail):
        file.truncate(begin + len(whole))
    return _parsed(line) if line else None


def entries(file: Path) -> Iterator[Entry]:
    """All entries, the oldest first, unverified. Raises `BrokenChain` for a line that is none."""
    for number, line in enumerate(_lines(file), start=1):
        try:
            yield _parsed(line)
        except ValueError as error:
            raise BrokenChain(f"Line {number} is no entry: it was changed after it was written.") from error


def verify(file: Path, head: str = "") -> Entry | None:
    """Go through the whole chain; its last entry. `head` is the hash of an entry that must be there, or its beginning.

    Raises `BrokenChain`.
    """
    last: Entry | None = None
    found = not head
    for number, line in enumerate(_lines(file), start=1):
        entry = _verified(number, line, last)
        found = found or str(entry["hash"]).startswith(head)
        last = entry
    if not found:
        raise BrokenChain(f"No entry has the hash {head}: entries were cut off, or the log was begun anew.")
    return last


def _verified(number: int, line: bytes, last: Entry | None) -> Entry:
    try:
        entry = _parsed(line)
        unhashed = {name: value for name, value in entry.items() if name != "hash"}
        genuine = _line(entry) == line and entry["hash"] == _hash(unhashed)
    except (ValueError, KeyError):
        genuine, entry = False, {}
    if not genuine:
        raise BrokenChain(f"Line {number} was changed after it was written.")
    expected = (last["seq"] + 1, last["hash"]) if last else (1, BEGINNING)
    if (entry.get("seq"), entry.get("previous")) != expected:
        raise BrokenChain(f"Line {number} doesn't follow the one before: an entry was removed, inserted or moved.")
    return entry


def _lines(file: Path) -> Iterator[bytes]:
    """A last line without its end was being written when the machine stopped, and lists nothing that left."""
    try:
        with file.open("rb") as opened:
            yield from (line[:-1] for line in opened if line.endswith(b"\n"))
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigurationError(f"{file} can't be read: {error}") from error


def _parsed(line: bytes) -> Entry:
    entry = json.loads(line)
    if not isinstance(entry, dict):
        raise ValueError("not an entry")  # noqa: TRY004  # like what json.loads raises
    return entry


def _hash(entry: Mapping[str, Any]) -> str:
    return hashlib.sha256(_line(entry)).hexdigest()


def _line(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
