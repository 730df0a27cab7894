"""Where checkpoints are kept: a folder here, any S3-compatible storage in `aggregator.s3`. Both hold files under keys like
`run-7/round-3.json`, each written as a whole or not at all.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import BinaryIO, Protocol

from aggregator.ports import StoreUnavailable
from protos.wire_forms import Buffer


@dataclass(frozen=True, slots=True)
class StoredFile:
    key: str
    size: int
    modified_at: datetime


class Files(Protocol):
    """All methods raise `StoreUnavailable` where the store itself fails. They block: call them in a thread."""

    def write(self, key: str, *parts: Buffer) -> None:
        """The parts, one after the other. Durable when it returns; a reader sees the old content or the new, never half of it."""
        ...

    def read(self, key: str) -> bytes:
        """Raises `FileNotFoundError`."""
        ...

    def open(self, key: str) -> BinaryIO:
        """To read it part by part. Raises `FileNotFoundError`."""
        ...

    def delete(self, key: str) -> None:
        """What isn't there is deleted already."""
        ...

    def listing(self) -> Iterator[StoredFile]:
        """All there is, also what a crash has left half written."""
        ...

    def place(self, key: str) -> str:
        """Where the file is, for people."""
        ...


class FolderFiles:
    """A file is written under a temporary name, flushed to the disk and renamed, and the folder is flushed after it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, key: str, *parts: Buffer) -> None:
        path = self._folder / key
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        with self._available():
            if not path.parent.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                _flush_folder(path.parent.parent)
            self._check_room(path.parent, sum(memoryview(part).nbytes for part in parts))
            try:
                with temporary.open("wb", buffering=0) as file:
                    for part in parts:
                        _write_all(file, part)
                    os.fsync(file.fileno())
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
            _flush_folder(path.parent)

    def read(self, key: str) -> bytes:
        with self._available():
            return (self._folder / key).read_bytes()

    def open(self, key: str) -> BinaryIO:
        with self._available():
            return (self._folder / key).open("rb")

    def delete(self, key: str) -> None:
        with self._available():
            (self._folder / key).unlink(missing_ok=True)

    def listing(self) -> Iterator[StoredFile]:
        for path in sorted(self._folder.rglob("*")):
            try:
                status = path.stat()
            except FileNotFoundError:  # it was temporary
                continue
            if path.is_file():
                modified_at = datetime.fromtimestamp(status.st_mtime, UTC)
                yield StoredFile(path.relative_to(self._folder).as_posix(), status.st_size, modified_at)

    def place(self, key: str) -> str:
        return str(self._folder / key)

    def _check_room(self, folder: Path, size: int) -> None:
        """Before a byte is written: what fits is written whole."""
        if (free := shutil.disk_usage(folder).free) < size:
            raise StoreUnavailable(
                f"The model store {self._folder} is full: {size:,} bytes are to be written, {free:,} are free."
            )

    @contextmanager
    def _available(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StoreUnavailable(f"The model store {self._folder} fails: {error.strerror}.") from error


def _write_all(file: FileIO, part: Buffer) -> None:
    rest = memoryview(part)
    while rest:
        rest = rest[file.write(rest) :]


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
