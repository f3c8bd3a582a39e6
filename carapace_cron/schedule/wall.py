"""A repeating pattern of wall-clock readings, and the search for the next and the previous one.

Knows nothing of zones: what a clock change does to a reading is `daylight.py`'s. Readings are wall
seconds, see `zone.py`.
"""

from __future__ import annotations

from datetime import date
from itertools import pairwise
from typing import Protocol

from carapace_cron.schedule.days import Days, bits, month_length
from carapace_cron.schedule.zone import FIRST_YEAR, LAST_YEAR

DAY = 86_400
NEVER = 10**12  # seconds: a gap longer than the years we answer for
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
FIRST_WALL = (date(FIRST_YEAR, 1, 1).toordinal() - _EPOCH_ORDINAL) * DAY
LAST_WALL = (date(LAST_YEAR + 1, 1, 1).toordinal() - _EPOCH_ORDINAL) * DAY - 1
_FIRST_DAY, _LAST_DAY = FIRST_WALL // DAY, LAST_WALL // DAY
_THURSDAY = 3  # what 1970-01-01 was, Monday being 0


class WallTimes(Protocol):
    """An ascending series of wall readings, from 1900 to 2199, that can be entered anywhere."""

    def at_or_after(self, wall: int) -> int | None:
        """The first reading from `wall` on; None when there is none up to the end of 2199."""
        ...

    def at_or_before(self, wall: int) -> int | None:
        """The last reading up to `wall`; None when there is none from 1900 on."""
        ...

    def shortest_gap(self) -> int:
        """The fewest seconds between two readings that follow each other; `NEVER` for a single one."""
        ...


