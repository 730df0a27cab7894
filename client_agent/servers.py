"""Where the server is to be found: at the address of the enrolment, and at those that it has named since."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable
from pathlib import Path

from client_agent.identity import replace_private
from protos import limits

log = logging.getLogger(__name__)

_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z][0-9A-Za-z.-]*):[0-9]{1,5}")


class Servers:
    """One address after the other, and from the last to the first. They are kept in `file`, for an agent that begins anew.

    Whoever answers there still has to show a certificate of the federation's authority, for the name in the address.
    """

    def __init__(self, file: Path, enrolled: str) -> None:
        self._file, self._enrolled = file, enrolled
        self._addresses = self._with_enrolled(_stored(file))
        self._place = self._tried = 0

    @property
    def address(self) -> str:
        return self._addresses[self._place]

    @property
    def all(self) -> tuple[str, ...]:
        return self._addresses

    def answered(self) -> None:
        """The server is here."""
        self._tried = 0

    def try_next(self) -> bool:
        """Go on to the next address. False when each has been tried by now, so that it is time for a pause."""
        self._place = (self._place + 1) % len(self._addresses)
        self._tried = (self._tried + 1) % len(self._addresses)
        return self._tried != 0

    def learn(self, named: Iterable[object]) -> None:
        """The server's own list, in place of the one before; the address in use stays the one in use."""
        fit = [
            one
            for one in named
            if isinstance(one, str) and len(one) <= limits.MAX_ADDRESS_LENGTH and _ADDRESS.fullmatch(one)
        ]
        addresses, present = self._with_enrolled(fit[: limits.MAX_SERVERS]), self.address
        if addresses == self._addresses:
            return
        self._addresses = addresses if present in addresses else (*addresses, present)
        self._place = self._addresses.index(present)
        log.info("The server may be found at %s", ", ".join(self._addresses))
        try:
            replace_private(self._file, json.dumps(list(addresses)).encode())
        except OSError as error:  # they are known as long as the agent runs
            log.warning("%s can't be written: %s", self._file, error.strerror)

    def _with_enrolled(self, addresses: Iterable[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*addresses, self._enrolled)))


def _stored(file: Path) -> list[str]:
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return []
    return [one for one in content if isinstance(one, str)] if isinstance(content, list) else []
