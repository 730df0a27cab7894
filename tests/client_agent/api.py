"""The two addresses of the REST API that enrolment uses, served by a thread."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from tests.client_agent.pki import Authority


class EnrolmentApi:
    """Certifies whoever asks, unless `refusal` holds a status and a problem document."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.grpc_address = "127.0.0.1:1"
        self.servers: list[str] = []
        self.refusal: tuple[int, Mapping[str, Any]] | None = None
        self.requests: list[Mapping[str, Any]] = []
        self.answers_before_admission = 0
        self.bundle, self.links = authority.pem, b""
        self.certified_key: ec.EllipticCurvePublicKey | None = None
        self.date: str | None = None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def enrol(self, body: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]]:
        self.requests.append(body)
        return self.answer()

    def answer(self) -> tuple[int, Mapping[str, Any]]:
        """To the last request; also to whoever asks after it."""
        if self.refusal:
            return self.refusal
        if self.answers_before_admission:
            self.answers_before_admission -= 1
            return 202, {"admission": "a-1", "federation": "tests", "ask_again_seconds": 2}
        body = self.requests[-1]
        public_key = x509.load_pem_x509_csr(body["csr_pem"].encode()).public_key()
        assert isinstance(public_key, ec.EllipticCurvePublicKey)
        certificate = self.authority.certify(self.certified_key or public_key, body["name"])
        return 201, {
            "client_id": "c-1",
            "client_name": body["name"],
            "federation": "tests",
            "certificate_pem": certificate.decode(),
            "ca_pem": self.bundle.decode(),
            "grpc_address": self.grpc_address,
            "servers": self.servers,
        }

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/api/v1/ca":
                    self._answer(200, {"ca_pem": api.bundle.decode(), "links_pem": api.links.decode()})
                else:
                    assert self.path == "/api/v1/enroll/a-1"
                    self._answer(*api.answer())

            def do_POST(self) -> None:
                assert self.path == "/api/v1/enroll"
                self._answer(*api.enrol(json.loads(self.rfile.read(int(self.headers["Content-Length"])))))

            def date_time_string(self, timestamp: float | None = None) -> str:
                return api.date or super().date_time_string(timestamp)

            def log_message(self, format: str, *args: object) -> None:
                pass

            def _answer(self, status: int, body: Mapping[str, Any]) -> None:
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json" if status < 400 else "application/problem+json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        return Handler
