"""What the processes of a cluster leave behind when a run is over. Import it when Django is set up for that cluster."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil
from django.utils import timezone

from aggregator.checkpoints import model_of
from aggregator.transport.uploads import SUFFIX
from fedui.runs.models import ModelVersion
from fedui.runs.retention import ORPHAN_AGE, remove_orphans
from fedui.runs.store import model_files
from tests.chaos.cluster import UPLOADS_KEPT_SECONDS, WORKERS, Cluster
from tests.chaos.processes import until

SETTLING_SECONDS = 60.0
SWEEPS = 3
"""A sweep of uploads comes after at most twice the time that they are kept, and the machine may be busy."""


def left_behind(cluster: Cluster) -> list[str]:
    """In words: processes whose parent was killed, ports that nobody should listen on, files that would stay for ever."""
    wrong = []
    try:
        until(lambda: not [*_strays(cluster), *_wrong_ports(cluster)], "The end of what was harmed", SETTLING_SECONDS)
    except TimeoutError:
        wrong += [*_strays(cluster), *_wrong_ports(cluster)]
    return [*wrong, *_forgotten_uploads(cluster.data / "uploads"), *_forgotten_models(cluster.data / "models")]


def _strays(cluster: Cluster) -> Iterator[str]:
    """Of the cluster's processes, those that descend from none of its services."""
    services = {service.pid for service in cluster.services.values()}
    for process in psutil.process_iter():
        try:
            if process.environ().get("FEDUI_DATA_DIR") != str(cluster.data):
                continue
            if services.isdisjoint([process.pid, *(parent.pid for parent in process.parents())]):
                yield f"a process is left: {' '.join(process.cmdline())[:200]}"
        except psutil.Error:
            continue  # it has just ended, or is somebody else's


def _wrong_ports(cluster: Cluster) -> Iterator[str]:
    """Of the workers one listens, at its own port; agents listen nowhere."""
    serving = [name for name in WORKERS if _listening([cluster.services[name].pid])]
    if len(serving) != 1:
        yield f"there are {len(serving)} workers that listen"
    expected = {cluster.web_port, *(cluster.grpc_ports[name] for name in serving)}
    if strange := _listening(service.pid for service in cluster.services.values()) - expected:
        yield f"ports are left: {sorted(strange)}"


def _listening(pids: Iterable[int]) -> set[int]:
    ports: set[int] = set()
    for pid in pids:
        try:
            family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
            ports.update(
                link.laddr.port
                for process in family
                for link in process.net_connections("tcp")
                if link.status == psutil.CONN_LISTEN
            )
        except psutil.Error:
            continue  # it has just ended
    return ports


def _forgotten_uploads(folder: Path) -> list[str]:
    """Partial ones are kept for a while, for whoever asks for the same update again."""
    old = time.time() - SWEEPS * UPLOADS_KEPT_SECONDS
    return [
        f"a partial upload is left: {path.name}" for path in folder.rglob(f"*{SUFFIX}") if path.stat().st_mtime < old
    ]


def _forgotten_models(folder: Path) -> list[str]:
    """Whatever a crash has left there, the daily retention finds when it is old enough."""
    remove_orphans(model_files(), timezone.now() + 2 * ORPHAN_AGE)
    known = set(ModelVersion.objects.filter(removed_at=None).values_list("key", flat=True))
    there = {str(path.relative_to(folder)) for path in folder.rglob("round-*") if path.is_file()}
    return [
        f"a file is left that retention does not find: {one}" for one in sorted(there) if model_of(one) not in known
    ]
