"""Places at which a test can hold a round, to do harm to it there. They do nothing unless FEDUI_FAILPOINTS names a folder.

A test arms a place by a file `<name>.<round>` in that folder. Whoever comes there first renames it to `….reached`, and goes on
when the test has removed that.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

_FOLDER = os.environ.get("FEDUI_FAILPOINTS")
_LOOK_SECONDS = 0.02


async def failpoint(name: str, round_number: int) -> None:
    """Wait here for as long as a test wants."""
    if _FOLDER is None:
        return
    armed = Path(_FOLDER) / f"{name}.{round_number}"
    reached = armed.with_name(f"{armed.name}.reached")
    try:
        armed.rename(reached)
    except FileNotFoundError:
        return
    while reached.exists():  # noqa: ASYNC110  # another process removes it
        await asyncio.sleep(_LOOK_SECONDS)
