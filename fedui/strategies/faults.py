"""What is wrong with a configuration, place by place, in the words that form, YAML and API share."""

from __future__ import annotations

from typing import NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from aggregator.core.config import StrategyConfig
from fedui.errors import DomainError, ErrorCode


class Fault(NamedTuple):
    loc: tuple[int | str, ...]
    """Empty if it is about several places at once."""
    msg: str

    def __str__(self) -> str:
        place = ".".join(map(str, self.loc))
        return f"{place}: {self.msg}" if place else self.msg


class BadStrategy(DomainError):
    """A configuration that no run could have. The text names each place and what is wrong there."""

    code = ErrorCode.STRATEGY_INVALID

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__(" ".join(map(str, faults)), hint="The schema is at /api/v1/strategies/schema.")
        self.faults = faults
        self.extensions = {"errors": [{"loc": list(fault.loc), "msg": fault.msg} for fault in faults]}


def parse_config(raw: object) -> StrategyConfig:
    """Raises `BadStrategy`."""
    try:
        return StrategyConfig.model_validate(raw)
    except ValidationError as error:
        raise BadStrategy(faults_of(error)) from error


def parse_yaml(text: str) -> StrategyConfig:
    """Raises `BadStrategy`."""
    try:
        return StrategyConfig.from_yaml(text)
    except ValidationError as error:
        raise BadStrategy(faults_of(error)) from error
    except ValueError as error:
        raise BadStrategy([Fault((), str(error))]) from error


def faults_of(error: ValidationError) -> list[Fault]:
    return [Fault(detail["loc"], _worded(detail)) for detail in error.errors()]


def _worded(detail: ErrorDetails) -> str:
    match detail["type"]:
        case "int_parsing" | "int_from_float":
            return "Write a whole number."
        case "float_parsing":
            return "Write a number."
        case "missing":
            return "Write a value."
        case "extra_forbidden":
            return "There is no such setting."
        case "union_tag_invalid":
            context = detail["ctx"]
            return f"There is none named '{context['tag']}'. Choose one of {context['expected_tags']}."
        case "union_tag_not_found":
            return "Say which one by its name, such as `name: mean`."
    return detail["msg"].removeprefix("Value error, ").replace("Input should be", "Must be").rstrip(".") + "."
