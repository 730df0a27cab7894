"""What the gRPC server shows in a handshake, always from the authority that issues at that moment."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from aggregator.transport.server import TLSMaterial
from fedui.clients import pki
from fedui.clients.authorities import Trust, trust


def _now() -> datetime:
    return datetime.now(UTC)


class ServerTLS:
    """An `aggregator.transport.server.TLSSource`: a new certificate after each step of a rotation and at two thirds of its life."""

    def __init__(self, hosts: Sequence[str], clock: Callable[[], datetime] = _now) -> None:
        self._hosts = hosts
        self._clock = clock
        self._lock = threading.Lock()
        self._made: tuple[Trust, datetime, TLSMaterial] | None = None

    def __call__(self) -> TLSMaterial:
        with self._lock:
            present, now = trust(), self._clock()
            if self._made is None or self._made[0] is not present or now - self._made[1] > pki.SERVER_LIFE * 2 / 3:
                key, certificate = pki.issue_server_certificate(self._hosts)
                self._made = present, now, TLSMaterial(key, certificate, present.bundle_pem)
            return self._made[2]
