"""The door: text and zone in, a schedule that cannot be wrong out."""

from __future__ import annotations

from datetime import datetime

from carapace_cron.schedule import daylight
from carapace_cron.schedule.cron import ALIASES, parse_cron
from carapace_cron.schedule.describe import cron_in_words
from carapace_cron.schedule.errors import ScheduleError
from carapace_cron.schedule.local import LocalSchedule
from carapace_cron.schedule.schedule import Schedule
from carapace_cron.schedule.zone import Zone, load_zone

LONGEST_TEXT = 256  # characters; a list of all 60 minutes has 169


def parse(text: str, zone: str, *, anchor: datetime | None = None) -> Schedule:
    """The schedule that `text` describes, on the clocks of `zone` (an IANA name).

    `anchor` (aware) is what ``every 15m`` counts from, and where ``in 20m`` and an RRULE without DTSTART
    start. Without one, ``every`` counts from 1970-01-01 00:00 UTC.

    Raises `ScheduleError` (a `ValueError`), which names the field, its value, and what would do.
    """
    text = _checked(text)
    place = load_zone(zone)
    return _cron(text, place)


def _checked(text: str) -> str:
    if len(text) > LONGEST_TEXT:
        remedy = f"expected at most {LONGEST_TEXT} characters, found {len(text)}"
        raise ScheduleError("schedule", text, remedy)
    if not (text.isascii() and text.isprintable()):
        raise ScheduleError("schedule", text, "expected one line of printable ASCII")
    return " ".join(text.split())


def _cron(text: str, place: Zone) -> Schedule:
    cron = parse_cron(ALIASES.get(text.lower(), text))
    shown = text.lower() if text.startswith("@") else cron.text
    rule = daylight.FOLLOWS_REAL_TIME if cron.follows_real_time else daylight.NAMES_LOCAL_TIMES
    return LocalSchedule(
        shown, place, "cron", None, cron.pattern, rule, cron.pattern.shortest_gap, lambda: cron_in_words(cron)
    )
