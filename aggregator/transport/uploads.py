"""Uploads in parts: what has arrived of each, so that a cut connection costs only what was in flight."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from aggregator.hub import UpdateRefused
from protos import limits
from protos.fedui.v1 import transfer_pb2


@dataclass(slots=True)
class PartialUpload:
    """One upload. Its buffer never grows beyond the size that its header declared and the run's model allows."""

    size: int
    sha256: str
    buffer: bytearray = field(default_factory=bytearray)
    complete: bool = False

    def append(self, data: bytes) -> None:
        if len(data) > limits.CHUNK_BYTES:
            raise UpdateRefused(f"A chunk holds at most {limits.CHUNK_BYTES:,} bytes, not {len(data):,}.")
        if len(self.buffer) + len(data) > self.size:
            raise UpdateRefused(f"More bytes arrived than the {self.size:,} that were declared.")
        self.buffer += data

    def check(self) -> None:
        """Raises `UpdateRefused` unless all bytes are there and are the right ones."""
        if len(self.buffer) != self.size:
            raise UpdateRefused(f"The upload ended after {len(self.buffer):,} of {self.size:,} bytes.")
        if hashlib.sha256(self.buffer).hexdigest() != self.sha256:
            raise UpdateRefused("The update was damaged on its way: its SHA-256 is not the declared one.")


class Uploads:
    """The uploads of open assignments, by task."""

    def __init__(self) -> None:
        self._uploads: dict[str, PartialUpload] = {}

    def get(self, task_id: str) -> PartialUpload | None:
        return self._uploads.get(task_id)

    def begin(self, header: transfer_pb2.UploadHeader, expected_size: int) -> PartialUpload:
        """The upload that the header continues, or a new one. Raises `UpdateRefused` if it can't be."""
        if header.size != expected_size:
            raise UpdateRefused(
                f"The update has {header.size:,} bytes; the run's model has {expected_size:,} as it is to be sent."
            )
        upload = self._uploads.get(header.task_id)
        if upload is None or (upload.sha256 != header.sha256 and not upload.complete):
            upload = self._uploads[header.task_id] = PartialUpload(header.size, header.sha256)
        if upload.sha256 != header.sha256:
            raise UpdateRefused("Another update has been sent for this task before.")
        if header.offset != len(upload.buffer) and not upload.complete:
            raise UpdateRefused(f"The upload goes on at byte {len(upload.buffer):,}, not {header.offset:,}.")
        return upload

    def discard(self, task_id: str) -> None:
        self._uploads.pop(task_id, None)

    def keep_only(self, task_ids: set[str]) -> None:
        """Forget the uploads of tasks that are over."""
        for task_id in self._uploads.keys() - task_ids:
            del self._uploads[task_id]
