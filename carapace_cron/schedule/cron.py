"""Cron's five fields, or six with the seconds first, compiled to a `Pattern`.

Read as Debian's cron reads them (crontab(5)), with the extensions that people bring from Quartz:
``L``, ``LW``, ``15W``, ``FRIL`` or ``5L``, ``MON#2``. Stricter than most: what can only be a mistake is
refused with a sentence. docs/reference/schedules.md has the grammar.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from carapace_cron.schedule.days import Days
from carapace_cron.schedule.errors import ScheduleError
from carapace_cron.schedule.wall import Pattern

ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}

_MONTH_NAMES = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAY_NAMES = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")


@dataclass(frozen=True, slots=True)
class Field:
    """One of cron's columns: what it is called, its first and last value, the mask of all, and its names."""

    name: str
    low: int
    high: int
    all: int
    names: dict[str, int]
    expected: str


SECOND = Field("second", 0, 59, (1 << 60) - 1, {}, "0–59")
MINUTE = Field("minute", 0, 59, (1 << 60) - 1, {}, "0–59")
HOUR = Field("hour", 0, 23, (1 << 24) - 1, {}, "0–23")
DAY_OF_MONTH = Field("day of month", 1, 31, (1 << 32) - 2, {}, "1–31, L, LW or 15W")
_BY_MONTH_NAME = {name: n for n, name in enumerate(_MONTH_NAMES, 1)}
_BY_WEEKDAY_NAME = {name: n for n, name in enumerate(_WEEKDAY_NAMES)}
MONTH = Field("month", 1, 12, (1 << 13) - 2, _BY_MONTH_NAME, "1–12 or JAN–DEC")
DAY_OF_WEEK = Field(
    "day of week",
    0,
    7,
    (1 << 8) - 1,
    _BY_WEEKDAY_NAME,
    "0–7 or SUN–SAT (0 and 7 are Sunday), FRIL or MON#2",
)

_EVERY_DAY = Days()
_WORKDAY = re.compile(r"([0-9]{1,2})W")
_NTH = re.compile(r"([0-9A-Z]+)#([0-9]+)")
_LAST = re.compile(r"([0-9A-Z]+)L")
_BEFORE_LAST = re.compile(r"L-([0-9]{1,2})")


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron expression: as it will be shown, its pattern, and which clock it follows."""

    text: str
    pattern: Pattern
    follows_real_time: bool


def parse_cron(text: str) -> Cron:
    """A cron expression, given with single spaces.

    Raises `ScheduleError`, naming the field, for what is out of range, reversed, empty or never comes.

    >>> parse_cron("0 9 * * mon-fri").text
    '0 9 * * MON-FRI'
    >>> parse_cron("0 9 31 feb *")
    Traceback (most recent call last):
        ...
    carapace_cron.schedule.errors.ScheduleError: bad schedule "0 9 31 FEB *": names a day that no year has
    """
    shown = text.upper()
    fields = shown.split()
    if len(fields) == 5:
        second, (minute, hour, day, month, weekday) = "0", fields
    elif len(fields) == 6:
        second, minute, hour, day, month, weekday = fields
    else:
        raise ScheduleError("schedule", text, f"{_EXPECTED_FIELDS}, found {len(fields)}")
    pattern = Pattern(
        seconds=_mask(SECOND, second, shown),
        minutes=_mask(MINUTE, minute, shown),
        hours=_mask(HOUR, hour, shown),
        months=_mask(MONTH, month, shown),
        days=_days(day, weekday, shown),
    )
    if not pattern.ever_names_a_day():
        raise ScheduleError("schedule", shown, "names a day that no year has")
    return Cron(shown, pattern, minute[0] == "*" or hour[0] == "*" or second[0] == "*")


_EXPECTED_FIELDS = (
    "expected 5 fields (minute, hour, day of month, month, day of week), or 6 with the seconds first"
)


def _days(day: str, weekday: str, text: str) -> Days:
    # As in Debian's cron the star is looked for at the beginning of the field: "*/2" counts as one.
    either = not day.startswith("*") and not weekday.startswith("*")
    if day == "*" and weekday == "*":
        return _EVERY_DAY
    for field, value in ((DAY_OF_MONTH, day), (DAY_OF_WEEK, weekday)):
        if value == "?":
            remedy = 'expected *, which leaves it to the other day field; "?" is Quartz\'s sign for that'
            raise ScheduleError(field.name, value, remedy, within=text)
    of_month, from_end, last_workday, nearest = _month_part(day, text)
    of_week, nth, last = _week_part(weekday, text)
    return Days(of_month, from_end, last_workday, nearest, of_week, nth, last, either)


def _month_part(day: str, text: str) -> tuple[int, int, bool, tuple[int, ...]]:
    """Plain days, those counted from the end, whether the last workday, and workdays near to a day."""
    if "L" not in day and "W" not in day:
        return _mask(DAY_OF_MONTH, day, text), 0, False, ()
    of_month, from_end, last_workday, nearest = 0, 0, False, []
    for term in day.split(","):
        if term == "L":
            from_end = 1 << 1
        elif term == "LW":
            last_workday = True
        elif match := _WORKDAY.fullmatch(term):
            nearest.append(_number(DAY_OF_MONTH, match[1], text))
        elif match := _BEFORE_LAST.fullmatch(term):
            counted = f'"*-*~{int(match[1]) + 1} 09:00"'
            remedy = f"expected L or LW; OnCalendar counts from the end, as in {counted}"
            raise ScheduleError(DAY_OF_MONTH.name, term, remedy, within=text)
        else:
            of_month |= _term(DAY_OF_MONTH, term, text)
    return of_month, from_end, last_workday, tuple(nearest)


def _week_part(weekday: str, text: str) -> tuple[int, tuple[tuple[int, int], ...], int]:
    """Plain weekdays, nth weekdays of the month, last weekdays of the month."""
    if "L" not in weekday and "#" not in weekday:
        return _week(_mask(DAY_OF_WEEK, weekday, text)), (), 0
    of_week, nth, last = 0, [], 0
    for term in weekday.split(","):
        if match := _NTH.fullmatch(term):
            nth.append((_monday_based(_number(DAY_OF_WEEK, match[1], text)), _nth(match[2], text)))
        elif match := _LAST.fullmatch(term):
            last |= 1 << _monday_based(_number(DAY_OF_WEEK, match[1], text))
        else:
            of_week |= _week(_term(DAY_OF_WEEK, term, text))
    return of_week, tuple(nth), last


def _nth(number: str, text: str) -> int:
    if number not in ("1", "2", "3", "4", "5"):
        raise ScheduleError("day of week", f"#{number}", "expected #1–#5, or L for the last", within=text)
    return int(number)


def _monday_based(weekday: int) -> int:
    """Cron's weekday, 0 and 7 for Sunday, as Python's, 0 for Monday."""
    return (weekday - 1) % 7


def _week(mask: int) -> int:
    """A mask over cron's weekdays 0 to 7 as one over Monday = 0 to Sunday = 6."""
    return mask >> 1 | (mask & 1) << 6


