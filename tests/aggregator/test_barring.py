"""Clients that are barred lose what they have open, within two seconds and whatever they do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from grpc import aio

from aggregator.ports import Renewal, RunOutcome
from aggregator.transport.server import TLSMaterial
from protos import limits
from protos.fedui.v1 import fleet_pb2, fleet_pb2_grpc, identity_pb2, identity_pb2_grpc, task_pb2, transfer_pb2
from tests.aggregator.conftest import Federation
from tests.aggregator.test_transport import fit_task
from tests.support.authority import TestAuthority

TWO_SECONDS = 2.0


async def test_an_open_stream_ends_within_two_seconds_though_nobody_tells_the_engine(federation: Federation) -> None:
    agent = await federation.connect("a")
    begun = time.monotonic()
    federation.bar("a")
    goodbye = await asyncio.wait_for(agent.goodbye, 10)
    assert time.monotonic() - begun < TWO_SECONDS
    assert goodbye.reconnect_after_seconds < 0
    await federation.until(lambda: "a" not in federation.registry.online)


async def test_a_suspended_client_is_told_to_come_again(federation: Federation) -> None:
    agent = await federation.connect("a")
    federation.bar("a", may_return=True)
    assert (await asyncio.wait_for(agent.goodbye, 10)).reconnect_after_seconds > 0


async def test_others_stay(federation: Federation) -> None:
    await federation.connect("a")
    other = await federation.connect("b")
    federation.bar("a")
    await federation.until(lambda: "a" not in federation.registry.online)
    assert not other.goodbye.done()


async def test_a_client_that_moved_keeps_its_newer_stream(federation: Federation) -> None:
    moved = datetime.now(UTC)
    agent = await federation.connect("a")
    federation.bar("a", at=moved, active=True, keep=[federation.authority.last_serial])
    federation.engine.look_who_is_barred()
    gone = await federation.connect("b")
    federation.bar("b", active=True)
    await asyncio.wait_for(gone.goodbye, 10)
    assert not agent.goodbye.done()


async def test_a_stream_that_the_old_key_opened_while_the_act_was_written_is_cut(federation: Federation) -> None:
    moved = datetime.now(UTC)
    await federation.connect("a")
    begun = time.monotonic()
    federation.bar("a", at=moved, active=True, keep=["another"])
    await federation.until(lambda: "a" not in federation.registry.online)
    assert time.monotonic() - begun < TWO_SECONDS


async def test_an_upload_under_way_is_cut(federation: Federation) -> None:
    agent = await federation.connect("a", automatic=False)
    running, task = await fit_task(federation, agent)
    model = await agent.download(task)
    never = asyncio.Event()
    sending = asyncio.Event()

    async def endless() -> AsyncIterator[transfer_pb2.UploadMessage]:
        yield transfer_pb2.UploadMessage(header=agent.header(task, agent.trained(model), b"x" * 128))
        sending.set()
        await never.wait()

    call = agent.transfer.Upload(endless())
    await asyncio.wait_for(sending.wait(), 10)
    await asyncio.wait_for(call.initial_metadata(), 10)  # the server takes it
    begun = time.monotonic()
    federation.bar("a")
    with pytest.raises(aio.AioRpcError) as caught:
        await asyncio.wait_for(call, 10)
    assert time.monotonic() - begun < TWO_SECONDS
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.PERMISSION_DENIED, "revoked")
    running.cancel()


async def test_an_upload_that_begins_before_the_engine_hears_of_it_is_cut_with_the_stream(
    federation: Federation,
) -> None:
    agent = await federation.connect("a", automatic=False)
    running, task = await fit_task(federation, agent)
    model = await agent.download(task)

    async def endless() -> AsyncIterator[transfer_pb2.UploadMessage]:
        yield transfer_pb2.UploadMessage(header=agent.header(task, agent.trained(model), b"x" * 128))
        await asyncio.Event().wait()

    begun = time.monotonic()
    federation.bar("a")
    call = agent.transfer.Upload(endless())
    with pytest.raises(aio.AioRpcError) as caught:
        await asyncio.wait_for(call, 10)
    assert time.monotonic() - begun < TWO_SECONDS
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.PERMISSION_DENIED, "revoked")
    running.cancel()


async def test_a_client_whose_stream_is_open_is_looked_up_once(federation: Federation) -> None:
    agent = await federation.connect("a", automatic=False)
    running, task = await fit_task(federation, agent)
    federation.registry.refusals["a"] = "looked up again"
    await agent.do(task)
    await running


async def test_a_round_goes_on_at_once_without_a_revoked_client() -> None:
    federation = Federation()
    await federation.start(lost_after_seconds=3600.0)
    try:
        await federation.connect("a")
        silent = await federation.connect("b", automatic=False)
        running = asyncio.create_task(federation.run(clients=2, quorum=1))
        task = await asyncio.wait_for(silent.tasks.get(), 10)
        if task.kind == task_pb2.TASK_KIND_INITIALISE:
            await silent.do(task)
            task = await asyncio.wait_for(silent.tasks.get(), 10)
        assert task.kind == task_pb2.TASK_KIND_FIT
        federation.bar("b")
        stored = await asyncio.wait_for(running, 20)
        assert stored.outcome is RunOutcome.COMPLETED
    finally:
        await federation.close()


async def test_a_stream_that_does_not_listen_is_cut_all_the_same(federation: Federation) -> None:
    """A hostile agent reads nothing, so that no goodbye reaches it; its session ends."""
    federation.registry.add("a")
    address, credentials = f"127.0.0.1:{federation.engine.port}", federation.authority.client("a")
    async with aio.secure_channel(address, credentials) as channel:
        stream = fleet_pb2_grpc.FleetStub(channel).Connect()
        hello = fleet_pb2.Hello(protocol_major=limits.PROTOCOL_MAJOR)
        await stream.write(fleet_pb2.AgentMessage(hello=hello))
        await federation.until(lambda: "a" in federation.registry.online)
        federation.bar("a")
        await federation.until(lambda: "a" not in federation.registry.online)


async def test_a_bar_is_seen_though_the_registry_failed_for_a_while(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = await federation.connect("a")
    real, failures = federation.registry.barred, iter(range(2))

    async def failing(since: datetime) -> object:
        if next(failures, None) is not None:
            raise ConnectionError("the database is away")
        return await real(since)

    monkeypatch.setattr(federation.registry, "barred", failing)
    federation.bar("a")
    await asyncio.wait_for(agent.goodbye, 10)


# --- renewal ---------------------------------------------------------------------------------------------------------


def channel_as(federation: Federation, client_id: str, life: timedelta = timedelta(hours=1)) -> aio.Channel:
    credentials = federation.authority.client(client_id, life)
    return aio.secure_channel(f"127.0.0.1:{federation.engine.port}", credentials)


async def test_a_client_renews_under_its_own_name(federation: Federation) -> None:
    federation.registry.add("a")
    federation.registry.certify = lambda client_id, csr: Renewal(f"for {client_id}: {csr}", "authorities")
    async with channel_as(federation, "a") as channel:
        answer = await identity_pb2_grpc.IdentityStub(channel).Renew(identity_pb2.RenewRequest(csr_pem="request"))
    assert (answer.certificate_pem, answer.ca_pem) == ("for a: request", "authorities")


@pytest.mark.parametrize("barred", [True, False])
async def test_who_may_not_connect_may_not_renew(federation: Federation, barred: bool) -> None:
    federation.registry.certify = lambda client_id, csr: Renewal("", "")
    if barred:
        federation.registry.add("a")
        federation.bar("a")
    async with channel_as(federation, "a") as channel:
        with pytest.raises(aio.AioRpcError) as caught:
            await identity_pb2_grpc.IdentityStub(channel).Renew(identity_pb2.RenewRequest(csr_pem="request"))
    expected = grpc.StatusCode.PERMISSION_DENIED if barred else grpc.StatusCode.UNAUTHENTICATED
    assert caught.value.code() is expected


async def test_a_refused_renewal_says_why(federation: Federation) -> None:
    federation.registry.add("a")
    async with channel_as(federation, "a") as channel:
        with pytest.raises(aio.AioRpcError) as caught:
            await identity_pb2_grpc.IdentityStub(channel).Renew(identity_pb2.RenewRequest(csr_pem="request"))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "renews no certificates" in (caught.value.details() or "")


async def test_a_confirmed_renewal_prolongs_the_open_stream() -> None:
    federation = Federation()
    await federation.start(heartbeat_seconds=0.05)
    try:
        short = timedelta(seconds=3)
        agent = await federation.connect("a", life=short)
        other = await federation.connect("b", life=short)
        async with channel_as(federation, "a") as channel:
            await identity_pb2_grpc.IdentityStub(channel).Confirm(identity_pb2.ConfirmRequest())
        agent.keep_beating(0.02)
        other.keep_beating(0.02)
        goodbye = await asyncio.wait_for(other.goodbye, 10)
        assert "expired" in goodbye.reason
        assert goodbye.reconnect_after_seconds > 0  # it may have a newer one
        assert not agent.goodbye.done()
    finally:
        await federation.close()


async def test_a_connection_that_outlives_its_certificate_gets_no_more_calls(federation: Federation) -> None:
    federation.registry.add("a")
    async with channel_as(federation, "a", timedelta(seconds=3)) as channel:
        stub = identity_pb2_grpc.IdentityStub(channel)
        await stub.Confirm(identity_pb2.ConfirmRequest())
        with pytest.raises(aio.AioRpcError) as caught:
            async with asyncio.timeout(10):
                while True:
                    await stub.Confirm(identity_pb2.ConfirmRequest())
                    await asyncio.sleep(0.05)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


# --- what the server shows -------------------------------------------------------------------------------------------


async def test_certificates_and_authorities_change_while_the_server_runs() -> None:
    old, new = TestAuthority("Old CA"), TestAuthority("New CA")
    shown = [old.server()]
    federation = Federation()
    await federation.start(tls=lambda: shown[0])
    try:
        first = await federation.connect("a", authority=old)
        tls = new.server()
        shown[0] = TLSMaterial(tls.key, tls.certificate, new.pem + old.pem)
        await federation.connect("b", authority=new)
        assert not first.goodbye.done()
        federation.registry.add("c")
        stale = aio.secure_channel(f"127.0.0.1:{federation.engine.port}", old.client("c"))
        async with stale:
            with pytest.raises(aio.AioRpcError):
                await identity_pb2_grpc.IdentityStub(stale).Confirm(identity_pb2.ConfirmRequest())
    finally:
        await federation.close()


async def test_a_source_that_fails_leaves_the_server_as_it_was() -> None:
    federation = Federation()
    good = federation.authority.server()
    answers = iter([good])

    def source() -> TLSMaterial:
        try:
            return next(answers)
        except StopIteration:
            raise OSError("the folder is gone") from None

    await federation.start(tls=source)
    try:
        await federation.connect("a")
    finally:
        await federation.close()
