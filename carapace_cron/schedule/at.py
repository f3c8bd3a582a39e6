"""One instant and no other: ``at 2026-12-01T09:00``, ``in 20m``."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from carapace_cron.schedule import daylight
from carapace_cron.schedule.errors import ScheduleError
from carapace_cron.schedule.every import duration_seconds, in_words, short
from carapace_cron.schedule.schedule import EPOCH, Schedule
from carapace_cron.schedule.zone import LAST_YEAR, Zone

_FIRST_YEAR = 1970
_FORM = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}(?::[0-9]{2})?) ?([Zz]|[+-][0-9]{2}:?[0-9]{2})?"
)
_EXPECTED = "expected a time such as 2026-12-01T09:00 (in the job's zone), …T09:00Z or …T09:00+01:00"


@dataclass(frozen=True, slots=True)
class At(Schedule):
    """A single instant."""

    at: int = field(repr=False)
    words: str = field(compare=False, repr=False)
    change: str | None = field(default=None, compare=False, repr=False)

    def next_after_timestamp(self, seconds: int) -> int | None:
        return self.at if self.at > seconds else None

    def previous_timestamp(self, seconds: int) -> int | None:
        return self.at if self.at < seconds else None

    def describe(self) -> str:
        local = datetime.fromtimestamp(self.at, UTC).astimezone(self.place.info)
        moved = "" if self.change is None else f"; {self.change}"
        return f"{self.words} {local:%a %Y-%m-%d %H:%M:%S %Z} ({self.zone}){moved}"

    def shortest_period(self) -> timedelta:
        return timedelta.max

    def note(self, at: int) -> str | None:
        return self.change


def parse_at(text: str, time: str, place: Zone) -> At:
    """``at`` with a local time, or with one that says its own offset."""
    match = _FORM.fullmatch(time)
    if match is None:
        raise ScheduleError("time", time, _EXPECTED, within=text)
    date, clock, offset = match[1], match[2], (match[3] or "").upper()
    try:
        named = datetime.fromisoformat(f"{date}T{clock}{offset}")
    except ValueError as error:
        raise ScheduleError("time", time, f"no such time ({error})", within=text) from error
    if not _FIRST_YEAR <= named.year <= LAST_YEAR:
        remedy = f"expected a year from {_FIRST_YEAR} to {LAST_YEAR}"
        raise ScheduleError("time", time, remedy, within=text)
    shown = "at " + named.isoformat().replace("+00:00", "Z")
    if offset:
        return At(shown, place, "at", None, (named - EPOCH) // timedelta(seconds=1), "Once, at")
    at, change = _local(text, time, named, place)
    return At(shown, place, "at", None, at, "Once, at", change)


def parse_in(text: str, duration: str, place: Zone, anchor: int | None) -> At:
    """``in 20m``: counted from the anchor, which is when the job was made."""
    if anchor is None:
        remedy = 'counts from when the job is made, and none was given here; use "at" with a time'
        raise ScheduleError("schedule", text, remedy)
    seconds = duration_seconds(text, duration)
    words = f"Once, {in_words(seconds, one='1 ')} after it is made, at"
    return At(f"in {short(seconds)}", place, "at", anchor, anchor + seconds, words)


def _local(text: str, time: str, named: datetime, place: Zone) -> tuple[int, str | None]:
    """The instant of a local time, and what a clock change does to it."""
    wall = (named.replace(tzinfo=UTC) - EPOCH) // timedelta(seconds=1)
    at = daylight.first_instant(wall, place)
    if at is None:
        raise ScheduleError("time", time, f"clocks in {place.name} skip that day", within=text)
    if daylight.is_skipped(wall, place):
        local = datetime.fromtimestamp(at, UTC).astimezone(place.info)
        return at, f"{named:%H:%M} does not exist that day; runs at {local:%H:%M} when clocks go forward"
    if daylight.is_repeated(wall, place):
        return at, f"{named:%H:%M} comes twice that day; runs the first time only"
    return at, None
