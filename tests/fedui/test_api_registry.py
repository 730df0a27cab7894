"""The registry and the links to reports over REST."""

from __future__ import annotations

import pytest
from django.test import Client as Browser

from fedui.accounts.models import User
from fedui.federations.models import Federation, Role
from fedui.registry.services import promote
from fedui.runs.models import Metric, ModelVersion, Run
from tests.support.api import as_user
from tests.support.domain import a_member, a_run

MODELS = "federations/hearts/models"


@pytest.fixture
def run(federation: Federation, owner: User) -> Run:
    run = a_run(federation, owner)
    for number in range(3):
        ModelVersion.objects.create(run=run, round_number=number, key=f"{number}", sha256=f"{number:064x}", size=10)
        Metric.objects.create(run=run, round_number=number, source="server", name="accuracy", value=number / 10)
    return run


def test_a_model_from_its_promotion_to_production(run: Run, owner: User) -> None:
    caller = as_user(owner)
    made = caller.post(f"{MODELS}/ecg/versions", {"run": run.pk, "round": 2, "tags": ["a"]})
    assert (made.status_code, made.json()["number"], made.json()["metrics"]) == (201, 1, {"accuracy": 0.2})
    one = f"{MODELS}/ecg/versions/1"
    etag = caller.get(one).headers["ETag"]
    assert caller.call("patch", one, {"notes": "x"}).status_code == 428
    changed = caller.call("patch", one, {"notes": "x"}, if_match=etag)
    assert (changed.json()["notes"], changed.json()["tags"]) == ("x", ["a"])
    assert caller.post(f"{one}/stage", {"stage": "production"}, if_match=etag).status_code == 412
    assert caller.post(f"{one}/stage", {"stage": "production", "note": "go"}).json()["stage"] == "production"
    assert caller.post(f"{one}/stage", {"stage": "production"}).status_code == 409
    assert caller.post(f"{one}/check").status_code == 202
    listed = caller.get(MODELS).json()["results"]
    assert [(row["name"], row["versions"], row["production"]) for row in listed] == [("ecg", 1, 1)]
    assert [row["number"] for row in caller.get(f"{MODELS}/ecg/versions?stage=production").json()["results"]] == [1]
    assert caller.get(f"{one}/lineage").json() == {"ancestors": []}
    assert caller.get(f"{one}/manifest").status_code == caller.get(f"{one}/file").status_code == 404
    etag = caller.get(f"{MODELS}/ecg").headers["ETag"]
    assert caller.call("patch", f"{MODELS}/ecg", {"description": "Triage"}, if_match=etag).json()["versions"] == 1


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("ecg/versions", {"run": 999999, "round": 0}, 404),
        ("ecg/versions", {"run": "x", "round": 0}, 400),
        ("ecg/versions", {"run": 1}, 400),
        ("Not_Good/versions", {"round": 0}, 400),
        ("ecg/versions", {"round": 0, "tags": ["a,b"]}, 400),
        ("ecg/versions", {"round": 0, "surprise": 1}, 400),
        ("none/versions/1/stage", {"stage": "staging"}, 404),
    ],
)
def test_what_makes_no_sense_is_refused(run: Run, owner: User, path: str, body: dict[str, object], status: int) -> None:
    body = {"run": run.pk} | body if "versions/1" not in path else body
    assert as_user(owner).post(f"{MODELS}/{path}", body).status_code == status


def test_roles_and_strangers(run: Run, owner: User, federation: Federation, stranger: User) -> None:
    promote(run.models.get(round_number=1), owner, "ecg")
    one = f"{MODELS}/ecg/versions/1"
    researcher, auditor, outside = (
        as_user(user) for user in (a_member(federation, Role.RESEARCHER), a_member(federation, Role.AUDITOR), stranger)
    )
    assert researcher.post(f"{one}/stage", {"stage": "staging"}).status_code == 200
    assert researcher.post(f"{one}/stage", {"stage": "production"}).status_code == 403
    assert auditor.get(one).status_code == 200
    assert auditor.post(f"{one}/stage", {"stage": "archived"}).status_code == 403
    for path in (MODELS, one, f"{one}/file", f"{one}/lineage", f"runs/{run.pk}/shares", f"runs/{run.pk}/report"):
        assert outside.get(path).status_code == 404, path
    assert researcher.post(f"runs/{run.pk}/shares", {}).status_code == 403


def test_links_to_a_report(run: Run, owner: User, client: Browser) -> None:
    caller = as_user(owner)
    made = caller.post(f"runs/{run.pk}/shares", {"days": 1, "note": "Board"}, idempotency_key="0123456789abcdef")
    assert made.status_code == 201 and made.json()["naming"] == "numbers"
    again = caller.post(f"runs/{run.pk}/shares", {"days": 1, "note": "Board"}, idempotency_key="0123456789abcdef")
    assert again.json() == made.json()
    path = "/" + made.json()["link"].split("/", 3)[3]
    assert client.get(path).status_code == 200
    (listed,) = caller.get(f"runs/{run.pk}/shares").json()["results"]
    assert listed["opened"] == 1 and "link" not in listed
    assert caller.post(f"runs/{run.pk}/shares/{listed['id']}/revoke").json()["revoked_at"]
    assert client.get(path).status_code == 404
    assert caller.post(f"runs/{run.pk}/shares", {"days": 91}).status_code == 400
    report = caller.get(f"runs/{run.pk}/report?naming=numbers")
    assert report.status_code == 200 and "attachment" in report.headers["Content-Disposition"]
