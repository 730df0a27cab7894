"""FedUI's settings for tests: a data folder that goes with the process, nothing shared with what else runs here.

Tests run on SQLite; with FEDUI_TEST_DATABASE=postgres on PostgreSQL, at FEDUI_TEST_DATABASE_URL.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from unittest import mock

_folder = tempfile.TemporaryDirectory(prefix="fedui-tests-", ignore_cleanup_errors=True)
_environment = {
    "PATH": os.environ.get("PATH", ""),
    "FEDUI_DATA_DIR": _folder.name,
    "FEDUI_SECRET_KEY": "only for tests",
    "FEDUI_CHANNEL_LAYER": "memory",
    "FEDUI_ALLOWED_HOSTS": "testserver,localhost,127.0.0.1",
    "FEDUI_SECURE": "false",
}
if os.environ.get("FEDUI_TEST_DATABASE") == "postgres":
    _environment["DATABASE_URL"] = os.environ.get(
        "FEDUI_TEST_DATABASE_URL", "postgres://postgres@127.0.0.1:5432/postgres"
    )

# The variables of whoever runs the tests must not leak in, nor ours out to the processes that tests start.
with mock.patch.dict(os.environ, _environment, clear=True):
    from fedui.settings import *  # noqa: F403
    from fedui.settings import DATABASES, STORAGES

if "DATABASE_URL" in _environment:
    DATABASES["default"]["TEST"] = {"NAME": "test_fedui"}
else:
    # A file and not memory, which the threads of a test would share one connection to.
    DATABASES["default"]["TEST"] = {"NAME": str(Path(_folder.name) / "test.sqlite3")}

IDLE_IN_TRANSACTION_SECONDS = 600.0  # a test is one transaction, within which it may wait for others

CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
CELERY_BROKER_URL = "memory://"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
STORAGES["staticfiles"] = {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
WHITENOISE_AUTOREFRESH = WHITENOISE_USE_FINDERS = True
