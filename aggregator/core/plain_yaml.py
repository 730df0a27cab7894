"""YAML as strangers write it: plain values alone, at a cost that the length of the text bounds."""

from __future__ import annotations

from typing import Any

import yaml

MAX_CHARACTERS = 20_000
"""A strategy with every setting has some 3,000, and a second is a long time to read for."""
MAX_BRACKETS = 20
"""Open at once: the time it takes to read them grows with the square of their number."""


class _Loader(yaml.SafeLoader):
    """Without aliases, by which a few lines stand for more than memory holds."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(
                problem="aliases are not read: write the value out", problem_mark=self.get_mark()
            )
        return super().compose_node(parent, index)

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:  # noqa: N803  # PyYAML's name
        if self.flow_level >= MAX_BRACKETS:
            raise yaml.MarkedYAMLError(problem="too many open brackets", problem_mark=self.get_mark())
        super().fetch_flow_collection_start(TokenClass)


def read(text: str) -> Any:
    """Raises `ValueError`."""
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"The text has {len(text):,} characters; at most {MAX_CHARACTERS:,} are read.")
    try:
        return yaml.load(text, _Loader)  # noqa: S506  # it is a safe loader
    except RecursionError:
        raise ValueError("This is not YAML that is read: it is nested too deep.") from None
    except (yaml.YAMLError, ValueError) as error:  # a number or a date may be none
        raise ValueError(f"This is not YAML: {error}") from error
