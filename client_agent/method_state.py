"""What a client keeps from round to round for a run's method and encoding: control variates, personal tensors, what top_k hasn't sent.
It never leaves the machine.

One file a run and round. The server says which round of this client was counted last, and training goes on from
that one, whatever else was trained since and thrown away.
"""

from __future__ import annotations

import logging
import re
import shutil
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from client_agent.errors import TaskRefused
from client_agent.identity import newest_first, replaced_private_file
from protos.tensors import Parameters

log = logging.getLogger(__name__)

KEPT_RUNS = 8
"""The state of this many runs is kept, of those that were worked on last."""

_RUN_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]{0,63}")


class MethodStates:
    """A folder `run-<id>` for each run, with a file `<round>.npz` for each round that may still count."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, run_id: str, counted_round: int) -> Parameters:
        """What was kept in the round that counted last; nothing before the first, or if it is lost."""
        if not counted_round:
            return {}
        path = self._run(run_id) / f"{counted_round}.npz"
        try:
            with np.load(path, allow_pickle=False) as file:
                return dict(file)
        except FileNotFoundError:
            return {}  # the run's method keeps nothing, or this is another machine
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            log.warning("%s can't be read (%s): the method begins anew here", path, error)
            return {}

    def save(self, run_id: str, round_number: int, counted_round: int, kept: Parameters) -> None:
        """Keep the state after a round beside that of the last counted one. Raises `OSError` when the disk is full."""
        folder = self._run(run_id)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with replaced_private_file(folder / f"{round_number}.npz") as file:
            np.savez(file, **kept)  # type: ignore[arg-type]  # its own keyword comes after the arrays in the stubs
        for path in folder.glob("*.npz"):
            if path.stem not in (str(round_number), str(counted_round)):
                path.unlink(missing_ok=True)
        self._forget_old_runs()

    def _forget_old_runs(self) -> None:
        for path, _ in newest_first(self._folder.glob("run-*"))[KEPT_RUNS:]:
            shutil.rmtree(path, ignore_errors=True)

    def _run(self, run_id: str) -> Path:
        if not _RUN_ID.fullmatch(run_id):
            raise TaskRefused("The server's name of the run is not one that this agent can keep files under.")
        return self._folder / f"run-{run_id}"
