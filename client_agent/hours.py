"""When an owner lets the machine work: windows of the week, in local time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_MINUTES = 24 * 60
_WINDOW = re.compile(r"(?:(?P<days>[a-z,-]+) +)?(?P<begin>\d{1,2}:\d{2}) *- *(?P<end>\d{1,2}:\d{2})")


@dataclass(frozen=True, slots=True)
class Window:
    """From `begin` to `end`, in minutes of the day; one that doesn't end after it begins ends on the following day."""

    text: str
    days: frozenset[int]
    """On which it begins; Monday is 0."""
    begin: int
    end: int

    @classmethod
    def parse(cls, text: object) -> Window:
        """Of "20:00-06:00", "mon-fri 20:00-06:00" or "sat,sun 00:00-24:00". Raises `ValueError`."""
        match = _WINDOW.fullmatch(text.strip().lower()) if isinstance(text, str) else None
        if match is None:
            raise ValueError(f'a window is written "mon-fri 20:00-06:00" or "08:00-18:00", not {text!r}')
        begin, end = _minutes(match["begin"]), _minutes(match["end"])
        if begin in (end, _DAY_MINUTES):
            raise ValueError(f'{text!r} begins and ends at the same time; all day is "00:00-24:00"')
        return cls(str(text), _days(match["days"]) if match["days"] else frozenset(range(7)), begin, end)

    def holds(self, moment: datetime) -> bool:
        minute, today = moment.hour * 60 + moment.minute, moment.weekday()
        if self.begin < self.end:
            return today in self.days and self.begin <= minute < self.end
        yesterday = (today - 1) % 7
        return (today in self.days and minute >= self.begin) or (yesterday in self.days and minute < self.end)


def _minutes(text: str) -> int:
    hours, minutes = map(int, text.split(":"))
    if minutes > 59 or hours * 60 + minutes > _DAY_MINUTES:
        raise ValueError(f"{text} is no time of the day; it goes from 00:00 to 24:00")
    return hours * 60 + minutes


def _days(text: str) -> frozenset[int]:
    days: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        begin = _day(first)
        days.update((begin + step) % 7 for step in range((_day(last) - begin) % 7 + 1 if dash else 1))
    return frozenset(days)


def _day(name: str) -> int:
    if name not in DAYS:
        raise ValueError(f"{name!r} is no day; days are {', '.join(DAYS)}")
    return DAYS.index(name)