class Pattern:
    """Fields as bitmasks: bit n of `minutes` says that minute n is named. One object serves many jobs.

    Never changed once made, but for what it remembers: the month it answered from last.
    """

    __slots__ = (
        "_month",
        "days",
        "first_in_hour",
        "first_second",
        "first_time",
        "hours",
        "last_time",
        "minutes",
        "months",
        "seconds",
        "years",
    )

    def __init__(
        self,
        *,
        seconds: int,
        minutes: int,
        hours: int,
        months: int,
        days: Days,
        years: frozenset[int] | None = None,  # None: every year
    ) -> None:
        self.seconds = seconds
        self.minutes = minutes
        self.hours = hours
        self.months = months
        self.days = days
        self.years = years
        self.first_second = (seconds & -seconds).bit_length() - 1
        self.first_in_hour = ((minutes & -minutes).bit_length() - 1) * 60 + self.first_second
        # The first and the last reading of a day, in seconds after midnight.
        self.first_time = ((hours & -hours).bit_length() - 1) * 3600 + self.first_in_hour
        self.last_time = _highest(hours) * 3600 + _highest(minutes) * 60 + _highest(seconds)
        # As `_month_of` has it. Replaced as a whole, so threads may share the pattern.
        self._month = (0, 0, 0)

    def at_or_after(self, wall: int) -> int | None:
        day = wall // DAY
        first, end, mask = self._month
        if not first <= day < end:
            if day < _FIRST_DAY:
                day, wall = _FIRST_DAY, FIRST_WALL
            elif day > _LAST_DAY:
                return None
            first, end, mask = self._enter(day)
        later = mask >> day - first
        if later & 1:
            if wall - day * DAY <= self.last_time:
                return day * DAY + self._time_at_or_after(wall - day * DAY)
            later ^= 1
        if later:
            return (day + (later & -later).bit_length() - 1) * DAY + self.first_time
        found = self._first_day_from(end)
        return None if found is None else found * DAY + self.first_time

    def at_or_before(self, wall: int) -> int | None:
        day = wall // DAY
        first, end, mask = self._month
        if not first <= day < end:
            if day > _LAST_DAY:
                day, wall = _LAST_DAY, LAST_WALL
            elif day < _FIRST_DAY:
                return None
            first, end, mask = self._enter(day)
        today = 1 << day - first
        if mask & today and wall - day * DAY >= self.first_time:
            return day * DAY + self._time_at_or_before(wall - day * DAY)
        if earlier := mask & (today - 1):
            return (first + _highest(earlier)) * DAY + self.last_time
        found = self._last_day_until(first - 1)
        return None if found is None else found * DAY + self.last_time

    def ever_names_a_day(self) -> bool:
        """False for 31 February and its like. Exact: 230 years hold every kind of year, many times."""
        if self.years is None:
            return self.days.surely_in_every_month() or self._first_day_from(0) is not None
        return any(self._month_of(year, month)[2] for year in self.years for month in bits(self.months))

    def shortest_gap(self) -> int:
        """The fewest seconds between two readings that follow each other; exact, years left aside."""
        across = _highest(self.seconds) - _lowest(self.seconds)
        gaps = [_least_step(self.seconds), _least_step(self.minutes) * 60 - across]
        across += (_highest(self.minutes) - _lowest(self.minutes)) * 60
        gaps.append(_least_step(self.hours) * 3600 - across)
        across += (_highest(self.hours) - _lowest(self.hours)) * 3600
        gaps.append(self._fewest_days_between() * DAY - across)
        return min(gaps)

    def _fewest_days_between(self) -> int:
        # 2001 to 2033: every kind of year, followed by every kind it can be followed by, and the leap
        # years' rhythm. What names no two days in it comes at most once in four years.
        fewest, previous = NEVER // DAY, None
        for year in range(2001, 2034):
            for month in bits(self.months):
                first = _first_of(year, month)
                for day in bits(self.days.mask((first + _THURSDAY) % 7, month_length(year, month))):
                    if previous is not None:
                        fewest = min(fewest, first + day - previous)
                    previous = first + day
                    if fewest == 1:
                        return 1
        return fewest

    def _time_at_or_after(self, second: int) -> int:
        """The first reading of the day from `second` after midnight on; `second` is not past the last."""
        hour, rest = divmod(second, 3600)
        minute, second = divmod(rest, 60)
        if self.hours >> hour & 1:
            if self.minutes >> minute & 1 and (later := self.seconds >> second):
                return hour * 3600 + minute * 60 + second + (later & -later).bit_length() - 1
            if later := self.minutes >> minute + 1:
                return hour * 3600 + (minute + (later & -later).bit_length()) * 60 + self.first_second
        later = self.hours >> hour + 1
        return (hour + (later & -later).bit_length()) * 3600 + self.first_in_hour

    def _time_at_or_before(self, second: int) -> int:
        """The last reading of the day up to `second` after midnight; `second` is not before the first."""
        hour, rest = divmod(second, 3600)
        minute, second = divmod(rest, 60)
        if self.hours >> hour & 1:
            if self.minutes >> minute & 1 and (earlier := self.seconds & _below(second + 1)):
                return hour * 3600 + minute * 60 + _highest(earlier)
            if earlier := self.minutes & _below(minute):
                return hour * 3600 + _highest(earlier) * 60 + _highest(self.seconds)
        earlier = self.hours & _below(hour)
        return _highest(earlier) * 3600 + _highest(self.minutes) * 60 + _highest(self.seconds)

    def _enter(self, day: int) -> tuple[int, int, int]:
        """Remember the month that `day` lies in."""
        start = date.fromordinal(day + _EPOCH_ORDINAL)
        self._month = self._month_of(start.year, start.month)
        return self._month

    def _first_day_from(self, day: int) -> int | None:
        """The first day named from `day`, the first of some month, on; days count from 1970-01-01."""
        start = date.fromordinal(day + _EPOCH_ORDINAL)
        year, month = start.year, start.month
        while year <= LAST_YEAR:
            first, end, mask = self._month_of(year, month)
            if mask:
                self._month = first, end, mask
                return first + _lowest(mask)
            if later := self.months >> month + 1:
                month += 1 + _lowest(later)
            else:
                year, month = year + 1, _lowest(self.months)
        return None

    def _last_day_until(self, day: int) -> int | None:
        """The last day named up to `day`, the last of some month."""
        start = date.fromordinal(day + _EPOCH_ORDINAL)
        year, month = start.year, start.month
        while year >= FIRST_YEAR:
            first, end, mask = self._month_of(year, month)
            if mask:
                self._month = first, end, mask
                return first + _highest(mask)
            if earlier := self.months & _below(month):
                month = _highest(earlier)
            else:
                year, month = year - 1, _highest(self.months)
        return None

    def _month_of(self, year: int, month: int) -> tuple[int, int, int]:
        """The month's first day, the day after its last, and the days named, bit 0 for the first."""
        first, length = _first_of(year, month), month_length(year, month)
        if not self.months >> month & 1 or (self.years is not None and year not in self.years):
            return first, first + length, 0
        return first, first + length, self.days.mask((first + _THURSDAY) % 7, length) >> 1


def _first_of(year: int, month: int) -> int:
    """The first day of a month; days count from 1970-01-01."""
    return date(year, month, 1).toordinal() - _EPOCH_ORDINAL


def _lowest(mask: int) -> int:
    return (mask & -mask).bit_length() - 1


def _highest(mask: int) -> int:
    return mask.bit_length() - 1


def _below(bit: int) -> int:
    return (1 << bit) - 1


def _least_step(mask: int) -> int:
    """The least distance between two bits of `mask`; further than any clock reaches when it has one."""
    return min((later - earlier for earlier, later in pairwise(bits(mask))), default=NEVER)
