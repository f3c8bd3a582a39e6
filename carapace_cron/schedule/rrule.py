"""Recurrence rules of iCalendar (RFC 5545, section 3.3.10), expanded by dateutil, within bounds.

dateutil walks from DTSTART, without a limit on how far, so each question is put to it near its answer:
a rule's start is moved ahead by whole intervals, the times of a day are ours, and it works on a calendar
7600 years from now. That is 19 times the 400 years after which the Gregorian calendar repeats, weekdays and
all, so the answers are the same; but dateutil's calendar ends at 9999, and so does a search in vain.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise, product
from typing import Any

from dateutil import rrule as dateutil_rrule

from carapace_cron.schedule.errors import ScheduleError
from carapace_cron.schedule.wall import DAY, FIRST_WALL, LAST_WALL, NEVER
from carapace_cron.schedule.zone import FIRST_YEAR, LAST_YEAR

MOST_COUNTED = 1000  # instants a COUNT may name; they are kept
_MOST_INTERVAL = 100_000
_MOST_TIMES_A_DAY_TO_CHOOSE_FROM = 24  # with BYSETPOS, where dateutil lays out the whole period
_SAMPLES = 500  # readings that the shortest gap is looked for in

_FAR = datetime(1970 + 7600, 1, 1)
_FREQUENCIES = {
    name: getattr(dateutil_rrule, name)
    for name in ("YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY", "MINUTELY", "SECONDLY")
}
_SECONDS = {"WEEKLY": 7 * DAY, "DAILY": DAY, "HOURLY": 3600, "MINUTELY": 60, "SECONDLY": 1}
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
_DAY_OPTIONS = {"bymonth", "bymonthday", "byyearday", "byweekno", "byweekday"}
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
        return self.frequency in ("HOURLY", "MINUTELY", "SECONDLY")


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


class RuleTimes:
    """The readings of a rule that starts at the wall reading `start`, none of them before `first`."""

    def __init__(self, rule: RuleText, start: int, first: int) -> None:
        """Raises `ScheduleError` when the rule never comes, or asks for more than we lay out."""
        self._rule, self._start, self._first = rule, start, first
        self._options = _day_options(rule)
        self._times: tuple[int, ...] | None = None  # of a day; None where dateutil knows them
        self._check_days_exist()
        if not rule.follows_real_time:
            _name_the_day(rule, self._options, _FAR + timedelta(seconds=start))
        clock = {key: rule.numbers.get(key) for key in ("BYHOUR", "BYMINUTE", "BYSECOND")}
        if not rule.follows_real_time:
            at_start = zip(clock, _clock(start), strict=True)
            clock = {key: clock[key] or (number,) for key, number in at_start}
            self._times = _times_of_day(clock)
        if "bysetpos" in self._options:
            self._check_times_to_choose_from()
            self._times = None
        if self._times is not None:
            clock = dict.fromkeys(clock, (0,))
        self._options |= {key.lower(): values for key, values in clock.items()}
        self._check_it_comes()

    def at_or_after(self, wall: int) -> int | None:
        wall = max(wall, self._first)
        for found in self._walk(self._periods_until(wall)):
            if found >= wall:
                return found
        return None

    def at_or_before(self, wall: int) -> int | None:
        wall = min(wall, LAST_WALL)
        if wall < self._first:
            return None
        period, back = self._periods_until(wall), 1
        while True:
            best = None
            for found in self._walk(max(period - back, 0)):
                if found > wall:
                    break
                best = found
            if best is not None or back > period:
                return best
            back *= 2

    def earliest(self, count: int) -> list[int]:
        """The first `count` readings, or as many as there are."""
        return list(islice(self._walk(0), count))

    def shortest_gap(self) -> int:
        """The fewest seconds between two readings that follow each other among the first 500."""
        return min((later - earlier for earlier, later in pairwise(self.earliest(_SAMPLES))), default=NEVER)

    def _walk(self, period: int) -> Iterator[int]:
        """The readings from the beginning of a period on."""
        rule = dateutil_rrule.rrule(
            _FREQUENCIES[self._rule.frequency],
            dtstart=self._begin(period),
            interval=self._rule.interval,
            wkst=self._rule.week_start,
            **self._options,
        )
        for moment in rule:
            reading = (moment - _FAR) // timedelta(seconds=1)
            for time in self._times or (0,):
                if reading + time > LAST_WALL:
                    return
                if reading + time >= self._first:
                    yield reading + time

    def _periods_until(self, wall: int) -> int:
        """How many whole intervals lie between the start and `wall`."""
        if self._rule.frequency in _SECONDS:
            start = self._start if self._times is None else self._start // DAY * DAY
            return (wall - start) // (_SECONDS[self._rule.frequency] * self._rule.interval)
        start_at, at = _FAR + timedelta(seconds=self._start), _FAR + timedelta(seconds=wall)
        months = (at.year - start_at.year) * 12 + at.month - start_at.month
        return months // (self._rule.interval * (12 if self._rule.frequency == "YEARLY" else 1))

    def _begin(self, period: int) -> datetime:
        """Where that period begins: a start for dateutil with which it finds the same as from the first."""
        steps = period * self._rule.interval
        start = _FAR + timedelta(seconds=self._start)
        if self._times is not None:
            start = start.replace(hour=0, minute=0, second=0)
        if self._rule.frequency in _SECONDS:
            return start + timedelta(seconds=steps * _SECONDS[self._rule.frequency])
        if self._rule.frequency == "YEARLY":
            return start.replace(year=start.year + steps, month=1, day=1, hour=0, minute=0, second=0)
        months = start.year * 12 + start.month - 1 + steps
        return start.replace(year=months // 12, month=months % 12 + 1, day=1, hour=0, minute=0, second=0)

    def _check_days_exist(self) -> None:
        """Refuse 30 February and its like, exactly, by looking through the calendar's last 400 years."""
        days = {key: value for key, value in self._options.items() if key in _DAY_OPTIONS}
        if not days:
            return
        rule = dateutil_rrule.rrule(
            _FREQUENCIES["MONTHLY" if self._rule.frequency == "MONTHLY" else "YEARLY"],
            dtstart=datetime(9600, 1, 1),
            wkst=self._rule.week_start,
            **days,
        )
        if next(iter(rule), None) is None:
            raise ScheduleError("schedule", self._rule.text, "names a day that no year has")

    def _check_times_to_choose_from(self) -> None:
        most = _MOST_TIMES_A_DAY_TO_CHOOSE_FROM
        if self._times is not None and len(self._times) > most:
            remedy = f"expected at most {most} times a day to choose from"
            raise ScheduleError("BYSETPOS", str(len(self._times)), remedy, within=self._rule.text)

    def _check_it_comes(self) -> None:
        try:
            found = self.at_or_after(self._first)
        except ValueError:  # dateutil found that the interval and the hours never meet
            found = None
        if found is None:
            raise ScheduleError("schedule", self._rule.text, "never comes")


