"""Strategies over REST: schema, validation, and who sees what a federation has saved."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client as Browser

from aggregator.core import registry
from aggregator.core.config import StrategyConfig
from fedui.accounts.models import User
from fedui.federations.models import ALLOWED, Act, Federation, Role
from fedui.strategies.models import StrategyVersion
from fedui.strategies.services import create_strategy, save_version
from tests.support.domain import a_member

MEDIAN = StrategyConfig.model_validate({"aggregation": {"name": "median"}, "optimizer": {"name": "adam"}})
LIST = "/api/v1/federations/hearts/strategies"


def signed_in(user: User) -> Browser:
    browser = Browser()
    browser.force_login(user)
    return browser


@pytest.fixture
def browser(owner: User) -> Browser:
    return signed_in(owner)


def validate(browser: Browser, body: dict[str, Any]) -> Any:
    return browser.post("/api/v1/strategies/validate", body, content_type="application/json")


# --- schema and validation -------------------------------------------------------------------------------------------


def test_the_schema_has_every_installed_part(browser: Browser) -> None:
    schema = browser.get("/api/v1/strategies/schema").json()
    assert set(schema["properties"]["aggregation"]["discriminator"]["mapping"]) == set(registry.rules())
    assert set(schema["properties"]["optimizer"]["discriminator"]["mapping"]) == set(registry.optimizers())


def test_json_and_yaml_say_the_same(browser: Browser) -> None:
    by_json = validate(browser, {"config": {"aggregation": {"name": "median"}, "optimizer": {"name": "adam"}}}).json()
    by_yaml = validate(browser, {"yaml": "aggregation: {name: median}\noptimizer: {name: adam}\n"}).json()
    assert by_json == by_yaml
    assert by_json["algorithm"] == "median + adam"
    assert by_json["config"] == MEDIAN.model_dump(mode="json")
    assert validate(browser, {"yaml": by_json["yaml"]}).json() == by_json
    summary = {statement["topic"]: statement["text"] for statement in by_json["summary"]}
    assert "up to 0 may be wrong" in summary["Rule"]


@pytest.mark.parametrize(
    ("body", "loc", "message"),
    [
        (
            {"config": {"aggregation": {"name": "krum", "malicious": -1}}},
            ["aggregation", "krum", "malicious"],
            "Must be greater than or equal to 0.",
        ),
        ({"config": {"cohort": {"fraction": 7}}}, ["cohort", "fraction"], "Must be less than or equal to 1."),
        ({"config": {"local": {"epochs": "many"}}}, ["local", "epochs"], "Write a whole number."),
        ({"config": {"rounds": 3}}, ["rounds"], "There is no such setting."),
        ({"config": {"aggregation": {}}}, ["aggregation"], "Say which one by its name"),
        ({"yaml": "aggregation: {name: magic}"}, ["aggregation"], "There is none named 'magic'. Choose one of"),
        ({"yaml": "stopping: {target: .nan}"}, ["stopping", "target"], "finite number"),
        ({"yaml": "optimizer: {name: adam, learning_rate: .inf}"}, ["optimizer", "adam", "learning_rate"], "finite"),
        ({"config": {"faults": {"quorum": 9}}}, [], "such a round could never count"),
        ({"config": "os.system"}, [], "dictionary"),
        ({"yaml": "!!python/object/apply:os.system [true]"}, [], "not YAML"),
        ({"yaml": "- 1"}, [], "mapping"),
    ],
)
def test_what_is_no_strategy_is_a_problem_that_names_the_place(
    browser: Browser, body: dict[str, Any], loc: list[str], message: str
) -> None:
    answer = validate(browser, body)
    assert (answer.status_code, answer["Content-Type"]) == (422, "application/problem+json")
    problem = answer.json()
    assert problem["code"] == "strategy_invalid"
    (error,) = problem["errors"]
    assert error["loc"] == loc
    assert message in error["msg"]
    assert problem["detail"] == f"{'.'.join(loc)}: {error['msg']}".removeprefix(": ")


def test_every_fault_is_named(browser: Browser) -> None:
    errors = validate(browser, {"config": {"cohort": {"fraction": 7}, "local": {"epochs": 0}}}).json()["errors"]
    assert [error["loc"] for error in errors] == [["cohort", "fraction"], ["local", "epochs"]]


@pytest.mark.parametrize(
    ("body", "detail"),
    [({}, "either config"), ({"yaml": "a: 1", "config": {}}, "either config"), ({"yaml": "x" * 100_001}, "yaml")],
)
def test_a_request_is_one_wording_of_bounded_length(browser: Browser, body: dict[str, Any], detail: str) -> None:
    answer = validate(browser, body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert detail in answer.json()["detail"]


# --- what a federation has saved -------------------------------------------------------------------------------------


@pytest.fixture
def saved(federation: Federation, owner: User) -> StrategyVersion:
    strategy = create_strategy(federation, owner, name="plain", config=StrategyConfig(), description="Averaging")
    return save_version(strategy, MEDIAN, owner)


def test_the_list_has_each_with_its_latest_version(browser: Browser, saved: StrategyVersion) -> None:
    (strategy,) = browser.get(LIST).json()["results"]
    assert (strategy["name"], strategy["description"]) == ("plain", "Averaging")
    assert strategy["latest"]["id"] == saved.pk
    assert strategy["latest"]["algorithm"] == "median + adam"
    assert strategy["latest"]["created_by"] == "owner"


def test_a_strategy_has_all_its_versions(browser: Browser, saved: StrategyVersion) -> None:
    versions = browser.get(f"{LIST}/plain/versions").json()["results"]
    assert [version["number"] for version in versions] == [2, 1]
    assert [version["config"] for version in versions] == [
        MEDIAN.model_dump(mode="json"),
        StrategyConfig().model_dump(mode="json"),
    ]
    assert browser.get(f"{LIST}/nothing").status_code == 404


def test_a_version_of_the_first_schema_is_shown_in_the_words_of_the_newest(
    browser: Browser, saved: StrategyVersion
) -> None:
    old = {"schema_version": 1, "algorithm": "fedavg", "cohort": {"min_clients": 4}}
    StrategyVersion.objects.create(strategy=saved.strategy, number=3, config=old)
    latest = browser.get(LIST).json()["results"][0]["latest"]
    assert (latest["algorithm"], latest["created_by"]) == ("mean", None)
    assert latest["config"]["schema_version"] == 2
    assert latest["config"]["cohort"]["min_clients"] == 4


# --- who sees it -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [role for role in Role if role != Role.OWNER and Act.READ in ALLOWED[role]])
def test_every_member_may_read(saved: StrategyVersion, federation: Federation, role: Role) -> None:
    browser = signed_in(a_member(federation, role))
    assert browser.get(LIST).status_code == 200
    assert browser.get(f"{LIST}/plain").status_code == 200


def test_for_strangers_a_federations_strategies_do_not_exist(saved: StrategyVersion, stranger: User) -> None:
    browser = signed_in(stranger)
    for address in (LIST, f"{LIST}/plain", "/api/v1/federations/nowhere/strategies"):
        assert browser.get(address).status_code == 404
    assert browser.get(LIST).json() == browser.get("/api/v1/federations/nowhere/strategies").json()


def test_nobody_else_is_answered(saved: StrategyVersion) -> None:
    for address in (LIST, f"{LIST}/plain", "/api/v1/strategies/schema"):
        assert Browser().get(address).status_code in (401, 403)
    assert validate(Browser(), {"config": {}}).status_code in (401, 403)
