"""What processes count as it happens. Labels have few values each: no names of clients, runs or federations."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_QUICK = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LONG = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0)

REQUESTS = Counter("fedui_http_requests", "Requests answered.", ("method", "route", "status"))
REQUEST_SECONDS = Histogram("fedui_http_request_seconds", "Time to answer a request.", ("method",), buckets=_QUICK)
TASKS = Counter("fedui_tasks", "Celery tasks that ended.", ("task", "state"))
ROUNDS = Counter("fedui_rounds", "Attempts at rounds that ended.", ("outcome",))
ROUND_SECONDS = Histogram(
    "fedui_round_seconds", "Parts of committed rounds: collecting updates, aggregating.", ("phase",), buckets=_LONG
)
CLIENT_SECONDS = Histogram(
    "fedui_client_seconds", "What clients took in rounds: download, train, upload.", ("phase",), buckets=_LONG
)
PARTICIPATIONS = Counter("fedui_participations", "Clients’ parts in rounds, by how they ended.", ("outcome",))
BYTES = Counter("fedui_model_bytes", "Models and updates of rounds that ended.", ("direction",))
EVENT_LAG = Histogram(
    "fedui_event_lag_seconds", "From an event to its row in the database.", buckets=(*_QUICK, 30.0, 120.0)
)
CALLS = Counter("fedui_grpc_calls", "Calls of agents that ended.", ("method", "code"))
CALL_SECONDS = Histogram(
    "fedui_grpc_call_seconds", "How long calls of agents took; streams, how long they were open.", ("method", "code"),
    buckets=(0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0, 300.0, 3600.0, 14_400.0),
)  # fmt: skip
STREAMS = Gauge("fedui_connected_clients", "Streams of agents that workers hold.", multiprocess_mode="livesum")
RUNS_DRIVEN = Gauge("fedui_leases_held", "Runs that workers drive now.", multiprocess_mode="livesum")
ATTEMPTS = Counter("fedui_delivery_attempts", "Attempts to deliver alerts.", ("channel", "outcome"))
