"""Schedules as jobs use them: parsed once per distinct text, and held to the operator's limits."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from carapace_cron.calendars import calendar_of
from carapace_cron.errors import InvalidValue
from carapace_cron.model.calendar import CalendarPolicy
from carapace_cron.model.job import Job, JobDraft
from carapace_cron.model.record import instant_text
from carapace_cron.schedule import Schedule, ScheduleError, parse
from carapace_cron.schedule.errors import shown
from carapace_cron.schedule.excepting import Excepting, excepting

CACHED = 10_000  # distinct schedules kept parsed, the least recently used go first
MAX_PREVIEW = 100


class Schedules:
    """`min_interval`: jobs that are due more often are refused."""

    def __init__(self, min_interval: timedelta) -> None:
        self._min_interval = min_interval
        self._parsed: OrderedDict[tuple[str, str, datetime | None], Schedule] = OrderedDict()

    def of(self, job: Job) -> Schedule:
        """The job's schedule; intervals count from the second in which the job was made."""
        return self.read(job, job.created_at)

    def read(self, definition: Job | JobDraft, anchor: datetime) -> Schedule:
        """The schedule of a definition, less what its calendar excludes. Raises `ScheduleError`."""
        schedule = self.parse(definition.schedule, definition.timezone, anchor)
        return _less(schedule, definition, definition.timezone)

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

    def check(self, definition: Job | JobDraft, anchor: datetime, now: datetime) -> Schedule:
        """A schedule that a job may have: parses, is not too quick, and comes due after `now`.

        Raises `InvalidValue`, as `read` does.
        """
        schedule = self.read(definition, anchor)
        for fault in self._faults(schedule, definition.schedule, now):
            raise fault
        return schedule

    def preview(
        self, text: str, zone: str, count: int, now: datetime, calendar: CalendarPolicy
    ) -> dict[str, Any]:
        """In words, and the next `count` instants (1–100), with what clock changes do to them.

        The warnings say why a job could not have the schedule, where it could not.
        """
        if not 1 <= count <= MAX_PREVIEW:
            raise InvalidValue(f"bad count {count}: expected 1–{MAX_PREVIEW}", field="count")
        with naming("schedule"):
            schedule = _less(self.parse(text, zone, now), calendar, zone)
        return {
            "schedule": text,
            "timezone": zone,
            "description": schedule.describe(),
            "nextExecutions": upcoming(schedule, now, count),
            "warnings": [str(fault) for fault in self._faults(schedule, text, now)],
        }

    def _faults(self, schedule: Schedule, text: str, now: datetime) -> Iterator[InvalidValue]:
        """Why a job may not have the schedule, most telling first."""
        period = schedule.shortest_period()
        if period < self._min_interval:
            expected = f"expected at least {_seconds(self._min_interval)}"
            yield ScheduleError("schedule", text, f"is due every {_seconds(period)}; {expected}")
        if schedule.next_after(now) is None and schedule.kind != "never":
            yield _never_due(schedule, text, now)


def _less(schedule: Schedule, policy: CalendarPolicy, zone: str) -> Schedule:
    """The schedule without what the policy excludes on the clocks of `zone`."""
    if not policy.has_calendar:
        return schedule
    calendar = calendar_of(policy, zone)
    return schedule if schedule.kind == "never" else excepting(schedule, calendar)


def _never_due(schedule: Schedule, text: str, now: datetime) -> InvalidValue:
    if isinstance(schedule, Excepting) and schedule.base.next_after(now) is not None:
        field = schedule.calendar.part_to_blame
        return InvalidValue(
            f'bad {field}: no instant of "{shown(text)}" is left: all fall on excluded dates, on holidays or '
            "into blackouts; expected a calendar that leaves some",
            field=field,
        )
    return InvalidValue(
        f'bad schedule "{text[:80]}": never due after {instant_text(now)}; expected a later instant',
        field="schedule",
    )


@contextmanager
def naming(field: str) -> Iterator[None]:
    """A fault within a schedule is one of the field that the caller gave it in, here `field`."""
    try:
        yield
    except InvalidValue as error:
        of_its_own = (error.field or "").partition(".")[0] in _BESIDE_THE_SCHEDULE
        raise InvalidValue(str(error), field=error.field if of_its_own else field) from error


_BESIDE_THE_SCHEDULE = {"timezone", *(str(one.alias) for one in CalendarPolicy.model_fields.values())}


def upcoming(
    schedule: Schedule, after: datetime, count: int, *, until: datetime | None = None
) -> list[dict[str, Any]]:
    """The next `count` instants, none later than `until`, each in UTC, in local words, and with a note where
    a clock change is."""
    return [
        {"at": instant_text(one.at), "local": one.local, **({"note": one.note} if one.note else {})}
        for one in schedule.upcoming(after, count)
        if until is None or one.at <= until
    ]


def just_before(instant: datetime) -> datetime:
    """The whole second after which the first instant of a schedule is at `instant` or later.

    >>> print(just_before(datetime(2026, 1, 30, 12, 0, 0, 1, tzinfo=UTC)))
    2026-01-30 12:00:00+00:00
    """
    return datetime.fromtimestamp(math.ceil(instant.timestamp()) - 1, UTC)


def _seconds(period: timedelta) -> str:
    return f"{period.total_seconds():g} s"
