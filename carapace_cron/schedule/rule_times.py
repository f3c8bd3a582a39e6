"""The readings that a recurrence rule names. Its days come from dateutil, its times of day are ours.

dateutil walks from DTSTART, however far that is, and steps through every second of a SECONDLY rule. So it
is asked for days only, near the answer, with the start moved ahead by whole intervals; and on a calendar
7600 years from now. That is 19 times the 400 years after which the Gregorian calendar repeats, weekdays and
all, so the answers are the same; but dateutil's calendar ends with 9999, and so does a search in vain.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice, pairwise, product
from typing import Any

from dateutil import rrule as dateutil_rrule

from carapace_cron.schedule.errors import ScheduleError
from carapace_cron.schedule.rrule import RuleText
from carapace_cron.schedule.wall import DAY, LAST_WALL, NEVER, WallTimes

_MOST_TIMES_TO_CHOOSE_FROM = 24  # a day, with BYSETPOS, for which dateutil lays out the whole period
_SAMPLES = 500  # days that the shortest gap is looked for in

_FAR = datetime(1970 + 7600, 1, 1)
_UNITS = {"HOURLY": 3600, "MINUTELY": 60, "SECONDLY": 1}
_FREQUENCIES = {name: getattr(dateutil_rrule, name) for name in ("YEARLY", "MONTHLY", "WEEKLY", "DAILY")}
_DAY_OPTIONS = {"bymonth", "bymonthday", "byyearday", "byweekno", "byweekday"}


def rule_times(rule: RuleText, start: int, first: int) -> WallTimes:
    """The readings of a rule that starts at the wall reading `start`, none of them before `first`.

    Raises `ScheduleError` when the rule never comes, or asks for more than we lay out.
    """
    step = _UNITS.get(rule.frequency, DAY) * rule.interval
    if rule.follows_real_time and not rule.numbers and not rule.weekdays:
        times: Steps | RuleTimes = Steps(start, step, first)
    elif rule.follows_real_time and DAY % step:
        remedy = "with BY… parts, expected one that divides a day evenly"
        raise ScheduleError("INTERVAL", str(rule.interval), remedy, within=rule.text)
    else:
        times = RuleTimes(rule, start, first)
    if times.at_or_after(first) is None:
        raise ScheduleError("schedule", rule.text, "never comes")
    return times if rule.count is None else Counted(tuple(islice(times.walk(), rule.count)))


class Steps:
    """A reading each `step` seconds."""

    def __init__(self, start: int, step: int, first: int) -> None:
        self._step = step
        self._first = start + -(-(first - start) // step) * step

    def at_or_after(self, wall: int) -> int | None:
        ahead = max(-(-(wall - self._first) // self._step), 0)
        found = self._first + ahead * self._step
        return found if found <= LAST_WALL else None

    def at_or_before(self, wall: int) -> int | None:
        if wall < self._first:
            return None
        return self._first + (min(wall, LAST_WALL) - self._first) // self._step * self._step

    def shortest_gap(self) -> int:
        return self._step

    def walk(self) -> Iterator[int]:
        return iter(range(self._first, LAST_WALL + 1, self._step))


class Counted:
    """The readings of a rule with COUNT, all of them."""

    def __init__(self, readings: tuple[int, ...]) -> None:
        self._readings = readings

    def at_or_after(self, wall: int) -> int | None:
        place = bisect_left(self._readings, wall)
        return self._readings[place] if place < len(self._readings) else None

    def at_or_before(self, wall: int) -> int | None:
        place = bisect_right(self._readings, wall)
        return self._readings[place - 1] if place else None

    def shortest_gap(self) -> int:
        return min((later - earlier for earlier, later in pairwise(self._readings)), default=NEVER)


class RuleTimes:
    """The days that dateutil finds, each with the same times of day.

    With BYSETPOS dateutil finds readings; then each of them is a "day" whose only time is 0.
    """

    def __init__(self, rule: RuleText, start: int, first: int) -> None:
        self._rule, self._first = rule, first
        self._frequency = rule.frequency if rule.frequency in _FREQUENCIES else "DAILY"
        self._interval = 1 if rule.follows_real_time else rule.interval
        self._start = start - start % DAY
        self._times = _times_of_day(rule, start % DAY)
        self._options = _days(rule)
        self._check_days_exist()
        if not rule.follows_real_time:
            _name_the_day(rule, self._options, _FAR + timedelta(seconds=start))
        self._options |= {"byhour": 0, "byminute": 0, "bysecond": 0}
        if "bysetpos" in self._options:
            self._let_dateutil_choose(start % DAY)

    def at_or_after(self, wall: int) -> int | None:
        wall = max(wall, self._first)
        if wall > LAST_WALL:
            return None
        for day in self._days_from(self._periods_until(wall)):
            place = bisect_left(self._times, wall - day)
            if place < len(self._times):
                return day + self._times[place] if day + self._times[place] <= LAST_WALL else None
        return None

    def at_or_before(self, wall: int) -> int | None:
        wall = min(wall, LAST_WALL)
        period, back = self._periods_until(wall), 1
        while wall >= self._first:
            best = None
            for day in self._days_from(max(period - back, 0)):
                if day + self._times[0] > wall:
                    break
                best = day
            if best is not None:
                found = best + self._times[bisect_right(self._times, wall - best) - 1]
                return found if found >= self._first else None
            if back > period:
                break
            back *= 2
        return None

    def shortest_gap(self) -> int:
        """The fewest seconds between readings: exact within a day, else among the first 500 days."""
        across = self._times[-1] - self._times[0]
        days = islice(self._days_from(self._periods_until(self._first)), _SAMPLES)
        gaps = [later - earlier - across for earlier, later in pairwise(days)]
        gaps += [later - earlier for earlier, later in pairwise(self._times)]
        return min(gaps, default=NEVER)

    def walk(self) -> Iterator[int]:
        """The readings, from the first on."""
        for day in self._days_from(self._periods_until(self._first)):
            for time in self._times:
                if self._first <= day + time <= LAST_WALL:
                    yield day + time

    def _days_from(self, period: int) -> Iterator[int]:
        """The days of the rule, as readings of midnight, from the beginning of a period on."""
        rule = dateutil_rrule.rrule(
            _FREQUENCIES[self._frequency],
            dtstart=self._begin(max(period, 0)),
            interval=self._interval,
            wkst=self._rule.week_start,
            **self._options,
        )
        for day in rule:
            since = day - _FAR
            wall = since.days * DAY + since.seconds
            if wall > LAST_WALL:
                return
            if wall >= self._start:
                yield wall

    def _periods_until(self, wall: int) -> int:
        """How many whole intervals lie between the start and `wall`."""
        if self._frequency in ("DAILY", "WEEKLY"):
            return (wall - self._start) // (self._interval * self._days_a_period * DAY)
        begin, at = _FAR + timedelta(seconds=self._start), _FAR + timedelta(seconds=wall)
        months = (at.year - begin.year) * 12 + at.month - begin.month
        return months // (self._interval * (12 if self._frequency == "YEARLY" else 1))

    def _begin(self, period: int) -> datetime:
        """Where that period begins: a start for dateutil with which it finds the same as from the first."""
        start = _FAR + timedelta(seconds=self._start)
        ahead = period * self._interval
        if self._frequency in ("DAILY", "WEEKLY"):
            return start + timedelta(days=ahead * self._days_a_period)
        if self._frequency == "YEARLY":
            return start.replace(year=start.year + ahead, month=1, day=1)
        months = start.year * 12 + start.month - 1 + ahead
        return start.replace(year=months // 12, month=months % 12 + 1, day=1)

    @property
    def _days_a_period(self) -> int:
        return 7 if self._frequency == "WEEKLY" else 1

    def _check_days_exist(self) -> None:
        """Refuse 30 February and its like, exactly, by looking through the calendar's last 400 years."""
        days = {key: value for key, value in self._options.items() if key in _DAY_OPTIONS}
        if not days:
            return
        rule = dateutil_rrule.rrule(
            _FREQUENCIES["MONTHLY" if self._frequency == "MONTHLY" else "YEARLY"],
            dtstart=datetime(9600, 1, 1),
            wkst=self._rule.week_start,
            **days,
        )
        if next(iter(rule), None) is None:
            raise ScheduleError("schedule", self._rule.text, "names a day that no year has")

    def _let_dateutil_choose(self, time: int) -> None:
        if len(self._times) > _MOST_TIMES_TO_CHOOSE_FROM:
            remedy = f"expected at most {_MOST_TIMES_TO_CHOOSE_FROM} times a day to choose from"
            raise ScheduleError("BYSETPOS", str(len(self._times)), remedy, within=self._rule.text)
        clock = zip(("byhour", "byminute", "bysecond"), _clock(self._rule, time), strict=True)
        self._options |= dict(clock)
        self._times = (0,)


