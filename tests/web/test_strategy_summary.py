"""What a strategy means, in sentences."""

from __future__ import annotations

from typing import Any

import pytest

from aggregator.core.config import StrategyConfig
from aggregator.core.strategies.fedmedian import Median
from fedui.clients.models import Client
from fedui.strategies.summary import fleet_statement, summary
from tests.support.population import populate


def said(**values: Any) -> dict[str, str]:
    config = StrategyConfig.model_validate(values)
    return {statement.topic: statement.text for statement in summary(config)}


def test_the_default_is_said_without_parts_that_do_nothing() -> None:
    assert said() == {
        "Cohort": "A round wants updates of 100 % of the clients, and begins when 2 are connected.",
        "Training": "Each trains 2 epochs in batches of 16, at rate 0.2 in every round.",
        "Rule": "Mean, weighted by examples. One client that sends a wrong update can move the model as far as it likes.",
        "Round": (
            "Closes after 2 min at the latest, and counts with 2 updates or more. After 3 attempts without that the run fails."
        ),
        "Slow and lost": (
            "A client that drops out is replaced by another, as long as the time left is enough for that one. "
            "Unfinished training is not taken: only FedProx, and FedNova without another method, weigh it rightly."
        ),
        "Early stop": "None. A run does all its rounds.",
        "Evaluation": "The model is measured by the clients and on the server, every round.",
    }


@pytest.mark.parametrize(
    ("values", "topic", "text"),
    [
        ({"cohort": {"labels": {"region": "north"}}}, "Cohort", "the clients with region:north, and begins"),
        (
            {"cohort": {"min_clients": 10, "over_selection": 1.3}},
            "Cohort",
            "For 10 updates it asks 13, where there are so many, and closes with the first 10.",
        ),
        (
            {"cohort": {"fraction": 0.1, "max_clients": 9}},
            "Cohort",
            "updates of 10 % of the clients, 9 at most, and begins",
        ),
        ({"cohort": {"order": "cyclic"}}, "Cohort", "connected. Clients are asked in turn, round after round."),
        (
            {"cohort": {"order": "available"}},
            "Cohort",
            "Those that have answered most reliably in the run are asked first.",
        ),
        ({"local": {"schedule": {"name": "step", "every": 1}}}, "Training", "rate 0.2, times 0.5 after every 1 round."),
        (
            {"local": {"schedule": {"name": "cosine", "end": 0.1}}},
            "Training",
            "falling along half a cosine to 10 % of it in the last round",
        ),
        (
            {"local": {"epochs": 4, "epochs_schedule": {"name": "step", "every": 2}}},
            "Training",
            "Each trains 4 epochs, times 0.5 after every 2 rounds, rounded to at least 1, in batches of 16",
        ),
        (
            {"aggregation": {"name": "xgboost_bagging"}},
            "Training",
            "Each trains 2 boosting rounds, at rate 0.2 in every round.",
        ),
        (
            {"update": {"send": "delta", "compression": "int8"}},
            "Transfer",
            "travel as int8 differences from the global model: about a quarter of the size of a model in float32.",
        ),
        (
            {"update": {"send": "delta", "compression": "top_k", "keep": 0.005}},
            "Transfer",
            "only the largest 0.5 % travel, 8 bytes each: about 1 % of the size of a model in float32. Each client keeps the rest",
        ),
        (
            {"update": {"packing": "zstd"}},
            "Transfer",
            "Updates and models are packed by zstd where that makes them smaller",
        ),
        ({"update": {"send": "delta"}}, "Transfer", "travel as differences from the global model: the size of a model"),
        ({"update": {"clip_norm": 1.5}}, "Clipping", "longer than 1.5 is drawn in"),
        ({"optimizer": {"name": "adam"}}, "Server optimizer", "Adam."),
        ({"stopping": {"target": 0.95}}, "Early stop", "Ends when server accuracy reaches 0.95 or higher."),
        (
            {"stopping": {"patience": 10, "metric": "loss", "better": "lower", "min_change": 0.01}},
            "Early stop",
            "Ends when server loss has not become lower by more than 0.01 for 10 rounds.",
        ),
        ({"evaluation": {"federated": False, "every": 5}}, "Evaluation", "measured on the server, every 5 rounds."),
        ({"evaluation": {"federated": False, "server": False}}, "Evaluation", "never measured"),
    ],
)
def test_what_is_chosen_is_said(values: dict[str, Any], topic: str, text: str) -> None:
    assert text in said(**values)[topic]


def test_a_robust_rule_says_what_it_tolerates_and_needs() -> None:
    texts = said(aggregation={"name": "krum", "malicious": 2}, cohort={"min_clients": 8}, faults={"quorum": 7})
    assert texts["Rule"].startswith("Krum. Tolerates 2 wrong updates of at least 7")
    assert "counts with 7 updates or more. The rule needs 7." in texts["Round"]


def test_a_rule_that_cannot_explain_itself_keeps_its_title(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Median, quorum: int) -> str:
        raise ZeroDivisionError

    monkeypatch.setattr(Median, "explain", broken)
    assert said(aggregation={"name": "median"})["Rule"] == "Coordinate-wise median."


def test_a_buffered_run_is_said_as_what_it_is() -> None:
    texts = said(mode={"name": "buffered", "buffer_size": 4})
    assert "Cohort" not in texts
    assert texts["Mode"] == (
        "All clients train at once, and none waits for a slower one; the run begins when 2 are connected. "
        "Every 4 updates of different clients make the next model; clients count alike. "
        "A step that is one version old counts 71 %, and none that is older than 20."
    )
    assert "Counts with 4 updates, its buffer" in texts["Round"]
    assert texts["Evaluation"].endswith("on the server, every round. Not by the clients, who train all the time.")
    few = said(mode={"name": "buffered", "concurrency": 1}, cohort={"labels": {"region": "north"}})
    assert few["Mode"].startswith("At most 1 client with region:north train")


def test_a_buffer_that_the_fleet_can_never_fill_is_told(db: None) -> None:
    world = populate()
    config = StrategyConfig.model_validate({"mode": {"name": "buffered", "buffer_size": 3}})
    told = fleet_statement(config, world.federation.clients.all())
    assert (told.level, told.text) == (
        "warn",
        "2 enrolled clients can never fill a buffer of 3: each counts once in it.",
    )


def test_the_fleet_is_compared_with_what_is_needed(db: None) -> None:
    world = populate()
    clients = world.federation.clients.all()
    enough = fleet_statement(StrategyConfig(), clients)
    assert (enough.level, enough.text) == ("ok", "2 enrolled clients match, 2 online now.")
    Client.objects.filter(pk=world.client.pk).update(connected=False, labels={"region": "south"})
    south = StrategyConfig.model_validate({"cohort": {"labels": {"region": "south"}}})
    few = fleet_statement(south, world.federation.clients.all())
    assert (few.level, few.text) == ("warn", "1 enrolled client matches, 0 online now.")
