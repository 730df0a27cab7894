"""A model of the largest size that the wire allows, both ways over TLS, in bounded memory."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from benchmarks.timing import peak_of, reset_peak
from benchmarks.transfer_server import CLIENT, TASK, signature_of, sparse_content, transfer_server
from client_agent.departures import Departures
from client_agent.execution import Update
from client_agent.identity import Enrolment, Home, Identities, Identity
from client_agent.ledger import Ledger
from client_agent.policy import Leave
from client_agent.transfer import Transfer
from protos import limits
from protos.fedui.v1 import task_pb2
from tests.support.authority import TestAuthority

SIZE, MIB = limits.MAX_MODEL_BYTES, 2**20
BESIDE = 64 * MIB
"""What a process may take beside the model."""


@pytest.mark.large
@pytest.mark.timeout(1_200)
async def test_four_gibibytes_go_up_and_down_in_the_memory_of_one_model(tmp_path: Path) -> None:
    authority, process = TestAuthority(), psutil.Process()
    content = sparse_content(SIZE)
    sha256 = hashlib.sha256(content).hexdigest()
    with transfer_server(authority.server(), SIZE, with_model=True) as server:
        enrolment = Enrolment(CLIENT, CLIENT, "tests", "", f"127.0.0.1:{server.port}", "")
        home = Home(tmp_path)
        identity = Identity(enrolment, *authority.key_and_certificate(CLIENT), authority.pem)
        departures = Departures(Ledger(home.log_file), Leave, enrolment.federation)
        transfer = Transfer(Identities(home, identity), departures)

        server_before, agent_before, begun = server.ask("reset peak"), reset_peak(process), time.perf_counter()
        await transfer.upload(TASK, Update(content, sha256, signature_of(SIZE), 1, {}), lambda fraction: None)
        seconds = time.perf_counter() - begun
        server_grown, agent_grown = server.ask("peak") - server_before, peak_of(process) - agent_before
        assert server.ask("sha256") == sha256
        print(f"up: {seconds:.0f} s, server +{server_grown / MIB:.0f} MiB, agent +{agent_grown / MIB:.0f} MiB")
        assert server_grown <= SIZE + BESIDE
        assert agent_grown <= BESIDE, "the update that is sent was there before"

        del content
        model = task_pb2.ModelRef(sha256=sha256, size=SIZE)
        server_before, agent_before, begun = server.ask("reset peak"), reset_peak(process), time.perf_counter()
        received = await transfer.download(TASK, model, lambda fraction: None)
        seconds = time.perf_counter() - begun
        server_grown, agent_grown = server.ask("peak") - server_before, peak_of(process) - agent_before
        print(f"down: {seconds:.0f} s, server +{server_grown / MIB:.0f} MiB, agent +{agent_grown / MIB:.0f} MiB")
        assert np.frombuffer(received, np.float32)[[0, SIZE // 16, SIZE // 8, -1]].tolist() == [1, 2, 3, 4]
        assert server_grown <= BESIDE, "the model is shared by all downloads"
        assert agent_grown <= SIZE + BESIDE
        await transfer.close()
