"""When a job has no instants: dates, public holidays and blackouts, as they are given and kept.

What they mean to an instant is `schedule/calendar.py`'s.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from carapace_cron.model.record import Instant, Record, instant_text

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: tuple[Weekday, ...] = get_args(Weekday)

MIDNIGHT = "24:00"  # as the end of a day
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_LOCAL_TIME = re.compile(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]|24:00")
_INSTANT: TypeAdapter[datetime] = TypeAdapter(Instant)


def _date(value: Any) -> date:
    if isinstance(value, date):
        return value
    if not isinstance(value, str) or not _DATE.fullmatch(value):
        raise ValueError("expected a date such as 2026-12-25")
    try:
        day = date.fromisoformat(value)
    except ValueError as error:
        raise ValueError(f"no such date ({error})") from error
    if not 1970 <= day.year < 2200:  # as of an instant
        raise ValueError("expected a date from 1970 to 2199, such as 2026-12-25")
    return day


def _time_or_instant(text: str) -> str:
    if _LOCAL_TIME.fullmatch(text):
        return text
    try:
        return instant_text(_INSTANT.validate_python(text if _DATE.match(text) else ""))
    except ValidationError:
        expected = "a local time such as 22:00, or an instant with its zone such as 2026-12-24T18:00:00Z"
        raise ValueError(f"expected {expected}") from None


ExcludedDate = Annotated[date, BeforeValidator(_date)]
TimeOrInstant = Annotated[str, StringConstraints(max_length=40), AfterValidator(_time_or_instant)]
Code = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class Holidays(Record):
    """The public holidays of a country, or of a part of it."""

    country: Code  # ISO 3166-1: US
    subdivision: Code | None = None  # ISO 3166-2 without the country, CA; None = what all of it has in common
    categories: tuple[Code, ...] = Field(("public",), min_length=1, max_length=10)


class Blackout(Record):
    """A window without instants, in one of three shapes; the end itself is no part of it.

    - ``{"from": "2026-12-24T18:00:00Z", "until": "2026-12-27T06:00:00Z"}``: once, between two instants
    - ``{"days": ["sat", "sun"]}``: whole days of each week, in the job's zone
    - ``{"days": ["fri"], "from": "22:00", "until": "06:00"}``: hours of each week, in the job's zone. It
      begins on each of the days, or on every day where none is named, and ends the day after when `until` is
      not later than `from`.
    """

    days: tuple[Weekday, ...] | None = Field(None, min_length=1, max_length=7)
    begin: TimeOrInstant | None = Field(None, alias="from")
    until: TimeOrInstant | None = None

    @property
    def is_weekly(self) -> bool:
        """Whether it comes each week, on local clocks, rather than once."""
        return self.begin is None or _is_local(self.begin)

    @field_validator("days")
    @classmethod
    def _in_order(cls, days: tuple[Weekday, ...] | None) -> tuple[Weekday, ...] | None:
        return None if days is None else tuple(sorted(set(days), key=WEEKDAYS.index))

    @model_validator(mode="after")
    def _of_one_shape(self) -> Self:
        if fault := _fault(self.days, self.begin, self.until):
            raise ValueError(f"expected {fault}")
        return self


def _fault(days: tuple[Weekday, ...] | None, begin: str | None, until: str | None) -> str | None:
    """What a blackout would have to be instead, or None."""
    if begin is None or until is None:
        return None if days and begin is until else "from and until, or days alone"
    if _is_local(begin) != _is_local(until):
        return "from and until to be two local times or two instants"
    if begin == MIDNIGHT:
        return f"from to be 00:00–23:59; {MIDNIGHT} is the end of a day"
    if _is_local(begin):
        whole_days = "for whole days leave both out, and name the days"
        return f"until to differ from from; {whole_days}" if begin == until else None
    if days:
        return "no days with two instants; weekdays go with local times such as 22:00"
    if datetime.fromisoformat(begin) >= datetime.fromisoformat(until):
        return "until to be later than from"
    return None


def _is_local(text: str) -> bool:
    return len(text) == len(MIDNIGHT)


class CalendarPolicy(Record):
    """What a job's calendar is made of. An instant that falls into any of it is no instant of the job."""

    exclude_dates: tuple[ExcludedDate, ...] = Field((), max_length=366)  # whole days in the job's zone
    holidays: Holidays | None = None  # whole days in the job's zone, too
    blackouts: tuple[Blackout, ...] = Field((), max_length=20)

    @field_validator("exclude_dates")
    @classmethod
    def _ascending(cls, dates: tuple[date, ...]) -> tuple[date, ...]:
        return tuple(sorted(set(dates)))

    @property
    def has_calendar(self) -> bool:
        return bool(self.exclude_dates or self.holidays or self.blackouts)
