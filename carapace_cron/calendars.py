"""Calendars as jobs have them: from dates, countries and local times to what a schedule asks."""

from __future__ import annotations

import math
from datetime import date, datetime

from carapace_cron.model.calendar import WEEKDAYS, Blackout, CalendarPolicy, Holidays
from carapace_cron.schedule.calendar import Calendar, Window
from carapace_cron.schedule.public_holidays import PublicHolidays, find_holidays
from carapace_cron.schedule.wall import DAY
from carapace_cron.schedule.zone import load_zone

_EPOCH = date(1970, 1, 1)


def calendar_of(policy: CalendarPolicy, zone: str) -> Calendar:
    """What `policy` says, on the clocks of `zone`. Equal policies give equal calendars, whatever their order.

    Raises `ScheduleError` for a zone, country, subdivision or category that there is not.
    """
    weekly = {_window(one) for one in policy.blackouts if one.is_weekly}
    once = {_span(one) for one in policy.blackouts if not one.is_weekly}
    return Calendar(
        load_zone(zone),
        dates=tuple((day - _EPOCH).days for day in policy.exclude_dates),
        holidays=None if policy.holidays is None else _public_holidays(policy.holidays),
        windows=tuple(sorted(weekly)),
        spans=tuple(sorted(once)),
    )


def _public_holidays(holidays: Holidays) -> PublicHolidays:
    return find_holidays(holidays.country, holidays.subdivision, holidays.categories)


def _window(blackout: Blackout) -> Window:
    weekdays = tuple(WEEKDAYS.index(day) for day in blackout.days or WEEKDAYS)
    if blackout.begin is None or blackout.until is None:
        return Window(weekdays, 0, DAY)
    return Window(weekdays, _seconds(blackout.begin), _seconds(blackout.until))


def _seconds(local_time: str) -> int:
    hours, _, minutes = local_time.partition(":")
    return int(hours) * 3600 + int(minutes) * 60


def _span(blackout: Blackout) -> tuple[int, int]:
    """From the first whole second in it to the first after it; instants of schedules are whole seconds."""
    begin, end = (datetime.fromisoformat(text or "") for text in (blackout.begin, blackout.until))
    return math.ceil(begin.timestamp()), math.ceil(end.timestamp())
