"""The gRPC server that agents connect to: mutual TLS, nothing else."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc import aio

from aggregator.hub import Hub
from aggregator.ports import ClientRegistry
from aggregator.transport.calls import OpenCalls
from aggregator.transport.certificates import IdentityServicer
from aggregator.transport.fleet import FleetServicer
from aggregator.transport.pace import TransferLimits
from aggregator.transport.transfer import TransferServicer, add_transfer_to
from protos import limits
from protos.fedui.v1 import fleet_pb2_grpc, identity_pb2_grpc

logger = logging.getLogger(__name__)

HANDSHAKE_MS = 20_000
"""Who opens a connection and says nothing holds it for so long."""
LOOKAHEAD_BYTES = 4 * 1024 * 1024
"""Of one upload on its way: 40 MiB/s over a line with a round trip of 100 ms."""
IDLE_MS = 120_000
"""A connection without a call is closed; agents open another when they need it."""


@dataclass(frozen=True, slots=True)
class TLSMaterial:
    """PEM: the server's key and certificate chain, and the authorities that clients' certificates must come from."""

    key: bytes
    certificate: bytes
    client_ca: bytes


TLSSource = Callable[[], TLSMaterial]
"""Asked before each handshake, in a thread of gRPC's: certificates and authorities change while the server runs."""


class PortTaken(OSError):
    """The address can't be bound."""


def build_server(
    hub: Hub,
    registry: ClientRegistry,
    calls: OpenCalls,
    tls: TLSSource,
    bind: str,
    uploads: Path,
    transfer_limits: TransferLimits,
) -> tuple[aio.Server, int]:
    """A server, not yet started, and the port that it will listen on. `uploads` is its folder. Raises `PortTaken`."""
    server = aio.server(
        interceptors=[calls],
        options=[
            ("grpc.max_receive_message_length", limits.MAX_MESSAGE_BYTES),
            ("grpc.so_reuseport", 0),  # a second server on the same port is an error, not half of the connections
            ("grpc.keepalive_time_ms", 20_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
            # Without its own probing, which lets 20 MiB and more be under way on a quick line, to be lost with a cut.
            ("grpc.http2.bdp_probe", 0),
            ("grpc.http2.lookahead_bytes", LOOKAHEAD_BYTES),
            ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
            ("grpc.max_connection_idle_ms", IDLE_MS),
            ("grpc.max_concurrent_streams", calls.limits.calls_at_once),
        ],
    )
    fleet_pb2_grpc.add_FleetServicer_to_server(FleetServicer(hub, registry, calls), server)
    transfer = TransferServicer(hub, registry, calls, uploads, transfer_limits)
    add_transfer_to(server, transfer)
    identity_pb2_grpc.add_IdentityServicer_to_server(IdentityServicer(hub, registry), server)
    credentials = _credentials(tls)
    try:
        port = server.add_secure_port(bind, credentials)
    except RuntimeError as error:
        raise PortTaken(f"gRPC can't listen on {bind}: is another server using it? ({error})") from error
    return server, port


def _credentials(tls: TLSSource) -> grpc.ServerCredentials:
    shown = tls()

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        """None: as before."""
        nonlocal shown
        try:
            now = tls()
        except Exception:
            logger.exception("The TLS certificates can't be read; the server goes on with those it has")
            return None
        if now == shown:
            return None
        shown = now
        return _configuration(now)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(shown),
        fetch,  # type: ignore[arg-type]  # the stubs don't know of None
        require_client_authentication=True,
    )


def _configuration(tls: TLSMaterial) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(tls.key, tls.certificate)], root_certificates=tls.client_ca)
