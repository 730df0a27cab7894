"""Metrics in Prometheus' text format, and who may read them."""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import logging
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from fedui.environment import host_of
from fedui.metrics.sharing import VARIABLE
from fedui.metrics.state import InstallationState

logger = logging.getLogger(__name__)


def counted() -> CollectorRegistry:
    """What the processes of this kind on this machine have counted together."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        return REGISTRY
    _forget_the_dead(Path(folder))
    registry = CollectorRegistry()
    MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
    return registry


def _forget_the_dead(folder: Path) -> None:
    """Of processes that are gone, what they had in hand; what they have counted stays."""
    for pid in {path.stem.rpartition("_")[2] for path in folder.glob("gauge_live*.db")}:
        with contextlib.suppress(PermissionError):  # it lives, as somebody else's
            try:
                os.kill(int(pid), 0)
            except (ProcessLookupError, ValueError):
                mark_process_dead(int(pid), str(folder))  # type: ignore[no-untyped-call]


def may_read(address: str | None, authorization: str) -> bool:
    """Whoever has the token, and comes from an allowed address: what of both is set must hold. Without either nobody may."""
    token, networks = settings.METRICS_TOKEN, settings.METRICS_NETWORKS
    if token and not hmac.compare_digest(authorization.encode(), f"Bearer {token}".encode()):
        return False
    if networks:
        try:
            found = ipaddress.ip_address(address or "")
        except ValueError:
            return False
        if not any(found.version == network.version and found in network for network in networks):
            return False
    return bool(token or networks)


def metrics(request: HttpRequest) -> HttpResponse:
    """Of the web processes, and of the installation as the database knows it. For others there is nothing here."""
    if request.method not in ("GET", "HEAD") or not may_read(
        request.META.get("REMOTE_ADDR"), request.headers.get("Authorization", "")
    ):
        raise Http404
    installation = CollectorRegistry()
    installation.register(InstallationState())
    text = generate_latest(counted()) + generate_latest(installation)
    return HttpResponse(text, content_type=CONTENT_TYPE_LATEST, headers={"Cache-Control": "no-store"})


class _Handler(BaseHTTPRequestHandler):
    timeout = 10

    def do_GET(self) -> None:  # http.server's name
        allowed = self.path == "/metrics" and may_read(self.client_address[0], self.headers.get("Authorization", ""))
        body = generate_latest(counted()) if allowed else b""
        self.send_response(200 if allowed else 404)
        self.send_header("Content-Type", CONTENT_TYPE_LATEST)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """A line for each scrape is of no use."""


def serve_worker(bind: str) -> ThreadingHTTPServer | None:
    """A worker's own /metrics, in a thread. A port that is taken is logged: a worker works without."""
    host, port = host_of(bind), int(bind.rpartition(":")[2])
    try:
        server = ThreadingHTTPServer((host, port), _Handler)
    except OSError as error:
        logger.error("Metrics can't be served at %s: %s", bind, error.strerror)
        return None
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server
