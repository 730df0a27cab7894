"""Global models on disk: one safetensors file a committed round, and beside it a manifest that says what it is."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from aggregator.ports import ModelRecord
from protos.tensors import Parameters, Signature


class CorruptCheckpoint(Exception):
    """A stored model that is missing or is not the one that was recorded."""


class FolderModelStore:
    """Checkpoints in a folder: `run-<id>/round-<number>.safetensors` and the same name with `.json`.

    A file is written under a temporary name, flushed to the disk and renamed, so that a reader sees all of it or nothing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def save(
        self, run_id: int, round_number: int, parameters: Parameters, manifest: Mapping[str, Any]
    ) -> ModelRecord:
        return await asyncio.to_thread(self._save, run_id, round_number, parameters, manifest)

    async def load(self, record: ModelRecord) -> Parameters:
        return await asyncio.to_thread(self._load, record)

    def _save(self, run_id: int, round_number: int, parameters: Parameters, manifest: Mapping[str, Any]) -> ModelRecord:
        data = save({name: np.asarray(array, order="C") for name, array in parameters.items()})
        sha256 = hashlib.sha256(data).hexdigest()
        key = f"run-{run_id}/round-{round_number}.safetensors"
        path = self._folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_durably(path, data)
        content = {
            **manifest,
            "run": run_id,
            "round": round_number,
            "file": path.name,
            "sha256": sha256,
            "size": len(data),
            "tensors": Signature.of(parameters).to_json(),
        }
        _write_durably(path.with_suffix(".json"), json.dumps(content, indent=2).encode())
        return ModelRecord(run_id, round_number, key, sha256, len(data))

    def _load(self, record: ModelRecord) -> Parameters:
        path = self._folder / record.key
        try:
            data = path.read_bytes()
        except OSError as error:
            raise CorruptCheckpoint(f"The model of round {record.round_number} can't be read: {error}.") from error
        if hashlib.sha256(data).hexdigest() != record.sha256:
            raise CorruptCheckpoint(f"{path.name} has been changed since it was written: its SHA-256 differs.")
        # safetensors sorts by dtype; the manifest has the order of the signature.
        tensors = json.loads(path.with_suffix(".json").read_text())["tensors"]
        arrays = load(data)
        return {tensor["name"]: arrays[tensor["name"]] for tensor in tensors}


def _write_durably(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
