"""The files behind a registered version: parameters and manifest, read part by part."""

from __future__ import annotations

import hashlib
import json
import logging
from typing import Any

from django.db import transaction
from django.http import HttpRequest, HttpResponseBase
from django.utils import timezone

from aggregator.checkpoints import MANIFEST, files_of
from aggregator.ports import StoreUnavailable
from fedui.api.files import stored_file_response
from fedui.audit.services import record
from fedui.registry.models import RegisteredVersion
from fedui.runs.models import ModelVersion
from fedui.runs.store import model_files

logger = logging.getLogger(__name__)

BLOCK_BYTES = 4 * 1024**2


def manifest_of(source: ModelVersion) -> dict[str, Any] | None:
    """What was written beside the parameters; None where it is missing or no manifest."""
    key = next(key for key in files_of(source.key) if key.endswith(MANIFEST))
    try:
        content = json.loads(model_files().read(key))
    except (FileNotFoundError, ValueError, StoreUnavailable):
        return None
    return content if isinstance(content, dict) else None


def version_file(request: HttpRequest, version: RegisteredVersion) -> HttpResponseBase:
    """As a download."""
    source, filename = version.source, f"{version.model.name}-v{version.number}.safetensors"
    return stored_file_response(request, model_files(), source.key, source.size, source.sha256, filename)


def fault_of(source: ModelVersion) -> str:
    """What is wrong with the file: empty if it is the one that was recorded. Memory stays small whatever its size."""
    digest, size = hashlib.sha256(), 0
    try:
        with model_files().open(source.key) as file:
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
                size += len(block)
    except FileNotFoundError:
        return "The file is missing from the model store."
    if digest.hexdigest() != source.sha256:
        return f"The file was changed since it was written: it has {size:,} bytes and SHA-256 {digest.hexdigest()}."
    return ""


def check_file(version: RegisteredVersion) -> None:
    """Note the outcome with the version. A store that is away says nothing of the file: the check is to be asked for again."""
    found: dict[str, Any] = {}
    try:
        fault = fault_of(version.source)
        found = {"checked_at": timezone.now(), "check_fault": fault}
    except StoreUnavailable as error:
        logger.warning("%s was not verified: %s", version, error)
    with transaction.atomic():
        RegisteredVersion.objects.filter(pk=version.pk).update(check_asked_at=None, **found)
        if found:
            action = "model.check_failed" if found["check_fault"] else "model.checked"
            record(version.model.federation, "worker", action, version, sha256=version.source.sha256)
