"""``every 15m``: elapsed time, counted from an anchor. No zone has a say in it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import timedelta

from carapace_cron.schedule.errors import ScheduleError
from carapace_cron.schedule.schedule import Schedule
from carapace_cron.schedule.wall import LAST_WALL
from carapace_cron.schedule.zone import Zone

LONGEST_SECONDS = 10 * 366 * 86_400  # ten years; further ahead is a slip of the finger

_UNITS = {"w": 604_800, "d": 86_400, "h": 3600, "m": 60, "s": 1}
_NAMES = {"w": "week", "d": "day", "h": "hour", "m": "minute", "s": "second"}
_PART = re.compile(
    r"\s*([0-9]{1,10})\s*(weeks?|w|days?|d|hours?|hrs?|h|minutes?|mins?|m|seconds?|secs?|s)(?![a-z])"
)


@dataclass(frozen=True, slots=True)
class Every(Schedule):
    """One instant each `period` seconds, the first of them `period` seconds after the anchor."""

    period: int = field(repr=False)

    def next_after_timestamp(self, seconds: int) -> int | None:
        anchor = self.anchor or 0
        step = max((seconds - anchor) // self.period + 1, 1)
        at = anchor + step * self.period
        return at if at <= LAST_WALL else None

    def previous_timestamp(self, seconds: int) -> int | None:
        anchor = self.anchor or 0
        step = (min(seconds, LAST_WALL + 1) - anchor - 1) // self.period
        return anchor + step * self.period if step >= 1 else None

    def describe(self) -> str:
        return f"Every {in_words(self.period)} of elapsed time"

    def shortest_period(self) -> timedelta:
        return timedelta(seconds=self.period)


def parse_every(text: str, duration: str, place: Zone, anchor: int) -> Every:
    """
    >>> from carapace_cron.schedule.zone import load_zone
    >>> parse_every("every 2 hours 30 min", "2 hours 30 min", load_zone("UTC"), 0).text
    'every 2h30m'
    """
    seconds = duration_seconds(text, duration)
    return Every(f"every {short(seconds)}", place, "every", anchor, seconds)


def duration_seconds(text: str, duration: str) -> int:
    """Whole seconds of ``15m``, ``1h30m``, ``2 hours``. Raises `ScheduleError` for anything else."""
    total, position, lowered = 0, 0, duration.lower()
    while position < len(lowered):
        match = _PART.match(lowered, position)
        if match is None:
            raise ScheduleError("duration", duration, _EXPECTED, within=text)
        total += int(match[1]) * _UNITS[match[2][0]]
        position = match.end()
    if total == 0:
        raise ScheduleError("duration", duration, _EXPECTED, within=text)
    if total > LONGEST_SECONDS:
        raise ScheduleError("duration", duration, "expected at most ten years", within=text)
    return total


_EXPECTED = "expected a duration of at least a second, such as 15m, 1h30m or 2 hours (s, m, h, d, w)"


def short(seconds: int) -> str:
    """
    >>> short(5400), short(86400 * 8)
    ('1h30m', '1w1d')
    """
    return "".join(f"{count}{unit}" for unit, count in _split(seconds))


def in_words(seconds: int, *, one: str = "") -> str:
    """
    >>> in_words(5400), in_words(60), in_words(60, one="1 ")
    ('1 hour 30 minutes', 'minute', '1 minute')
    """
    parts = _split(seconds)
    if len(parts) == 1 and parts[0][1] == 1:
        return one + _NAMES[parts[0][0]]
    return " ".join(f"{count} {_NAMES[unit]}" + ("s" if count > 1 else "") for unit, count in parts)


def _split(seconds: int) -> list[tuple[str, int]]:
    parts = []
    for unit, size in _UNITS.items():
        count, seconds = divmod(seconds, size)
        if count:
            parts.append((unit, count))
    return parts
