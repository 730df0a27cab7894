"""Typed readers of the environment. Each refuses a value that makes no sense, and says how to put it right."""

from __future__ import annotations

import ipaddress
import math
import os
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured
from environ import FileAwareEnv

from aggregator.transport.pace import TransferLimits

LOOPBACK_NAMES = frozenset({"localhost", ".localhost"})


class Environment(FileAwareEnv):  # type: ignore[misc]  # django-environ has no types
    """Variables of the process. `NAME_FILE` names a file to read `NAME` from, for secrets."""

    def text(self, name: str, default: str) -> str:
        return str(self.str(name, default=default)).strip() or default

    def names(self, name: str, default: list[str]) -> list[str]:
        return [part for item in self.list(name, default=default) if (part := item.strip())]


def data_folder(path: Path) -> Path:
    """`path`, made when missing, readable by nobody else."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ImproperlyConfigured(
            f"The data folder {path} can't be made: {error.strerror}. Set FEDUI_DATA_DIR to one you may write to."
        ) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise ImproperlyConfigured(
            f"The data folder {path} is not writable. Set FEDUI_DATA_DIR to one you may write to."
        )
    return path


def secret_key(path: Path) -> str:
    """The key kept at `path`, made at the first start. Of processes that start together, one makes it for all."""
    if not path.exists():
        draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
        draft.touch(mode=0o600)
        try:
            draft.write_text(secrets.token_urlsafe(64))
            os.link(draft, path)  # Unlike a rename, this fails if another process was first.
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_text().strip()


def database(url: str) -> dict[str, Any]:
    """Django's settings of the database at `url`."""
    try:
        config: dict[str, Any] = Environment.db_url_config(url)
    except (KeyError, ValueError) as error:
        raise ImproperlyConfigured(f"DATABASE_URL can't be read ({error}): use postgres://… or sqlite:///….") from error
    if config["ENGINE"] == "django.db.backends.sqlite3":
        # Several processes write. A transaction that takes its lock at the start waits for it; one that upgrades a read
        # fails at once with "database is locked".
        config["OPTIONS"] = {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
        }
    # To open SQLite's file for each call takes longer than the call, and whoever closes it last writes all of its log into it.
    config |= {"CONN_MAX_AGE": 60, "CONN_HEALTH_CHECKS": True}
    return config


def single_sign_on(*, issuer: str, client_id: str, client_secret: str, name: str) -> dict[str, Any] | None:
    """django-allauth's description of the OpenID Connect provider at `issuer`; None where none is named."""
    if not issuer:
        return None
    parts = urlsplit(web_url("FEDUI_OIDC_ISSUER", issuer))
    if parts.scheme != "https" and not is_loopback(str(parts.hostname)):
        raise ImproperlyConfigured(f"FEDUI_OIDC_ISSUER is {issuer!r}: what it says is trusted, so it must be https.")
    if not client_id:
        raise ImproperlyConfigured("FEDUI_OIDC_ISSUER is set, but FEDUI_OIDC_CLIENT_ID is not: name the client there.")
    return {
        "provider_id": "sso",
        "name": name,
        "client_id": client_id,
        "secret": client_secret,
        "settings": {
            "server_url": issuer.rstrip("/"),
            "oauth_pkce_enabled": True,
            "origin": f"{parts.scheme}://{parts.netloc}",
        },
    }


def email(url: str) -> dict[str, Any]:
    """Django's settings of the mail server at `url`: smtp+tls://user:password@host:587, or consolemail:// for the log."""
    try:
        config: dict[str, Any] = Environment.email_url_config(url)
    except (KeyError, ValueError) as error:
        raise ImproperlyConfigured(
            f"FEDUI_EMAIL_URL can't be read ({error}): use smtp+tls://user:password@host:587 or consolemail://."
        ) from error
    return {name: value for name, value in config.items() if name.startswith("EMAIL_")} | {"EMAIL_TIMEOUT": 10}


def broker_url(redis_url: str) -> str:
    """`redis_url` as Celery writes it: a Unix socket has a scheme of its own there."""
    parts = urlsplit(redis_url)
    if parts.scheme in ("redis", "rediss"):
        return redis_url
    if parts.scheme == "unix" and parts.path:
        return f"redis+socket://{parts.path}?virtual_host=0"
    raise ImproperlyConfigured(f"REDIS_URL is {redis_url!r}: use redis://host:6379/0, rediss://… or unix:///path.")


def transfer_limits(**values: Any) -> TransferLimits:
    """Of uploads and downloads, for all agents of a worker."""
    try:
        return TransferLimits(**values)
    except ValueError as error:
        raise ImproperlyConfigured(
            f"The limits of transfers (FEDUI_UPLOAD…, FEDUI_TRANSFER…) can't be: {error}"
        ) from error


def model_store(name: str, value: str) -> str:
    """`value` if it is empty or names a bucket."""
    parts = urlsplit(value)
    if value and not (parts.scheme == "s3" and parts.netloc and not parts.query):
        raise ImproperlyConfigured(f"{name} is {value!r}: it must read s3://bucket or s3://bucket/prefix, or be empty.")
    return value


def kept_checkpoints(name: str, value: str) -> tuple[str, int]:
    """Which models of a run are kept, and the n of every n-th: `all`, `best_and_last` or `every:10`."""
    kind, _, number = value.partition(":")
    if value in ("all", "best_and_last"):
        return value, 1
    if kind == "every" and number.isdecimal() and int(number) > 0:
        return kind, int(number)
    raise ImproperlyConfigured(f"{name} is {value!r}: it must be all, best_and_last, or every:n, such as every:10.")


def address(name: str, value: str) -> str:
    """`value` if it reads host:port, with an IPv6 host in brackets."""
    host, separator, port = value.rpartition(":")
    bare_ipv6 = ":" in host and not (host.startswith("[") and host.endswith("]"))
    if not (separator and host and port.isdecimal() and int(port) < 65536) or bare_ipv6:
        raise ImproperlyConfigured(f"{name} is {value!r}: it must read host:port, for example 127.0.0.1:50051.")
    return value


def host_of(host_and_port: str) -> str:
    return host_and_port.rpartition(":")[0].strip("[]")


def web_url(name: str, value: str) -> str:
    """`value` without a closing slash if it is the address of a web server."""
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ImproperlyConfigured(f"{name} is {value!r}: it must read like https://fedui.example.org.")
    return value.rstrip("/")


LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def choice(name: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise ImproperlyConfigured(f"{name} is {value!r}: it must be one of {', '.join(allowed)}.")
    return value


def not_negative(name: str, value: int) -> int:
    """`value` if it is 0 or more."""
    if value < 0:
        raise ImproperlyConfigured(f"{name} is {value}: it must be 0 or more.")
    return value


def at_least_one(name: str, value: int) -> int:
    """`value` if it is 1 or more."""
    if value < 1:
        raise ImproperlyConfigured(f"{name} is {value}: it must be 1 or more.")
    return value


def positive(name: str, value: str) -> float:
    """`value` if it reads a number above 0."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise ImproperlyConfigured(f"{name} is {value!r}: it must be a number above 0.")
    return number


def networks(name: str, values: list[str]) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """Networks written like 10.0.0.0/8."""
    try:
        return [ipaddress.ip_network(value) for value in values]
    except ValueError as error:
        raise ImproperlyConfigured(f"{name} can't be read ({error}): write networks like 10.20.0.0/16.") from error


def is_loopback(host: str) -> bool:
    """Whether `host` can only mean this machine."""
    bare = host.strip("[]").lower()
    if bare in LOOPBACK_NAMES or bare.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return False
