"""Models and updates over TLS, against bare copies of the same bytes. FLEET_SCALE=0.05 makes all of them smaller, for a try."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import socket
import ssl
import statistics
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
from grpc import aio

from aggregator.core.config import CohortConfig, EvaluationConfig, StrategyConfig
from aggregator.transport.server import TLSMaterial
from benchmarks.federation import benchmark_federation
from benchmarks.fleet_flower import legacy_rounds
from benchmarks.reporting import load, report
from benchmarks.timing import peak_of
from benchmarks.transfer_server import BARE, CLIENT, TASK, TransferServer, signature_of, transfer_server
from client_agent.departures import Departures
from client_agent.execution import Update
from client_agent.identity import Enrolment, Home, Identities, Identity
from client_agent.ledger import Ledger
from client_agent.policy import Leave
from client_agent.transfer import Transfer
from protos import limits
from protos.fedui.v1 import transfer_pb2
from tests.flower.environment import FLOWER
from tests.support.authority import TestAuthority

SCALE = float(os.environ.get("FLEET_SCALE", "1"))
MIB = 2**20
CLIENTS = 10
ROUNDS, WARM_UP = 10, 2
CUTS, CHUNKS_PER_CUT = 20, 20
FLOWER_SHARE = 1 / 5
"""Of the time that Flower's legacy server takes for a round with the same clients."""


# --- rounds ----------------------------------------------------------------------------------------------------------


def noop_round() -> None:
    size = round(1_000_000 * SCALE)
    seconds, _, _ = _echo_rounds(size, ROUNDS)
    reference = statistics.median(_tls_round(4 * size) for _ in range(5))
    report(
        "noop_round", seconds, "s", reference, ok=seconds <= 2 * reference + 0.05, clients=CLIENTS, parameters=size, rounds=ROUNDS,
        load=load(), against="a bare TCP+TLS copy of the same bytes both ways; the bar is twice that and 0.05 s",
        why_missed="processor time more than waiting: of a round on two cores the ten agents take 0.46 s (gRPC and TLS, hashing, keeping, "
        "listing), the worker 0.44 (gRPC and TLS 0.15, hashing and summing 0.1, its database 0.1); the bare copy 0.4 in all",
    )  # fmt: skip


def round_100mb() -> None:
    size, rounds = round(25_000_000 * SCALE), 3
    seconds, peak, idle = _echo_rounds(size, rounds)
    copied = statistics.median(_tls_round(4 * size) for _ in range(3))
    flower = statistics.median(legacy_rounds(size, 2, 1, evaluate=False))
    models = peak / (4 * size)
    report(
        "round_100mb", seconds, "s", flower, ok=models <= 4 and seconds <= FLOWER_SHARE * flower, clients=CLIENTS,
        parameters=size, rounds=rounds, peak_rss_mib=round(peak / MIB), peak_models=round(models, 2), most_models=4,
        idle_models=round(idle / (4 * size), 2), bar=FLOWER_SHARE, bare_copy_seconds=round(copied, 3), load=load(),
        against=f"start_server of {FLOWER} with the same clients, no TLS, nothing stored",
        why_missed=f"time: a bare copy over TLS takes {copied / flower:.2f} of theirs by itself, and both ends hash and keep what moves; "
        "theirs sends it in the clear and keeps all in memory. "
        "Memory, in models of 100 MB: Django, Celery and gRPC at rest 2, numba and what it has compiled 1.3, ten uploads under way 1.5 "
        "(4 MiB each that may be sent ahead, two batches, what malloc keeps of them), and 3 as the round closes: the model that was sent, "
        "the mean, the next one's bytes. This model is all zeros, whose sums touch no memory: those of weights would take 3",
    )  # fmt: skip


def _echo_rounds(size: int, rounds: int) -> tuple[float, int, int]:
    """The median seconds of a round without training, through all of the platform; and the aggregator's bytes, at its peak and before."""
    config = StrategyConfig(
        cohort=CohortConfig(min_clients=CLIENTS), evaluation=EvaluationConfig(federated=False, server=False)
    )
    with benchmark_federation() as bench:
        bench.start_agents(CLIENTS, "echo", {"size": size})
        idle = max(process.memory_info().rss for process in _aggregators())
        run = bench.start_run("echo", config, rounds + WARM_UP)
        bench.wait_for(run, 900)
        peak = max(peak_of(process) for process in _aggregators())
        times = [
            (r.ended_at - r.started_at).total_seconds()
            for r in run.rounds.filter(number__gt=WARM_UP)
            if r.ended_at is not None
        ]
    return statistics.median(times), peak, idle


def _aggregators() -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if "worker" in child.cmdline()]


def _tls_round(size: int) -> float:
    """Seconds in which each client gets `size` bytes from one server and sends them back, in parallel."""
    authority, content = TestAuthority(), bytes(size)
    serving, asking = _tls_contexts(authority)
    with socket.create_server(("127.0.0.1", 0)) as server:
        threads = [
            threading.Thread(target=work, args=arguments)
            for _ in range(CLIENTS)
            for work, arguments in ((_serve, (server, serving, content)), (_echo, (server.getsockname(), asking, size)))
        ]
        begun = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - begun


def _tls_contexts(authority: TestAuthority) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    tls = authority.server()
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = Path(folder, "certificate"), Path(folder, "key")
        certificate.write_bytes(tls.certificate)
        key.write_bytes(tls.key)
        serving.load_cert_chain(certificate, key)
    return serving, ssl.create_default_context(cadata=authority.pem.decode())


def _serve(server: socket.socket, context: ssl.SSLContext, content: bytes) -> None:
    plain, _ = server.accept()
    with context.wrap_socket(plain, server_side=True) as connection:
        connection.sendall(content)
        _receive(connection, len(content))


