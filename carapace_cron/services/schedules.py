"""Schedules as jobs use them: parsed once per distinct text, and held to the operator's limits."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from carapace_cron.errors import InvalidValue
from carapace_cron.model.job import Job
from carapace_cron.model.record import instant_text
from carapace_cron.schedule import Schedule, ScheduleError, parse

CACHED = 10_000  # distinct schedules kept parsed, the least recently used go first
MAX_PREVIEW = 100


class Schedules:
    """`min_interval`: jobs that are due more often are refused."""

    def __init__(self, min_interval: timedelta) -> None:
        self._min_interval = min_interval
        self._parsed: OrderedDict[tuple[str, str, datetime | None], Schedule] = OrderedDict()

    def of(self, job: Job) -> Schedule:
        """The job's schedule; intervals count from the second in which the job was made."""
        return self.parse(job.schedule, job.timezone, job.created_at)

    def parse(self, text: str, zone: str, anchor: datetime) -> Schedule:
        """Raises `ScheduleError`, which names field, value and remedy."""
        anchor = anchor.astimezone(UTC).replace(microsecond=0)
        for key in ((text, zone, None), (text, zone, anchor)):
            if (known := self._parsed.get(key)) is not None:
                self._parsed.move_to_end(key)
                return known
        schedule = parse(text, zone, anchor=anchor)
        self._parsed[text, zone, anchor if schedule.anchored else None] = schedule
        if len(self._parsed) > CACHED:
            self._parsed.popitem(last=False)
        return schedule

    def check(self, text: str, zone: str, anchor: datetime, now: datetime) -> Schedule:
        """A schedule that a job may have: parses, is not too quick, and comes due after `now`.

        Raises `InvalidValue`, as `parse` does.
        """
        schedule = self.parse(text, zone, anchor)
        period = schedule.shortest_period()
        if period < self._min_interval:
            raise ScheduleError(
                "schedule",
                text,
                f"is due every {_seconds(period)}; expected at least {_seconds(self._min_interval)}",
            )
        if schedule.next_after(now) is None:
            raise InvalidValue(
                f'bad schedule "{text[:80]}": never due after {instant_text(now)}; expected a later instant',
                field="schedule",
            )
        return schedule

    def preview(self, text: str, zone: str, count: int, now: datetime) -> dict[str, Any]:
        """In words, and the next `count` instants (1–100), with what clock changes do to them."""
        if not 1 <= count <= MAX_PREVIEW:
            raise InvalidValue(f"bad count {count}: expected 1–{MAX_PREVIEW}", field="count")
        with naming("schedule"):
            schedule = self.parse(text, zone, now)
        return {
            "schedule": text,
            "timezone": zone,
            "description": schedule.describe(),
            "nextExecutions": upcoming(schedule, now, count),
        }


@contextmanager
def naming(field: str) -> Iterator[None]:
    """A fault within a schedule is one of the field that the caller gave it in, here `field`."""
    try:
        yield
    except InvalidValue as error:
        raise InvalidValue(str(error), field="timezone" if error.field == "timezone" else field) from error


def upcoming(schedule: Schedule, after: datetime, count: int) -> list[dict[str, Any]]:
    """The next instants, each as UTC instant, in local words, and with a note where a clock change is."""
    return [
        {"at": instant_text(one.at), "local": one.local, **({"note": one.note} if one.note else {})}
        for one in schedule.upcoming(after, count)
    ]


def _seconds(period: timedelta) -> str:
    return f"{period.total_seconds():g} s"
