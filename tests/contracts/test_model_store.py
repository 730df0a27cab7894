"""What every model store must do: a folder, and S3 as a real server on loopback speaks it."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from moto.server import ThreadedMotoServer
from safetensors.numpy import load, save

from aggregator.checkpoints import CheckpointStore, CorruptCheckpoint, files_of, model_of
from aggregator.files import Files, FolderFiles
from aggregator.ports import StoreUnavailable
from aggregator.s3 import S3Files
from protos.tensors import DTYPES, Parameters

MODEL: Parameters = {
    "z.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a.steps": np.array(12, np.int64),
    "mask": np.array([True, False]),
    "half": np.ones(3, np.float16),
}
STATE: Parameters = {"momentum/z.weight": np.linspace(0, 1, 6, dtype=np.float32), "steps": np.array(3, np.int64)}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:unclosed:ResourceWarning")


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["folder", "s3"])
def files(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    if request.param == "folder":
        return FolderFiles(tmp_path)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tests")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "tests")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    bucket = f"tests-{secrets.token_hex(4)}"
    store = S3Files(bucket, "models/", request.getfixturevalue("s3"))
    store._system.mkdir(bucket)
    return store


@pytest.fixture
def store(files: Files) -> CheckpointStore:
    return CheckpointStore(files)


async def test_a_model_and_its_state_come_back_in_the_order_of_the_signature(store: CheckpointStore) -> None:
    record = await store.save(7, 3, MODEL, STATE, {"app": "x 1"})
    for saved, back in ((MODEL, await store.load(record)), (STATE, await store.load_state(record))):
        assert {n: (a.dtype, a.shape, a.tobytes()) for n, a in back.items()} == {
            n: (a.dtype, a.shape, a.tobytes()) for n, a in saved.items()
        }
    assert list(await store.load(record)) == list(MODEL)
    assert await store.load_state(await store.save(7, 4, MODEL, {}, {})) == {}


async def test_the_file_is_plain_safetensors_with_a_manifest_beside_it(store: CheckpointStore, files: Files) -> None:
    record = await store.save(7, 3, MODEL, {}, {"parent": {"round": 2}})
    np.testing.assert_array_equal(load(files.read(record.key))["z.weight"], MODEL["z.weight"])
    manifest = json.loads(files.read(files_of(record.key)[2]))
    assert (manifest["sha256"], manifest["parent"]) == (record.sha256, {"round": 2})
    assert manifest["tensors"][0] == {"name": "z.weight", "dtype": "float32", "shape": [2, 3]}
    found = list(files.listing())
    assert {model_of(file.key) for file in found} == {record.key}
    assert {file.size for file in found if file.key == record.key} == {record.size}
    assert all(abs(datetime.now(UTC) - file.modified_at) < timedelta(minutes=5) for file in found)


async def test_the_file_is_what_the_library_would_write(store: CheckpointStore, files: Files) -> None:
    shapes: tuple[tuple[int, ...], ...] = ((), (3,), (2, 3), (0,))
    model = {f'ü {n}/{dtype} "{n}"': np.zeros(shape, dtype) for dtype in DTYPES for n, shape in enumerate(shapes)}
    model |= {"turned": np.arange(6.0).reshape(2, 3).T, "b": np.arange(2), "B": np.arange(3)}
    record = await store.save(7, 3, model, {}, {})
    assert files.read(record.key) == save({name: np.ascontiguousarray(a).reshape(a.shape) for name, a in model.items()})
    assert record.sha256 == hashlib.sha256(files.read(record.key)).hexdigest()


async def test_who_has_lost_a_run_writes_over_nothing(store: CheckpointStore) -> None:
    committed = await store.save(7, 3, MODEL, STATE, {})
    await store.save(7, 3, MODEL | {"half": np.zeros(3, np.float16)}, {}, {})
    assert (await store.load(committed))["half"].sum() == 3
    assert await store.load_state(committed)


async def test_a_changed_or_missing_file_is_found(store: CheckpointStore, files: Files) -> None:
    record = await store.save(7, 3, MODEL, STATE, {})
    data = bytearray(files.read(record.key))
    data[-1] ^= 1
    files.write(record.key, bytes(data))
    with pytest.raises(CorruptCheckpoint, match="SHA-256"):
        await store.load(record)
    for key in files_of(record.key):
        files.delete(key)
        files.delete(key)
    for load_it in (store.load, store.load_state):
        with pytest.raises(CorruptCheckpoint, match="can't be read"):
            await load_it(record)
    with pytest.raises(FileNotFoundError):
        files.open(record.key).read()
    assert not list(files.listing())


async def test_a_file_is_read_part_by_part(files: Files) -> None:
    files.write("run-1/round-1.safetensors", b"x" * 3_000_000)
    with files.open("run-1/round-1.safetensors") as file:
        assert (len(file.read(1_000_000)), len(file.read())) == (1_000_000, 2_000_000)
    assert files.place("run-1/a").endswith("run-1/a")


async def test_a_full_disk_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    store = CheckpointStore(FolderFiles(tmp_path))
    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(StoreUnavailable, match="No space left on device"):
        await store.save(7, 3, MODEL, STATE, {})
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_bucket_that_is_gone_is_told(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tests")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "tests")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with pytest.raises(StoreUnavailable, match="s3://removed fails"):
        S3Files("removed", "", s3).write("a", b"b")


async def test_a_server_that_is_away_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tests")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "tests")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    files = S3Files("nowhere", "", "http://127.0.0.1:1")
    calls: list[Callable[[], object]] = [
        lambda: files.read("a"),
        lambda: files.write("a", b""),
        files.listing().__next__,
    ]
    for call in calls:
        with pytest.raises(StoreUnavailable, match="s3://nowhere fails"):
            call()
