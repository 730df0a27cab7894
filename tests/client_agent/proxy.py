"""A small HTTP proxy: CONNECT tunnels, and plain requests passed on."""

from __future__ import annotations

import select
import socket
import socketserver
import threading
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import urlsplit


class Proxy:
    """Remembers where it was asked to go. With `credentials`, asks for just these."""

    def __init__(self, credentials: str = "") -> None:
        self.credentials = credentials
        self.tunnels: list[str] = []
        self.requests: list[str] = []
        self.refused = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def port(self) -> int:
        return self._server.server_port

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[socketserver.BaseRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do_CONNECT(self) -> None:
                if proxy.credentials and self.headers.get("Proxy-Authorization") != f"Basic {proxy.credentials}":
                    proxy.refused += 1
                    self.send_error(407)
                    return
                host, _, port = self.path.rpartition(":")
                proxy.tunnels.append(self.path)
                with socket.create_connection((host, int(port))) as onward:
                    self.send_response(200)
                    self.end_headers()
                    _join(self.connection, onward)
                self.close_connection = True

            def do_GET(self) -> None:
                self._pass_on(b"")

            def do_POST(self) -> None:
                self._pass_on(self.rfile.read(int(self.headers["Content-Length"])))

            def _pass_on(self, body: bytes) -> None:
                proxy.requests.append(self.path)
                url = urlsplit(self.path)
                onward = HTTPConnection(url.netloc)
                onward.request(self.command, url.path, body, {"Content-Type": "application/json"})
                answer = onward.getresponse()
                content = answer.read()
                self.send_response(answer.status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                onward.close()

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler


def _join(one: socket.socket, other: socket.socket) -> None:
    """Pass bytes both ways until one side ends."""
    while True:
        readable, _, _ = select.select([one, other], [], [])
        for source in readable:
            data = source.recv(65536)
            if not data:
                return
            (other if source is one else one).sendall(data)
