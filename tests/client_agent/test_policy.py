"""The policy file: what it may say, and what is told of one that is wrong."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from client_agent.errors import BrokenPolicy
from client_agent.explanation import explain
from client_agent.hours import Window
from client_agent.policy import AppRule, Limits, Policy, read


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "policy.toml"


def problems(file: Path, content: str) -> tuple[str, ...]:
    file.write_text(content)
    with pytest.raises(BrokenPolicy) as broken:
        read(file)
    return broken.value.problems


def test_what_the_file_does_not_speak_of_is_allowed(file: Path) -> None:
    file.write_text("")
    assert read(file) == Policy()
    told = dict(explain(Policy()))
    assert (told["federations"], told["epochs"], told["metrics that leave"]) == ("any", "no limit", "all")


def test_rules_are_read_and_explained(file: Path) -> None:
    digest = "A" * 64
    file.write_text(f"""
        federations = ["cardio"]
        hours = ["mon-fri 20:00-06:00", "sat 00:00-24:00"]
        timezone = "Europe/Berlin"
        [apps.digits-mlp]
        versions = ["1.0", "1.1"]
        sha256 = "{digest}"
        [limits]
        epochs = 5
        config = {{batch_size = 512}}
        [require]
        cohort = 4
        secure_aggregation = true
        [leave]
        metrics = ["loss", "val_*"]
        statistics = []
    """)
    policy = read(file)
    assert policy.apps == {"digits-mlp": AppRule(("1.0", "1.1"), "a" * 64)}
    assert policy.limits == Limits(epochs=5, config={"batch_size": 512})
    assert [policy.leave.allows_metric(name) for name in ("loss", "val_loss", "accuracy")] == [True, True, False]
    told = dict(explain(policy))
    assert told["apps"] == f"digits-mlp 1.0 or 1.1 with the code sha256 {'a' * 12}…"
    assert told["hours"] == "mon-fri 20:00-06:00 and sat 00:00-24:00, Europe/Berlin"
    assert told["epochs"] == "at most 5 a round, all phases of a method together"
    assert told["a round must have"] == "at least 4 clients that are asked and secure aggregation"
    assert told["metrics that leave"] == "loss and val_*"
    assert told["told of a column"] == "the number of values"


def test_every_problem_is_told_at_once_with_its_place_and_a_hint(file: Path) -> None:
    told = problems(
        file,
        'federation = "x"\nhours = "25:00-26:00"\n[limits]\nepoch = 5\nrounds_a_day = 0\n[leave]\nmetrics = "loss"',
    )
    assert told == (
        "hours: 25:00 is no time of the day; it goes from 00:00 to 24:00.",
        "limits.rounds_a_day: a whole number from 1 on is expected, not 0.",
        """leave.metrics: a list of names is expected, for example ["one", "two"], not 'loss'.""",
        "limits.epoch is not known; did you mean 'epochs'?",
        "federation is not known; did you mean 'federations'?",
    )


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("epochs = ", "It can't be read"),
        ("app = 1", "app is not known; did you mean 'apps'"),
        ("[limitations]", "limitations is not known; did you mean 'limits'"),
        ("limits = 5", "limits: a table is expected"),
        ("[apps]\ndigits = 1", "apps.digits: a table is expected"),
        ("[apps.digits]\nsha = 'x'", "apps.digits.sha is not known; did you mean 'sha256'"),
        ("[apps.digits]\nsha256 = 'x'", "64 hexadecimal digits are expected"),
        ("tasks = ['fit']", "'fit' is none of initialise, train, evaluate, query"),
        ("timezone = 'Mars/Olympus'", "no time zone known here"),
        ("[require]\ncohort = true", "a whole number from 1 on is expected, not True"),
        ("[require]\nsecure_aggregation = 1", "true or false is expected"),
        ("[limits.config]\nsteps = 'many'", "the most that 'steps' may be is a number"),
        ("[leave]\nerrors = 'none'", "'none' is none of text, type"),
        ("[somewhere.else]", "somewhere is not known; known are apps, federations, hours"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(file: Path, content: str, problem: str) -> None:
    assert problem in " ".join(problems(file, content))


@pytest.mark.parametrize(
    ("text", "moment", "holds"),
    [
        ("08:00-18:00", "2026-11-26 08:00", True),
        ("08:00-18:00", "2026-11-26 18:00", False),
        ("mon-fri 20:00-06:00", "2026-11-27 23:59", True),  # a Friday
        ("mon-fri 20:00-06:00", "2026-11-28 05:59", True),
        ("mon-fri 20:00-06:00", "2026-11-28 06:00", False),
        ("mon-fri 20:00-06:00", "2026-11-29 23:00", False),
        ("fri-mon 20:00-06:00", "2026-11-29 23:00", True),
        ("sat,sun 00:00-24:00", "2026-11-29 23:59", True),
        ("Sat, sun 00:00-24:00", None, False),
        ("sat-caturday 00:00-24:00", None, False),
        ("08:00-08:00", None, False),
        ("08:00-09:60", None, False),
        ("always", None, False),
    ],
)
def test_windows_of_the_week(text: str, moment: str | None, holds: bool) -> None:
    if moment is None:
        with pytest.raises(ValueError, match=r"window is written|is no|same time"):
            Window.parse(text)
    else:
        assert Window.parse(text).holds(datetime.fromisoformat(moment)) is holds