def _days(rule: RuleText) -> dict[str, Any]:
    """What dateutil is told of the days."""
    keys = ("BYMONTH", "BYMONTHDAY", "BYYEARDAY", "BYWEEKNO", "BYSETPOS")
    options: dict[str, Any] = {key.lower(): rule.numbers[key] for key in keys if key in rule.numbers}
    if rule.weekdays:
        options["byweekday"] = [dateutil_rrule.weekday(day, nth or None) for day, nth in rule.weekdays]
    return options


def _name_the_day(rule: RuleText, options: dict[str, Any], begin: datetime) -> None:
    """Say what a rule without a day takes from its start, so that the start may move."""
    if options.keys() & (_DAY_OPTIONS - {"bymonth"}):
        return
    if rule.frequency in ("MONTHLY", "YEARLY"):
        options["bymonthday"] = begin.day
    if rule.frequency == "YEARLY":
        options.setdefault("bymonth", begin.month)


def _clock(rule: RuleText, time: int) -> tuple[tuple[int, ...], ...]:
    """Hours, minutes and seconds: those the rule names, or those of its start's time of day."""
    at_start = {"BYHOUR": time // 3600, "BYMINUTE": time // 60 % 60, "BYSECOND": time % 60}
    return tuple(rule.numbers.get(key, (number,)) for key, number in at_start.items())


def _times_of_day(rule: RuleText, time: int) -> Sequence[int]:
    """All times of a day, in seconds after midnight, ascending; `time` is the start's.

    A rule that steps by the hour or faster has the same times every day, as its step divides the day.
    """
    hours, minutes, seconds = _clock(rule, time)
    unit = _UNITS.get(rule.frequency, DAY)
    steps = range(time // unit % rule.interval * unit, DAY, unit * rule.interval)
    finer = {3600: product(minutes, seconds), 60: product((0,), seconds), 1: [(0, 0)]}
    if unit == DAY:
        found = [h * 3600 + m * 60 + s for h, m, s in product(hours, minutes, seconds)]
    elif unit == 1 and not rule.numbers.keys() & _CLOCK_PARTS.keys():
        return steps
    else:
        named = [at for at in steps if _is_named(at, unit, rule)]
        found = [at + m * 60 + s for at, (m, s) in product(named, finer[unit])]
    if not found:
        raise ScheduleError("schedule", rule.text, "never comes")
    return tuple(found)


_CLOCK_PARTS = {"BYHOUR": (3600, 24), "BYMINUTE": (60, 60), "BYSECOND": (1, 60)}


def _is_named(time: int, unit: int, rule: RuleText) -> bool:
    """Whether the parts that are at least as coarse as the rule's own step name that time."""
    return all(
        time // size % span in rule.numbers[key]
        for key, (size, span) in _CLOCK_PARTS.items()
        if size >= unit and key in rule.numbers
    )
