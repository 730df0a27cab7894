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
    """Checkpoints in a folder: `run-<id>/round-<number>.safetensors`, and the same name with `.json`; beside them, where the
    server optimiser keeps one, its state as `round-<number>.state.safetensors`.

    A file is written under a temporary name, flushed to the disk and renamed, so that a reader sees all of it or nothing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def save(
        self, run_id: int, round_number: int, parameters: Parameters, state: Parameters, manifest: Mapping[str, Any]
    ) -> ModelRecord:
        return await asyncio.to_thread(self._save, run_id, round_number, parameters, state, manifest)

    async def load(self, record: ModelRecord) -> Parameters:
        return await asyncio.to_thread(self._load, record)

    async def load_state(self, record: ModelRecord) -> Parameters:
        return await asyncio.to_thread(self._load_state, record)

    def _save(
        self, run_id: int, round_number: int, parameters: Parameters, state: Parameters, manifest: Mapping[str, Any]
    ) -> ModelRecord:
        key = f"run-{run_id}/round-{round_number}.safetensors"
        path = self._folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        sha256, size = _write_tensors(path, parameters)
        content = {
            **manifest,
            "run": run_id,
            "round": round_number,
            "file": path.name,
            "sha256": sha256,
            "size": size,
            "tensors": Signature.of(parameters).to_json(),
        }
        if state:
            content["state"] = {"sha256": _write_tensors(_state_of(path), state)[0]}
        _write_durably(path.with_suffix(".json"), json.dumps(content, indent=2).encode())
        return ModelRecord(run_id, round_number, key, sha256, size)

    def _load(self, record: ModelRecord) -> Parameters:
        path = self._folder / record.key
        arrays = _read_tensors(path, record.sha256)
        # safetensors sorts by dtype; the manifest has the order of the signature.
        return {tensor["name"]: arrays[tensor["name"]] for tensor in _manifest(path)["tensors"]}

    def _load_state(self, record: ModelRecord) -> Parameters:
        path = self._folder / record.key
        state = _manifest(path).get("state")
        return _read_tensors(_state_of(path), state["sha256"]) if state else {}


def _state_of(path: Path) -> Path:
    return path.with_suffix(".state.safetensors")


def _manifest(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
    except (OSError, ValueError) as error:
        raise CorruptCheckpoint(f"The manifest of {path.name} can't be read: {error}.") from error
    return content


def _write_tensors(path: Path, tensors: Parameters) -> tuple[str, int]:
    """SHA-256 and size of the file."""
    data = save({name: np.asarray(array, order="C") for name, array in tensors.items()})
    _write_durably(path, data)
    return hashlib.sha256(data).hexdigest(), len(data)


def _read_tensors(path: Path, sha256: str) -> Parameters:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CorruptCheckpoint(f"{path.name} can't be read: {error}.") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise CorruptCheckpoint(f"{path.name} has been changed since it was written: its SHA-256 differs.")
    return dict(load(data))


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
