"""The log of what left: what is written, and that nothing in it can be changed unseen."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from client_agent.departure_log import as_text
from client_agent.errors import ConfigurationError
from client_agent.ledger import BrokenChain, Ledger, entries, verify

if sys.platform != "win32":
    import resource


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "log.jsonl"


def filled(file: Path, number: int = 4) -> list[str]:
    """The hashes of `number` entries."""
    ledger = Ledger(file)
    return [ledger.append({"kind": "update", "value": 0.1 * n, "text": "größer\u2028"})["hash"] for n in range(number)]


def test_entries_are_numbered_chained_and_only_their_owners(file: Path) -> None:
    hashes = filled(file)
    found = list(entries(file))
    assert [entry["seq"] for entry in found] == [1, 2, 3, 4]
    assert [entry["previous"] for entry in found[1:]] == hashes[:-1]
    assert file.stat().st_mode & 0o777 == 0o600
    last = verify(file)
    assert last and last["hash"] == hashes[-1]


def test_another_process_and_a_restart_continue_the_chain(file: Path) -> None:
    first, second = Ledger(file), Ledger(file)
    writers = [
        threading.Thread(target=lambda ledger=ledger: [ledger.append({"kind": "x"}) for _ in range(20)])
        for ledger in (first, second)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    last = verify(file)
    assert last and last["seq"] == 40


def _changed(lines: list[str]) -> list[str]:
    return [lines[0], lines[1].replace('"update"', '"result"'), *lines[2:]]


def _rehashed(lines: list[str]) -> list[str]:
    """Changed with care: the entry's own hash fits again."""
    import hashlib

    entry = json.loads(lines[1]) | {"kind": "result"}
    del entry["hash"]
    text = json.dumps(entry, sort_keys=True, separators=(",", ":"))
    entry["hash"] = hashlib.sha256(text.encode()).hexdigest()
    return [lines[0], json.dumps(entry, sort_keys=True, separators=(",", ":")), *lines[2:]]


@pytest.mark.parametrize(
    ("tamper", "place"),
    [
        (_changed, "Line 2 was changed"),
        (_rehashed, "Line 3 doesn't follow"),
        (lambda lines: [lines[0], *lines[2:]], "Line 2 doesn't follow"),
        (lambda lines: lines[1:], "Line 1 doesn't follow"),
        (lambda lines: [lines[1], lines[0], *lines[2:]], "Line 1 doesn't follow"),
        (lambda lines: [*lines, lines[-1]], "Line 5 doesn't follow"),
        (lambda lines: [lines[0].replace("{", "{ "), *lines[1:]], "Line 1 was changed"),
        (lambda lines: [*lines[:3], "scribble"], "Line 4 was changed"),
    ],
)
def test_tampering_is_found(file: Path, tamper: Callable[[list[str]], list[str]], place: str) -> None:
    filled(file)
    file.write_text("".join(line + "\n" for line in tamper(file.read_text().splitlines())))
    with pytest.raises(BrokenChain, match=place):
        verify(file)


def test_a_hash_that_was_noted_down_finds_what_was_cut_off(file: Path) -> None:
    hashes = filled(file)
    assert verify(file, hashes[-1][:16])
    file.write_text("".join(line + "\n" for line in file.read_text().splitlines()[:3]))
    assert verify(file)
    with pytest.raises(BrokenChain, match="cut off"):
        verify(file, hashes[-1])


def test_an_entry_that_a_crash_left_half_written_is_no_entry(file: Path) -> None:
    hashes = filled(file)
    with file.open("a") as log:
        log.write('{"seq":5,"kind":"upd')
    last = verify(file)
    assert last and last["hash"] == hashes[-1]
    assert Ledger(file).append({"kind": "hello"})["previous"] == hashes[-1]
    last = verify(file)
    assert last and last["seq"] == 5


def test_a_log_that_cannot_be_added_to_says_so(file: Path) -> None:
    file.write_text("scribble\n")
    with pytest.raises(ConfigurationError, match="nothing leaves this machine unlisted"):
        Ledger(file).append({"kind": "hello"})
    file.unlink()
    file.mkdir()
    with pytest.raises(ConfigurationError, match="nothing leaves this machine unlisted"):
        Ledger(file).append({"kind": "hello"})


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of a file's size there")
def test_an_entry_that_the_disk_takes_half_of_is_an_error_and_no_entry(file: Path) -> None:
    filled(file)
    size, usual = file.stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, usual[1]))
    try:
        with pytest.raises(ConfigurationError, match="nothing leaves this machine unlisted"):
            Ledger(file).append({"kind": "update"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert Ledger(file).append({"kind": "update"})["seq"] == 5
    last = verify(file)
    assert last and last["seq"] == 5


@pytest.mark.parametrize("length", [1, 65_000, 65_536, 300_000])
def test_entries_of_any_length_are_found_again(file: Path, length: int) -> None:
    ledger = Ledger(file)
    for _ in range(3):
        ledger.append({"kind": "x", "text": "a" * length})
    with file.open("ab") as opened:
        opened.write(b'{"half": "' + b"b" * length)
    ledger.append({"kind": "y"})
    last = verify(file)
    assert last and last["seq"] == 4


def test_what_a_server_names_gives_no_orders_to_the_terminal() -> None:
    entry = {
        "at": "now",
        "kind": "result",
        "bytes": 1,
        "sha256": "0" * 64,
        "run": "\x1b]0;x\x07",
        "round": 1,
        "task": "train",
    }
    assert as_text(entry).isprintable()
