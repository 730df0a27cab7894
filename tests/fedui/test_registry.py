"""The registry: what is promoted gets a number, keeps its file, moves through stages, and can be held against its checksum."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from django.db import connection, transaction
from django.test import Client as Browser
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import DjangoCaptureOnCommitCallbacks, Settings

from aggregator.files import FolderFiles
from fedui.accounts.models import User
from fedui.audit.models import AuditEvent
from fedui.federations.models import Federation, Membership, Role
from fedui.registry import tasks
from fedui.registry.models import RegisteredModel, RegisteredVersion, Stage
from fedui.registry.services import RegistryRefused, ReleaseRefused, ask_for_check, move, promote
from fedui.runs.models import KeepCheckpoints, Metric, ModelVersion, Run, RunRules
from fedui.runs.retention import ModelGone, apply_policy
from fedui.transitions import IllegalTransition
from tests.support.domain import a_member, a_run

CONTENT = bytes(range(200)) * 10
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def files(tmp_path: Path, settings: Settings) -> FolderFiles:
    settings.MODEL_DIR = tmp_path
    return FolderFiles(tmp_path)


@pytest.fixture
def run(federation: Federation, owner: User, files: FolderFiles) -> Run:
    return _with_models(a_run(federation, owner), files)


def _with_models(run: Run, files: FolderFiles) -> Run:
    for number in range(4):
        key = f"run-{run.pk}/round-{number}-abc.safetensors"
        files.write(key, CONTENT)
        files.write(key.replace(".safetensors", ".json"), json.dumps({"round": number, "tensors": [{}]}).encode())
        ModelVersion.objects.create(run=run, round_number=number, key=key, sha256=SHA256, size=len(CONTENT))
        Metric.objects.create(run=run, round_number=number, source="server", name="accuracy", value=number / 10)
        Metric.objects.create(run=run, round_number=number, source="fit", name="accuracy", value=0.99)
    return run


@pytest.fixture
def version(run: Run, owner: User) -> RegisteredVersion:
    return promote(_model(run, 2), owner, "ecg", tags=[" gpu  free ", "gpu free"])


@pytest.fixture
def browser(owner: User) -> Browser:
    browser = Browser()
    browser.force_login(owner)
    return browser


def _model(run: Run, number: int) -> ModelVersion:
    return run.models.get(round_number=number)


def _membership(user: User) -> Membership:
    return Membership.objects.get(user=user)


def _audited(action: str) -> AuditEvent:
    return AuditEvent.objects.filter(action=action).latest("id")


def test_versions_are_numbered_and_a_checkpoint_counts_once_a_name(
    run: Run, owner: User, version: RegisteredVersion
) -> None:
    second = promote(_model(run, 3), owner, "ecg")
    assert [(one.number, one.status) for one in (version, second)] == [(1, "candidate"), (2, "candidate")]
    assert version.tags == ["gpu free"]
    assert promote(_model(run, 2), owner, "other").number == 1
    with pytest.raises(RegistryRefused, match="ecg v1 already"):
        promote(_model(run, 2), owner, "ecg")
    entry = _audited("model.promoted")
    assert entry.details["sha256"] == SHA256 and entry.details["round"] == 2


@pytest.mark.parametrize("name", ["", "Ecg", "-x", "a b", "ecg/../x", "x" * 81, "é"])
def test_a_name_is_small_letters_digits_and_hyphens(run: Run, owner: User, name: str) -> None:
    with pytest.raises(RegistryRefused):
        promote(_model(run, 2), owner, name)
    assert not RegisteredModel.objects.exists()


def test_retention_keeps_what_was_promoted_and_what_is_gone_can_not_be_promoted(
    run: Run, owner: User, version: RegisteredVersion, files: FolderFiles
) -> None:
    RunRules.objects.create(federation=run.federation, checkpoints=KeepCheckpoints.BEST_AND_LAST)
    apply_policy(run.federation, files, timezone.now())
    assert sorted(run.models.filter(removed_at=None).values_list("round_number", flat=True)) == [2, 3]
    with pytest.raises(ModelGone):
        promote(_model(run, 1), owner, "ecg")


def test_one_version_is_in_production_and_the_former_is_archived(
    run: Run, owner: User, version: RegisteredVersion
) -> None:
    second = promote(_model(run, 3), owner, "ecg")
    move(version, Stage.PRODUCTION, _membership(owner))
    move(second, Stage.PRODUCTION, _membership(owner), note="More data.")
    version.refresh_from_db()
    second.refresh_from_db()
    assert (version.stage, second.stage) == (Stage.ARCHIVED, Stage.PRODUCTION)
    change = version.changes.first()
    assert change and change.note == "Version 2 has taken its place."
    entry = _audited("model.moved")
    assert (entry.before, entry.after, entry.details["replaced"]) == (
        {"stage": "candidate"}, {"stage": "production"}, "ecg v1",
    )  # fmt: skip
    with pytest.raises(IllegalTransition):
        move(second, Stage.PRODUCTION, _membership(owner))


def test_researchers_promote_and_stage_but_production_is_the_operators(
    federation: Federation, owner: User, version: RegisteredVersion
) -> None:
    researcher = _membership(a_member(federation, Role.RESEARCHER))
    move(version, Stage.STAGING, researcher)
    with pytest.raises(ReleaseRefused):
        move(version, Stage.PRODUCTION, researcher)
    move(version, Stage.PRODUCTION, _membership(owner))
    with pytest.raises(ReleaseRefused):
        move(version, Stage.ARCHIVED, researcher)
    assert version.stage == Stage.PRODUCTION


def test_a_check_finds_a_file_that_was_changed_or_is_missing(
    version: RegisteredVersion, owner: User, files: FolderFiles
) -> None:
    tasks.verify(version.pk)
    version.refresh_from_db()
    assert version.checked_at and version.check_fault == ""
    files.write(version.source.key, CONTENT[:-1] + b"x")
    tasks.verify(version.pk)
    version.refresh_from_db()
    assert "was changed since" in version.check_fault
    files.delete(version.source.key)
    tasks.verify(version.pk)
    version.refresh_from_db()
    assert "missing" in version.check_fault
    assert AuditEvent.objects.filter(action="model.check_failed").count() == 2


def test_a_check_is_asked_for_once_at_a_time(
    version: RegisteredVersion,
    owner: User,
    monkeypatch: pytest.MonkeyPatch,
    django_capture_on_commit_callbacks: DjangoCaptureOnCommitCallbacks,
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(tasks.verify, "delay", asked.append)
    with django_capture_on_commit_callbacks(execute=True), transaction.atomic():
        assert ask_for_check(version, owner)
        assert not ask_for_check(version, owner)
    assert asked == [version.pk]


@pytest.mark.parametrize(
    ("header", "status", "body", "told"),
    [
        ({}, 200, CONTENT, None),
        ({"Range": "bytes=10-19"}, 206, CONTENT[10:20], "bytes 10-19/2000"),
        ({"Range": "bytes=1990-"}, 206, CONTENT[1990:], "bytes 1990-1999/2000"),
        ({"Range": "bytes=-5"}, 206, CONTENT[-5:], "bytes 1995-1999/2000"),
        ({"Range": "bytes=0-999999"}, 206, CONTENT, "bytes 0-1999/2000"),
        ({"Range": "bytes=2000-"}, 416, b"", "bytes */2000"),
        ({"Range": "bytes=5-2"}, 200, CONTENT, None),
        ({"Range": "bytes=-"}, 200, CONTENT, None),
        ({"Range": "bytes=0-1,5-6"}, 200, CONTENT, None),
        ({"Range": "bytes=0-9", "If-Range": '"another"'}, 200, CONTENT, None),
        ({"Range": "bytes=0-9", "If-Range": f'"{SHA256}"'}, 206, CONTENT[:10], "bytes 0-9/2000"),
        ({"If-None-Match": f'"{SHA256}"'}, 304, b"", None),
    ],
)
def test_a_download_goes_on_where_it_broke_off(
    browser: Browser, version: RegisteredVersion, header: dict[str, str], status: int, body: bytes, told: str | None
) -> None:
    response = browser.get("/f/hearts/models/ecg/1/file/", headers=header)
    assert response.status_code == status
    assert (b"".join(response.streaming_content) if response.streaming else response.content) == body  # type: ignore[attr-defined]
    assert response.headers.get("Content-Range") == told
    if status in (200, 206):
        assert response.headers["ETag"] == f'"{SHA256}"' and response.headers["Content-Length"] == str(len(body))


def test_the_pages_of_the_registry(
    browser: Browser, run: Run, version: RegisteredVersion, owner: User, federation: Federation
) -> None:
    fork = a_run(federation, owner, "fork")
    Run.objects.filter(pk=fork.pk).update(origin=version.source)
    other = promote(
        ModelVersion.objects.create(run=fork, round_number=1, key="none", sha256="b" * 64, size=1), owner, "ecg"
    )
    listed = browser.get("/f/hearts/models/").content.decode()
    assert "gpu free" in listed and "20.0 %" in listed and "99.0 %" not in listed
    assert "No model fits" in browser.get("/f/hearts/models/?q=nothing").content.decode()
    assert "ecg" in browser.get("/f/hearts/models/?q=gpu&stage=candidate").content.decode()
    assert "Promote…" in browser.get("/f/hearts/models/?view=runs").content.decode()
    assert "Metrics side by side" in browser.get("/f/hearts/models/ecg/?versions=1,2,x,99").content.decode()
    assert "began with it" in browser.get("/f/hearts/models/ecg/1/").content.decode()
    child = browser.get(f"/f/hearts/models/ecg/{other.number}/").content.decode()
    assert "promoted as" in child and "missing from the model store" in child
    assert browser.get("/f/hearts/models/ecg/1/manifest/").json()["round"] == 2
    assert browser.get("/f/hearts/models/ecg/2/file/").status_code == 404
    assert browser.get("/f/hearts/models/ecg/9/").status_code == 404


def test_promote_describe_and_move_by_form(browser: Browser, run: Run) -> None:
    address = f"/f/hearts/runs/{run.pk}/promote/"
    assert 'value="3" selected' in browser.get(f"{address}?round=3").content.decode()
    assert browser.post(address, {"name": "Bad name", "round": 3}).status_code == 422
    assert browser.post(address, {"name": "ecg", "round": 9}).status_code == 422
    assert (
        browser.post(address, {"name": "ecg", "round": 3, "tags": ",".join("abcdefghijklmnopqrstuvwxyz")}).status_code
        == 422
    )
    made = browser.post(address, {"name": "ecg", "round": 3, "tags": "a, b", "notes": "good"})
    assert made.headers["Location"] == "/f/hearts/models/ecg/1/"
    browser.post("/f/hearts/models/ecg/1/change/", {"tags": "c", "notes": "better"})
    browser.post("/f/hearts/models/ecg/1/stage/", {"stage": "production", "note": "go"})
    browser.post("/f/hearts/models/ecg/1/stage/", {"stage": "nonsense"})
    browser.post("/f/hearts/models/ecg/describe/", {"description": "Rhythm triage"})
    version = RegisteredVersion.objects.get()
    assert (version.tags, version.notes, version.stage) == (["c"], "better", Stage.PRODUCTION)
    assert version.model.description == "Rhythm triage"


@pytest.mark.parametrize(
    "path",
    [
        "models/ecg/1/change/",
        "models/ecg/1/stage/",
        "models/ecg/1/check/",
        "models/ecg/describe/",
        "runs/{run}/promote/",
    ],
)
def test_auditors_read_and_strangers_learn_nothing(
    federation: Federation, stranger: User, run: Run, version: RegisteredVersion, client: Browser, path: str
) -> None:
    address = "/f/hearts/" + path.format(run=run.pk)
    client.force_login(stranger)
    assert client.post(address, {"stage": "archived"}).status_code == 404
    assert client.get("/f/hearts/models/ecg/1/file/").status_code == 404
    client.force_login(a_member(federation, Role.AUDITOR))
    assert client.post(address, {"stage": "archived"}).status_code == 403
    shown = client.get("/f/hearts/models/ecg/1/")
    assert shown.status_code == 200
    assert address not in shown.content.decode()  # no button for what they may not
    version.refresh_from_db()
    assert version.stage == Stage.CANDIDATE


def test_the_list_costs_the_same_however_long(browser: Browser, run: Run, owner: User, files: FolderFiles) -> None:
    def cost() -> int:
        with CaptureQueriesContext(connection) as queries:
            browser.get("/f/hearts/models/")
        return len(queries)

    promote(_model(run, 0), owner, "m-0")
    before = cost()
    for number in range(1, 10):
        more = _with_models(a_run(run.federation, owner, f"run {number}"), files)
        for round_number in range(3):
            promote(_model(more, round_number), owner, f"m-{number}")
    assert cost() == before