def _mask(field: Field, value: str, text: str) -> int:
    if value == "*":
        return field.all
    if "," not in value:
        return _term(field, value, text)
    mask = 0
    for term in value.split(","):
        mask |= _term(field, term, text)
    return mask


def _term(field: Field, term: str, text: str) -> int:
    """One part of a list: ``*``, ``5``, ``1-5``, each perhaps with a step behind a slash."""
    if term.isdigit():
        return 1 << _number(field, term, text)
    span, slash, step = term.partition("/")
    width = _step(field, step, term, text) if slash else 1
    if span == "*":
        low, high = field.low, field.high
    elif "-" in span:
        first, _, last = span.partition("-")
        low, high = _number(field, first, text), _number(field, last, text)
        if low > high:
            raise ScheduleError(field.name, span, _turned(field, first, last), within=text)
    else:
        low = _number(field, span, text)
        high = field.high if slash else low
    if width == 1:
        return (2 << high) - (1 << low)
    return sum(1 << n for n in range(low, high + 1, width))


def _step(field: Field, step: str, term: str, text: str) -> int:
    if not step.isdigit() or int(step) == 0:
        raise ScheduleError(field.name, term, "expected a step of 1 or more after the slash", within=text)
    if int(step) > field.high:
        # Cron runs it at the field's first value alone, so "*/90" means hourly: never what was meant.
        remedy = f"a step of {step} leaves the field, which ends at {field.high}"
        if field in (SECOND, MINUTE, HOUR):
            remedy += f'; for elapsed time use "every {step}{field.name[0]}"'
        raise ScheduleError(field.name, term, remedy, within=text)
    return int(step)


def _number(field: Field, value: str, text: str) -> int:
    if value.isdigit():
        if field.low <= int(value) <= field.high:
            return int(value)
    elif value in field.names:
        return field.names[value]
    raise ScheduleError(field.name, value, f"expected {field.expected}", within=text)


def _turned(field: Field, first: str, last: str) -> str:
    if field is DAY_OF_WEEK and last in ("SUN", "0"):
        return f'the range is reversed; Sunday at its end is 7: "{first}-7"'
    end = 6 if field is DAY_OF_WEEK else field.high
    around = f"{first}-{end},{field.low}-{last}"
    return f'the range is reversed; expected "{last}-{first}", or "{around}" to go past the end'
