"""Where the settings come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from client_agent import config
from client_agent.errors import ConfigurationError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "agent.toml"


def test_defaults(file: Path) -> None:
    settings = config.load({}, {}, file)
    assert settings == config.Settings(("digits-mlp",), {}, "text", 60.0)


def test_flag_beats_environment_beats_file_beats_default(file: Path) -> None:
    file.write_text('app = ["from-file"]\nlog_format = "json"\nset = {alpha = 0.5}\nreconnect_max_seconds = 5\n')
    environment = {"FEDAGENT_APP": "from-env,second", "FEDAGENT_SET": "partition=2, partitions=5"}
    settings = config.load({"app": ["from-flag"]}, environment, file)
    assert settings == config.Settings(("from-flag",), {"partition": "2", "partitions": "5"}, "json", 5.0)
    assert config.load({}, environment, file).app == ("from-env", "second")
    assert config.load({}, {}, file).app == ("from-file",)


def test_an_option_may_hold_commas_and_equal_signs_on_the_command_line(file: Path) -> None:
    assert config.load({"set": ["query=a=1,b=2"]}, {}, file).set == {"query": "a=1,b=2"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"set": ["partition"]}, "key=value, not 'partition'"),
        ({"log_format": "xml"}, "text or json, not 'xml'"),
        ({"reconnect_max_seconds": "soon"}, "not 'soon'"),
        ({"reconnect_max_seconds": 0}, "above 0"),
    ],
)
def test_a_wrong_value_is_named(file: Path, flags: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        config.load(flags, {}, file)


@pytest.mark.parametrize(("content", "message"), [("apps = 1", "sets 'apps'; known are app"), ("app = ", "read")])
def test_a_wrong_file_is_named(file: Path, content: str, message: str) -> None:
    file.write_text(content)
    with pytest.raises(ConfigurationError, match=message):
        config.load({}, {}, file)


def test_a_flower_app_is_offered_alone_unless_others_are_named(file: Path) -> None:
    flower = {"flower": "site:app", "flower_model": "site:model"}
    assert config.load(flower, {}, file).app == ()
    assert config.load({**flower, "app": ["digits-mlp"]}, {}, file).app == ("digits-mlp",)


@pytest.mark.parametrize("name", ["flower", "flower_model"])
def test_a_flower_app_needs_its_model_and_the_model_its_app(file: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="go together"):
        config.load({name: "site:app"}, {}, file)
