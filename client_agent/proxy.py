"""Going out through an HTTP proxy (CONNECT): enrolment by urllib, streams and transfers by gRPC's C core.

Both read the environment, each in its own way; here one wish becomes what both understand. Call before gRPC is imported.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from urllib.parse import urlsplit

LOOPBACK = "localhost,127.0.0.1,::1"
_THEIR_NAMES = ("grpc_proxy", "https_proxy", "http_proxy")


def go_through(proxy: str | None, environment: MutableMapping[str, str]) -> None:
    """`proxy` is the owner's setting. Without one the system's variables count, in capitals too, and loopback is left alone."""
    if proxy:
        for name in _THEIR_NAMES:
            environment[name] = proxy
        for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
            environment.pop(name, None)
        return
    for name in ("https_proxy", "http_proxy", "no_proxy"):
        if name not in environment and (capital := environment.get(name.upper())):
            environment[name] = capital
    exempt = environment.get("no_proxy")
    environment["no_proxy"] = f"{exempt},{LOOPBACK}" if exempt else LOOPBACK


def next_hop(address: str, environment: Mapping[str, str]) -> str:
    """Where a gRPC connection to `address` goes first, as host:port: to the proxy where there is one for it."""
    proxy = next((environment[name] for name in _THEIR_NAMES if environment.get(name)), "")
    host = address.rpartition(":")[0].strip("[]")
    exempt = (part.strip() for part in environment.get("no_proxy", "").split(","))
    if not proxy or any(part and host.endswith(part) for part in exempt):
        return address
    return urlsplit(proxy).netloc.rpartition("@")[2]
