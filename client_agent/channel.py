"""Secure channels to the server."""

from __future__ import annotations

import grpc

from client_agent.identity import Identity
from protos import limits

_OPTIONS = (
    ("grpc.max_receive_message_length", limits.MAX_MESSAGE_BYTES),
    # A connection that is half dead must not be handed on to the channel that comes to replace it.
    ("grpc.use_local_subchannel_pool", 1),
    # A call that waits for its turn says nothing for long: a server that has gone must be noticed all the same.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
)


def open_channel(identity: Identity) -> grpc.aio.Channel:
    """A channel on which both sides prove who they are; use it as an async context manager."""
    credentials = grpc.ssl_channel_credentials(identity.ca_pem, identity.key_pem, identity.certificate_pem)
    return grpc.aio.secure_channel(identity.grpc_address, credentials, options=_OPTIONS)
