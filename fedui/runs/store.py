"""The model store that the settings name."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

from django.conf import settings

from aggregator.files import Files, FolderFiles


def model_files() -> Files:
    return _files(settings.MODEL_STORE or str(settings.MODEL_DIR), settings.MODEL_STORE_ENDPOINT)


@lru_cache(maxsize=4)
def _files(where: str, endpoint_url: str) -> Files:
    """A bucket for `s3://bucket/prefix`, else a folder."""
    parts = urlsplit(where)
    if parts.scheme != "s3":
        return FolderFiles(Path(where))
    from aggregator.s3 import S3Files

    return S3Files(parts.netloc, parts.path, endpoint_url)
