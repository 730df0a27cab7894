"""What a Flower app's pyproject.toml says, and where the owner's options go."""

from __future__ import annotations

from pathlib import Path

import pytest

from client_agent.errors import ConfigurationError
from client_agent.flower.project import Project, Values

PYPROJECT = """
[project]
name = "heights"
version = "2.1"

[tool.flwr.app.config]
local-epochs = 7
verbose = false

[tool.flwr.app.config.train]
lr = 0.5
"""


@pytest.fixture
def module(tmp_path: Path) -> Path:
    package = tmp_path / "heights" / "sites"
    package.mkdir(parents=True)
    (package / "client_app.py").touch()
    return package / "client_app.py"


def test_the_nearest_project_with_a_flower_app_counts(module: Path, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    (module.parent / "pyproject.toml").write_text('[project]\nname = "tools"')
    expected: Values = {"local-epochs": 7, "verbose": False, "train.lr": 0.5}
    assert Project.around(module, "sites") == Project("heights", "2.1", expected)


def test_without_a_project_the_module_names_the_app(module: Path) -> None:
    assert Project.around(module, "sites") == Project("sites", "1")


def test_a_project_that_cannot_be_read_is_named(module: Path) -> None:
    (module.parent / "pyproject.toml").write_text("[project")
    with pytest.raises(ConfigurationError, match=r"pyproject\.toml can't be read"):
        Project.around(module, "sites")


def test_options_that_the_project_knows_are_the_runs_and_others_the_nodes() -> None:
    project = Project("heights", "1", {"local-epochs": 7, "train.lr": 0.5})
    options = {"local-epochs": "3", "partition-id": "0", "rate": "1e-3", "dry": "true", "data": "/data/a b.csv"}
    assert project.placed(options) == (
        {"local-epochs": 3},
        {"partition-id": 0, "rate": 0.001, "dry": True, "data": "/data/a b.csv"},
    )
