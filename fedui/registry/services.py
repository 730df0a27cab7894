"""What people do to the registry. Each act is one transaction, and an entry in the audit log."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import timedelta

from django.db import transaction
from django.db.models import Max, Q
from django.utils import timezone

from fedui.accounts.models import User
from fedui.audit.services import differences, record
from fedui.errors import DomainError, ErrorCode
from fedui.federations.models import Act, Membership
from fedui.registry.models import RegisteredModel, RegisteredVersion, Stage, StageChange
from fedui.runs.models import ModelVersion
from fedui.runs.retention import ModelGone

MOST_TAGS, TAG_LENGTH = 20, 40
NAME_LENGTH = 80
CHECK_AGAIN_AFTER = timedelta(minutes=10)
"""A worker that was asked to verify and hasn't for so long never will."""
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")


class RegistryRefused(DomainError):
    """What was asked of the registry makes no sense there."""

    code = ErrorCode.INVALID_REQUEST


class ReleaseRefused(DomainError):
    """The role may not move models into production, or out of it."""

    code = ErrorCode.FORBIDDEN


@transaction.atomic
def promote(
    source: ModelVersion,
    actor: User,
    name: str,
    *,
    notes: str = "",
    tags: Iterable[str] = (),
    address: str | None = None,
) -> RegisteredVersion:
    """The checkpoint as the next version of `name`, a candidate. Raises `ModelGone` and `RegistryRefused`."""
    federation = source.run.federation
    # Retention locks the same row before it gives a model up.
    source = ModelVersion.objects.select_for_update().get(pk=source.pk)
    if source.removed_at:
        raise ModelGone(source)
    model, _ = RegisteredModel.objects.get_or_create(
        federation=federation, name=checked_name(name), defaults={"created_by": actor}
    )
    model = RegisteredModel.objects.select_for_update().get(pk=model.pk)  # one number after the other
    if known := model.versions.filter(source=source).first():
        raise RegistryRefused(f"This checkpoint is {known} already.", hint="Choose another round, or another name.")
    last = model.versions.aggregate(last=Max("number"))["last"] or 0
    version = RegisteredVersion.objects.create(
        model=model, number=last + 1, source=source, tags=checked_tags(tags), notes=notes, promoted_by=actor
    )
    StageChange.objects.create(version=version, after=Stage.CANDIDATE, actor=actor, actor_name=actor.get_username())
    model.save(update_fields=["changed_at"])
    record(
        federation, actor, "model.promoted", version,
        address=address, run=source.run_id, round=source.round_number, sha256=source.sha256,
    )  # fmt: skip
    return version


@transaction.atomic
def move(
    version: RegisteredVersion, stage: Stage, membership: Membership, *, note: str = "", address: str | None = None
) -> None:
    """To another stage. Into production it takes the place of the version that is there, which is archived.

    Raises `ReleaseRefused` and `IllegalTransition`.
    """
    model = RegisteredModel.objects.select_for_update().get(pk=version.model_id)
    version.refresh_from_db(fields=["status"])
    if Stage.PRODUCTION in (stage, version.stage) and not membership.may(Act.RELEASE_MODELS):
        raise ReleaseRefused(
            "Your role may not move models into production or out of it.", hint="Ask an owner or an operator."
        )
    replaced = None
    if stage == Stage.PRODUCTION and version.stage != stage:
        replaced = model.versions.filter(status=Stage.PRODUCTION).first()
        if replaced:
            _move(replaced, Stage.ARCHIVED, membership.user, f"Version {version.number} has taken its place.")
    before = version.stage
    _move(version, stage, membership.user, note)
    model.save(update_fields=["changed_at"])
    record(
        model.federation, membership.user, "model.moved", version, address=address,
        before={"stage": before.value}, after={"stage": stage.value}, note=note, replaced=str(replaced or ""),
    )  # fmt: skip


def _move(version: RegisteredVersion, stage: Stage, actor: User, note: str) -> None:
    before = version.stage
    version.transition(stage)
    StageChange.objects.create(
        version=version, before=before, after=stage, actor=actor, actor_name=actor.get_username(), note=note
    )


@transaction.atomic
def describe_version(
    version: RegisteredVersion, actor: User, *, tags: Iterable[str], notes: str, address: str | None = None
) -> None:
    """New tags and notes. Raises `RegistryRefused`."""
    version = RegisteredVersion.objects.select_for_update().select_related("model__federation").get(pk=version.pk)
    old = {"tags": ", ".join(version.tags), "notes": version.notes}
    version.tags, version.notes = checked_tags(tags), notes
    changed = differences(old, {"tags": ", ".join(version.tags), "notes": version.notes})
    if any(changed.values()):
        version.save(update_fields=["tags", "notes"])
        record(version.model.federation, actor, "model.described", version, address=address, **changed)


@transaction.atomic
def describe_model(model: RegisteredModel, actor: User, description: str, *, address: str | None = None) -> None:
    model = RegisteredModel.objects.select_for_update().select_related("federation").get(pk=model.pk)
    changed = differences({"description": model.description}, {"description": description})
    if any(changed.values()):
        model.description = description
        model.save(update_fields=["description", "changed_at"])
        record(model.federation, actor, "model.described", model, address=address, **changed)


@transaction.atomic
def ask_for_check(version: RegisteredVersion, actor: User, *, address: str | None = None) -> bool:
    """Have a worker hold the file against its SHA-256. False if one is at it."""
    from fedui.registry.tasks import verify

    now = timezone.now()
    free = Q(check_asked_at=None) | Q(check_asked_at__lt=now - CHECK_AGAIN_AFTER)
    if not RegisteredVersion.objects.filter(free, pk=version.pk).update(check_asked_at=now):
        return False
    transaction.on_commit(lambda: verify.delay(version.pk), robust=True)
    record(version.model.federation, actor, "model.check_asked", version, address=address)
    return True


def checked_name(name: str) -> str:
    """Raises `RegistryRefused`."""
    if not _NAME.fullmatch(name) or len(name) > NAME_LENGTH:
        raise RegistryRefused(
            "The name of a model consists of small letters, digits and single hyphens, up to 80 characters.",
            hint="For example ecg-rhythm.",
        )
    return name


def checked_tags(tags: Iterable[str]) -> list[str]:
    """Without doubles, in the order given. Raises `RegistryRefused`."""
    found = list(dict.fromkeys(filter(None, (" ".join(str(tag).split()) for tag in tags))))
    if len(found) > MOST_TAGS or any(len(tag) > TAG_LENGTH or "," in tag for tag in found):
        raise RegistryRefused(f"At most {MOST_TAGS} tags of {TAG_LENGTH} characters each, without commas.")
    return found
