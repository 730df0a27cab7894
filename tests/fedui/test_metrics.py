"""/metrics: who may read it, what it says, and that processes of one kind count together."""

from __future__ import annotations

import ipaddress
import os
import subprocess
import sys
import urllib.error
import urllib.request
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import Client as Browser
from django.utils import timezone
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from aggregator.core.round import Outcome, ParticipationReport
from aggregator.ports import RoundRecord
from fedui.accounts.models import User
from fedui.federations.models import Federation
from fedui.metrics import engine
from fedui.metrics.exposition import serve_worker
from fedui.metrics.sharing import is_worker
from fedui.runs.models import Run, RunStatus
from tests.support.domain import a_client, a_run

ROOT = Path(__file__).parent.parent.parent
PROGRAM = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from fedui.metrics.sharing import share
share("worker", Path(sys.argv[1]))
from fedui.metrics import counted
counted.ROUNDS.labels("committed").inc(3)
counted.STREAMS.set(2)
print("ready", flush=True)
sys.stdin.readline()
"""
READER = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from fedui.metrics.sharing import share
share("worker", Path(sys.argv[1]))
from django.conf import settings
settings.configure()
import fedui.metrics.counted
from prometheus_client import CollectorRegistry, generate_latest, multiprocess
registry = CollectorRegistry()
multiprocess.MultiProcessCollector(registry)
sys.stdout.write(generate_latest(registry).decode())
"""


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("token", "networks", "sent", "status"),
    [
        ("", [], "", 404), ("", [], "Bearer ", 404), ("s3cret", [], "", 404), ("s3cret", [], "Bearer wrong", 404),
        ("s3cret", [], "Bearer s3cret", 200),
        ("", ["127.0.0.0/8"], "", 200), ("", ["10.0.0.0/8"], "", 404), ("s3cret", ["10.0.0.0/8"], "Bearer s3cret", 404),
        ("s3cret", ["127.0.0.1/32"], "Bearer s3cret", 200), ("s3cret", ["127.0.0.1/32"], "", 404), ("s3cret", [], "Bearer s3crét", 404),
    ],
)  # fmt: skip
def test_who_may_read(settings: Any, token: str, networks: list[str], sent: str, status: int) -> None:
    settings.METRICS_TOKEN, settings.METRICS_NETWORKS = token, [ipaddress.ip_network(one) for one in networks]
    answer = Browser().get("/metrics", headers={"Authorization": sent} if sent else {})
    assert answer.status_code == status
    if status == 404:
        assert b"fedui_runs" not in answer.content


def test_the_installation_as_the_database_knows_it(settings: Any, federation: Federation, owner: User) -> None:
    settings.METRICS_TOKEN = "s3cret"
    a_client(federation)
    for name, status in (("one", RunStatus.QUEUED), ("two", RunStatus.RUNNING)):
        run = a_run(federation, owner, name)
        Run.objects.filter(pk=run.pk).update(status=status, lease_expires_at=timezone.now() + timedelta(minutes=1))
    browser = Browser()
    browser.get("/no/such/page/of/a/stranger/")
    text = browser.get("/metrics", headers={"Authorization": "Bearer s3cret"}).content.decode()
    samples = {
        (s.name, *sorted(s.labels.items())): s.value for f in text_string_to_metric_families(text) for s in f.samples
    }
    assert samples["fedui_runs", ("status", "queued")] == 1
    assert samples["fedui_leases", ("state", "held")] == 1
    assert samples["fedui_clients", ("presence", "offline")] == 1
    assert "stranger" not in text and federation.slug not in text and 'route="none"' in text


def test_a_round_is_counted_with_its_parts() -> None:
    before = [value("fedui_rounds_total", outcome="committed"), value("fedui_model_bytes_total", direction="up")]
    late = value("fedui_participations_total", outcome="late")
    now = timezone.now()
    record = RoundRecord(
        number=1, attempt=1, started_at=now - timedelta(seconds=9), closed_at=now - timedelta(seconds=1), committed_at=now,
        participations=[
            ParticipationReport("a", Outcome.COMPLETED, train_seconds=2.0, bytes_up=7), ParticipationReport("b", Outcome.LATE)
        ],
    )  # fmt: skip
    engine.round_committed(record)
    assert value("fedui_rounds_total", outcome="committed") == before[0] + 1
    assert value("fedui_model_bytes_total", direction="up") == before[1] + 7
    assert value("fedui_participations_total", outcome="late") == late + 1
    assert value("fedui_round_seconds_sum", phase="collect") >= 8


def test_a_call_of_an_agent_is_counted_by_method_and_code() -> None:
    labels = {"method": "Transfer/Upload", "code": "ABORTED"}
    before = value("fedui_grpc_calls_total", **labels)
    engine.call_ended("Transfer/Upload", "ABORTED", 0.5)
    assert value("fedui_grpc_calls_total", **labels) == before + 1
    assert value("fedui_grpc_call_seconds_bucket", le="0.5", **labels) >= 1


@pytest.mark.skipif(sys.platform == "win32", reason="no shared folder there")
def test_processes_of_a_kind_count_together_and_a_first_one_begins_anew(tmp_path: Path) -> None:
    def start() -> subprocess.Popen[str]:
        program = [sys.executable, "-c", PROGRAM, str(tmp_path), str(ROOT)]
        process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout and process.stdout.readline() == "ready\n"
        return process

    def read() -> str:
        program = [sys.executable, "-c", READER, str(tmp_path), str(ROOT)]
        return subprocess.run(program, capture_output=True, text=True, check=True).stdout

    processes = [start(), start()]
    try:
        together = read()
        assert 'fedui_rounds_total{outcome="committed"} 6.0' in together and "fedui_connected_clients 4.0" in together
        processes[0].communicate("\n")
        assert 'fedui_rounds_total{outcome="committed"} 6.0' in read()  # what was counted stays
        assert len(list((tmp_path / "worker").glob("gauge_livesum_*.db"))) >= 1
    finally:
        for process in processes:
            process.communicate("\n") if process.poll() is None else None
    assert "committed" not in read()


def test_a_worker_serves_its_own(settings: Any) -> None:
    settings.METRICS_TOKEN = "s3cret"
    server = serve_worker("127.0.0.1:0")
    assert server
    try:
        place = f"http://127.0.0.1:{server.server_address[1]}/metrics"
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(place)
        request = urllib.request.Request(place, headers={"Authorization": "Bearer s3cret"})
        with urllib.request.urlopen(request) as answer:
            assert b"fedui_rounds" in answer.read()
        assert serve_worker(f"127.0.0.1:{server.server_address[1]}") is None
    finally:
        server.shutdown()
        server.server_close()


def test_a_worker_is_known_by_its_command_line() -> None:
    assert is_worker(["/x/bin/celery", "-A", "fedui", "worker", "-Q", "default"])
    assert is_worker(["/x/celery/__main__.py", "-A", "fedui", "worker"])
    assert not is_worker(["/x/bin/celery", "-A", "fedui", "beat"])
    assert not is_worker(["manage.py", "worker"]) and not is_worker([])
    assert "PROMETHEUS_MULTIPROC_DIR" not in os.environ
