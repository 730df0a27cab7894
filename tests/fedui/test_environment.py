"""How settings are read from environment variables."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from fedui import environment

ROOT = Path(__file__).resolve().parents[2]
PRINT_SETTINGS = """
import json, sys
from django.conf import settings
print(json.dumps({name: getattr(settings, name) for name in sys.argv[1:]}, default=str))
"""


def settings_with(tmp_path: Path, *names: str, **variables: str) -> dict[str, Any]:
    """The settings called `names` of a process with these environment variables and no others."""
    variables = {"FEDUI_DATA_DIR": str(tmp_path / "data"), "DJANGO_SETTINGS_MODULE": "fedui.settings", **variables}
    done = subprocess.run(
        [sys.executable, "-c", PRINT_SETTINGS, *names],
        cwd=ROOT, env=variables, capture_output=True, text=True, check=True,
    )  # fmt: skip
    values: dict[str, Any] = json.loads(done.stdout)
    return values


def test_without_any_variable_it_is_for_this_machine_alone(tmp_path: Path) -> None:
    found = settings_with(tmp_path, "DEBUG", "SECURE", "ALLOWED_HOSTS", "GRPC_BIND", "GRPC_ADDRESS", "DATABASES")

    assert found["DEBUG"] is False
    assert found["SECURE"] is False
    assert found["ALLOWED_HOSTS"] == ["127.0.0.1", "[::1]", "localhost"]
    assert found["GRPC_BIND"] == found["GRPC_ADDRESS"] == "127.0.0.1:50051"
    assert found["DATABASES"]["default"]["NAME"] == str(tmp_path / "data" / "fedui.sqlite3")
    assert found["DATABASES"]["default"]["OPTIONS"]["transaction_mode"] == "IMMEDIATE"


def test_a_public_address_turns_security_on_and_is_an_allowed_host(tmp_path: Path) -> None:
    names = ["SECURE", "ALLOWED_HOSTS", "CSRF_TRUSTED_ORIGINS", "SESSION_COOKIE_SECURE", "SECURE_HSTS_SECONDS"]
    found = settings_with(tmp_path, *names, FEDUI_PUBLIC_URL="https://fedui.example.org/")

    assert "fedui.example.org" in found["ALLOWED_HOSTS"]
    assert found["CSRF_TRUSTED_ORIGINS"] == ["https://fedui.example.org"]
    assert found["SECURE"] and found["SESSION_COOKIE_SECURE"] and found["SECURE_HSTS_SECONDS"] > 0


def test_secrets_can_come_from_files(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from a file\n")
    (tmp_path / "db").write_text("postgres://someone:word@db.example.org/fedui\n")

    found = settings_with(
        tmp_path, "SECRET_KEY", "DATABASES",
        FEDUI_SECRET_KEY_FILE=str(tmp_path / "key"), DATABASE_URL_FILE=str(tmp_path / "db"),
    )  # fmt: skip

    assert found["SECRET_KEY"] == "from a file"
    assert found["DATABASES"]["default"]["NAME"] == "fedui"
    assert found["DATABASES"]["default"]["CONN_HEALTH_CHECKS"] is True


def test_redis_by_socket_is_understood_by_celery_and_channels(tmp_path: Path) -> None:
    found = settings_with(tmp_path, "CELERY_BROKER_URL", "CHANNEL_LAYERS", REDIS_URL="unix:///run/redis.sock")

    assert found["CELERY_BROKER_URL"] == "redis+socket:///run/redis.sock?virtual_host=0"
    assert found["CHANNEL_LAYERS"]["default"]["CONFIG"]["hosts"] == ["unix:///run/redis.sock"]


def test_processes_that_start_together_share_one_secret_key(tmp_path: Path) -> None:
    path = tmp_path / "secret_key"
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(environment.secret_key, [path] * 32))

    assert keys == {path.read_text()}
    assert len(keys.pop()) > 50
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_data_folder_that_is_not_writable_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # A mode would not stop root, whom CI often runs as.

    with pytest.raises(ImproperlyConfigured, match="not writable. Set FEDUI_DATA_DIR"):
        environment.data_folder(tmp_path / "data")


def test_a_data_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ImproperlyConfigured, match=r"file/data can't be made.*Set FEDUI_DATA_DIR"):
        environment.data_folder(tmp_path / "file" / "data")


@pytest.mark.parametrize("value", ["127.0.0.1", "host:", ":50051", "host:port", "host:70000", "::1:50051"])
def test_an_address_without_host_or_port_is_refused(value: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="FEDUI_GRPC_BIND.*must read host:port"):
        environment.address("FEDUI_GRPC_BIND", value)


@pytest.mark.parametrize(("value", "host"), [("127.0.0.1:0", "127.0.0.1"), ("[::1]:50051", "::1"), ("a.b:1", "a.b")])
def test_an_address_has_a_host(value: str, host: str) -> None:
    assert environment.host_of(environment.address("FEDUI_GRPC_BIND", value)) == host


@pytest.mark.parametrize("value", ["amqp://127.0.0.1", "127.0.0.1:6379", "unix://"])
def test_a_broker_that_is_not_redis_is_refused(value: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="REDIS_URL"):
        environment.broker_url(value)


@pytest.mark.parametrize("value", ["fedui.example.org", "ftp://fedui.example.org", "https://"])
def test_a_public_url_that_is_no_web_address_is_refused(value: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="FEDUI_PUBLIC_URL"):
        environment.web_url("FEDUI_PUBLIC_URL", value)


def test_a_value_outside_a_choice_is_refused_with_the_choices() -> None:
    with pytest.raises(ImproperlyConfigured, match="text, json"):
        environment.choice("FEDUI_LOG_FORMAT", "xml", ("text", "json"))


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("127.8.0.1", True),
        ("[::1]", True),
        ("a.localhost", True),
        ("*", False),
        ("10.0.0.1", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert environment.is_loopback(host) is expected


def test_limits_of_transfers_that_can_not_be_are_refused() -> None:
    assert environment.transfer_limits(uploads_at_once=3).uploads_at_once == 3
    with pytest.raises(ImproperlyConfigured, match="FEDUI_TRANSFER"):
        environment.transfer_limits(most_rate=10.0)
