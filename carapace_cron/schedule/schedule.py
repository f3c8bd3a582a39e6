"""What every schedule answers, whatever form it was written in.

The subclasses know whole Unix seconds only; datetimes are made and read here, once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from carapace_cron.schedule.upcoming import Upcoming
from carapace_cron.schedule.zone import Zone

Kind = Literal["cron", "every", "at", "oncalendar", "rrule", "never"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Schedule(ABC):
    """A text and a zone that answer "when next?". Immutable; one object serves any number of jobs.

    Two are equal when they have the same text (as `text` has it), zone, and, where it matters, anchor.
    """

    text: str
    """The schedule in its normal form; parsing it again gives an equal schedule."""
    place: Zone
    """The zone with its clock changes."""
    kind: Kind
    """Which of the forms it was written in; ``in 20m`` is an ``"at"``."""
    anchor: int | None
    """The Unix second it counts from, or None where the text and zone say it all."""

    @property
    def zone(self) -> str:
        """The IANA name of the zone."""
        return self.place.name

    @property
    def anchored(self) -> bool:
        """Whether its instants depend on the anchor that it was parsed with."""
        return self.anchor is not None

    @abstractmethod
    def next_after_timestamp(self, seconds: int) -> int | None:
        """`next_after` in whole Unix seconds, for those who ask often."""

    @abstractmethod
    def previous_timestamp(self, seconds: int) -> int | None:
        """`previous` in whole Unix seconds."""

    @abstractmethod
    def describe(self) -> str:
        """The schedule in words, with its zone: ``At 09:00, Monday through Friday (Europe/Berlin)``."""

    @abstractmethod
    def shortest_period(self) -> timedelta:
        """The least time between two instants that follow each other; `timedelta.max` for a single one.

        Taken from the schedule's own clock: when clocks go forward, two runs may once be closer. Exact for
        cron, OnCalendar and ``every``; for RRULE the least among its first instants.
        """

    def note(self, at: int) -> str | None:
        """What a clock change did to the instant `at` of this schedule; None when it did nothing."""
        return None

    def next_after(self, instant: datetime) -> datetime | None:
        """The first instant strictly after `instant`; None when there is none before the year 2200.

        `instant` may be aware in any zone; the answer is in UTC, and a real instant in every zone.

        >>> from carapace_cron.schedule import parse
        >>> weekdays = parse("0 9 * * MON-FRI", "America/New_York")
        >>> print(weekdays.next_after(datetime(2026, 11, 20, 14, 0, tzinfo=UTC)))
        2026-11-23 14:00:00+00:00
        """
        since = instant - EPOCH
        found = self.next_after_timestamp(since.days * 86_400 + since.seconds)
        return None if found is None else datetime.fromtimestamp(found, UTC)

    def previous(self, instant: datetime) -> datetime | None:
        """The last instant strictly before `instant`; None when there is none from 1900 on."""
        since = instant - EPOCH
        begun = 1 if since.microseconds else 0  # the second that `instant` lies in is before it
        found = self.previous_timestamp(since.days * 86_400 + since.seconds + begun)
        return None if found is None else datetime.fromtimestamp(found, UTC)

    def between(self, start: datetime, end: datetime) -> Iterator[datetime]:
        """The instants after `start`, up to and including `end`, ascending."""
        at = self.next_after(start)
        while at is not None and at <= end:
            yield at
            at = self.next_after(at)

    def upcoming(self, instant: datetime, count: int) -> list[Upcoming]:
        """The next `count` instants after `instant`, each with its local time and what moved it."""
        found: list[Upcoming] = []
        at = self.next_after(instant)
        while at is not None and len(found) < count:
            local = at.astimezone(self.place.info)
            seconds = ":%S" if local.second else ""
            shown = local.strftime(f"%a %Y-%m-%d %H:%M{seconds} %Z")
            found.append(Upcoming(at, shown, self.note((at - EPOCH) // _SECOND)))
            at = self.next_after(at)
        return found
