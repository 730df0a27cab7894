"""What operators do with clients over REST and by the pages: who may, and what is answered."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client as Browser

from fedui.accounts.models import User
from fedui.audit.models import AuditEvent
from fedui.clients.admission import Applicant, enrol
from fedui.clients.models import Admission, AdmissionStatus, Client, ClientStatus
from fedui.clients.services import create_token
from fedui.federations.models import Federation, Role
from tests.support.domain import a_client, a_csr, a_member


@pytest.fixture
def waiting(federation: Federation, owner: User) -> Admission:
    _, text = create_token(federation, owner, requires_approval=True, labels={"region": "north"})
    return enrol(text, a_csr(), Applicant("hosp-1", "ward-pc-7", "0.2.0", "Linux", "192.0.2.1"))


def signed_in(user: User) -> Browser:
    browser = Browser()
    browser.force_login(user)
    return browser


def post(user: User, path: str, body: dict[str, Any] | None = None) -> Any:
    url = f"/api/v1/federations/hearts/{path}"
    return signed_in(user).post(url, body or {}, content_type="application/json")


def listed(user: User, query: str = "") -> Any:
    return signed_in(user).get(f"/api/v1/federations/hearts/admissions{query}")


def test_the_waiting_room_shows_what_an_operator_compares(waiting: Admission, owner: User) -> None:
    (found,) = listed(owner).json()["results"]
    assert (found["name"], found["host"], found["labels"]) == ("hosp-1", "ward-pc-7", {"region": "north"})
    assert found["fingerprint"] == waiting.fingerprint
    assert (found["returning"], found["proven"]) == (None, False)


def test_an_agent_asks_until_it_is_admitted(waiting: Admission, owner: User) -> None:
    url = f"/api/v1/enroll/{waiting.pk}"
    asked = Browser().get(url)
    assert (asked.status_code, asked.json()["ask_again_seconds"]) == (202, 3)

    admitted = post(owner, f"admissions/{waiting.pk}/admit").json()
    assert (admitted["status"], admitted["decided_by"]) == ("admitted", "owner")

    answer = Browser().get(url)
    assert answer.status_code == 201
    assert answer.json()["client_id"] == admitted["client"]
    assert answer.json()["certificate_pem"].startswith("-----BEGIN CERTIFICATE-----")
    assert listed(owner, "?status=waiting").json()["results"] == []
    assert len(listed(owner, "?status=admitted").json()["results"]) == 1
    assert post(owner, f"admissions/{waiting.pk}/refuse", {"reason": "late"}).status_code == 409


def test_an_agent_is_refused_with_the_reason(waiting: Admission, owner: User) -> None:
    assert post(owner, f"admissions/{waiting.pk}/refuse").status_code == 400
    assert post(owner, f"admissions/{waiting.pk}/refuse", {"reason": "Not of ours."}).status_code == 200
    answer = Browser().get(f"/api/v1/enroll/{waiting.pk}")
    assert (answer.status_code, answer.json()["code"]) == (403, "admission_refused")
    assert "Not of ours." in answer.json()["detail"]


def test_clients_are_suspended_reinstated_and_revoked(federation: Federation, owner: User) -> None:
    client = a_client(federation)
    statuses = [
        post(owner, f"clients/{client.pk}/{act}").json()["status"] for act in ("suspend", "reinstate", "revoke")
    ]
    assert statuses == ["suspended", "active", "revoked"]
    assert post(owner, f"clients/{client.pk}/reinstate").status_code == 409
    actions = AuditEvent.objects.filter(action__startswith="client.").order_by("id").values_list("action", flat=True)
    assert list(actions) == ["client.enrolled", "client.suspended", "client.reinstated", "client.revoked"]


@pytest.mark.parametrize(("role", "code"), [(Role.OPERATOR, 200), (Role.RESEARCHER, 403), (Role.AUDITOR, 403)])
def test_only_who_manages_clients_decides(waiting: Admission, role: Role, code: int) -> None:
    member = a_member(waiting.federation, role)
    assert listed(member).status_code == code
    assert post(member, f"admissions/{waiting.pk}/admit").status_code == code
    assert Client.objects.exists() == (code == 200)


def test_a_stranger_learns_nothing(waiting: Admission, stranger: User, federation: Federation) -> None:
    client = a_client(federation)
    assert listed(stranger).status_code == 404
    for path in (f"admissions/{waiting.pk}/admit", f"clients/{client.pk}/revoke"):
        assert post(stranger, path).status_code == 404
        assert Browser().post(f"/api/v1/federations/hearts/{path}").status_code in (401, 403)
    assert signed_in(stranger).get("/f/hearts/clients/waiting/").status_code == 404


def test_there_is_no_such_admission(db: None) -> None:
    assert Browser().get("/api/v1/enroll/00000000-0000-0000-0000-000000000000").status_code == 404


# --- the pages -------------------------------------------------------------------------------------------------------


def test_to_let_another_key_be_a_client_takes_its_name_typed(
    federation: Federation, waiting: Admission, owner: User
) -> None:
    client = a_client(federation, "hosp-2")
    _, text = create_token(federation, owner, requires_approval=True)
    false = enrol(text, a_csr(), Applicant("hosp-2"))
    url = f"/f/hearts/clients/waiting/{false.pk}/admit/"
    page = signed_in(owner).get("/f/hearts/clients/waiting/").content.decode()
    assert "with another key" in page

    signed_in(owner).post(url)
    false.refresh_from_db()
    assert false.status == AdmissionStatus.WAITING
    signed_in(owner).post(url, {"confirm": "hosp-2"})
    false.refresh_from_db()
    assert (false.status, false.client) == (AdmissionStatus.ADMITTED, client)


def test_a_refusal_needs_a_reason(waiting: Admission, owner: User) -> None:
    url = f"/f/hearts/clients/waiting/{waiting.pk}/refuse/"
    signed_in(owner).post(url)
    waiting.refresh_from_db()
    assert waiting.status == AdmissionStatus.WAITING
    signed_in(owner).post(url, {"reason": "Not of ours."})
    waiting.refresh_from_db()
    assert waiting.reason == "Not of ours."


def test_suspension_by_the_page_of_the_client(federation: Federation, owner: User) -> None:
    client = a_client(federation)
    for act, status in (("suspend", ClientStatus.SUSPENDED), ("reinstate", ClientStatus.ACTIVE)):
        signed_in(owner).post(f"/f/hearts/clients/{client.pk}/{act}/")
        client.refresh_from_db()
        assert client.status == status
    auditor = a_member(federation, Role.AUDITOR)
    assert signed_in(auditor).post(f"/f/hearts/clients/{client.pk}/suspend/").status_code == 403
