"""The Identity service: clients renew their certificates."""

from __future__ import annotations

import logging
from typing import Any

import grpc
from grpc import aio

from aggregator.hub import Hub
from aggregator.ports import ClientRegistry, RenewalRefused
from aggregator.transport.identity import authenticate, refuse
from protos.fedui.v1 import identity_pb2, identity_pb2_grpc

logger = logging.getLogger(__name__)

Context = aio.ServicerContext[Any, Any]


class IdentityServicer(identity_pb2_grpc.IdentityServicer):
    def __init__(self, hub: Hub, registry: ClientRegistry) -> None:
        self._hub = hub
        self._registry = registry

    async def Renew(self, request: identity_pb2.RenewRequest, context: Context) -> identity_pb2.RenewResponse:
        client, certificate = await authenticate(self._registry, context)
        try:
            renewal = await self._registry.renew(client.client_id, certificate.serial, request.csr_pem)
        except RenewalRefused as refusal:
            logger.warning("Renewal refused: %s", refusal, extra={"client_id": client.client_id})
            await refuse(context, grpc.StatusCode.FAILED_PRECONDITION, str(refusal))
        return identity_pb2.RenewResponse(certificate_pem=renewal.certificate, ca_pem=renewal.authorities)

    async def Confirm(self, request: identity_pb2.ConfirmRequest, context: Context) -> identity_pb2.ConfirmResponse:
        client, certificate = await authenticate(self._registry, context)
        self._hub.prolong(client.client_id, certificate.not_after)
        return identity_pb2.ConfirmResponse()
