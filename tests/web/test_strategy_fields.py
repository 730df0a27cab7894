"""Fields of parts that nobody knew when the form was written."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import pytest
from pydantic import Field

from aggregator.core.config import StrategyConfig
from aggregator.core.strategies.base import OptimizerConfig
from fedui.strategies.fields import ConfigField, sections_of


class Custom(OptimizerConfig):
    title: ClassVar[str] = "Custom"
    name: Literal["custom"] = "custom"
    rate: Annotated[float | None, Field(gt=0, lt=1, title="Rate", description="Empty: the default.")] = None
    steps: Annotated[int, Field(title="Steps")]
    local_tensors: Annotated[list[str], Field(default_factory=lambda: ["head.weight", "head.bias"])]
    mode: Literal["fast", "exact"] = "fast"
    weights: Annotated[dict[str, float], Field(default_factory=lambda: {"a": 0.5})]


class Other(OptimizerConfig):
    title: ClassVar[str] = "Other"
    name: Literal["other"] = "other"


class WithChoice(StrategyConfig):
    optimizer: Annotated[Custom | Other, Field(title="Optimizer", discriminator="name")] = Other()


@pytest.fixture
def fields() -> dict[str, ConfigField]:
    (section,) = (section for section in sections_of(WithChoice()) if section.title == "Server optimizer")
    return {field.name: field for field in section.fields}


def test_each_setting_of_a_custom_part_has_a_field(fields: dict[str, ConfigField]) -> None:
    assert fields["optimizer.name"].choices == (("custom", "Custom"), ("other", "Other"))
    kinds = {field.path[-1]: field.kind for field in fields.values()}
    assert kinds == {
        "name": "part",
        "rate": "number",
        "steps": "number",
        "local_tensors": "list",
        "mode": "choice",
        "weights": "pairs",
    }
    assert fields["optimizer.custom.local_tensors"].title == "Local tensors"
    assert not any(field.shown for field in fields.values() if field.option)


def test_an_optional_number_says_its_limits_and_may_be_empty(fields: dict[str, ConfigField]) -> None:
    rate = fields["optimizer.custom.rate"]
    assert (rate.optional, rate.integer, rate.value, rate.parsed()) == (True, False, "", None)
    assert (rate.help, rate.range) == ("Empty: the default.", "More than 0, less than 1")


def test_a_value_without_a_default_is_asked_for(fields: dict[str, ConfigField]) -> None:
    steps = fields["optimizer.custom.steps"]
    assert (steps.optional, steps.integer, steps.value) == (False, True, "")


def test_lists_and_pairs_are_written_with_commas(fields: dict[str, ConfigField]) -> None:
    tensors, weights = fields["optimizer.custom.local_tensors"], fields["optimizer.custom.weights"]
    assert (tensors.value, weights.value) == ("head.weight, head.bias", "a:0.5")
    assert (tensors.parsed(), weights.parsed()) == (["head.weight", "head.bias"], {"a": 0.5})
    assert tensors.path == ["optimizer", "local_tensors"]


@pytest.mark.parametrize("text", ["[" * 3000, "- " * 3000, "*a", "1" * 5000, "2026-13-45", "true", "0.5"])
def test_a_value_for_the_app_is_a_number_or_the_text_itself(text: str) -> None:
    (extra,) = (f for s in sections_of(StrategyConfig()) for f in s.fields if f.name == "local.extra")
    extra.read({"local.extra": f"a:{text}"})
    assert extra.parsed() == {"a": {"true": True, "0.5": 0.5}.get(text, text.strip())}
