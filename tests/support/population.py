"""A small federation, far enough along that every page has something to show."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone

from aggregator.core.analytics import QueryConfig, Statistic
from aggregator.core.config import StrategyConfig
from fedui.accounts.models import User
from fedui.analytics.models import Query, QueryStatus
from fedui.catalog.models import App
from fedui.clients.models import Certificate, Client, Connection, Ending, VitalsSample
from fedui.clients.services import create_token
from fedui.federations.models import Federation, Role
from fedui.federations.services import add_member, create_federation
from fedui.registry.services import promote
from fedui.runs.models import Event, Metric, MetricSource, ModelVersion, Outcome, Participation, Round, Run, RunStatus
from fedui.strategies.models import StrategyVersion
from fedui.strategies.services import create_strategy

LONG_NAME = "hosp-hemlock-paediatric-cardiology-outpatient-annex-b"
SIGNATURE = [
    {"name": "weight", "dtype": "float32", "shape": [64, 10]},
    {"name": "bias", "dtype": "float32", "shape": [10]},
]
ROUNDS = 3


@dataclass(frozen=True)
class World:
    """Who and what there is."""

    owner: User
    researcher: User
    stranger: User
    federation: Federation
    client: Client
    run: Run
    other_run: Run
    """As `run`, of another seed."""
    version: StrategyVersion
    query: Query

    @property
    def root(self) -> str:
        return f"/f/{self.federation.slug}/"


def populate() -> World:
    owner, researcher, stranger = (
        User.objects.create_user(name, password="x") for name in ("owner", "res", "stranger")
    )
    federation = create_federation("Northern cardiology", "north", owner)
    add_member(federation, researcher, Role.RESEARCHER, owner)
    create_token(federation, owner, note="Spring roll-out", labels={"region": "north"}, max_uses=5)
    app = App.objects.create(federation=federation, name="digits-mlp", version="1.0", signature=SIGNATURE)
    clients = [_client(federation, name, number) for number, name in enumerate(("hosp-elm", LONG_NAME), start=1)]
    strategy = create_strategy(federation, owner, name="plain", config=StrategyConfig(), description="Plain averaging")
    version = strategy.latest
    run = _finished_run(federation, owner, version, app, clients)
    other_run = _finished_run(federation, owner, version, app, clients, name="digits-again", seed=22)
    query = _finished_query(federation, owner, app)
    promote(
        run.models.latest("round_number"),
        owner,
        "digits-mlp",
        tags=["reference"],
        notes="For triage, not for diagnosis.",
    )
    return World(owner, researcher, stranger, federation, clients[0], run, other_run, version, query)


def _client(federation: Federation, name: str, number: int) -> Client:
    now = timezone.now()
    client = Client.objects.create(
        federation=federation,
        name=name,
        number=number,
        labels={"region": "north", "modality": "ecg"},
        agent_version="0.1.0",
        platform="Linux-6.1-x86_64",
        apps=[
            {
                "name": "digits-mlp",
                "version": "1.0",
                "framework": "numpy",
                "problem": "",
                "columns": ["digit", "mean intensity"],
            }
        ],
        connected=True,
        connected_at=now,
        last_seen_at=now + timedelta(hours=1),
        lease_expires_at=now + timedelta(hours=1),
        machine={
            "cores": 16,
            "memory_bytes": 64_000_000_000,
            "disk_bytes": 10**12,
            "gpus": [{"name": "NVIDIA A10", "memory_bytes": 24_146_608_128}],
        },
        vitals={
            "agent_cpu": 0.02,
            "agent_memory": 61_000_000,
            "cpu": 0.35,
            "memory_used": 21_500_000_000,
            "disk_free": 4 * 10**11,
            "gpu": 0.5,
            "gpu_memory_used": 10**10,
            "round_trip": 0.0412,
            "clock_skew": -3605.0,
            "up_rate": 4.1e6,
            "down_rate": 1.9e7,
        },
        cards=[
            {
                "app": "digits-mlp",
                "app_version": "1.0",
                "data_set": "handwritten digits",
                "examples": 287,
                "features": 64,
                "labels": [["0", 30], ["1", 40], ["seven, as it is written in the north", 20]],
                "label_floor": 10,
            }
        ],
    )
    _history(client, now)
    Certificate.objects.create(
        client=client,
        serial=f"{number:x}",
        fingerprint="f" * 64,
        not_before=now,
        not_after=now + timedelta(days=30),
    )
    return client


def _history(client: Client, now: datetime) -> None:
    """An hour of vitals with a gap, and three connections."""
    minute = now.replace(second=0, microsecond=0)
    VitalsSample.objects.bulk_create(
        VitalsSample(
            client=client,
            seconds=60,
            at=minute - timedelta(minutes=n),
            values={
                "round_trip": 0.04 + n % 7 / 500,
                "cpu": 0.3 + n % 5 / 20,
                "gpu": n % 10 / 10,
                "memory_used": 2e10 + n * 1e8,
            },
        )
        for n in range(58)
        if not 20 <= n < 30
    )
    for n, ending in enumerate((Ending.LOST, Ending.LEFT, "")):
        opened = now - timedelta(hours=6 - 2 * n)
        closed = opened + timedelta(minutes=90) if ending else None
        Connection.objects.create(
            client=client,
            session_id=f"{client.number}-{n}",
            agent_version="0.1.0",
            opened_at=opened,
            closed_at=closed,
            ending=ending,
        )


def _finished_query(federation: Federation, owner: User, app: App) -> Query:
    config = QueryConfig(column="mean intensity", statistics=tuple(Statistic), bins=5)
    result = {
        "clients": 2,
        "values": 400,
        "passes": 4,
        "figures": {"count": 400, "sum": 4_880.5, "mean": 12.20125, "std": 3.25, "min": 2.0, "max": 22.0},
        "histogram": {
            "edges": [2.0, 6.0, 10.0, 14.0, 18.0, 22.0],
            "counts": [20, 90, 180, 90, 20],
            "below": 0,
            "above": 0,
        },
        "quantiles": [{"share": 0.5, "value": 12.25, "error": 0.0125}, {"share": 0.95, "value": None, "error": None}],
        "left_out": [{"client": LONG_NAME, "reason": "The deadline has passed."}],
    }
    return Query.objects.create(
        federation=federation,
        app=app,
        config=config.model_dump(mode="json"),
        status=QueryStatus.COMPLETED,
        result=result,
        created_by=owner,
        started_at=timezone.now(),
        ended_at=timezone.now(),
    )


def _finished_run(
    federation: Federation,
    owner: User,
    version: StrategyVersion,
    app: App,
    clients: list[Client],
    *,
    name: str = "digits-first",
    seed: int = 21,
) -> Run:
    start = timezone.now() - timedelta(minutes=10)
    run = Run.objects.create(
        federation=federation,
        name=name,
        strategy_version=version,
        app=app,
        seed=seed,
        num_rounds=ROUNDS,
        rounds_done=ROUNDS,
        status=RunStatus.COMPLETED,
        created_by=owner,
        started_at=start,
        ended_at=start + timedelta(minutes=4),
    )
    _event(run, start, "run.started", "info", None, num_rounds=ROUNDS, app="digits-mlp", strategy="plain")
    for number in range(1, ROUNDS + 1):
        _round(run, number, start + timedelta(minutes=number), clients)
    _event(run, start + timedelta(minutes=4), "run.finished", "info", None, outcome="completed", reason="")
    return run


def _round(run: Run, number: int, start: datetime, clients: list[Client]) -> None:
    closed, end = start + timedelta(seconds=20), start + timedelta(seconds=25)
    round_ = Round.objects.create(
        run=run, number=number, status="committed", started_at=start, closed_at=closed, committed_at=end, ended_at=end
    )
    for client in clients:
        flagged = number == ROUNDS and client == clients[0]
        Participation.objects.create(
            round=round_,
            client=client,
            outcome=Outcome.COMPLETED,
            download_seconds=1.0,
            train_seconds=15.0,
            upload_seconds=2.0,
            bytes_up=2_600,
            bytes_down=2_600,
            num_examples=200,
            metrics={"loss": 1.0 / number},
            update_norm=0.9 if flagged else 0.5,
            norm_ratio=1.8 if flagged else 1.0,
            cosine_to_aggregate=-0.2 if flagged else 0.7,
            flagged=flagged,
            flag_reason="its norm is 1.8 times the median" if flagged else "",
        )
    for source in MetricSource:
        Metric.objects.create(run=run, round_number=number, source=source, name="accuracy", value=0.5 + number / 10)
        Metric.objects.create(run=run, round_number=number, source=source, name="loss", value=1.0 / number)
    sha256 = f"{number:064x}"
    ModelVersion.objects.create(run=run, round_number=number, key=f"{number}.safetensors", sha256=sha256, size=2_600)
    cohort = [{"id": str(client.pk), "name": client.name} for client in clients]
    _event(run, start, "round.started", "round", number, attempt=1, cohort=cohort, deadline_seconds=60)
    _event(
        run, end, "round.committed", "round", number,
        attempt=1, metrics=[], bytes_up=5_200, bytes_down=5_200, seconds=25, sha256=sha256, size=2_600,
    )  # fmt: skip


def _event(run: Run, at: datetime, kind: str, level: str, number: int | None, **data: object) -> None:
    seq = run.events.count() + 1
    message = f"{kind} {number or ''}".strip()
    Event.objects.create(
        run=run, seq=seq, at=at, kind=kind, level=level, round_number=number, message=message, data=data
    )
