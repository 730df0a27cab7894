"""Global models in a store: one safetensors file a committed round, and beside it a manifest that says what it is."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from safetensors.numpy import load

from aggregator.files import Files
from aggregator.ports import ModelRecord
from aggregator.safetensors_parts import parts_of
from protos.tensors import Parameters, Signature

MODEL, STATE, MANIFEST = ".safetensors", ".state.safetensors", ".json"


class CorruptCheckpoint(Exception):
    """A stored model that is missing or is not the one that was recorded."""


class CheckpointStore:
    """Checkpoints as `run-<id>/round-<number>-<sha>.safetensors`, and the same name with `.json`; beside them, where the strategy
    keeps one, its state as `….state.safetensors`.

    Part of the name is the model's SHA-256: an engine that has lost its run and doesn't know it yet can write over nothing.
    """

    def __init__(self, files: Files) -> None:
        self._files = files

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
        parts = parts_of(parameters)
        sha256, size = _hash(parts), sum(map(len, parts))
        key = f"run-{run_id}/round-{round_number}-{sha256[:16]}{MODEL}"
        self._files.write(key, *parts)
        content = {
            **manifest,
            "run": run_id,
            "round": round_number,
            "file": key.rpartition("/")[2],
            "sha256": sha256,
            "size": size,
            "tensors": Signature.of(parameters).to_json(),
        }
        if state:
            parts = parts_of(state)
            self._files.write(_beside(key, STATE), *parts)
            content["state"] = {"sha256": _hash(parts)}
        self._files.write(_beside(key, MANIFEST), json.dumps(content, indent=2).encode())
        return ModelRecord(run_id, round_number, key, sha256, size)

    def _load(self, record: ModelRecord) -> Parameters:
        arrays = self._read_tensors(record.key, record.sha256)
        # safetensors sorts by dtype; the manifest has the order of the signature.
        return {tensor["name"]: arrays[tensor["name"]] for tensor in self._manifest(record.key)["tensors"]}

    def _load_state(self, record: ModelRecord) -> Parameters:
        state = self._manifest(record.key).get("state")
        return self._read_tensors(_beside(record.key, STATE), state["sha256"]) if state else {}

    def _manifest(self, key: str) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads(self._files.read(_beside(key, MANIFEST)))
        except (FileNotFoundError, ValueError) as error:
            raise CorruptCheckpoint(f"The manifest of {key} can't be read: {error}.") from error
        return content

    def _read_tensors(self, key: str, sha256: str) -> Parameters:
        try:
            data = self._files.read(key)
        except FileNotFoundError as error:
            raise CorruptCheckpoint(f"{key} can't be read: it is missing.") from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise CorruptCheckpoint(f"{key} has been changed since it was written: its SHA-256 differs.")
        return dict(load(data))


def files_of(key: str) -> tuple[str, str, str]:
    """The keys of all that may belong to the model `key`."""
    return key, _beside(key, STATE), _beside(key, MANIFEST)


def model_of(key: str) -> str:
    """The key of the model to which the file `key` belongs."""
    for ending in (STATE, MANIFEST):
        if key.endswith(ending):
            return key.removesuffix(ending) + MODEL
    return key


def _beside(key: str, ending: str) -> str:
    return key.removesuffix(MODEL) + ending


def _hash(parts: Sequence[memoryview]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
