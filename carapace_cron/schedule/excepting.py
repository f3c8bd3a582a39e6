"""A schedule, less what a calendar excludes: an instant that falls into it is no instant of the schedule."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from carapace_cron.schedule.calendar import Calendar
from carapace_cron.schedule.describe import calendar_in_words
from carapace_cron.schedule.schedule import Schedule

# A search ends after so much that is excluded, one stretch after the other with an instant in each: a
# calendar that leaves nothing must not be looked through until 2199. The longest that honest calendars
# reach: 20 windows a day while clocks are in summer time, 4,340; the first days of 366 months, 31 years.
MOST_EXCLUDED_STRETCHES = 5_000
MOST_EXCLUDED_SECONDS = 40 * 366 * 86_400


@dataclass(frozen=True, slots=True)
class Excepting(Schedule):
    """Made by `excepting`. Text, zone, kind and anchor are those of the schedule within."""

    base: Schedule = field(repr=False)
    calendar: Calendar
    # Strictly between the two there is no instant. What is looked up most often is when a job is due next,
    # and that stays the same until then. Replaced as a whole, so threads may share the schedule.
    _gap: list[tuple[int, int]] = field(compare=False, repr=False)

    def next_after_timestamp(self, seconds: int) -> int | None:
        since, at = self._gap[0]
        if since <= seconds < at:
            return at
        found = self._search_forward(seconds)
        if found is not None:
            self._gap[0] = seconds, found
        return found

    def previous_timestamp(self, seconds: int) -> int | None:
        at = self.base.previous_timestamp(seconds)
        limit = (at or 0) - MOST_EXCLUDED_SECONDS
        for _ in range(MOST_EXCLUDED_STRETCHES):
            if at is None or at < limit:
                return None
            since = self.calendar.excluded_since(at)
            if since is None:
                return at
            at = self.base.previous_timestamp(since)
        return None

    def describe(self) -> str:
        words, except_for = self.base.describe(), calendar_in_words(self.calendar)
        named = f"({self.calendar.place.name})"
        return f"{words}, except {except_for}" + ("" if named in words else f" {named}")

    def shortest_period(self) -> timedelta:
        return self.base.shortest_period()

    def note(self, at: int) -> str | None:
        return self.base.note(at)

    def _search_forward(self, seconds: int) -> int | None:
        at = self.base.next_after_timestamp(seconds)
        limit = (at or 0) + MOST_EXCLUDED_SECONDS
        for _ in range(MOST_EXCLUDED_STRETCHES):
            if at is None or at > limit:
                return None
            until = self.calendar.excluded_until(at)
            if until is None:
                return at
            at = self.base.next_after_timestamp(until - 1)
        return None


def excepting(base: Schedule, calendar: Calendar) -> Excepting:
    """
    >>> from carapace_cron.schedule import parse
    >>> from carapace_cron.schedule.calendar import Window
    >>> daily = parse("0 9 * * *", "Europe/Berlin")
    >>> print(excepting(daily, Calendar(daily.place, windows=(Window((5, 6)),))).describe())
    At 09:00 (Europe/Berlin), except on Saturday and Sunday
    """
    return Excepting(base.text, base.place, base.kind, base.anchor, base, calendar, [(0, 0)])
