"""docs/alerts.md: its snippet verifies what is sent, and its table has every kind with its settings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from django.utils import timezone

from fedui.alerts import signatures
from fedui.alerts.kinds import TRAITS, Kind

DOCUMENT = (Path(__file__).parent.parent.parent / "docs" / "alerts.md").read_text()


def test_the_snippet_verifies() -> None:
    example = re.search(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    assert example
    given: dict[str, Any] = {}
    exec(example[1], given)  # our own document
    secret, other = signatures.new_secret(), signatures.new_secret()
    headers = signatures.headers([secret, other], "id", timezone.now(), b"{}")
    assert given["verify"](secret, headers, b"{}") and given["verify"](other, headers, b"{}")
    assert not given["verify"](signatures.new_secret(), headers, b"{}")
    assert not given["verify"](secret, headers, b"{ }")
    assert not given["verify"](secret, headers | {"webhook-timestamp": "1"}, b"{}")


def test_the_table_has_every_kind() -> None:
    rows = {line.split("|")[1]: line for line in DOCUMENT.splitlines() if line.startswith("| `")}
    for kind in Kind:
        [row] = [line for names, line in rows.items() if f"`{kind.value}`" in names]
        assert all(f"`{setting.name}`" in row for setting in TRAITS[kind].settings)
