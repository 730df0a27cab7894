"""A small OpenID Connect provider on loopback, which says yes to everybody it is told of: discovery, authorization code with PKCE, tokens
signed by RS256, keys, userinfo."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

CLIENT_ID, CLIENT_SECRET = "fedui", "the provider's secret"


@dataclass
class OidcProvider:
    """`claims` are of whoever is signed in there, whatever browser comes."""

    claims: dict[str, Any] = field(
        default_factory=lambda: {"sub": "1", "preferred_username": "ada", "email": "ada@example.org"}
    )
    audience: str = CLIENT_ID
    _key: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)
    _tokens: set[str] = field(default_factory=set)

    def __enter__(self) -> OidcProvider:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider._get(self)

            def do_POST(self) -> None:
                provider._post(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _get(self, handler: BaseHTTPRequestHandler) -> None:
        address = urlsplit(handler.path)
        match address.path:
            case "/.well-known/openid-configuration":
                _answer(handler, self._discovery())
            case "/authorize":
                _redirect(handler, self._authorized(dict(parse_qsl(address.query))))
            case "/keys":
                jwk = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self._key.public_key()))
                _answer(handler, {"keys": [jwk | {"kid": "1", "use": "sig", "alg": "RS256"}]})
            case "/userinfo":
                token = handler.headers.get("Authorization", "").removeprefix("Bearer ")
                _answer(
                    handler, self.claims if token in self._tokens else {"error": "invalid_token"}, token in self._tokens
                )
            case _:
                _answer(handler, {}, False)

    def _discovery(self) -> dict[str, Any]:
        ends = {"authorization": "authorize", "token": "token", "userinfo": "userinfo"}
        return {
            "issuer": self.issuer,
            "jwks_uri": f"{self.issuer}/keys",
            "token_endpoint_auth_methods_supported": ["client_secret_post"],
        } | {f"{name}_endpoint": f"{self.issuer}/{path}" for name, path in ends.items()}

    def _authorized(self, asked: dict[str, str]) -> str:
        code = secrets.token_urlsafe()
        self._codes[code] = asked
        return f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"

    def _post(self, handler: BaseHTTPRequestHandler) -> None:
        form = dict(parse_qsl(handler.rfile.read(int(handler.headers["Content-Length"])).decode()))
        asked = self._codes.pop(form.get("code", ""), None)
        if not asked or not _proves(form, asked) or form.get("client_secret") != CLIENT_SECRET:
            _answer(handler, {"error": "invalid_grant"}, False)
            return
        access = secrets.token_urlsafe()
        self._tokens.add(access)
        now = int(time.time())
        said = {"iss": self.issuer, "aud": self.audience, "iat": now, "exp": now + 60, "nonce": asked.get("nonce", "")}
        identity = jwt.encode(self.claims | said, self._key, algorithm="RS256", headers={"kid": "1"})
        _answer(handler, {"access_token": access, "token_type": "Bearer", "expires_in": 60, "id_token": identity})


def _proves(form: dict[str, str], asked: dict[str, str]) -> bool:
    digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == asked.get("code_challenge")


def _answer(handler: BaseHTTPRequestHandler, body: dict[str, Any], good: bool = True) -> None:
    text = json.dumps(body).encode()
    handler.send_response(200 if good else 400)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(text)))
    handler.end_headers()
    handler.wfile.write(text)


def _redirect(handler: BaseHTTPRequestHandler, address: str) -> None:
    handler.send_response(302)
    handler.send_header("Location", address)
    handler.end_headers()