def _echo(address: tuple[str, int], context: ssl.SSLContext, size: int) -> None:
    with (
        socket.create_connection(address) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
    ):
        connection.sendall(_receive(connection, size))


def _receive(connection: ssl.SSLSocket, size: int) -> bytearray:
    buffer = bytearray(size)
    view = memoryview(buffer)
    while view:
        view = view[connection.recv_into(view) :]
    return buffer


# --- one large upload ------------------------------------------------------------------------------------------------


def upload_1gb() -> None:
    authority, tls, update = _setting()
    size = len(update.content)
    with transfer_server(tls, size) as server:
        bare = asyncio.run(_bare_upload(authority, server.bare_port, update))
        before = server.ask("reset peak")
        seconds = asyncio.run(_upload(authority, server.port, update))
        grown = server.ask("peak") - before
        right = server.ask("sha256") == update.sha256
        bare = min(bare, asyncio.run(_bare_upload(authority, server.bare_port, update)))
    ok = right and seconds <= bare / 0.6 and grown <= size + 64 * MIB
    report(
        "upload_1gb", size / MIB / seconds, "MiB/s", size / MIB / bare, ok=ok, mib=size // MIB, grown_mib=round(grown / MIB),
        most_grown_mib=size // MIB + 64, hash_equal=right, bar=0.6, load=load(), against="a bare gRPC stream of the same chunks over TLS",
        why_missed="both ends hash the whole (SHA-256), and the server writes it to a file that outlives cuts and restarts",
    )  # fmt: skip


def resume_20_cuts() -> None:
    authority, tls, update = _setting()
    size = len(update.content)
    with transfer_server(tls, size) as server:
        sent, seconds = asyncio.run(_upload_with_cuts(authority, server, update))
        right = server.ask("sha256") == update.sha256
    again, most = sent - size, CUTS * CHUNKS_PER_CUT * limits.CHUNK_BYTES
    report(
        "resume_20_cuts", again / limits.CHUNK_BYTES / CUTS, "chunks a cut", CHUNKS_PER_CUT, ok=right and again <= most,
        mib=size // MIB, cuts=CUTS, seconds=round(seconds, 2), hash_equal=right, load=load(),
        against="the most that may be sent again; counted on the wire, all that TLS and HTTP/2 add included",
    )  # fmt: skip


def _setting() -> tuple[TestAuthority, TLSMaterial, Update]:
    size = round(2**30 * SCALE) // 64 * 64
    values = np.random.default_rng(1).random(size // 4, np.float32)
    content = bytearray(values)
    authority = TestAuthority()
    sha256 = hashlib.sha256(content).hexdigest()
    return authority, authority.server(), Update(content, sha256, signature_of(size), 1, {})


async def _upload(authority: TestAuthority, port: int, update: Update) -> float:
    key, certificate = authority.key_and_certificate(CLIENT)
    enrolment = Enrolment(CLIENT, CLIENT, "bench", "", f"127.0.0.1:{port}", "")
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        identities = Identities(home, Identity(enrolment, key, certificate, authority.pem))
        departures = Departures(Ledger(home.log_file), Leave, enrolment.federation)
        transfer = Transfer(identities, departures, max_delay=0.05)
        begun = time.perf_counter()
        await transfer.upload(TASK, update, lambda fraction: None)
        seconds = time.perf_counter() - begun
        await transfer.close()
    return seconds


async def _bare_upload(authority: TestAuthority, port: int, update: Update) -> float:
    async def messages() -> AsyncIterator[transfer_pb2.UploadMessage]:
        view = memoryview(update.content)
        for start in range(0, len(view), limits.CHUNK_BYTES):
            chunk = transfer_pb2.Chunk(data=bytes(view[start : start + limits.CHUNK_BYTES]))
            yield transfer_pb2.UploadMessage(chunk=chunk)

    async with aio.secure_channel(f"127.0.0.1:{port}", authority.client(CLIENT)) as channel:
        begun = time.perf_counter()
        await channel.stream_unary(
            BARE,
            request_serializer=transfer_pb2.UploadMessage.SerializeToString,
            response_deserializer=transfer_pb2.UploadReceipt.FromString,
        )(messages())
        return time.perf_counter() - begun


class CuttingProxy:
    """Hands bytes on, and cuts the connection whenever as many as one of `cuts` have passed towards the server."""

    def __init__(self, port: int, cuts: list[int]) -> None:
        self.sent = 0
        self.open: set[asyncio.Task[None] | None] = set()
        self._port, self._cuts = port, cuts

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open.add(asyncio.current_task())
        upstream, to_server = await asyncio.open_connection("127.0.0.1", self._port)
        ways = {asyncio.create_task(self._up(reader, to_server)), asyncio.create_task(_pipe(upstream, writer))}
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        for end in (writer, to_server):
            end.transport.abort()

    async def _up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(limits.CHUNK_BYTES):
            self.sent += len(data)
            if self._cuts and self.sent >= self._cuts[0]:
                del self._cuts[0]
                return
            writer.write(data)
            await writer.drain()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(limits.CHUNK_BYTES):
            writer.write(data)
            await writer.drain()


async def _upload_with_cuts(authority: TestAuthority, server: TransferServer, update: Update) -> tuple[int, float]:
    """Bytes that went towards the server, and seconds."""
    places = random.Random(1).sample(range(len(update.content)), CUTS)
    proxy = CuttingProxy(server.port, sorted(places))
    listening = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    seconds = await _upload(authority, port, update)
    listening.close()
    await asyncio.wait([task for task in proxy.open if task])
    return proxy.sent, seconds
