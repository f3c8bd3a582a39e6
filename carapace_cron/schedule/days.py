"""Which days of a month a schedule names, as one bitmask a month.

Months come in 28 shapes only (seven weekdays to begin with, four lengths), so a schedule works each shape
out once and then steps through days by bit operations. Weekdays count from Monday = 0, as `date.weekday`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

ALL_DAYS = (1 << 32) - 2  # bits 1 to 31
ALL_WEEKDAYS = 127
_EVERY_SEVENTH = sum(1 << day for day in range(0, 35, 7))  # turns a week into a month, by multiplication
_SATURDAY, _SUNDAY = 5, 6
_SHORTEST = 28  # days every month has
_NOT_YET = [-1] * 28  # masks, by shape of the month
_LENGTHS = (0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


@dataclass(slots=True, eq=False)  # not frozen: that would make parsing a fifth slower
class Days:
    """The day-of-month and day-of-week parts of a schedule. Bit n of a mask stands for day or weekday n.

    Never changed once made, but for the masks it has worked out.
    """

    of_month: int = ALL_DAYS  # 9 names bit 9
    from_end: int = 0  # bit 1 is the last day (cron's L, OnCalendar's ~1), bit 2 the one before
    last_workday: bool = False  # LW: the last day from Monday to Friday
    nearest_workday: tuple[int, ...] = ()  # 15W: the day from Monday to Friday nearest to the 15th
    of_week: int = ALL_WEEKDAYS
    nth_of_week: tuple[tuple[int, int], ...] = ()  # MON#2: (0, 2)
    last_of_week: int = 0  # FRIL: bit 4
    either: bool = False  # a day needs to match one of the two parts only
    _masks: list[int] = field(default_factory=_NOT_YET.copy, repr=False)

    def mask(self, first: int, length: int) -> int:
        """The days of a month that begins on weekday `first` and has `length` days; bit 1 is the first."""
        shape = first * 4 + length - _SHORTEST
        mask = self._masks[shape]
        if mask < 0:
            mask = self._masks[shape] = self._worked_out(first, length)
        return mask

    def surely_in_every_month(self) -> bool:
        """Whether a look at the fields is enough to know that every month has such a day."""
        if self.of_week == ALL_WEEKDAYS:
            return self.of_month & _up_to(_SHORTEST) != 0
        return self.of_week != 0 and (self.either or self.of_month == ALL_DAYS)

    def _worked_out(self, first: int, length: int) -> int:
        by_month, by_week = self._by_month(first, length), self._by_week(first, length)
        both = by_month | by_week if self.either else by_month & by_week
        return both & _up_to(length)

    def _by_month(self, first: int, length: int) -> int:
        mask = self.of_month
        for back in bits(self.from_end):
            mask |= 1 << max(length + 1 - back, 0)
        if self.last_workday:
            mask |= 1 << _nearest_workday(length, first, length)
        for day in self.nearest_workday:
            if day <= length:  # 31W names no day in a month of 30, as in Quartz
                mask |= 1 << _nearest_workday(day, first, length)
        return mask

    def _by_week(self, first: int, length: int) -> int:
        mask = _spread(self.of_week, first) & _up_to(length)
        for weekday, nth in self.nth_of_week:
            mask |= 1 << (1 + (weekday - first) % 7 + 7 * (nth - 1))
        last_week = _up_to(length) & ~_up_to(length - 7)
        return mask | _spread(self.last_of_week, first) & last_week


def bits(mask: int) -> Iterator[int]:
    """The positions of the bits that are set, ascending.

    >>> list(bits(0b10010))
    [1, 4]
    """
    while mask:
        lowest = mask & -mask
        yield lowest.bit_length() - 1
        mask ^= lowest


def month_length(year: int, month: int) -> int:
    if month == 2 and year % 4 == 0 and (year % 100 != 0 or year % 400 == 0):
        return 29
    return _LENGTHS[month]


def _up_to(day: int) -> int:
    """The days from 1 to `day`."""
    return (2 << day) - 2


def _spread(week: int, first: int) -> int:
    """A week's mask as the days of a month that begins on weekday `first`."""
    rotated = (week >> first | week << (7 - first)) & ALL_WEEKDAYS
    return rotated * _EVERY_SEVENTH << 1


def _nearest_workday(day: int, first: int, length: int) -> int:
    """The day from Monday to Friday nearest to `day`, without leaving the month."""
    weekday = (first + day - 1) % 7
    if weekday == _SATURDAY:
        return day - 1 if day > 1 else day + 2
    if weekday == _SUNDAY:
        return day + 1 if day < length else day - 2
    return day
