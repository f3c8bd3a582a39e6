"""systemd's calendar events (systemd.time(7)), read by the `oncalendar` library, answered by our engine.

The library parses; its sets become a `Pattern`, so that clock changes are treated as everywhere else here
and the previous instant is as cheap as the next. Where systemd differs is in docs/why/daylight-saving.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from oncalendar import RANGES, SPECIALS, BaseIterator, Field, OnCalendarError

from carapace_cron.schedule.days import Days
from carapace_cron.schedule.errors import ScheduleError
from carapace_cron.schedule.wall import Pattern
from carapace_cron.schedule.zone import zone_names

_EXPECTED = "expected an OnCalendar expression such as Mon..Fri *-*-* 09:00:00"
_ANY_DATE = datetime(2000, 1, 1)  # the library wants to know where to iterate from; we never iterate
_WEEKDAYS = re.compile(r"(?i:mon|tue|wed|thu|fri|sat|sun)[a-z]*([,.-].*)?")
_DATE = re.compile(r"[0-9*,./]+[-~][0-9*,./~-]+")
_TIME = re.compile(r"[0-9*,./]+:[0-9*,./:]+")
_YEARS = RANGES[Field.YEAR]


@dataclass(frozen=True, slots=True)
class CalendarEvent:
    """An OnCalendar expression: as it will be shown, its zone if it names one, pattern, and which clock."""

    text: str
    zone: str | None
    pattern: Pattern
    follows_real_time: bool


def looks_like_oncalendar(text: str) -> bool:
    """Whether to read `text` as OnCalendar: every part has the looks of a weekday, a date, a time, a zone.

    >>> [looks_like_oncalendar(t) for t in ("Mon..Fri 09:00", "*-*-01", "daily", "9 * *", "1-5 * *")]
    [True, True, True, False, False]
    """
    *parts, last = text.split()
    if last not in zone_names() or not parts:
        parts.append(last)
    if len(parts) == 1 and parts[0].lower() in SPECIALS:
        return True
    return all(any(form.fullmatch(part) for form in (_WEEKDAYS, _DATE, _TIME)) for part in parts)


def parse_oncalendar(text: str) -> CalendarEvent:
    """
    Raises `ScheduleError` for what systemd would refuse, and for what never comes.

    >>> parse_oncalendar("Mon..Fri 09:00 Europe/Riga").zone
    'Europe/Riga'
    """
    expression, zone = _without_zone(text)
    try:
        parsed = BaseIterator(expression, _ANY_DATE)
    except OnCalendarError as error:
        what = str(error).removeprefix("Bad ") if str(error).startswith("Bad ") else "schedule"
        raise ScheduleError(what, text, _EXPECTED) from error
    days = Days(
        of_month=_mask(day for day in parsed.days if day > 0),
        from_end=_mask(-day for day in parsed.days if day < 0),
        of_week=_mask(parsed.weekdays),
    )
    every_year = len(parsed.years) == len(_YEARS)
    pattern = Pattern(
        seconds=_mask(parsed.seconds),
        minutes=_mask(parsed.minutes),
        hours=_mask(parsed.hours),
        months=_mask(parsed.months),
        days=days,
        years=None if every_year else frozenset(parsed.years),
    )
    if not pattern.ever_names_a_day():
        raise ScheduleError("schedule", text, "names a day that no year has")
    return CalendarEvent(expression, zone, pattern, _follows_real_time(expression))


def _without_zone(text: str) -> tuple[str, str | None]:
    *parts, last = text.split()
    if parts and last in zone_names():
        return " ".join(parts), last
    return text, None


def _mask(numbers: Iterable[int]) -> int:
    mask = 0
    for number in numbers:
        mask |= 1 << number
    return mask


def _follows_real_time(expression: str) -> bool:
    """Cron's rule: a star at the beginning of the hour, the minute or the second."""
    time = SPECIALS.get(expression.lower(), expression).split()[-1]
    return ":" in time and any(part.startswith("*") for part in time.split(":"))
