"""The app in docs/analytics.md opens its columns, and its figures are true."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client_agent import App, Context
from client_agent.hosting import host
from client_agent.queries import rounded_outward
from protos.fedui.v1.task_pb2 import ColumnQuery
from tests.client_agent.toy import ToyClient

DOCUMENT = (Path(__file__).parent.parent.parent / "docs" / "analytics.md").read_text()


def test_the_example_opens_its_columns() -> None:
    example = re.search(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    assert example
    given: dict[str, Any] = {
        "App": App, "Context": Context, "np": np, "client_fn": lambda context: ToyClient(), "TENSOR_NAMES": ["weight"],
        "load": {"table.csv": {"age": np.arange(20.0, 40.0), "sbp": np.full(20, 120.0)}}.__getitem__,
    }  # fmt: skip
    exec(example[1], given)  # our own document
    columns = host(given["app"], Context("site", {"path": "table.csv"})).columns
    assert columns.names == ("age", "systolic pressure")
    assert columns.answer(ColumnQuery(column="age", moments=True)).sum == 590.0


@pytest.mark.parametrize(("low", "high", "told"), [(12.34, 987.6, (12.0, 990.0)), (18.0, 99.0, (18.0, 99.0))])
def test_a_range_is_rounded_as_it_says(low: float, high: float, told: tuple[float, float]) -> None:
    assert rounded_outward(low, high) == told
    assert all(re.search(rf"\b{number:g}\b", DOCUMENT) for number in (low, high, *told))
