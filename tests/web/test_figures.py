from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from fedui.web import figures
from fedui.web.templatetags.ui import until


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0, "0 B"), (999, "999 B"), (9_604, "9.6 kB"), (18_400_000, "18.4 MB"), (2e11, "200 GB")],
)
def test_byte_size(value: float | None, text: str) -> None:
    assert figures.byte_size(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (1.25, "1.2 s"), (42, "42 s"), (60, "1 min"), (125.4, "2 min 05 s"), (3_900, "1 h 05 min")],
)
def test_duration(seconds: float | None, text: str) -> None:
    assert figures.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"), (0, "0"), (1_234_567, "1,234,567"), (1_234_567.0, "1,234,567"), (-120_000_000.0, "-120,000,000"),
        (1_234_567.5, "1,234,568"), (999_999.7, "1,000,000"), (99_999.96, "100,000"), (12.20125, "12.2012"),
        (0.000012345678, "1.23457e-05"), (4e18, "4e+18"), (2.5e120, "2.5e+120"),
    ],
)  # fmt: skip
def test_plain(value: float | None, text: str) -> None:
    assert figures.plain(value) == text


def test_metric_shows_shares_in_per_cent() -> None:
    assert figures.metric("accuracy", 0.8805) == "88.0 %"
    assert figures.metric("loss", 0.36789) == "0.368"
    assert figures.metric("loss", None) == "–"


@pytest.mark.parametrize(
    ("left", "text"),
    [
        (timedelta(days=29, hours=23, minutes=59), "in 30 days"),
        (timedelta(hours=23, minutes=59, seconds=59), "in 24 h"),
        (timedelta(minutes=50), "in 50 min"),
        (timedelta(seconds=-1), "expired"),
    ],
)
def test_until(left: timedelta, text: str) -> None:
    assert until(timezone.now() + left) == text
