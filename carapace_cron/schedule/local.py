"""Schedules that name local times (cron, OnCalendar, RRULE): readings, a zone, and the daylight rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from carapace_cron.schedule import daylight
from carapace_cron.schedule.schedule import Schedule
from carapace_cron.schedule.wall import DAY, NEVER, WallTimes


@dataclass(frozen=True, slots=True)
class LocalSchedule(Schedule):
    """Wall readings, turned into instants by one of the rules of `daylight.py`."""

    times: WallTimes = field(compare=False, repr=False)
    rule: daylight.Rule = field(compare=False, repr=False)
    words: Callable[[], str] = field(compare=False, repr=False)
    until: int | None = field(default=None, compare=False, repr=False)

    def next_after_timestamp(self, seconds: int) -> int | None:
        found = self.rule.next_after(self.times, self.place, seconds)
        if found is not None and self.until is not None and found > self.until:
            return None
        return found

    def previous_timestamp(self, seconds: int) -> int | None:
        if self.until is not None:
            seconds = min(seconds, self.until + 1)
        return self.rule.previous(self.times, self.place, seconds)

    def describe(self) -> str:
        return f"{self.words()} ({self.zone})"

    def shortest_period(self) -> timedelta:
        gap = self.times.shortest_gap()
        return timedelta(seconds=gap) if gap < NEVER // 2 else timedelta.max

    def note(self, at: int) -> str | None:
        stretch = self.place.stretch_at(at)
        wall = at + self.place.offsets[stretch]
        if self.rule is daylight.FOLLOWS_REAL_TIME:
            if wall < self.place.highs[stretch]:
                return f"{_time(wall)} comes twice that day; this is the second time"
            return None
        if self.place.starts[stretch] == at and wall > self.place.highs[stretch]:
            return self._skipped(self.place.highs[stretch], wall)
        if daylight.is_repeated(wall, self.place):
            return f"{_time(wall)} comes twice that day; runs the first time only"
        return None

    def _skipped(self, low: int, high: int) -> str | None:
        """What to say of the readings from `low` to before `high`, which clocks jumped over."""
        first, last = self.times.at_or_after(low), self.times.at_or_before(high - 1)
        if first is None or last is None or first >= high:
            return None
        runs = f"that day; runs at {_time(high)} when clocks go forward"
        if first == last:
            return f"{_time(first)} does not exist {runs}"
        return f"{_time(first)} to {_time(last)} do not exist {runs.replace('runs', 'runs once,')}"


def _time(wall: int) -> str:
    hour, rest = divmod(wall % DAY, 3600)
    minute, second = divmod(rest, 60)
    return f"{hour:02}:{minute:02}" + (f":{second:02}" if second else "")
