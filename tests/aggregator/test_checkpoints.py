"""Checkpoints on disk."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from aggregator.checkpoints import CorruptCheckpoint, FolderModelStore
from protos.tensors import Parameters

MODEL: Parameters = {
    "z.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a.steps": np.array(12, np.int64),
    "mask": np.array([True, False]),
    "half": np.ones(3, np.float16),
}


async def test_a_model_comes_back_in_the_order_of_its_signature(tmp_path: Path) -> None:
    store = FolderModelStore(tmp_path)
    record = await store.save(7, 3, MODEL, {}, {"app": "x 1"})
    back = await store.load(record)
    assert list(back) == list(MODEL)
    for name, array in MODEL.items():
        assert (back[name].dtype, back[name].shape, back[name].tobytes()) == (array.dtype, array.shape, array.tobytes())


async def test_the_file_is_plain_safetensors_with_a_manifest_beside_it(tmp_path: Path) -> None:
    record = await FolderModelStore(tmp_path).save(7, 3, MODEL, {}, {"parent": {"round": 2}})
    np.testing.assert_array_equal(load_file(tmp_path / record.key)["z.weight"], MODEL["z.weight"])
    manifest = json.loads((tmp_path / record.key).with_suffix(".json").read_text())
    assert manifest["sha256"] == record.sha256
    assert manifest["parent"] == {"round": 2}
    assert manifest["tensors"][0] == {"name": "z.weight", "dtype": "float32", "shape": [2, 3]}
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["round-3.json", "round-3.safetensors"]


async def test_a_changed_or_missing_file_is_found(tmp_path: Path) -> None:
    store = FolderModelStore(tmp_path)
    record = await store.save(7, 3, MODEL, {}, {})
    path = tmp_path / record.key
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptCheckpoint, match="SHA-256"):
        await store.load(record)
    path.unlink()
    with pytest.raises(CorruptCheckpoint, match="can't be read"):
        await store.load(record)


async def test_the_optimizers_state_is_kept_beside_the_model(tmp_path: Path) -> None:
    store = FolderModelStore(tmp_path)
    state: Parameters = {"momentum/z.weight": np.linspace(0, 1, 6, dtype=np.float32), "steps": np.array(3, np.int64)}
    with_state = await store.save(7, 3, MODEL, state, {})
    without = await store.save(7, 4, MODEL, {}, {})
    back = await store.load_state(with_state)
    assert {name: array.tobytes() for name, array in back.items()} == {n: a.tobytes() for n, a in state.items()}
    assert await store.load_state(without) == {}
    (tmp_path / "run-7" / "round-3.state.safetensors").unlink()
    with pytest.raises(CorruptCheckpoint, match="can't be read"):
        await store.load_state(with_state)
