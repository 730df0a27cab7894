"""Enrolment over REST: what an agent sends and gets."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from django.test import Client as Browser
from pytest_django import Settings

from fedui.accounts.models import User
from fedui.audit.models import AuditEvent
from fedui.clients.authorities import trust
from fedui.clients.models import Client
from fedui.clients.services import create_token, revoke_token
from fedui.federations.models import Federation
from fedui.workers.post import Me, stand
from tests.support.domain import a_client, a_csr


@pytest.fixture
def agent() -> Browser:
    return Browser(enforce_csrf_checks=True)


def post(agent: Browser, body: dict[str, Any], address: str = "127.0.0.1") -> Any:
    return agent.post("/api/v1/enroll", body, content_type="application/json", REMOTE_ADDR=address)


def test_the_authority_is_public(agent: Browser, db: None) -> None:
    body = agent.get("/api/v1/ca").json()

    present = trust()
    assert body == {
        "ca_pem": present.issuer.pem.decode(),
        "fingerprint": present.issuer.fingerprint,
        "links_pem": "",
    }


def test_health_is_public(agent: Browser, db: None) -> None:
    assert agent.get("/api/v1/health").json()["status"] == "ok"


def test_a_token_and_a_request_become_a_certificate(
    agent: Browser, federation: Federation, owner: User, settings: Settings
) -> None:
    settings.GRPC_ADDRESS = "fedui.example.org:50051"
    stand(Me("127.0.0.1:0", "two.example.org:50051"))
    _, text = create_token(federation, owner)
    key = ec.generate_private_key(ec.SECP256R1())

    response = post(
        agent, {"token": text, "csr_pem": a_csr(key), "name": "hosp-1", "agent_version": "0.1.0", "platform": "Linux"}
    )

    assert response.status_code == 201
    body = response.json()
    client = Client.objects.get()
    certificate = x509.load_pem_x509_certificate(body["certificate_pem"].encode())
    assert body["client_id"] == str(client.pk)
    assert body["client_name"] == client.name == "hosp-1"
    assert body["federation"] == "Hearts"
    assert (body["grpc_address"], body["servers"]) == ("fedui.example.org:50051", ["two.example.org:50051"])
    assert body["ca_pem"] == trust().bundle_pem.decode()
    assert certificate.public_key() == key.public_key()
    assert AuditEvent.objects.get(action="client.enrolled").address == "127.0.0.1"


def test_a_name_is_optional(agent: Browser, federation: Federation, owner: User) -> None:
    _, text = create_token(federation, owner)

    assert post(agent, {"token": text, "csr_pem": a_csr()}).json()["client_name"] == "client-1"


def test_each_refusal_has_its_code(agent: Browser, federation: Federation, owner: User) -> None:
    a_client(federation, "hosp-1")
    _, fresh = create_token(federation, owner)
    _, expired = create_token(federation, owner, lifetime=timedelta(0))
    _, spent = create_token(federation, owner)
    post(agent, {"token": spent, "csr_pem": a_csr()})
    row, revoked = create_token(federation, owner)
    revoke_token(row, owner)
    good = {"token": fresh, "csr_pem": a_csr()}

    for change, status, code in (
        ({"token": "nonsense"}, 403, "token_invalid"),
        ({"token": expired}, 403, "token_expired"),
        ({"token": spent}, 403, "token_spent"),
        ({"token": revoked}, 403, "token_revoked"),
        ({"csr_pem": "garbage"}, 400, "csr_invalid"),
        ({"name": "hosp-1"}, 409, "name_taken"),
        ({"name": "a\u202eb"}, 400, "invalid_request"),
        ({"csr_pem": ""}, 400, "invalid_request"),
        ({"token": None}, 400, "invalid_request"),
        ({"token": {"a": 1}}, 400, "invalid_request"),
    ):
        response = post(agent, good | change)
        body = response.json()
        assert (response.status_code, body["code"]) == (status, code), change
        assert body["detail"]
    assert post(agent, good).status_code == 201


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        ("{", "application/json", 400),
        ("[1]", "application/json", 400),
        ("a=b", "application/x-www-form-urlencoded", 415),
        ('{"token": "' + "x" * 70_000 + '"}', "application/json", 413),
    ],
    ids=["no JSON", "no object", "a form", "too large"],
)
def test_a_body_that_is_no_small_json_object_is_a_problem(
    agent: Browser, db: None, body: str, content_type: str, status: int
) -> None:
    response = agent.post("/api/v1/enroll", body, content_type=content_type)

    assert response.status_code == status
    assert response["Content-Type"] == "application/problem+json"
    assert response.json()["code"] == "invalid_request"


def test_too_many_attempts_from_one_address_have_to_wait(
    agent: Browser, db: None, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_800_000_018.0)
    settings.ENROLMENTS_PER_MINUTE = 3

    codes = [post(agent, {"token": "x", "csr_pem": "y"}).status_code for _ in range(5)]
    elsewhere = post(agent, {"token": "x", "csr_pem": "y"}, address="192.0.2.9")
    refused = post(agent, {"token": "x", "csr_pem": "y"})

    assert codes == [403, 403, 403, 429, 429]
    assert elsewhere.status_code == 403
    assert refused.json()["code"] == "throttled"
    assert refused["Retry-After"] == "42"
    monkeypatch.setattr(time, "time", lambda: 1_800_000_060.0)
    assert post(agent, {"token": "x", "csr_pem": "y"}).status_code == 403