class CountedTimes:
    """The readings of a rule with COUNT, all of them."""

    def __init__(self, times: RuleTimes, count: int) -> None:
        self._readings = tuple(times.earliest(count))

    def at_or_after(self, wall: int) -> int | None:
        place = bisect_left(self._readings, wall)
        return self._readings[place] if place < len(self._readings) else None

    def at_or_before(self, wall: int) -> int | None:
        place = bisect_right(self._readings, wall)
        return self._readings[place - 1] if place else None


def start_without_dtstart(rule: RuleText, wall: int) -> int:
    """The start of a rule that names none: `wall`, with what is finer than the rule's own times at zero.

    BYHOUR=9 without BYMINUTE means nine o'clock, not the minute in which the job happened to be made.
    """
    if "BYHOUR" in rule.numbers and "BYMINUTE" not in rule.numbers:
        wall -= wall % 3600
    elif "BYMINUTE" in rule.numbers and "BYSECOND" not in rule.numbers:
        wall -= wall % 60
    return wall


def _day_options(rule: RuleText) -> dict[str, Any]:
    """What dateutil is told of the days."""
    keys = ("BYMONTH", "BYMONTHDAY", "BYYEARDAY", "BYWEEKNO", "BYSETPOS")
    options: dict[str, Any] = {key.lower(): rule.numbers[key] for key in keys if key in rule.numbers}
    if rule.weekdays:
        options["byweekday"] = [dateutil_rrule.weekday(day, nth or None) for day, nth in rule.weekdays]
    return options


def _clock(wall: int) -> tuple[int, int, int]:
    """Hour, minute and second of a reading."""
    minutes, second = divmod(wall % DAY, 60)
    return minutes // 60, minutes % 60, second


def _times_of_day(clock: Mapping[str, tuple[int, ...] | None]) -> tuple[int, ...]:
    """All times that hours, minutes and seconds make, in seconds after midnight, ascending."""
    hours, minutes, seconds = (sorted(values or ()) for values in clock.values())
    return tuple(h * 3600 + m * 60 + s for h, m, s in product(hours, minutes, seconds))


def _name_the_day(rule: RuleText, options: dict[str, Any], begin: datetime) -> None:
    """Say what a rule without a day takes from its start, so that the start may move."""
    if options.keys() & (_DAY_OPTIONS - {"bymonth"}):
        return
    if rule.frequency in ("MONTHLY", "YEARLY"):
        options["bymonthday"] = begin.day
    if rule.frequency == "YEARLY":
        options.setdefault("bymonth", begin.month)


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
    if "BYSETPOS" in parts and frequency in ("DAILY", "HOURLY", "MINUTELY", "SECONDLY"):
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
