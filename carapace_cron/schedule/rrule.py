"""Recurrence rules of iCalendar (RFC 5545, section 3.3.10): the text, taken apart and checked.

What the rule means in readings is `rule_times.py`'s.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from carapace_cron.schedule.errors import ScheduleError
from carapace_cron.schedule.wall import FIRST_WALL, LAST_WALL
from carapace_cron.schedule.zone import FIRST_YEAR, LAST_YEAR

MOST_COUNTED = 1000  # instants a COUNT may name; they are kept
_MOST_INTERVAL = 100_000

_FREQUENCIES = ("YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY", "MINUTELY", "SECONDLY")
_FASTER_THAN_DAILY = ("HOURLY", "MINUTELY", "SECONDLY")
_WEEKDAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
_RANGES = {
    "BYMONTH": (1, 12, False),
    "BYMONTHDAY": (1, 31, True),
    "BYYEARDAY": (1, 366, True),
    "BYWEEKNO": (1, 53, True),
    "BYSETPOS": (1, 366, True),
    "BYHOUR": (0, 23, False),
    "BYMINUTE": (0, 59, False),
    "BYSECOND": (0, 59, False),
}  # lowest, highest, and whether it may count from the end
_TO_CHOOSE_FROM = {*_RANGES, "BYDAY"} - {"BYSETPOS"}
_KEYS = {"FREQ", "INTERVAL", "COUNT", "UNTIL", "WKST", "BYDAY", *_RANGES}
_START = re.compile(r"DTSTART(?:;TZID=([A-Za-z0-9_+/-]+)|;VALUE=DATE(?:-TIME)?)*:([0-9TZtz]+)\s+", re.ASCII)
_TIME = re.compile(r"([0-9]{8})(?:T([0-9]{6})(Z?))?")
_BYDAY = re.compile(r"([+-]?[0-9]{1,2})?(MO|TU|WE|TH|FR|SA|SU)")


@dataclass(frozen=True, slots=True)
class Moment:
    """A DTSTART or UNTIL: wall seconds, in UTC when it was written with a Z."""

    wall: int
    in_utc: bool


@dataclass(frozen=True, slots=True)
class RuleText:
    """A rule, taken apart and checked, before it is known when it starts."""

    text: str
    zone: str | None
    start: Moment | None
    until: Moment | None
    frequency: str
    interval: int
    count: int | None
    week_start: int
    numbers: dict[str, tuple[int, ...]]
    weekdays: tuple[tuple[int, int], ...]  # weekday from Monday = 0, and which one (0: each)

    @property
    def follows_real_time(self) -> bool:
        """Rules that step by the hour or faster follow real time; slower ones name local times."""
        return self.frequency in _FASTER_THAN_DAILY


def looks_like_rrule(text: str) -> bool:
    return "FREQ=" in text.upper()


def parse_rrule(text: str) -> RuleText:
    """
    Raises `ScheduleError` for parts that are unknown, doubled, out of range, or contradict each other.

    >>> rule = parse_rrule("DTSTART:20260105T090000 FREQ=weekly;BYDAY=MO,FR")
    >>> rule.text, rule.weekdays
    ('DTSTART:20260105T090000 RRULE:FREQ=WEEKLY;BYDAY=MO,FR', ((0, 0), (4, 0)))
    """
    match = _START.match(text)
    zone, start, rest = (match[1], match[2].upper(), text[match.end() :]) if match else (None, None, text)
    rule = rest.upper().removeprefix("RRULE:").rstrip(";")
    parts = _parts(rule, text)
    _check_together(parts, text)
    shown = "RRULE:" + ";".join(f"{key}={value}" for key, value in parts.items())
    return RuleText(
        text=shown if start is None else f"DTSTART:{start} {shown}",
        zone=zone,
        start=None if start is None else _moment("DTSTART", start, text),
        until=_moment("UNTIL", parts["UNTIL"], text) if "UNTIL" in parts else None,
        frequency=parts["FREQ"],
        interval=_number("INTERVAL", parts.get("INTERVAL", "1"), 1, _MOST_INTERVAL, text),
        count=_number("COUNT", parts["COUNT"], 1, MOST_COUNTED, text) if "COUNT" in parts else None,
        week_start=_weekday("WKST", parts.get("WKST", "MO"), text),
        numbers={key: _numbers(key, parts[key], text) for key in _RANGES if key in parts},
        weekdays=_by_day(parts, text),
    )


def start_without_dtstart(rule: RuleText, wall: int) -> int:
    """The start of a rule that names none: `wall`, with what is finer than the rule's own times at zero.

    BYHOUR=9 without BYMINUTE means nine o'clock, not the minute in which the job happened to be made.
    """
    if "BYHOUR" in rule.numbers and "BYMINUTE" not in rule.numbers:
        wall -= wall % 3600
    elif "BYMINUTE" in rule.numbers and "BYSECOND" not in rule.numbers:
        wall -= wall % 60
    return wall


def _parts(rule: str, text: str) -> dict[str, str]:
    parts: dict[str, str] = {}
    for part in rule.split(";"):
        key, equals, value = part.partition("=")
        if key not in _KEYS or not equals:
            remedy = f"expected one of {', '.join(sorted(_KEYS))}"
            raise ScheduleError("RRULE part", part, remedy, within=text)
        if key in parts:
            raise ScheduleError("RRULE part", part, f"{key} is given twice", within=text)
        parts[key] = value
    if parts.get("FREQ") not in _FREQUENCIES:
        remedy = f"expected {', '.join(_FREQUENCIES)}"
        raise ScheduleError("FREQ", parts.get("FREQ", rule), remedy, within=text)
    return parts


def _check_together(parts: dict[str, str], text: str) -> None:
    frequency = parts["FREQ"]
    if "COUNT" in parts and "UNTIL" in parts:
        raise ScheduleError("UNTIL", parts["UNTIL"], "expected COUNT or UNTIL, not both", within=text)
    if "BYSETPOS" in parts and frequency in ("DAILY", *_FASTER_THAN_DAILY):
        remedy = "expected with FREQ=YEARLY, MONTHLY or WEEKLY only"
        raise ScheduleError("BYSETPOS", parts["BYSETPOS"], remedy, within=text)
    if "BYSETPOS" in parts and not parts.keys() & _TO_CHOOSE_FROM:
        remedy = "expected another BY… part for it to choose from"
        raise ScheduleError("BYSETPOS", parts["BYSETPOS"], remedy, within=text)


def _number(key: str, value: str, low: int, high: int, text: str) -> int:
    if value.isdigit() and low <= int(value) <= high:
        return int(value)
    raise ScheduleError(key, value, f"expected {low}–{high}", within=text)


def _numbers(key: str, value: str, text: str) -> tuple[int, ...]:
    low, high, from_end = _RANGES[key]
    found = []
    for item in value.split(","):
        sign = -1 if from_end and item.startswith("-") else 1
        digits = item.removeprefix("-" if sign < 0 else "+")
        if not (digits.isdigit() and low <= int(digits) <= high):
            remedy = f"expected {low}–{high}" + (f" or -{high}–-1" if from_end else "")
            raise ScheduleError(key, item, remedy, within=text)
        found.append(sign * int(digits))
    return tuple(sorted(set(found)))


def _weekday(key: str, value: str, text: str) -> int:
    if value not in _WEEKDAYS:
        raise ScheduleError(key, value, f"expected {', '.join(_WEEKDAYS)}", within=text)
    return _WEEKDAYS.index(value)


def _by_day(parts: dict[str, str], text: str) -> tuple[tuple[int, int], ...]:
    found = []
    for item in parts["BYDAY"].split(",") if "BYDAY" in parts else ():
        match = _BYDAY.fullmatch(item)
        if match is None:
            raise ScheduleError("BYDAY", item, "expected MO–SU, or 2MO, -1FR and the like", within=text)
        nth = int(match[1] or 0)
        if match[1] and (nth == 0 or parts["FREQ"] not in ("MONTHLY", "YEARLY") or "BYWEEKNO" in parts):
            remedy = "a number before the weekday is for FREQ=MONTHLY and YEARLY"
            raise ScheduleError("BYDAY", item, remedy, within=text)
        found.append((_WEEKDAYS.index(match[2]), nth))
    return tuple(found)


def _moment(key: str, value: str, text: str) -> Moment:
    match = _TIME.fullmatch(value)
    try:
        if match is None:
            raise ValueError(value)
        moment = datetime.strptime(match[1] + (match[2] or "000000"), "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        remedy = "expected the form 20261231T090000 or 20261231T080000Z"
        raise ScheduleError(key, value, remedy, within=text) from None
    wall = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
    if not FIRST_WALL <= wall <= LAST_WALL:
        raise ScheduleError(key, value, f"expected a year from {FIRST_YEAR} to {LAST_YEAR}", within=text)
    return Moment(wall, match[3] == "Z")
