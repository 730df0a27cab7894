"""Updates in files: the same numbers as in memory, of which little is there at a time."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import numpy as np
import pytest

from aggregator.core.accumulator import WeightedMean
from aggregator.mapped import WINDOW_BYTES, in_blocks
from protos.encodings import first_non_finite
from protos.tensors import Parameters, Signature, decode, encode

SIZE = 8 * WINDOW_BYTES // 4


def _in_a_file(file: Path, parameters: Parameters) -> Parameters:
    file.write_bytes(encode(parameters))
    with file.open("rb") as opened:
        buffer = memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
    return in_blocks(decode(buffer, Signature.of(parameters)), buffer)


def _resident(file: Path) -> int:
    """Bytes of the file's mapping."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    next(line for line in lines if line.endswith(str(file)))
    return 1024 * int(next(line for line in lines if line.startswith("Rss:")).split()[1])


def test_a_sum_of_what_lies_in_a_file_is_that_of_what_is_in_memory(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    plain: Parameters = {
        "w": random.standard_normal(SIZE, np.float32).reshape(2, -1),
        "n": np.arange(7),
        "v": random.random(5).astype(np.float16),
    }
    mapped = _in_a_file(tmp_path / "update", plain)
    means = []
    for parameters in (plain, mapped):
        assert first_non_finite(parameters) is None
        mean = WeightedMean(Signature.of(plain))
        mean.add(parameters, 3)
        means.append({name: array.tobytes() for name, array in mean.result().items()})
    assert means[0] == means[1]
    if sys.platform == "linux":
        assert 0 < _resident(tmp_path / "update") <= 2 * WINDOW_BYTES < 4 * SIZE


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_number_that_is_none_is_found_in_a_file(tmp_path: Path, bad: float) -> None:
    values = np.zeros(SIZE, np.float32)
    values[-3] = bad
    assert first_non_finite(_in_a_file(tmp_path / "update", {"w": values})) == "w"
