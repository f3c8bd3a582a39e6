"""The daylight-saving rule, at every clock change from 1970 to 2100 of every zone, against a walk in minutes.

The walk is written from the rule's words and shares nothing with the engine: it reads clocks through
`zoneinfo`, finds the changes by itself, matches with plain Python functions, and asks of each minute whether
clocks have shown it before. Of zones with the same changes since 1970 one is walked; that the engine knows
the changes of each is looked at first.
"""

from __future__ import annotations

import importlib.resources
import io
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

from carapace_cron.schedule import Schedule, parse
from carapace_cron.schedule.zone import load_zone

BEGIN = int(datetime(1970, 1, 1, tzinfo=UTC).timestamp())
END = int(datetime(2101, 1, 1, tzinfo=UTC).timestamp())
Changes = tuple[tuple[int, int, int], ...]  # instant, offset before, offset after
BEFORE, AFTER = 2 * 3600, 3 * 3600  # seconds walked on either side of a change; more for longer ones
WEEKDAYS = range(5)  # Monday to Friday

# expression, whether it follows real time, and when a reading matches
EXPRESSIONS: list[tuple[str, bool, Callable[[datetime], bool]]] = [
    ("*/20 * * * *", True, lambda at: at.minute % 20 == 0),
    ("*/30 2 * * *", True, lambda at: at.hour == 2 and at.minute % 30 == 0),
    ("15 */2 * * *", True, lambda at: at.hour % 2 == 0 and at.minute == 15),
    ("0 * * * 0", True, lambda at: at.minute == 0 and at.isoweekday() == 7),
    ("30 2 * * *", False, lambda at: (at.hour, at.minute) == (2, 30)),
    ("45 1 * * MON-FRI", False, lambda at: (at.hour, at.minute) == (1, 45) and at.weekday() in WEEKDAYS),
    ("0 0,1,2,3 * * *", False, lambda at: at.hour < 4 and at.minute == 0),
    ("10-50/20 0-23 * * *", False, lambda at: at.minute in (10, 30, 50)),
    ("5 22-23,0-4 * * 6,7", False, lambda at: at.hour in (22, 23, 0, 1, 2, 3, 4) and at.minute == 5
        and at.isoweekday() in (6, 7)),
    ("30 0-23 1,31 * 7", False, lambda at: at.minute == 30 and (at.day in (1, 31) or at.isoweekday() == 7)),
    ("0 2 */2 3,4,10,11 7", False, lambda at: (at.hour, at.minute) == (2, 0) and at.day % 2 == 1
        and at.month in (3, 4, 10, 11) and at.isoweekday() == 7),
]  # fmt: skip


def test_the_engine_agrees_with_a_walk_in_minutes_at_every_change() -> None:
    zones: dict[Changes, str] = {}
    for zone, data in _zones_with_data_of_their_own():
        changes = _changes(data)
        assert _changes_the_engine_knows(zone) == changes, zone
        zones.setdefault(changes, zone)  # those with the same changes since 1970 share the work
    asked = sum(_compare(zone, changes) for changes, zone in zones.items())
    # Says how much was looked at, and fails when the search for changes finds suddenly little.
    print(f"{len(zones)} zones, {asked} pairs of a change and an expression")
    assert asked > 300_000


