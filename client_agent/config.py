"""The settings of `fedagent run`: flag, then environment, then agent.toml in the home folder, then default."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args
from urllib.parse import urlsplit

from client_agent.backoff import MAX_SECONDS
from client_agent.errors import ConfigurationError
from client_agent.queries import DEFAULT_MIN_VALUES
from protos import limits

DEFAULT_APPS = ("digits-mlp",)

LogFormat = Literal["text", "json"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Each field is a key of agent.toml, and an environment variable with FEDAGENT_ before it.

    In the environment, lists and `key=value` pairs are separated by commas: FEDAGENT_SET=partition=2,partitions=5.
    """

    app: tuple[str, ...]
    set: Mapping[str, str]
    log_format: LogFormat
    reconnect_max_seconds: float
    min_values: int = DEFAULT_MIN_VALUES
    policy: Path | None = None
    proxy: str | None = None
    max_tasks: int = 1
    metrics_port: int = 0
    """Of this machine, for Prometheus; 0: none."""
    flower: str = ""
    """A Flower `ClientApp`, as "module:attribute"."""
    flower_model: str = ""


def load(flags: Mapping[str, Any], environment: Mapping[str, str], file: Path) -> Settings:
    """`flags` holds what the command line gave. Raises `ConfigurationError`."""
    values: dict[str, Any] = {"app": (), "set": {}, "log_format": "text", "flower": "", "flower_model": ""}
    values["reconnect_max_seconds"] = MAX_SECONDS
    values["min_values"] = DEFAULT_MIN_VALUES
    values["max_tasks"] = 1
    values["metrics_port"] = 0
    values["policy"] = values["proxy"] = None
    for source in (_from_file(file, values.keys()), _from_environment(environment, values.keys()), flags):
        values.update(source)
    if bool(values["flower"]) != bool(values["flower_model"]):
        raise ConfigurationError("flower and flower_model go together: the ClientApp, and the model that it trains.")
    apps = tuple(_listed(values["app"]))
    return Settings(
        app=apps if apps or values["flower"] else DEFAULT_APPS,
        set=_pairs(values["set"]),
        log_format=_log_format(values["log_format"]),
        reconnect_max_seconds=_seconds(values["reconnect_max_seconds"]),
        min_values=_min_values(values["min_values"]),
        max_tasks=_max_tasks(values["max_tasks"]),
        metrics_port=_metrics_port(values["metrics_port"]),
        policy=Path(values["policy"]).expanduser() if values["policy"] else None,
        proxy=_proxy(values["proxy"]),
        flower=str(values["flower"]),
        flower_model=str(values["flower_model"]),
    )


def _from_file(file: Path, known: Iterable[str]) -> dict[str, Any]:
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{file} can't be read: {error}") from error
    if unknown := sorted(values.keys() - set(known)):
        raise ConfigurationError(f"{file} sets {unknown[0]!r}; known are {', '.join(known)}.")
    return values


def _from_environment(environment: Mapping[str, str], known: Iterable[str]) -> dict[str, str]:
    return {name: value for name in known if (value := environment.get(f"FEDAGENT_{name.upper()}"))}


def _listed(value: Any) -> list[str]:
    items = value.split(",") if isinstance(value, str) else value
    return [str(item).strip() for item in items]


def _pairs(value: Any) -> dict[str, str]:
    if isinstance(value, Mapping):
        return {name: str(option) for name, option in value.items()}
    pairs = [item.partition("=") for item in _listed(value)]
    for name, separator, _ in pairs:
        if not name or not separator:
            raise ConfigurationError(f"An option is written key=value, not {name!r}.")
    return {name.strip(): option.strip() for name, _, option in pairs}


def _log_format(value: Any) -> LogFormat:
    if value not in get_args(LogFormat):
        raise ConfigurationError(f"log_format is {' or '.join(get_args(LogFormat))}, not {value!r}.")
    return cast(LogFormat, value)


def _seconds(value: Any) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = 0.0
    if not seconds > 0:
        raise ConfigurationError(f"reconnect_max_seconds is a number of seconds above 0, not {value!r}.")
    return seconds


def _min_values(value: Any) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = 0
    if number < 2:
        raise ConfigurationError(f"min_values is a whole number from 2 on, not {value!r}.")
    return number


def _max_tasks(value: Any) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = 0
    if not 1 <= number <= limits.MAX_TASKS:
        raise ConfigurationError(f"max_tasks is a whole number from 1 to {limits.MAX_TASKS}, not {value!r}.")
    return number


def _metrics_port(value: Any) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = -1
    if not 0 <= number < 65536:
        raise ConfigurationError(f"metrics_port is a port of this machine, or 0 for none, not {value!r}.")
    return number


def _proxy(value: Any) -> str | None:
    if value is None:
        return None
    try:
        parts = urlsplit(str(value))
        usable = parts.scheme == "http" and parts.hostname and parts.port
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError(f"proxy is an address like http://proxy.example.org:3128, not {value!r}.")
    return str(value).rstrip("/")
