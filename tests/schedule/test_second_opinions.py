"""Where croniter and cronsim answer as we do, and where not, each time with the reason.

The tables fail in both directions: on a disagreement that is not listed, and on a listed one that is gone.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from datetime import UTC, datetime
from types import FrameType
from zoneinfo import ZoneInfo

import pytest
from croniter import CroniterError, croniter
from cronsim import CronSim, CronSimError
from hypothesis import given
from hypothesis import strategies as st

from carapace_cron.schedule import ScheduleError, parse

TWICE = "runs a fixed job in both passes of a repeated hour"
SPURIOUS = "lets an interval job run at the end of a gap although no reading of it is shown"
MADE_UP = "makes up at midnight for a day that the zone left out"
EQUAL_RANGE = "reads a range from a value to itself as the whole cycle"
WRAPS = "lets a reversed range wrap around"
EITHER = "takes either field, unless told implement_cron_bug=True"
NO_UNION = "does not take either field when one of them is an L, W or # term"
UNKNOWN = "does not know the form"
SIX_ON_SUNDAY = "ends a weekday's step at 6, so that it never reaches Sunday"
LARGE_STEP = "takes a step past the end as the first value alone, so that this runs hourly"
HALF_HOUR = "misses an hour where clocks move by thirty minutes"
IMAGINARY = "answers with a midnight that does not exist"
AGREES = None

OPINIONS = [
    # expression, zone, asked after (UTC), why croniter disagrees, why cronsim disagrees
    ("30 2 * * *", "America/New_York", "2024-03-10T04:00", AGREES, AGREES),
    ("0,30 2 * * *", "America/New_York", "2024-03-10T04:00", AGREES, AGREES),
    ("30 1 * * *", "America/New_York", "2024-11-03T04:00", TWICE, AGREES),
    ("30 1 * * *", "America/New_York", "2024-11-03T06:10", TWICE, "answers with an instant in the past"),
    ("30 0-23 * * *", "America/New_York", "2024-11-03T04:45", TWICE, AGREES),
    ("30 * * * *", "America/New_York", "2024-11-03T04:45", AGREES, AGREES),
    ("*/15 * * * *", "America/New_York", "2024-11-03T05:40", AGREES, AGREES),
    ("*/15 * * * *", "America/New_York", "2024-03-10T06:40", AGREES, AGREES),
    ("0 */2 * * *", "America/New_York", "2024-03-10T04:00", SPURIOUS, AGREES),
    ("*/30 2 * * *", "America/New_York", "2024-03-10T04:00", SPURIOUS, AGREES),
    ("0 2 * * *", "Europe/Berlin", "2024-03-31T00:00", AGREES, AGREES),
    ("0 9 * * 1-5", "Europe/Berlin", "2024-03-29T12:00", AGREES, AGREES),
    ("15 2 * * *", "Australia/Lord_Howe", "2024-10-05T00:00", AGREES, AGREES),
    ("0 */3 * * *", "Australia/Lord_Howe", "2024-10-05T13:31", AGREES, HALF_HOUR),
    ("30 * * * *", "Australia/Lord_Howe", "2024-04-06T14:00", AGREES, HALF_HOUR),
    ("0 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00", AGREES, AGREES),
    ("*/30 * 4 11 *", "America/Sao_Paulo", "2018-11-01T00:00", AGREES, AGREES),
    ("0 */4 * * 0", "America/Havana", "2024-03-10T01:00", SPURIOUS, IMAGINARY),
    ("30 */2 * * *", "America/St_Johns", "2009-11-01T02:32", AGREES, "never returns"),
    ("30 0 29 10 *", "America/Scoresbysund", "2023-10-29T02:00", "raises AssertionError", AGREES),
    ("0 12 * * *", "Pacific/Apia", "2011-12-29T12:00", MADE_UP, MADE_UP),
    ("0 0 30 12 *", "Pacific/Apia", "2011-12-01T12:00", MADE_UP, MADE_UP),
    ("0 0 13 * 5", "UTC", "2026-01-01T00:00", AGREES, AGREES),
    ("0 0 */2 * 1", "UTC", "2026-01-01T00:00", EITHER, AGREES),
    ("0 0 1-7 * */7", "UTC", "2026-01-01T00:00", EITHER, AGREES),
    ("1-1 * * * *", "UTC", "2026-01-01T00:00", EQUAL_RANGE, AGREES),
    ("0 22-22 * * *", "UTC", "2026-01-01T00:00", EQUAL_RANGE, AGREES),
    ("7-7/2 2 * * *", "UTC", "2026-01-01T00:00", EQUAL_RANGE, "reads 7-7/2 as 7-59/2"),
    ("30-20 * * * *", "UTC", "2026-01-01T00:00", WRAPS, AGREES),
    ("0 0 * * FRI-MON", "UTC", "2026-01-01T00:00", WRAPS, AGREES),
    ("59/15 * * * *", "UTC", "2026-01-01T00:00", AGREES, AGREES),
    ("5/20 * * * *", "UTC", "2026-01-01T00:00", AGREES, AGREES),
    ("*/90 * * * *", "UTC", "2026-01-01T00:00", LARGE_STEP, LARGE_STEP),
    ("0 0 * * 1/2", "UTC", "2026-01-01T00:00", SIX_ON_SUNDAY, AGREES),
    ("0 0 * * 5/1", "UTC", "2026-01-01T00:00", SIX_ON_SUNDAY, AGREES),
    ("0 0 1 * 1#1", "UTC", "2026-01-01T00:00", NO_UNION, AGREES),
    ("0 0 * * 1#1,3", "UTC", "2026-01-01T00:00", UNKNOWN, AGREES),
    ("0 0 * * 5L", "UTC", "2026-01-01T00:00", UNKNOWN, AGREES),
    ("0 0 * * FRIL", "UTC", "2026-01-01T00:00", UNKNOWN, UNKNOWN),
    ("0 0 * * L5", "UTC", "2026-01-01T00:00", "a form of its own; ours is 5L", AGREES),
    ("0 0 L * *", "UTC", "2026-01-01T00:00", AGREES, AGREES),
    ("0 0 LW * *", "UTC", "2026-01-01T00:00", UNKNOWN, AGREES),
    ("0 0 15W * *", "UTC", "2026-01-01T00:00", AGREES, UNKNOWN),
    ("0 0 31W * *", "UTC", "2026-02-01T00:00", "clamps to the last day; Quartz and we skip", UNKNOWN),
    ("0 0 15W * 1", "UTC", "2026-01-01T00:00", NO_UNION, UNKNOWN),
    ("0 0 29 2 *", "UTC", "2026-01-01T00:00", AGREES, AGREES),
    ("0 0 31 2 *", "UTC", "2026-01-01T00:00", AGREES, AGREES),
    ("30 0 9 * * *", "UTC", "2026-01-01T00:00", "has the seconds last, unless told otherwise", AGREES),
    ("0 9 ? * 1", "UTC", "2026-01-01T00:00", "takes Quartz's ? for a star", AGREES),
    ("@daily", "UTC", "2026-01-01T00:00", AGREES, UNKNOWN),
    ("@reboot", "UTC", "2026-01-01T00:00", AGREES, AGREES),
    ("* * * *", "UTC", "2026-01-01T00:00", AGREES, AGREES),
]

Answer = list[str] | str


def _ours(text: str, zone: str, after: datetime) -> Answer:
    try:
        schedule = parse(text, zone)
    except ScheduleError:
        return "refused"
    return [upcoming.at.isoformat() for upcoming in schedule.upcoming(after, 3)]


def _croniter(text: str, zone: str, after: datetime) -> Answer:
    try:
        iterator = croniter(text, after.astimezone(ZoneInfo(zone)))
        return [iterator.get_next(datetime).astimezone(UTC).isoformat() for _ in range(3)]
    except CroniterError:
        return "refused"
    except AssertionError:
        return "broken"


def _cronsim(text: str, zone: str, after: datetime) -> Answer:
    try:
        iterator = CronSim(text, after.astimezone(ZoneInfo(zone)))
        return [next(iterator).astimezone(UTC).isoformat() for _ in range(3)]
    except CronSimError:
        return "refused"


def _within_a_moment(ask: Callable[[], Answer]) -> Answer:
    def give_up(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, 0.4)
    try:
        return ask()
    except TimeoutError:
        return "never returns"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(("text", "zone", "after", "croniters", "cronsims"), OPINIONS)
def test_disagreements_are_the_ones_listed(
    text: str, zone: str, after: str, croniters: str | None, cronsims: str | None
) -> None:
    at = datetime.fromisoformat(after).replace(tzinfo=UTC)
    ours = _ours(text, zone, at)
    assert (_within_a_moment(lambda: _croniter(text, zone, at)) == ours) == (croniters is AGREES)
    assert (_within_a_moment(lambda: _cronsim(text, zone, at)) == ours) == (cronsims is AGREES)


def _terms(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    span = st.tuples(number, number).filter(lambda ends: ends[0] < ends[1]).map(lambda e: f"{e[0]}-{e[1]}")
    step = st.integers(1, high)
    stepped = st.builds(lambda base, by: f"{base}/{by}", st.one_of(st.just("*"), number.map(str), span), step)
    term = st.one_of(number.map(str), span, stepped)
    return st.one_of(st.just("*"), st.lists(term, min_size=1, max_size=3).map(",".join))


@given(
    minute=_terms(0, 59),
    hour=_terms(0, 23),
    day=st.one_of(_terms(1, 31), st.sampled_from(["L", "LW", "L,15", "1,LW"])),
    month=_terms(1, 12),
    weekday=st.one_of(_terms(0, 7), st.sampled_from(["5L", "1#2", "MON-FRI", "1#1,3", "0L,2#4"])),
    second=st.one_of(st.none(), _terms(0, 59)),
    start=st.datetimes(datetime(1990, 1, 1), datetime(2050, 1, 1)),
)
def test_cron_means_in_utc_what_it_means_to_cronsim(
    minute: str, hour: str, day: str, month: str, weekday: str, second: str | None, start: datetime
) -> None:
    text = " ".join(part for part in (second, minute, hour, day, month, weekday) if part is not None)
    at = start.replace(tzinfo=UTC)
    try:
        schedule = parse(text, "UTC")
    except ScheduleError:
        with pytest.raises((CronSimError, StopIteration)):  # it looks 50 years ahead before it gives up
            next(CronSim(text, at))
        return
    theirs = CronSim(text, at)
    following = schedule.upcoming(at, 3)
    assert [upcoming.at for upcoming in following] == [next(theirs) for _ in following]
    assert len(following) == 3  # even 29 February on a Sunday comes three times before 2200
