"""A file in the agent's folder that stops it from working: `fedagent pause` makes it, `fedagent resume` removes it."""

from __future__ import annotations

import json
from pathlib import Path

from client_agent.identity import replace_private
from client_agent.state import now

PAUSED = "Paused by its owner."


def pause(file: Path, reason: str = "") -> None:
    replace_private(file, json.dumps({"since": now(), "reason": reason}).encode())


def resume(file: Path) -> bool:
    """Whether it was paused."""
    was_paused = file.exists()
    file.unlink(missing_ok=True)
    return was_paused


def paused(file: Path) -> str:
    """Why the agent takes no tasks, for the operator; empty if it isn't paused. A file that can't be read pauses too."""
    try:
        reason = json.loads(file.read_text()).get("reason")
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, AttributeError):
        return PAUSED
    return f"Paused by its owner: {str(reason).removesuffix('.')}." if reason else PAUSED
