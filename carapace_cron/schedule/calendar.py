"""Days and hours without instants: what an instant is asked before it counts as one of a job's.

What is excluded is said of what clocks show: a date, a weekday with its hours. So an hour that clocks skip
needs no rule, and one that they repeat is excluded both times. Only a span between two instants knows no
clock.

A look at one instant finds a whole stretch that is like it: a blackout of a month is one step, not one for
each of its minutes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from carapace_cron.schedule.edges import Edges, around, edges_of
from carapace_cron.schedule.public_holidays import PublicHolidays
from carapace_cron.schedule.wall import DAY, FIRST_WALL, LAST_WALL
from carapace_cron.schedule.zone import ALWAYS, FOREVER, Zone

WEEK = 7 * DAY
_MONDAY = 4 * DAY  # 1970-01-05; days of the week count from Monday = 0


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """Hours of a day that come each week, on the clock of the calendar's zone.

    It begins on each of `weekdays`, `begin` seconds after midnight, and lasts to before `end`; with an `end`
    that is not after `begin`, until the next day.
    """

    weekdays: tuple[int, ...]
    begin: int = 0
    end: int = DAY


@dataclass(frozen=True, slots=True)
class Calendar:
    """What is excluded: days, public holidays, windows that come each week, and spans between instants.

    Two are equal when they are made of the same parts. One object serves any number of jobs; it never
    changes, but for what it remembers: a stretch in which nothing is excluded.
    """

    place: Zone
    """On whose clocks the dates, holidays and windows are read."""
    dates: tuple[int, ...] = ()
    """Days since 1970-01-01, ascending."""
    holidays: PublicHolidays | None = None
    windows: tuple[Window, ...] = ()
    spans: tuple[tuple[int, int], ...] = ()
    """Unix seconds; the first is in the span, the second is not."""
    _date_edges: Edges = field(init=False, compare=False, repr=False)
    _week_edges: Edges = field(init=False, compare=False, repr=False)
    _span_edges: Edges = field(init=False, compare=False, repr=False)
    # [since, until), in which nothing is excluded. Replaced as a whole, so threads may share the calendar.
    _free: list[tuple[int, int]] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        days = ((day * DAY, (day + 1) * DAY) for day in self.dates)
        set_once = object.__setattr__  # how a frozen record is given what follows from its parts
        set_once(self, "_date_edges", edges_of(days, ALWAYS, FOREVER))
        set_once(self, "_week_edges", edges_of(_within_week(self.windows), 0, WEEK))
        set_once(self, "_span_edges", edges_of(self.spans, ALWAYS, FOREVER))
        set_once(self, "_free", [(0, 0)])

    @property
    def part_to_blame(self) -> str:
        """Of a calendar that leaves nothing: the likeliest part, by its name on the wire."""
        if self.windows or self.spans:
            return "blackouts"
        return "excludeDates" if self.holidays is None else "holidays"

    def excluded_until(self, at: int) -> int | None:
        """The first instant after `at` that is not excluded; None when `at` itself is not.

        >>> from carapace_cron.schedule.zone import load_zone
        >>> weekends = Calendar(load_zone("UTC"), windows=(Window((5, 6)),))
        >>> thursday = 0  # 1970-01-01
        >>> weekends.excluded_until(thursday), weekends.excluded_until(thursday + 2 * DAY) // DAY
        (None, 4)
        """
        since, until = self._free[0]
        if since <= at < until:
            return None
        excluded, _, until = self._look(at)
        if not excluded:
            return None
        while excluded and until <= LAST_WALL:
            at = until
            excluded, _, until = self._look(at)
        return at

    def excluded_since(self, at: int) -> int | None:
        """The first instant from which on all up to `at` are excluded; None when `at` itself is not."""
        since, until = self._free[0]
        if since <= at < until:
            return None
        excluded, since, _ = self._look(at)
        if not excluded:
            return None
        while excluded and since > FIRST_WALL:
            at = since
            excluded, since, _ = self._look(at - 1)
        return at

    def _look(self, at: int) -> tuple[bool, int, int]:
        """Whether `at` is excluded, and a stretch around it, ``[since, until)``, that is so throughout."""
        inside, since, until = around(self._span_edges, at)
        if inside:
            return True, since, until
        stretch = self.place.stretch_at(at)
        # Beyond them clocks have changed, and the readings found here come at other instants.
        first, last = self.place.starts[stretch], self.place.stretch_end(stretch)
        offset = self.place.offsets[stretch]
        for edges, origin in self._edges_near(at + offset):
            ahead = origin - offset
            inside, begin, end = around(edges, at - ahead)
            begin, end = max(begin + ahead, first), min(end + ahead, last)
            if inside:
                return True, begin, end
            since, until = max(since, begin), min(until, end)
        self._free[0] = since, until
        return False, since, until

    def _edges_near(self, wall: int) -> Iterator[tuple[Edges, int]]:
        """The edges that matter to a reading, each with the reading that they count from."""
        if self.dates:
            yield self._date_edges, 0
        if self.windows:
            yield self._week_edges, wall - (wall - _MONDAY) % WEEK
        if self.holidays is not None:
            yield self.holidays.edges(wall), 0


def _within_week(windows: Iterable[Window]) -> Iterator[tuple[int, int]]:
    """The windows as seconds of a week; one that lasts into the next week is at its beginning, too."""
    for window in windows:
        for weekday in window.weekdays:
            begin = weekday * DAY + window.begin
            end = weekday * DAY + window.end + (DAY if window.end <= window.begin else 0)
            yield begin, min(end, WEEK)
            if end > WEEK:
                yield 0, end - WEEK
