"""What is kept of runs, and that nothing goes to which something refers."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import call_command
from django.utils import timezone
from pytest_django import Settings

from aggregator.files import FolderFiles
from fedui.accounts.models import User
from fedui.federations.models import Federation
from fedui.runs import commands
from fedui.runs.commands import Order
from fedui.runs.models import Event, Metric, ModelVersion, Run, RunRules, RunStatus
from fedui.runs.retention import Removal, apply_policy, remove_orphans
from fedui.runs.services import RunRefused
from fedui.runs.tasks import apply_retention
from fedui.strategies.models import StrategyVersion
from tests.support.domain import a_federation, a_run, a_user

ROUNDS = range(8)


@pytest.fixture
def files(tmp_path: Path, settings: Settings) -> FolderFiles:
    settings.MODEL_DIR = tmp_path
    return FolderFiles(tmp_path)


@pytest.fixture
def run(federation: Federation, owner: User, files: FolderFiles) -> Run:
    """Ended ten days ago with eight models; the best by loss is that of round 5."""
    run = a_run(federation, owner)
    for number in ROUNDS:
        key = f"run-{run.pk}/round-{number}-abc.safetensors"
        for name in (key, key.replace(".safetensors", ".json")):
            files.write(name, b"x" * 100)
        ModelVersion.objects.create(run=run, round_number=number, key=key, sha256="a" * 64, size=100)
        Metric.objects.create(run=run, round_number=number, source="server", name="loss", value=abs(number - 5))
    for seq, kind in enumerate(
        ("run.started", "client.phase", "client.progress", "round.committed", "run.finished"), 1
    ):
        Event.objects.create(run=run, seq=seq, at=timezone.now(), kind=kind, level="info", message=kind)
    ended = timezone.now() - timedelta(days=10)
    Run.objects.update(status=RunStatus.COMPLETED, started_at=ended, ended_at=ended, rounds_done=7, num_rounds=7)
    run.refresh_from_db()
    return run


def rules(federation: Federation, **fields: object) -> None:
    RunRules.objects.update_or_create(federation=federation, defaults=fields)


def kept(run: Run) -> list[int]:
    return sorted(run.models.filter(removed_at=None).values_list("round_number", flat=True))


def apply(run: Run, files: FolderFiles, *, dry_run: bool = False) -> Removal:
    return apply_policy(run.federation, files, timezone.now(), dry_run=dry_run)


def test_everything_is_kept_unless_somebody_says_otherwise(run: Run, files: FolderFiles) -> None:
    assert not apply(run, files)
    assert (kept(run), run.events.count()) == (list(ROUNDS), 5)


@pytest.mark.parametrize(
    ("fields", "left"),
    [
        ({"checkpoints": "best_and_last"}, [5, 7]),
        ({"checkpoints": "every", "checkpoints_every": 3}, [0, 3, 5, 6, 7]),
        ({"checkpoints": "all"}, list(ROUNDS)),
    ],
)
def test_checkpoints_go_by_the_policy_and_the_dry_run_says_which(
    run: Run, files: FolderFiles, fields: dict[str, object], left: list[int]
) -> None:
    rules(run.federation, **fields)
    gone = len(ROUNDS) - len(left)
    foretold = apply(run, files, dry_run=True)
    assert kept(run) == list(ROUNDS)
    assert apply(run, files) == foretold == Removal(models=gone, model_bytes=100 * gone)
    assert kept(run) == left
    assert len(list(files.listing())) == 2 * len(left)
    assert not apply(run, files)


def test_the_installations_settings_hold_where_the_federation_has_none(
    run: Run, files: FolderFiles, settings: Settings
) -> None:
    settings.KEEP_CHECKPOINTS = ("every", 4)
    apply(run, files)
    assert kept(run) == [0, 4, 5, 7]


def test_what_a_fork_began_with_is_kept_and_what_is_gone_can_not_be_forked(
    run: Run, files: FolderFiles, owner: User
) -> None:
    commands.fork(run, Order(owner), round_number=2)
    rules(run.federation, checkpoints="best_and_last")
    apply(run, files)
    assert kept(run) == [2, 5, 7]
    with pytest.raises(RunRefused, match="was removed by retention"):
        commands.fork(run, Order(owner), round_number=3)


def test_a_run_that_is_paused_keeps_the_model_that_it_goes_on_from(run: Run, files: FolderFiles) -> None:
    Run.objects.update(status=RunStatus.PAUSED, ended_at=None)
    Metric.objects.all().delete()
    rules(run.federation, checkpoints="best_and_last", log_days=1)
    apply(run, files)
    assert (kept(run), run.events.count()) == ([7], 5)


def test_events_go_when_their_days_are_over_and_numbers_go_on(run: Run, files: FolderFiles) -> None:
    rules(run.federation, progress_days=9, log_days=11)
    assert apply(run, files) == Removal(progress_events=2)
    assert list(run.events.values_list("seq", flat=True)) == [1, 4, 5]
    rules(run.federation, progress_days=9, log_days=9)
    assert apply(run, files, dry_run=True) == Removal(log_events=2)
    assert apply(run, files) == Removal(log_events=2)
    assert list(run.events.values_list("seq", flat=True)) == [5]


def test_files_without_a_model_are_found_when_nobody_can_want_them(
    run: Run, files: FolderFiles, tmp_path: Path
) -> None:
    active = a_run(run.federation, run.created_by, "active")  # type: ignore[arg-type]
    Run.objects.filter(pk=active.pk).update(status=RunStatus.RUNNING, rounds_done=3)
    orphans = [
        f"run-{run.pk}/round-8-dead.safetensors", f"run-{run.pk}/.round-9-dead.json.1a.tmp",
        f"run-{active.pk}/round-2-dead.safetensors", f"run-{active.pk}/.round-4-dead.safetensors.2b.tmp", "run-999/round-1-x.json",
    ]  # fmt: skip
    wanted = [f"run-{active.pk}/round-4-beef.safetensors", f"run-{active.pk}/round-4-beef.json", "others/file"]
    for key in (*orphans, *wanted):
        files.write(key, b"x" * 10)
        os.utime(tmp_path / key, times=(0, time.time() - 7_200))
    files.write(f"run-{run.pk}/round-8-young.safetensors", b"x")
    now = timezone.now()
    assert remove_orphans(files, now, dry_run=True) == remove_orphans(files, now) == Removal(orphans=5, orphan_bytes=50)
    left = {file.key for file in files.listing()}
    assert not left & set(orphans)
    assert set(wanted) <= left
    assert len(left) == 2 * len(ROUNDS) + len(wanted) + 1


def test_the_command_says_what_would_go_and_beats_task_removes_it(run: Run, files: FolderFiles) -> None:
    rules(run.federation, checkpoints="best_and_last")
    said = StringIO()
    call_command("apply_retention", "--dry-run", stdout=said)
    assert "hearts: 6 models (600 B) would be removed" in said.getvalue()
    assert kept(run) == list(ROUNDS)
    apply_retention()
    assert kept(run) == [5, 7]


def test_what_one_federation_has_set_keeps_no_other_from_its_own(run: Run, files: FolderFiles) -> None:
    other = a_federation("lungs", run.created_by or a_user("other"))
    broken = a_run(other, a_user("broken"))
    ModelVersion.objects.create(run=broken, round_number=0, key="x", sha256="a" * 64, size=100)
    StrategyVersion.objects.filter(strategy__federation=other).update(config={"schema_version": 10**6})
    rules(other, checkpoints="best_and_last")
    rules(run.federation, checkpoints="best_and_last", progress_days=2_000_000_000, log_days=1)

    apply_retention()

    assert kept(run) == [5, 7]
    assert run.events.count() == 1
