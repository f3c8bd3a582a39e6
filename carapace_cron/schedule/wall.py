"""A repeating pattern of wall-clock readings, and the search for the next and the previous one.

Knows nothing of zones: what a clock change does to a reading is `daylight.py`'s. Readings are wall
seconds, see `zone.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from itertools import pairwise
from typing import Protocol

from carapace_cron.schedule.days import Days, bits, month_length
from carapace_cron.schedule.zone import FIRST_YEAR, LAST_YEAR

DAY = 86_400
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
FIRST_WALL = (date(FIRST_YEAR, 1, 1).toordinal() - _EPOCH_ORDINAL) * DAY
LAST_WALL = (date(LAST_YEAR + 1, 1, 1).toordinal() - _EPOCH_ORDINAL) * DAY - 1


class WallTimes(Protocol):
    """An ascending series of wall readings that can be entered anywhere. Asked from 1900 to 2199."""

    def at_or_after(self, wall: int) -> int | None:
        """The first reading from `wall` on; None when there is none up to the end of 2199."""
        ...

    def at_or_before(self, wall: int) -> int | None:
        """The last reading up to `wall`; None when there is none from 1900 on."""
        ...


@dataclass(frozen=True, slots=True)
class Pattern:
    """Fields as bitmasks: bit n of `minutes` says that minute n is named. One object serves many jobs."""

    seconds: int
    minutes: int
    hours: int
    months: int
    days: Days
    years: frozenset[int] | None = None  # None: every year

    def at_or_after(self, wall: int) -> int | None:
        day, second = divmod(wall, DAY)
        if day * DAY < FIRST_WALL:
            day, second = FIRST_WALL // DAY, 0
        found = self._day_at_or_after(day)
        if found == day:
            time = self._time_at_or_after(second)
            if time is not None:
                return day * DAY + time
            found = self._day_at_or_after(day + 1)
        return None if found is None else found * DAY + self.first_time

    def at_or_before(self, wall: int) -> int | None:
        day, second = divmod(wall, DAY)
        if wall > LAST_WALL:
            day, second = divmod(LAST_WALL, DAY)
        found = self._day_at_or_before(day)
        if found == day:
            time = self._time_at_or_before(second)
            if time is not None:
                return day * DAY + time
            found = self._day_at_or_before(day - 1)
        return None if found is None else found * DAY + self.last_time

    @property
    def first_time(self) -> int:
        """The first reading of a day, in seconds after midnight."""
        return _lowest(self.hours) * 3600 + _lowest(self.minutes) * 60 + _lowest(self.seconds)

    @property
    def last_time(self) -> int:
        return _highest(self.hours) * 3600 + _highest(self.minutes) * 60 + _highest(self.seconds)

    def ever_names_a_day(self) -> bool:
        """False for 31 February and its like. Exact: 28 years hold all 14 kinds of years."""
        if self.years is None:
            return self._day_at_or_after(0) is not None
        return any(self._month_mask(year, month) for year in self.years for month in bits(self.months))

    def shortest_gap(self) -> int:
        """The fewest seconds between two readings that follow each other; exact, years left aside."""
        gaps = [_least_step(self.seconds)]
        across = _highest(self.seconds) - _lowest(self.seconds)
        gaps += [_least_step(self.minutes) * 60 - across]
        across += (_highest(self.minutes) - _lowest(self.minutes)) * 60
        gaps += [_least_step(self.hours) * 3600 - across]
        across += (_highest(self.hours) - _lowest(self.hours)) * 3600
        gaps += [self._fewest_days_between() * DAY - across]
        return min(gaps)

    def _fewest_days_between(self) -> int:
        # 1 January 2001 to the end of 2033: every kind of year, followed by every kind it can be followed by,
        # and the leap years' rhythm. What names no two days in it comes at most once in four years.
        any_year = replace(self, years=None)
        fewest = _NEVER
        day = any_year._day_at_or_after(_ordinal(2001, 1))
        while fewest > 1 and day is not None:
            following = any_year._day_at_or_after(day + 1)
            if following is None or following > _ordinal(2034, 1):
                break
            fewest, day = min(fewest, following - day), following
        return fewest

    def _time_at_or_after(self, second: int) -> int | None:
        """The first reading of the day from `second` after midnight on."""
        hour, rest = divmod(second, 3600)
        minute, second = divmod(rest, 60)
        if self.hours >> hour & 1:
            if self.minutes >> minute & 1 and (later := self.seconds >> second):
                return hour * 3600 + minute * 60 + second + _lowest(later)
            if later := self.minutes >> minute + 1:
                return hour * 3600 + (minute + 1 + _lowest(later)) * 60 + _lowest(self.seconds)
        if later := self.hours >> hour + 1:
            return (hour + 1 + _lowest(later)) * 3600 + _lowest(self.minutes) * 60 + _lowest(self.seconds)
        return None

    def _time_at_or_before(self, second: int) -> int | None:
        """The last reading of the day up to `second` after midnight."""
        hour, rest = divmod(second, 3600)
        minute, second = divmod(rest, 60)
        if self.hours >> hour & 1:
            if self.minutes >> minute & 1 and (earlier := self.seconds & _below(second + 1)):
                return hour * 3600 + minute * 60 + _highest(earlier)
            if earlier := self.minutes & _below(minute):
                return hour * 3600 + _highest(earlier) * 60 + _highest(self.seconds)
        if earlier := self.hours & _below(hour):
            return _highest(earlier) * 3600 + _highest(self.minutes) * 60 + _highest(self.seconds)
        return None

    def _day_at_or_after(self, day: int) -> int | None:
        """The first day named from `day` on; days count from 1970-01-01."""
        start = date.fromordinal(day + _EPOCH_ORDINAL)
        year, month = start.year, start.month
        if later := self._month_mask(year, month) >> start.day:
            return day + _lowest(later)
        while year <= LAST_YEAR:
            year, month = self._month_after(year, month)
            if mask := self._month_mask(year, month):
                return _ordinal(year, month) + _lowest(mask) - 1
        return None

    def _day_at_or_before(self, day: int) -> int | None:
        start = date.fromordinal(day + _EPOCH_ORDINAL)
        year, month = start.year, start.month
        if earlier := self._month_mask(year, month) & _below(start.day + 1):
            return day - start.day + _highest(earlier)
        while year >= FIRST_YEAR:
            year, month = self._month_before(year, month)
            if mask := self._month_mask(year, month):
                return _ordinal(year, month) + _highest(mask) - 1
        return None

    def _month_after(self, year: int, month: int) -> tuple[int, int]:
        if later := self.months >> month + 1:
            return year, month + 1 + _lowest(later)
        return year + 1, _lowest(self.months)

    def _month_before(self, year: int, month: int) -> tuple[int, int]:
        if earlier := self.months & _below(month):
            return year, _highest(earlier)
        return year - 1, _highest(self.months)

    def _month_mask(self, year: int, month: int) -> int:
        """The days named in that month, bit 1 for the first; none outside the years we answer for."""
        if not self.months >> month & 1 or not FIRST_YEAR <= year <= LAST_YEAR:
            return 0
        if self.years is not None and year not in self.years:
            return 0
        # 1970-01-01 was a Thursday, three days after a Monday.
        return self.days.mask((_ordinal(year, month) + 3) % 7, month_length(year, month))


_NEVER = 10**6  # days: longer than the years we answer for


def _ordinal(year: int, month: int) -> int:
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
    return min((later - earlier for earlier, later in pairwise(bits(mask))), default=_NEVER * DAY)
