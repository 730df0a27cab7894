"""Rows for tests, made as the platform makes them where it has a service for it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from aggregator.core.config import StrategyConfig
from fedui.accounts.models import User
from fedui.catalog.models import App
from fedui.clients.admission import Applicant, enrol
from fedui.clients.models import Client
from fedui.clients.services import create_token
from fedui.federations.models import Federation, Role
from fedui.federations.services import add_member, create_federation
from fedui.runs.models import Event, Metric, Outcome, Participation, Round, RoundStatus, Run
from fedui.runs.services import create_run
from fedui.strategies.services import create_strategy

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
SIGNATURE = [{"name": "w", "dtype": "float32", "shape": [4, 2]}]


def a_user(name: str) -> User:
    return User.objects.create_user(name, password="secret")


def a_federation(slug: str, owner: User) -> Federation:
    return create_federation(slug.title(), slug, owner)


def a_member(federation: Federation, role: Role) -> User:
    owner = federation.memberships.get(role=Role.OWNER).user
    user = a_user(f"{role.value}-of-{federation.slug}")
    add_member(federation, user, role, owner)
    return user


def a_csr(key: ec.EllipticCurvePrivateKey | None = None, name: str = "whatever") -> str:
    """A signing request as an agent makes it."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def a_client(federation: Federation, name: str = "") -> Client:
    owner = federation.memberships.get(role=Role.OWNER).user
    _, text = create_token(federation, owner)
    client = enrol(text, a_csr(), Applicant(name, "host", "0.1.0", "Linux", "192.0.2.1")).client
    assert client
    return client


def an_app(federation: Federation, name: str = "digits-mlp") -> App:
    return App.objects.get_or_create(federation=federation, name=name, version="1", defaults={"signature": SIGNATURE})[
        0
    ]


def a_run(federation: Federation, owner: User, name: str = "first") -> Run:
    strategy = federation.strategies.first() or create_strategy(
        federation, owner, name="plain", config=StrategyConfig()
    )
    return create_run(
        federation, owner, name=name, strategy_version=strategy.latest, app=an_app(federation), num_rounds=20, seed=1
    )


def with_rounds(run: Run, clients: list[Client], count: int) -> None:
    """`count` committed rounds in which all `clients` took part, with metrics and two events each."""
    for number in range(1, count + 1):
        started = NOW + timedelta(minutes=number)
        round_ = Round.objects.create(
            run=run, number=number, status=RoundStatus.COMMITTED, started_at=started, committed_at=started
        )
        for client in clients:
            Participation.objects.create(
                round=round_, client=client, outcome=Outcome.COMPLETED, train_seconds=1.5,
                bytes_up=100, bytes_down=200, num_examples=10,
            )  # fmt: skip
        Metric.objects.create(run=run, round_number=number, source="server", name="loss", value=1 / number)
    with_events(run, 2 * count)


def with_events(run: Run, count: int) -> None:
    Event.objects.bulk_create(
        Event(run=run, seq=seq, at=NOW, kind="round.started", level="round", round_number=seq, message=f"Event {seq}")
        for seq in range(1, count + 1)
    )
