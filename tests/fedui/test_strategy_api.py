"""Strategies over REST: schema and validation."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client as Browser

from aggregator.core import registry
from fedui.accounts.models import User

pytestmark = pytest.mark.django_db


@pytest.fixture
def browser() -> Browser:
    browser = Browser()
    browser.force_login(User.objects.create_user("someone"))
    return browser


def validate(browser: Browser, body: dict[str, Any]) -> Any:
    return browser.post("/api/v1/strategies/validate", body, content_type="application/json")


def test_the_schema_has_every_installed_part(browser: Browser) -> None:
    schema = browser.get("/api/v1/strategies/schema").json()
    assert set(schema["properties"]["aggregation"]["discriminator"]["mapping"]) == set(registry.rules())
    assert set(schema["properties"]["optimizer"]["discriminator"]["mapping"]) == set(registry.optimizers())


def test_json_and_yaml_say_the_same(browser: Browser) -> None:
    by_json = validate(browser, {"config": {"aggregation": {"name": "median"}, "optimizer": {"name": "adam"}}}).json()
    by_yaml = validate(browser, {"yaml": "aggregation: {name: median}\noptimizer: {name: adam}\n"}).json()
    assert by_json == by_yaml
    assert by_json["algorithm"] == "median + adam"
    assert validate(browser, {"yaml": by_json["yaml"]}).json() == by_json
    assert "up to 0 may be wrong" in by_json["explanation"]


@pytest.mark.parametrize(
    ("body", "status", "code", "detail"),
    [
        (
            {"config": {"aggregation": {"name": "krum", "malicious": -1}}},
            422,
            "strategy_invalid",
            "aggregation.krum.malicious",
        ),
        ({"config": {"cohort": {"fraction": 7}}}, 422, "strategy_invalid", "cohort.fraction"),
        ({"config": "os.system"}, 422, "strategy_invalid", "strategy"),
        ({"yaml": "!!python/object/apply:os.system [true]"}, 422, "strategy_invalid", "not YAML"),
        ({"yaml": "- 1"}, 422, "strategy_invalid", "mapping"),
        ({}, 400, "invalid_request", "either config"),
        ({"yaml": "a: 1", "config": {}}, 400, "invalid_request", "either config"),
        ({"yaml": "x" * 100_001}, 400, "invalid_request", "yaml"),
    ],
)
def test_what_is_no_strategy_is_a_problem_that_names_the_place(
    browser: Browser, body: dict[str, Any], status: int, code: str, detail: str
) -> None:
    answer = validate(browser, body)
    assert (answer.status_code, answer["Content-Type"]) == (status, "application/problem+json")
    assert answer.json()["code"] == code
    assert detail in answer.json()["detail"]


def test_nobody_else_is_answered() -> None:
    assert Browser().get("/api/v1/strategies/schema").status_code in (401, 403)
    assert validate(Browser(), {"config": {}}).status_code in (401, 403)
