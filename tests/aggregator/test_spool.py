"""Updates that wait in a file for the others."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from aggregator.spool import FileSpool


def test_rows_are_what_was_appended(tmp_path: Path) -> None:
    spool = FileSpool(5, np.dtype("f4"), 3, tmp_path)
    for value in (1, 2):
        spool.append(np.arange(5.0) * value)
    np.testing.assert_array_equal(spool.rows, [np.arange(5.0), np.arange(5.0) * 2])
    spool.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    mounting = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    if subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("this user may mount nothing")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_full_disk_is_an_error_and_ends_no_process(small_disk: Path) -> None:
    spool = FileSpool(2**17, np.dtype("f4"), 4, small_disk)  # rows of half of the disk
    spool.append(np.ones(2**17))
    with pytest.raises(OSError, match="No space left"):
        for _ in range(3):
            spool.append(np.ones(2**17))
    assert np.asarray(spool.rows).min() == 1
    spool.close()
