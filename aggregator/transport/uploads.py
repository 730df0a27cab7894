"""Uploads in parts, in files: neither a cut connection nor a restart of the server costs more than what was in flight."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import logging
import mmap
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import BinaryIO

from aggregator.hub import UpdateRefused
from aggregator.transport.pace import TransferLimits
from protos import limits
from protos.fedui.v1 import transfer_pb2
from protos.packing import unpack

logger = logging.getLogger(__name__)

BATCH_BYTES = limits.QUICK_CHUNK_BYTES
"""Written and hashed at a time, in a thread, while the next chunks arrive."""
BATCH_PIECES = 64
"""Each takes some memory of its own: small chunks don't gather for long."""
SMALL_BYTES = 4 * 1024**2
"""An update of at most so many bytes needs no file unless its stream is cut."""
SUFFIX = ".part"
LOCK = "lock"


class SpoolFull(Exception):
    """There is no room for another partial upload now; there may be later."""


class Damaged(Exception):
    """What is in the folder is not what had been sent. The upload begins anew."""


class EndedEarly(UpdateRefused):
    """Not all has come: of a sender that has hung up, or whose connection was cut. What came is kept."""


@contextmanager
def upload_folder(parent: Path | None) -> Iterator[Path]:
    """A folder that is this process's alone, and was an earlier one's of those that have ended; for good under `parent`.

    Whoever could write to a file that has been checked could bring anything into a model: hence no two engines in one folder.
    """
    if parent is None:
        with tempfile.TemporaryDirectory(prefix="fedui-uploads-") as temporary:
            yield Path(temporary)
        return
    for number in count():
        folder = parent / str(number)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(folder) as held:
            if held:
                yield folder
                return


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Whether no other process has `folder`; none takes it meanwhile."""
    with (folder / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True


class PartialUpload:
    """One upload. Its file never grows beyond the size that its header declared and the run's model allows.

    One that is `in_memory` gets its file when its stream ends too soon.
    """

    def __init__(self, path: Path, size: int, sha256: str, *, in_memory: bool = False) -> None:
        """Goes on with what the file holds already, which takes time: it is hashed."""
        self.path, self.size, self.sha256 = path, size, sha256
        self.busy = False
        self.received = 0
        """Bytes, those included that are still to be written."""
        self._found = 0
        self._hash = hashlib.sha256()
        self._batch: list[memoryview] = []
        self._batch_bytes = 0
        self._held: list[memoryview] | None = None
        self._file: BinaryIO | None = None
        self._writing: asyncio.Task[None] | None = None
        if path.exists() and path.stat().st_size <= size:
            self._hash_file()
        elif in_memory:
            self._held = []
        else:
            path.write_bytes(b"")

    @property
    def in_memory(self) -> bool:
        return self._held is not None

    async def take(self, data: memoryview) -> None:
        """Raises `OSError` when the disk is full."""
        if len(data) > limits.QUICK_CHUNK_BYTES:
            raise UpdateRefused(f"A chunk holds at most {limits.QUICK_CHUNK_BYTES:,} bytes, not {len(data):,}.")
        if self.received + len(data) > self.size:
            raise UpdateRefused(f"More bytes arrived than the {self.size:,} that were declared.")
        self._batch.append(data)
        self._batch_bytes += len(data)
        self.received += len(data)
        if self._batch_bytes >= BATCH_BYTES or len(self._batch) >= BATCH_PIECES:
            await self._write_batch()

    async def settle(self) -> None:
        """Returns when all that has arrived is in the file, which is closed then; or all of the update is there, in memory."""
        try:
            await self._write_batch(let_go=self.in_memory and self.received < self.size)
            await self._written()
        finally:
            at_work = self._writing and not self._writing.done()  # whoever is cancelled leaves the thread so
            if self._file and not at_work:
                self._file.close()
                self._file = None

    def check_size(self) -> None:
        """Raises `EndedEarly`."""
        if self.received != self.size:
            raise EndedEarly(f"The upload ended after {self.received:,} of {self.size:,} bytes.")

    async def whole(self) -> memoryview:
        """The bytes, once all are there: a view of the file, which loses its name. Raises `UpdateRefused` or `Damaged`."""
        await self.settle()
        self.check_size()
        if self._hash.hexdigest() != self.sha256:
            if self._found:
                raise Damaged("What had been kept of the update was damaged: send it again.")
            raise UpdateRefused("The update was damaged on its way: its SHA-256 is not the declared one.")
        if not self.size:
            return memoryview(b"")
        if self._held is not None:
            held, self._held = self._held, None
            return memoryview(await asyncio.to_thread(b"".join, held))
        with self.path.open("rb") as file:
            content = memoryview(mmap.mmap(file.fileno(), self.size, access=mmap.ACCESS_READ))
        self.path.unlink()
        return content

    def _hash_file(self) -> None:
        with self.path.open("rb") as file:
            while block := file.read(BATCH_BYTES):
                self._hash.update(block)
                self._found += len(block)
        self.received = self._found

    async def _write_batch(self, *, let_go: bool = False) -> None:
        await self._written()
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        if batch or let_go:
            self._writing = asyncio.create_task(asyncio.to_thread(self._append, batch, let_go))

    async def _written(self) -> None:
        if self._writing:
            await asyncio.wait({self._writing})  # a call that is cancelled must not take the batch with it
            self._writing.result()

    def _append(self, batch: Sequence[memoryview], let_go: bool) -> None:
        """`let_go`: of what is in memory, to the file."""
        for data in batch:
            self._hash.update(data)
        if self._held is None:
            self._write(batch)
            return
        self._held += batch
        if let_go:
            self.path.write_bytes(b"")
            self._write(self._held)
            self._held = None

    def _write(self, batch: Sequence[memoryview]) -> None:
        self._file = self._file or self.path.open("ab", buffering=0)
        for data in batch:
            written = 0
            while written < len(
                data
            ):  # a disk that is filling up takes the first part, and tells no error before the second
                written += self._file.write(data[written:])


class Uploads:
    """The uploads of open assignments, and what is left of earlier ones in the folder."""

    def __init__(self, folder: Path, limits: TransferLimits) -> None:
        self._folder, self._limits = folder, limits
        self._partials: dict[str, PartialUpload] = {}
        self._names: dict[str, str] = {}  # of each task, the name of its partial upload
        self._taken: dict[str, str] = {}  # of each task, the SHA-256 of the update that was taken in
        self.sweep(set())

    def status(self, owner: str, request: transfer_pb2.GetUploadRequest) -> transfer_pb2.UploadStatus:
        """`owner` is whose upload it is: of this client, in this run."""
        complete = request.task_id in self._taken
        received = 0 if complete else self._received(owner, request)
        return transfer_pb2.UploadStatus(
            received=received, complete=complete, announces_turn=True, largest_chunk=limits.QUICK_CHUNK_BYTES
        )

    def is_taken(self, header: transfer_pb2.UploadHeader) -> bool:
        """Raises `UpdateRefused` if another one was."""
        taken = self._taken.get(header.task_id, header.sha256)
        if taken != header.sha256:
            raise UpdateRefused("Another update has been sent for this task before.")
        return header.task_id in self._taken

    async def begin(self, owner: str, header: transfer_pb2.UploadHeader, expected_size: int) -> PartialUpload:
        """The upload that the header continues, or a new one. Raises `UpdateRefused` or `SpoolFull` if it can't be.

        `expected_size` is the update's when it isn't packed; packed, it is smaller.
        """
        if header.encoding.packing and not 0 < header.size < expected_size:
            raise UpdateRefused(
                f"The packed update has {header.size:,} bytes; it would have {expected_size:,} as it is, and is to be smaller."
            )
        if not header.encoding.packing and header.size != expected_size:
            raise UpdateRefused(
                f"The update has {header.size:,} bytes; the run's model has {expected_size:,} as it is to be sent."
            )
        name = _name(owner, header.sha256)
        self._forget(self._names.get(header.task_id, name), unless=name)
        upload = self._partials.get(name)
        if upload is None or upload.size != header.size:
            path = self._folder / name
            self._make_room(header.size, path)
            held = sum(upload.size for upload in self._partials.values() if upload.in_memory)
            in_memory = header.size <= min(SMALL_BYTES, self._limits.held_bytes - held)
            upload = await asyncio.to_thread(PartialUpload, path, header.size, header.sha256, in_memory=in_memory)
            self._partials[name] = upload
        self._names[header.task_id] = name
        if header.offset > header.size:
            raise UpdateRefused(f"The upload goes on at byte {upload.received:,}, not {header.offset:,}.")
        if header.offset > upload.received:  # it made room for others while its sender waited
            raise Damaged("What had been kept of the update is gone: send it again.")
        upload.busy = True
        return upload

    def unpacked(self, packed: memoryview, size: int) -> memoryview:
        """A view of a file without a name. Takes time. Raises `CodecError` where there aren't `size` bytes, `OSError` on a full disk."""
        with tempfile.TemporaryFile(dir=self._folder) as file:
            for block in unpack(packed, size):
                file.write(block)
            file.flush()
            return memoryview(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ))

    async def pause(self, upload: PartialUpload) -> None:
        """Its stream has ended."""
        try:
            await upload.settle()
        except OSError:
            self._forget(upload.path.name)
            raise
        finally:
            upload.busy = False

    def complete(self, task_id: str, upload: PartialUpload) -> None:
        """It is part of its round. What stays is the knowledge that it came."""
        self._forget(upload.path.name)
        self._taken[task_id] = upload.sha256

    def discard(self, task_id: str) -> None:
        if name := self._names.pop(task_id, None):
            self._forget(name)

    def sweep(self, open_tasks: set[str]) -> bool:
        """Forget the uploads of tasks that have been over for a while. False if nothing is left that will have to go."""
        for record in (self._names, self._taken):
            for task_id in record.keys() - open_tasks:
                del record[task_id]
        wanted = {*self._names.values(), *(name for name, upload in self._partials.items() if upload.busy)}
        for path in self._too_old(self._folder):
            if path.name not in wanted:
                self._forget(path.name)
        # One whose stream was cut twice over may have no file yet. What it holds would count for ever.
        for name in [name for name, upload in self._partials.items() if upload.in_memory and name not in wanted]:
            self._forget(name)
        return any(self._folder.glob(f"*{SUFFIX}")) | self._sweep_abandoned()

    def _sweep_abandoned(self) -> bool:
        """The same in the folders of engines that have ended, which may never start again. True if something is left there."""
        left = False
        for lock in self._folder.parent.glob(f"*/{LOCK}"):
            if lock.parent != self._folder and (self._folder / LOCK).exists():
                with _locked(lock.parent) as held:
                    for path in self._too_old(lock.parent) if held else ():
                        path.unlink()
                    left |= held and any(lock.parent.glob(f"*{SUFFIX}"))
        return left

    def _too_old(self, folder: Path) -> list[Path]:
        now = time.time()
        return [p for p in folder.glob(f"*{SUFFIX}") if now - p.stat().st_mtime > self._limits.keep_seconds]

    def _received(self, owner: str, request: transfer_pb2.GetUploadRequest) -> int:
        """Agents of protocol 1.1 don't tell which update they have."""
        name = _name(owner, request.sha256) if request.sha256 else self._names.get(request.task_id, "")
        if upload := self._partials.get(name):
            return upload.received
        path = self._folder / name
        return path.stat().st_size if path.is_file() else 0

    def _make_room(self, size: int, own: Path) -> None:
        """What nobody is sending goes first, the oldest first."""
        busy = {upload.path: upload.size for upload in self._partials.values() if upload.busy}
        idle = {path: path.stat() for path in self._folder.glob(f"*{SUFFIX}") if path not in busy and path != own}
        total = size + sum(busy.values()) + sum(stat.st_size for stat in idle.values())
        for path in sorted(idle, key=lambda path: idle[path].st_mtime):
            if total <= self._limits.spool_bytes:
                break
            total -= idle[path].st_size
            self._forget(path.name)
        if total > self._limits.spool_bytes:
            raise SpoolFull("The server has no room for more uploads now.")

    def _forget(self, name: str, unless: str = "") -> None:
        if name != unless:
            self._partials.pop(name, None)
            (self._folder / name).unlink(missing_ok=True)


def _name(owner: str, sha256: str) -> str:
    return hashlib.sha256(f"{owner}|{sha256}".encode()).hexdigest()[:32] + SUFFIX
