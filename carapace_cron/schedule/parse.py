"""The door: text and zone in, a schedule that cannot be wrong out."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from functools import partial

from carapace_cron.schedule import daylight
from carapace_cron.schedule.at import parse_at, parse_in
from carapace_cron.schedule.cron import ALIASES, parse_cron
from carapace_cron.schedule.describe import cron_in_words, rule_in_words
from carapace_cron.schedule.errors import ScheduleError, shown
from carapace_cron.schedule.every import parse_every
from carapace_cron.schedule.local import LocalSchedule
from carapace_cron.schedule.never import NEVER, Never, is_never
from carapace_cron.schedule.oncalendar import looks_like_oncalendar, parse_oncalendar
from carapace_cron.schedule.rrule import Moment, looks_like_rrule, parse_rrule, start_without_dtstart
from carapace_cron.schedule.rule_times import rule_times
from carapace_cron.schedule.schedule import EPOCH, Schedule
from carapace_cron.schedule.zone import Zone, load_zone

LONGEST_TEXT = 256  # characters; a list of all 60 minutes has 169

_CRON_BEGINS_WITH = "0123456789*"
_ZONE_IN_FRONT = re.compile(r"((?:CRON_)?TZ=(\S+))(?: |$)")
_SAID = re.compile(r"@?(every|at|in)(?: (.*))?", re.IGNORECASE)
_EXPECTED = (
    'expected cron ("0 9 * * MON-FRI"), "every 15m", "at 2026-12-01T09:00", "in 20m", '
    'OnCalendar ("Mon..Fri 09:00") or RRULE ("FREQ=DAILY;BYHOUR=9")'
)


def parse(text: str, zone: str, *, anchor: datetime | None = None) -> Schedule:
    """The schedule that `text` describes, on the clocks of `zone` (an IANA name).

    `anchor` (aware) is what ``every 15m`` counts from, and where ``in 20m`` and an RRULE without DTSTART
    start. Without one, ``every`` counts from 1970-01-01 00:00 UTC and an RRULE from 1970-01-01 00:00 in its
    zone. An OnCalendar text or a DTSTART that names a zone of its own goes by that.

    Raises `ScheduleError` (a `ValueError`), which names the field, its value, and what would do. All forms:
    docs/reference/schedules.md.
    """
    text = _checked(text)
    place = load_zone(zone)
    if text[0] in _CRON_BEGINS_WITH and text.count(" ") >= 4:
        return _cron(text, text, place)
    if is_never(text):
        return Never(NEVER, place, "never", None)
    seconds = None if anchor is None else (anchor - EPOCH) // timedelta(seconds=1)
    if text[0] == "@" and not text.lower().startswith("@every"):
        return _alias(text, place)
    if match := _SAID.fullmatch(text):
        return _said(text, match[1].lower(), match[2] or "", place, seconds)
    if looks_like_rrule(text):
        return _rule(text, place, seconds)
    if looks_like_oncalendar(text):
        return _calendar_event(text, place)
    if text[0] in _CRON_BEGINS_WITH or text.count(" ") >= 4:
        return _cron(text, text, place)
    raise ScheduleError("schedule", text, _EXPECTED)


def _checked(text: str) -> str:
    if "\n" in text and looks_like_rrule(text):  # iCalendar text comes in lines: DTSTART, then RRULE
        text = text.replace("\r\n", "\n").replace("\n", " ", 1)
    if len(text) > LONGEST_TEXT:
        remedy = f"expected at most {LONGEST_TEXT} characters, found {len(text)}"
        raise ScheduleError("schedule", text, remedy)
    if not (text.isascii() and text.isprintable()):
        raise ScheduleError("schedule", text, "expected one line of printable ASCII")
    text = " ".join(text.split())
    if not text:
        raise ScheduleError("schedule", text, _EXPECTED)
    if match := _ZONE_IN_FRONT.match(text):
        remedy = f'leave "{shown(match[1])}" out and give "{shown(match[2])}" as the timezone'
        raise ScheduleError("schedule", text, remedy)
    return text


def _alias(text: str, place: Zone) -> Schedule:
    name = text.lower()
    if name == "@reboot":
        remedy = "a gateway's start is not a time; expected a schedule, such as @daily"
        raise ScheduleError("schedule", text, remedy)
    if name not in ALIASES:
        raise ScheduleError("schedule", text, f"expected {', '.join(ALIASES)} or @every 15m")
    return _cron(name, ALIASES[name], place)


def _cron(name: str, text: str, place: Zone) -> Schedule:
    cron = parse_cron(text)
    return LocalSchedule(
        text=cron.text if name is text else name,
        place=place,
        kind="cron",
        anchor=None,
        times=cron.pattern,
        rule=_rule_of(cron.follows_real_time),
        words=partial(cron_in_words, cron),
    )


def _rule_of(follows_real_time: bool) -> daylight.Rule:
    return daylight.FOLLOWS_REAL_TIME if follows_real_time else daylight.NAMES_LOCAL_TIMES


def _said(text: str, word: str, rest: str, place: Zone, anchor: int | None) -> Schedule:
    if word == "every":
        return parse_every(text, rest, place, anchor or 0)
    if word == "in":
        return parse_in(text, rest, place, anchor)
    return parse_at(text, rest, place)


def _calendar_event(text: str, place: Zone) -> Schedule:
    event = parse_oncalendar(text)
    return LocalSchedule(
        text=event.text,
        place=load_zone(event.zone) if event.zone else place,
        kind="oncalendar",
        anchor=None,
        times=event.pattern,
        rule=_rule_of(event.follows_real_time),
        words=partial('On the calendar event "{}"'.format, event.text),
    )


def _rule(text: str, place: Zone, anchor: int | None) -> Schedule:
    rule = parse_rrule(text)
    if rule.zone:
        place = load_zone(rule.zone)
    if rule.start is None:
        # The anchor itself is no instant of the rule: a job made at nine that runs COUNT=3 times runs
        # three times after that.
        made = 0 if anchor is None else place.wall_at(anchor)
        start, first = start_without_dtstart(rule, made), made + 1
    else:
        start = first = _wall(rule.start, place)
    times = rule_times(rule, start, first)
    return LocalSchedule(
        text=rule.text,
        place=place,
        kind="rrule",
        anchor=None if rule.start else anchor or 0,
        times=times,
        rule=_rule_of(rule.follows_real_time),
        words=partial(rule_in_words, rule, start),
        until=_until(rule.until, place),
    )


def _wall(moment: Moment, place: Zone) -> int:
    return place.wall_at(moment.wall) if moment.in_utc else moment.wall


def _until(moment: Moment | None, place: Zone) -> int | None:
    """The last instant a rule may have: its UNTIL is inclusive."""
    if moment is None or moment.in_utc:
        return None if moment is None else moment.wall
    instant = daylight.first_instant(moment.wall, place)
    # A reading in a day that its zone left out: the last instant before it is as good.
    return place.starts[place.stretch_reaching(moment.wall)] - 1 if instant is None else instant
