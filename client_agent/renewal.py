"""The agent renews its certificate, with a new key each time, at two thirds of its life."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import grpc

from client_agent import backoff
from client_agent.channel import open_channel
from client_agent.departures import Departures
from client_agent.identity import Identities, Identity
from protos.fedui.v1 import identity_pb2, identity_pb2_grpc

log = logging.getLogger(__name__)

RENEW_AFTER = 2 / 3
SPREAD = 0.05
"""Of a certificate's life: agents that were enrolled together don't renew in the same moment."""
LEAST_PAUSE = 0.05
"""Between two renewals, of a certificate's life."""
LOOK_SECONDS = 60.0
"""A machine that sleeps stops the clock by which one waits: look at the calendar so often."""
CALL_SECONDS = 30.0


def _now() -> datetime:
    return datetime.now(UTC)


class Renewal:
    """`run` beside the connection. Tasks and streams go on undisturbed: what is open stays open, what opens later uses the new key."""

    def __init__(
        self,
        identities: Identities,
        departures: Departures,
        *,
        max_delay: float = backoff.MAX_SECONDS,
        clock: Callable[[], datetime] = _now,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._identities = identities
        self._departures = departures
        self._max_delay = max_delay
        self._clock = clock
        self._sleep = sleep

    async def run(self) -> None:
        """Until cancelled; or returns, if the server renews no certificates."""
        while True:
            await self._until(_due(self._identities.current))
            if not await self._renew():
                return
            # A clock that is ahead finds each new certificate due at once.
            await self._sleep(LEAST_PAUSE * _life(self._identities.current)[1].total_seconds())

    async def _until(self, moment: datetime) -> None:
        while (left := (moment - self._clock()).total_seconds()) > 0:
            await self._sleep(min(left, LOOK_SECONDS))

    async def _renew(self) -> bool:
        """Try until it is done; an agent that is suspended may be reinstated. False if the server doesn't know how to."""
        for delay in backoff.delays(self._max_delay):
            try:
                await self._once()
                return True
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    log.warning("This server renews no certificates: enrol again before this one ends")
                    return False
                log.warning("The certificate could not be renewed (%s: %s)", error.code().name, error.details())
            except (ValueError, OSError) as error:
                log.error("The certificate could not be renewed: %s", error)
            await self._sleep(delay)
        raise AssertionError("back-off never ends")

    async def _once(self) -> None:
        present = self._identities.current
        renewed = await _renewed(present, self._departures)
        self._identities.replace(renewed)
        log.info("The certificate was renewed until %s", renewed.enrolment.certificate_expires_at)
        try:
            async with open_channel(renewed) as channel:
                stub = identity_pb2_grpc.IdentityStub(channel)
                await stub.Confirm(identity_pb2.ConfirmRequest(), timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as error:  # the next call with the new certificate confirms it as well
            log.info("The new certificate is not confirmed yet (%s)", error.code().name)


async def _renewed(present: Identity, departures: Departures) -> Identity:
    """Raises `AioRpcError`, or `ValueError` for an answer that is no certificate of ours."""
    # Here, so that an agent which has nothing to renew is smaller by it.
    from cryptography import x509

    from client_agent.certificates import identity_with, new_key, signing_request

    key = new_key()
    request = identity_pb2.RenewRequest(csr_pem=signing_request(key, present.enrolment.client_name).decode())
    await departures.renewal(request)
    async with open_channel(present) as channel:
        answer = await identity_pb2_grpc.IdentityStub(channel).Renew(request, timeout=CALL_SECONDS)
    authorities = x509.load_pem_x509_certificates(answer.ca_pem.encode())
    return identity_with(present.enrolment, key, answer.certificate_pem.encode(), authorities)


def _due(identity: Identity) -> datetime:
    begin, life = _life(identity)
    return begin + life * (RENEW_AFTER + random.uniform(0, SPREAD))


def _life(identity: Identity) -> tuple[datetime, timedelta]:
    """When the certificate begins, and for how long it is."""
    end = datetime.fromisoformat(identity.enrolment.certificate_expires_at)
    begin = datetime.fromisoformat(identity.enrolment.certificate_valid_from or _begin_of(identity))
    return begin, end - begin


def _begin_of(identity: Identity) -> str:
    """For an identity that an older agent has stored."""
    from client_agent.certificates import certificate_of

    return certificate_of(identity).not_valid_before_utc.isoformat()
