"""docs/strategies.md names every part, and its example is legal."""

from __future__ import annotations

import re
from pathlib import Path

from aggregator.core import registry
from aggregator.core.config import StrategyConfig

DOCUMENT = (Path(__file__).parent.parent.parent / "docs" / "strategies.md").read_text()


def test_every_part_has_its_row() -> None:
    named = set(re.findall(r"^\| `(\w+)` \|", DOCUMENT, re.MULTILINE))
    assert named - {"name"} == set(registry.rules()) | set(registry.optimizers()) | set(registry.methods())


def test_the_example_is_legal() -> None:
    example = re.search(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL)
    assert example
    assert StrategyConfig.from_yaml(example[1]).algorithm == "multikrum + momentum"
