"""The agent's metrics for Prometheus, for this machine alone: nothing of it leaves by FedUI."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, cast

from client_agent.errors import ConfigurationError
from client_agent.speed import Speed
from client_agent.state import AgentState
from protos.fedui.v1 import task_pb2

if TYPE_CHECKING:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.registry import Collector

LOOPBACK = "127.0.0.1"


class AgentMetrics:
    """A collector of Prometheus' library, which is loaded only where somebody asks: an idle agent is to be small."""

    def __init__(self, state: Callable[[], AgentState], speed: Speed, expires_at: Callable[[], str]) -> None:
        """`expires_at`: of the certificate, ISO 8601."""
        self._state, self._speed, self._expires_at = state, speed, expires_at
        self._begun: Counter[str] = Counter()
        self._last = ""

    def working_on(self, task: task_pb2.Task | None) -> None:
        """May be told again of a task that goes on."""
        if task is not None and task.task_id != self._last:
            self._last = task.task_id
            self._begun[task_pb2.TaskKind.Name(task.kind).removeprefix("TASK_KIND_").lower()] += 1

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        yield GaugeMetricFamily("fedagent_connected", "Whether a stream is open.", value=self._state().connected)
        expires = datetime.fromisoformat(self._expires_at()).timestamp()
        name = "fedagent_certificate_expires_timestamp_seconds"
        yield GaugeMetricFamily(name, "When the certificate expires.", value=expires)
        tasks = CounterMetricFamily("fedagent_tasks", "Tasks begun.", labels=["kind"])
        for kind, number in self._begun.items():
            tasks.add_metric([kind], number)
        yield tasks
        name = "fedagent_transfer_bytes_per_second"
        speed = GaugeMetricFamily(name, "Of the last transfer of some size.", labels=["direction"])
        for direction, rate in (("up", self._speed.up), ("down", self._speed.down)):
            if rate is not None:
                speed.add_metric([direction], rate)
        yield speed


@contextlib.contextmanager
def served(metrics: AgentMetrics, port: int) -> Iterator[None]:
    """At /metrics of `port`, for this machine; 0: nowhere. Raises `ConfigurationError` if the port is taken."""
    if not port:
        yield
        return
    from prometheus_client import CollectorRegistry, start_http_server

    registry = CollectorRegistry()
    registry.register(cast("Collector", metrics))
    try:
        server, thread = start_http_server(port, addr=LOOPBACK, registry=registry)
    except OSError as error:
        raise ConfigurationError(f"Port {port} for metrics can't be used: {error.strerror}.") from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