def _compare(zone: str, changes: Changes) -> int:
    schedules = [parse(text, zone) for text, _, _ in EXPRESSIONS]
    for change, before, after in changes:
        width = abs(after - before)
        start, end = change - BEFORE - width, change + AFTER + width
        walked = _walk.cache_info().misses
        expected = _walk(change + before, after - before, start - change, end - change)
        is_new = _walk.cache_info().misses > walked
        for schedule, instants in zip(schedules, expected, strict=True):
            there = [change + instant for instant in instants]
            assert list(_forwards(schedule, start, end)) == there, (schedule, change)
            assert list(_backwards(schedule, start, end)) == there[::-1], (schedule, change)
            if is_new:
                _ask_in_between(schedule, there, (change - 1, change, change + width // 2), start, end)
    return len(changes) * len(schedules)


def _ask_in_between(
    schedule: Schedule, there: list[int], asked: tuple[int, ...], start: int, end: int
) -> None:
    """Ask just before the change, at it, and from inside what it repeats: no instant of the walk itself."""
    for at in asked:
        following = list(islice(_forwards(schedule, at, end), 1))
        assert following == [instant for instant in there if instant > at][:1], (schedule, at)
        previous = list(islice(_backwards(schedule, start, at - 1), 1))
        assert previous == [instant for instant in there if instant < at][-1:], (schedule, at)


def _zones_with_data_of_their_own() -> Iterator[tuple[str, bytes]]:
    seen = set()
    for zone in sorted(importlib.resources.files("tzdata").joinpath("zones").read_text().split()):
        data = importlib.resources.files("tzdata.zoneinfo").joinpath(*zone.split("/")).read_bytes()
        if data not in seen:
            seen.add(data)
            yield zone, data


def _changes_the_engine_knows(zone: str) -> Changes:
    known = load_zone(zone)
    listed = zip(known.starts[1:], known.offsets, known.offsets[1:], strict=False)
    return tuple(change for change in listed if BEGIN < change[0] < END)


def _changes(data: bytes) -> Changes:
    """Instant of each change, offset before and after. No two since 1970 are less than six days apart."""
    info = ZoneInfo.from_file(io.BytesIO(data))

    def offset(instant: int) -> int:
        east = datetime.fromtimestamp(instant, info).utcoffset()
        assert east is not None
        return int(east.total_seconds())

    found = []
    probes = range(BEGIN, END, 5 * 86_400)
    offsets = map(offset, probes)
    for (low, before), (high, after) in pairwise(zip(probes, offsets, strict=True)):
        if before != after:
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if offset(middle) == before else (low, middle)
            found.append((high, before, after))
    return tuple(found)


@cache
def _walk(wall_at_change: int, shift: int, start: int, end: int) -> list[list[int]]:
    """For each expression the instants, in seconds from the change, after `start` and up to `end`.

    Clocks run up to `wall_at_change` (seconds) and then show `shift` more.
    """
    due: list[list[int]] = [[] for _ in EXPRESSIONS]
    for instant, shown, skipped, again in _minutes(wall_at_change, shift, start, end):
        for runs, (_, follows_real_time, matches) in zip(due, EXPRESSIONS, strict=True):
            if follows_real_time:
                is_due = shown is not None and matches(shown)
            else:
                is_due = (shown is not None and not again and matches(shown)) or any(map(matches, skipped))
            if is_due and runs[-1:] != [instant]:
                runs.append(instant)
    return due


def _minutes(
    wall_at_change: int, shift: int, start: int, end: int
) -> Iterator[tuple[int, datetime | None, list[datetime], bool]]:
    """Instant, the whole minute clocks show then, minutes they just skipped, and whether shown before."""
    origin = datetime(1970, 1, 1)
    for instant in range(start + 1 + -(wall_at_change + start + 1) % 60, 0, 60):
        yield instant, origin + timedelta(seconds=wall_at_change + instant), [], False
    wall = wall_at_change + shift
    if 0 < shift <= 3 * 3600:
        first = -(-wall_at_change // 60) * 60
        yield 0, None, [origin + timedelta(seconds=gone) for gone in range(first, wall, 60)], False
    for instant in range(-wall % 60, end + 1, 60):
        shown_before = wall + instant < wall_at_change
        yield instant, origin + timedelta(seconds=wall + instant), [], shown_before


def _forwards(schedule: Schedule, start: int, end: int) -> Iterator[int]:
    at = schedule.next_after_timestamp(start)
    while at is not None and at <= end:
        yield at
        at = schedule.next_after_timestamp(at)


def _backwards(schedule: Schedule, start: int, end: int) -> Iterator[int]:
    at = schedule.previous_timestamp(end + 1)
    while at is not None and at > start:
        yield at
        at = schedule.previous_timestamp(at)
