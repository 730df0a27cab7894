"""What a Flower app says of itself in its pyproject.toml, and where the values of `--set` belong."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client_agent.errors import ConfigurationError
from protos.convert import ScalarValue

Values = dict[str, ScalarValue]


@dataclass(frozen=True, slots=True)
class Project:
    name: str
    version: str
    run_config: Values = field(default_factory=dict)
    """`[tool.flwr.app.config]`: with which values the app was written to run."""

    @classmethod
    def around(cls, module_file: Path, fallback_name: str) -> Project:
        """Of the nearest pyproject.toml with a Flower app above the module. Raises `ConfigurationError`."""
        for folder in module_file.resolve().parents:
            if (content := _read(folder / "pyproject.toml")) and "flwr" in content.get("tool", {}):
                project, app = content.get("project", {}), content["tool"]["flwr"].get("app", {})
                run_config = _flattened(app.get("config", {}))
                return cls(project.get("name", fallback_name), str(project.get("version", "1")), run_config)
        return cls(fallback_name, "1")

    def placed(self, options: Mapping[str, str]) -> tuple[Values, Values]:
        """What of the owner's options changes the run's configuration, which knows the name; and the node's, all others."""
        values = {name: _parsed(text) for name, text in options.items()}
        of_run = {name: value for name, value in values.items() if name in self.run_config}
        return of_run, {name: value for name, value in values.items() if name not in of_run}


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{file} can't be read: {error}") from error


def _flattened(table: Mapping[str, Any], prefix: str = "") -> Values:
    """As Flower does it: the keys of inner tables follow those of the outer ones after a dot."""
    flat: Values = {}
    for name, value in table.items():
        flat |= _flattened(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def _parsed(text: str) -> ScalarValue:
    """A number, true or false as in TOML; anything else is text."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except ValueError:
        return text
    return value if isinstance(value, bool | int | float | str) else text
