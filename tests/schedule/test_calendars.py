"""What a calendar takes from a schedule: excluded dates, holidays and blackouts, as tables and by a walk."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from holidays import country_holidays
from hypothesis import given, settings
from hypothesis import strategies as st

from carapace_cron.calendars import calendar_of
from carapace_cron.model.calendar import WEEKDAYS, CalendarPolicy
from carapace_cron.schedule import Schedule, ScheduleError, parse
from carapace_cron.schedule.calendar import Calendar
from carapace_cron.schedule.excepting import MOST_EXCLUDED_STRETCHES, Excepting, excepting
from carapace_cron.schedule.public_holidays import find_holidays

Fields = dict[str, Any]


def calendar(zone: str, fields: Fields) -> Calendar:
    policy = CalendarPolicy.model_validate_json(json.dumps(fields), strict=True, by_alias=True, by_name=False)
    return calendar_of(policy, zone)


def less(text: str, zone: str, fields: Fields, *, anchor: datetime | None = None) -> Excepting:
    return excepting(parse(text, zone, anchor=anchor), calendar(zone, fields))


def local_times(schedule: Schedule, zone: str, after: str, count: int) -> list[str]:
    at: datetime | None = datetime.fromisoformat(after).replace(tzinfo=UTC)
    found = []
    for _ in range(count):
        assert at is not None
        at = schedule.next_after(at)
        assert at is not None
        found.append(at.astimezone(ZoneInfo(zone)).strftime("%m-%d %H:%M"))
    return found


WEEKEND = {"blackouts": [{"days": ["sat", "sun"]}]}
NIGHT = {"blackouts": [{"from": "22:00", "until": "06:00"}]}
FRIDAY_NIGHT = {"blackouts": [{"days": ["fri"], "from": "22:00", "until": "06:00"}]}
SUNDAY_NIGHT = {"blackouts": [{"days": ["sun"], "from": "22:00", "until": "06:00"}]}
CHRISTMAS = {"excludeDates": ["2026-12-24", "2026-12-25"]}
FREEZE = {"blackouts": [{"from": "2026-11-30T00:00:00Z", "until": "2026-12-02T12:00:00Z"}]}
US, BAVARIA = {"holidays": {"country": "US"}}, {"holidays": {"country": "DE", "subdivision": "BY"}}

TABLE = [
    # schedule, zone, calendar, asked after (UTC), the local times it runs at
    ("0 9 * * *", "UTC", CHRISTMAS, "2026-12-22T12:00", ["12-23 09:00", "12-26 09:00", "12-27 09:00"]),
    ("0 9 * * *", "UTC", WEEKEND, "2026-11-20T08:00", ["11-20 09:00", "11-23 09:00"]),
    ("0 */6 * * *", "UTC", WEEKEND, "2026-11-20T13:00", ["11-20 18:00", "11-23 00:00"]),
    ("0 */2 * * *", "UTC", NIGHT, "2026-11-20T19:00", ["11-20 20:00", "11-21 06:00"]),  # 06:00 is its end
    ("59 59 5,21 * * *", "UTC", NIGHT, "2026-11-20T19:00", ["11-20 21:59", "11-21 21:59"]),
    ("0 */4 * * *", "UTC", FRIDAY_NIGHT, "2026-11-20T17:00", ["11-20 20:00", "11-21 08:00", "11-21 12:00"]),
    ("0 */4 * * *", "UTC", SUNDAY_NIGHT, "2026-11-22T17:00", ["11-22 20:00", "11-23 08:00"]),
    ("0 12 * * *", "UTC", FREEZE, "2026-11-29T00:00", ["11-29 12:00", "12-02 12:00"]),
    ("0 9 * * *", "America/New_York", US, "2026-11-25T00:00", ["11-25 09:00", "11-27 09:00"]),  # Thanksgiving
    # Not in 2026, when the 4th of July is a Saturday and the day before is observed.
    ("0 9 3 7 *", "America/New_York", US, "2025-07-01T00:00", ["07-03 09:00", "07-03 09:00"]),
    # Epiphany is a holiday in parts of Germany only.
    ("0 9 * * *", "Europe/Berlin", BAVARIA, "2026-01-05T12:00", ["01-07 09:00"]),
    ("0 9 * * *", "Europe/Berlin", {"holidays": {"country": "DE"}}, "2026-01-05T12:00", ["01-06 09:00"]),
    # The date is the one that clocks in the job's zone show: 25 December begins in Auckland on the 24th.
    ("0 * * * *", "Pacific/Auckland", CHRISTMAS, "2026-12-23T10:30", ["12-26 00:00"]),
    ("every 8h", "America/New_York", CHRISTMAS, "2026-12-24T00:00", ["12-26 03:00", "12-26 11:00"]),
    # Everything at once.
    ("0 9 * * MON-FRI", "UTC", US | CHRISTMAS | FREEZE, "2026-11-24T12:00",
     ["11-25 09:00", "11-27 09:00", "12-03 09:00", "12-04 09:00"]),
]  # fmt: skip

CHANGES = [
    # New York 2026: clocks go from 02:00 EST to 03:00 EDT on 8 March and from 02:00 EDT to 01:00 EST on
    # 1 November; a blackout is what clocks show, so a reading that they show twice is excluded twice.
    ("*/30 * * * *", "01:00", "01:30", "2026-11-01T04:00", ["00:30", "01:30", "01:30", "02:00"]),
    ("*/30 * * * *", "00:00", "01:30", "2026-11-01T03:00", ["23:30", "01:30", "01:30", "02:00"]),
    ("*/30 * * * *", "01:30", "02:30", "2026-11-01T04:30", ["01:00", "01:00", "02:30"]),
    ("*/30 * * * *", "01:00", "03:00", "2026-03-08T05:00", ["00:30", "03:00", "03:30"]),
    ("*/30 * * * *", "02:00", "03:00", "2026-03-08T06:00", ["01:30", "03:00", "03:30"]),
    # A skipped time is made up at 03:00, and that is what clocks show then.
    ("30 2 * * *", "02:00", "03:00", "2026-03-07T12:00", ["03:00"]),
    ("30 2 * * *", "02:45", "03:15", "2026-03-07T12:00", ["02:30"]),  # not on the 8th, but on the 9th
    ("30 1 * * *", "01:00", "02:00", "2026-10-31T12:00", []),
]


@pytest.mark.parametrize(("text", "zone", "fields", "after", "expected"), TABLE)
def test_it_runs_at_the_times_that_the_calendar_leaves(
    text: str, zone: str, fields: Fields, after: str, expected: list[str]
) -> None:
    schedule = less(text, zone, fields)
    assert local_times(schedule, zone, after, len(expected)) == expected
    assert backwards(schedule, after, len(expected)) == forwards(schedule, after, len(expected))


@pytest.mark.parametrize(("text", "begin", "end", "after", "expected"), CHANGES)
def test_a_local_blackout_follows_the_clock_when_it_changes(
    text: str, begin: str, end: str, after: str, expected: list[str]
) -> None:
    schedule = less(text, "America/New_York", {"blackouts": [{"from": begin, "until": end}]})
    if not expected:
        assert schedule.next_after(datetime.fromisoformat(after).replace(tzinfo=UTC)) is None
    times = local_times(schedule, "America/New_York", after, len(expected))
    assert [at.split()[1] for at in times] == expected
    assert backwards(schedule, after, len(expected)) == forwards(schedule, after, len(expected))


def forwards(schedule: Schedule, after: str, count: int) -> list[int]:
    found, at = [], int(datetime.fromisoformat(after).replace(tzinfo=UTC).timestamp())
    for _ in range(count):
        following = schedule.next_after_timestamp(at)
        assert following is not None and following > at
        at = following
        found.append(at)
    return found


def backwards(schedule: Schedule, after: str, count: int) -> list[int]:
    """The same instants, found from behind the last of them."""
    found, at = [], max(forwards(schedule, after, count), default=0) + 1
    for _ in range(count):
        previous = schedule.previous_timestamp(at)
        assert previous is not None and previous < at
        at = previous
        found.append(at)
    return found[::-1]


# Against a walk that asks of each instant by itself, in plain words, whether it is excluded

ZONES = ["UTC", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Pacific/Apia"]
TEXTS = ["*/20 * * * *", "30 2 * * *", "0 0,1,2,3 * * *", "*/45 22-23 * * *", "every 7h", "0 12 * * FRI"]
STARTS = ["2026-03-07", "2026-03-28", "2026-10-24", "2026-10-31", "2011-12-29", "2026-12-30"]
SPAN = timedelta(days=9)

_clock = st.tuples(st.integers(0, 23), st.sampled_from([0, 15, 30, 59])).map("{0[0]:02}:{0[1]:02}".format)
_days = st.lists(st.sampled_from(WEEKDAYS), min_size=1, max_size=4)
_weekly = st.one_of(
    st.builds(lambda days: {"days": days}, _days),
    st.builds(lambda days, begin, end: {"days": days, "from": begin, "until": end}, _days, _clock, _clock),
    st.builds(lambda begin, end: {"from": begin, "until": end}, _clock, _clock),
).filter(lambda blackout: "from" not in blackout or blackout["from"] != blackout["until"])


@st.composite
def cases(draw: st.DrawFn) -> tuple[str, str, datetime, Fields]:
    start = datetime.fromisoformat(draw(st.sampled_from(STARTS))).replace(tzinfo=UTC)
    near = st.integers(0, 9 * 24 * 4).map(lambda quarters: start + timedelta(minutes=15 * quarters))
    spans = [sorted(draw(st.tuples(near, near))) for _ in range(draw(st.integers(0, 2)))]
    once = [{"from": f"{a:%FT%TZ}", "until": f"{b:%FT%TZ}"} for a, b in spans if a < b]
    fields = {
        "excludeDates": draw(st.lists(near.map(lambda at: f"{at:%F}"), max_size=3)),
        "blackouts": once + draw(st.lists(_weekly, max_size=3)),
        "holidays": draw(st.sampled_from([None, {"country": "US"}, {"country": "WS"}])),  # Samoa
    }
    return draw(st.sampled_from(TEXTS)), draw(st.sampled_from(ZONES)), start, fields


def is_excluded(at: datetime, zone: str, fields: Fields) -> bool:
    """From the words of docs/reference/schedules.md, by `zoneinfo` and the records' own texts."""
    local = at.astimezone(ZoneInfo(zone))
    if f"{local:%F}" in fields["excludeDates"] or local.date() in _holidays(fields["holidays"]):
        return True
    return any(_is_inside(at, local, blackout) for blackout in fields["blackouts"])


def _holidays(asked: dict[str, str] | None) -> set[date]:
    return set() if asked is None else _holidays_of(asked["country"])


@cache
def _holidays_of(country: str) -> set[date]:
    return set(country_holidays(country, years=range(2011, 2028)))


def _is_inside(at: datetime, local: datetime, blackout: dict[str, Any]) -> bool:
    begin, end = blackout.get("from", "00:00"), blackout.get("until", "24:00")
    if "T" in begin:
        return datetime.fromisoformat(begin) <= at < datetime.fromisoformat(end)
    today, yesterday = WEEKDAYS[local.weekday()], WEEKDAYS[local.weekday() - 1]
    days, shown = blackout.get("days", WEEKDAYS), f"{local:%H:%M}"
    if begin < end:
        return today in days and begin <= shown < end
    return (today in days and begin <= shown) or (yesterday in days and shown < end)


@settings(max_examples=150, deadline=None)
@given(case=cases())
def test_it_agrees_with_a_walk_that_asks_of_each_instant(case: tuple[str, str, datetime, Fields]) -> None:
    text, zone, start, fields = case
    base = parse(text, zone)
    schedule = excepting(base, calendar(zone, fields))
    left = [at for at in base.between(start, start + SPAN) if not is_excluded(at, zone, fields)]
    assert list(schedule.between(start, start + SPAN)) == left
    assert list(_backwards_between(schedule, start, start + SPAN)) == left[::-1]


def _backwards_between(schedule: Schedule, start: datetime, end: datetime) -> Iterator[datetime]:
    at = schedule.previous(end + timedelta(seconds=1))
    while at is not None and at > start:
        yield at
        at = schedule.previous(at)


@settings(max_examples=100, deadline=None)
@given(case=cases(), minutes=st.integers(0, 9 * 24 * 60))
def test_a_stretch_reaches_exactly_as_far_as_it_is_excluded(
    case: tuple[str, str, datetime, Fields], minutes: int
) -> None:
    _, zone, start, fields = case
    at = start + timedelta(minutes=minutes)
    excluding, seconds = calendar(zone, fields), int(at.timestamp())
    until, since = excluding.excluded_until(seconds), excluding.excluded_since(seconds)
    assert (until is not None) == (since is not None) == is_excluded(at, zone, fields)
    if until is None or since is None or until - since > 14 * 86_400:
        return
    begin, end = datetime.fromtimestamp(since, UTC), datetime.fromtimestamp(until, UTC)
    assert not is_excluded(begin - timedelta(seconds=1), zone, fields)
    assert not is_excluded(end, zone, fields)
    quarters = [begin + n * timedelta(minutes=15) for n in range((end - begin) // timedelta(minutes=15))]
    within = [begin, *quarters, end - timedelta(seconds=1)]
    assert all(is_excluded(one, zone, fields) for one in within)


# Bounds

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
NOTHING_LEFT = [
    ("0 9 * * *", {"blackouts": [{"days": list(WEEKDAYS)}]}),
    ("* * * * *", {"blackouts": [{"from": "00:00", "until": "12:00"}, {"from": "12:00", "until": "00:00"}]}),
    ("0 9 * * *", {"blackouts": [{"from": "08:59", "until": "09:01"}]}),
    ("0 9 * * SAT", WEEKEND),
    ("0 9 25 12 *", {"holidays": {"country": "DE"}}),  # until 2100, after which none is known
    ("0 9 * * *", {"blackouts": [{"from": "1970-01-01T00:00:00Z", "until": "2199-12-31T23:59:59Z"}]}),
    ("FREQ=DAILY;BYHOUR=9", {"blackouts": [{"from": "08:59", "until": "09:01"}]}),
    ("at 2026-12-25T09:00", CHRISTMAS),
]


@pytest.mark.parametrize(("text", "fields"), NOTHING_LEFT)
def test_where_nothing_is_left_the_search_ends_soon(text: str, fields: Fields) -> None:
    schedule = less(text, "Europe/Berlin", fields)
    begin = time.process_time()
    assert schedule.next_after(NOW) is None
    schedule.previous(NOW)  # before there were such holidays there may be one
    assert time.process_time() - begin < 2


def test_a_long_blackout_is_one_step() -> None:
    fields = {"blackouts": [{"from": "2026-12-01T00:00:00Z", "until": "2056-12-01T00:00:00Z"}]}
    begin = time.process_time()
    found = less("* * * * * *", "UTC", fields).next_after(datetime(2026, 12, 1, tzinfo=UTC))
    assert found == datetime(2056, 12, 1, tzinfo=UTC)
    assert time.process_time() - begin < 0.05


def test_as_many_stretches_as_honest_calendars_have_are_looked_through() -> None:
    """Each hour of elapsed time that falls on the full hour of summer, 20 windows a day, all summer long."""
    windows = [{"from": f"{hour:02}:30", "until": f"{hour:02}:31"} for hour in range(4, 24)]
    anchor = datetime(2026, 1, 1, 3, 30, tzinfo=UTC)
    schedule = less("every 1h", "Europe/Berlin", {"blackouts": windows}, anchor=anchor)
    assert local_times(schedule, "Europe/Berlin", "2026-06-01T12:00", 2) == ["06-02 00:30", "06-02 01:30"]
    dates = [f"{2027 + n // 12}-{n % 12 + 1:02}-01" for n in range(366)]
    monthly = less("0 9 1 * *", "UTC", {"excludeDates": dates})
    assert monthly.next_after(NOW) == datetime(2026, 12, 1, 9, tzinfo=UTC)
    assert monthly.next_after(datetime(2026, 12, 2, tzinfo=UTC)) == datetime(2057, 7, 1, 9, tzinfo=UTC)
    assert len(dates) < MOST_EXCLUDED_STRETCHES


def test_the_ends_of_time_are_quiet() -> None:
    schedule = less("0 9 * * *", "Europe/Berlin", WEEKEND | CHRISTMAS)
    assert schedule.next_after(datetime.max.replace(tzinfo=UTC)) is None
    assert schedule.previous(datetime.min.replace(tzinfo=UTC)) is None
    earliest = schedule.next_after(datetime.min.replace(tzinfo=UTC))
    latest = schedule.previous(datetime.max.replace(tzinfo=UTC))
    assert earliest is not None and earliest.year == 1900
    assert latest is not None and latest.year == 2199


# What it is beside its instants


def test_equal_calendars_are_equal_however_they_are_written() -> None:
    one = less("0 9 * * *", "UTC", {
        "excludeDates": ["2026-12-25", "2026-12-24"], "holidays": {"country": "de", "subdivision": "Bayern"},
        "blackouts": [{"days": ["sun", "sat"]}, {"from": "22:00", "until": "06:00"}],
    })  # fmt: skip
    other = less("0  9 * * *", "UTC", CHRISTMAS | BAVARIA | {
        "blackouts": [*NIGHT["blackouts"], {"days": ["sat", "sun"], "from": "00:00", "until": "24:00"}],
    })  # fmt: skip
    one.next_after(NOW)  # what it remembers makes no difference
    assert one == other and hash(one) == hash(other)
    assert one != less("0 9 * * *", "UTC", CHRISTMAS) != parse("0 9 * * *", "UTC")
    assert calendar("UTC", WEEKEND) != calendar("Europe/Berlin", WEEKEND)


WORDS = [
    (US, "At 09:00 (UTC), except on public holidays of US"),
    ({"holidays": {"country": "US", "categories": ["public", "half_day"]}},
     "At 09:00 (UTC), except on half_day and public holidays of US"),
    ({"holidays": {"country": "LK"}}, "At 09:00 (UTC), except on public holidays of LK (known until 2026)"),
    (BAVARIA | CHRISTMAS,
     "At 09:00 (UTC), except on public holidays of DE-BY, and on 2026-12-24 and 2026-12-25"),
    ({"excludeDates": [f"2026-12-{day}" for day in range(21, 26)]},
     "At 09:00 (UTC), except on 2026-12-21, 2026-12-22, 2026-12-23 and 2 more dates"),
    (WEEKEND, "At 09:00 (UTC), except on Saturday and Sunday"),
    (FRIDAY_NIGHT, "At 09:00 (UTC), except from 22:00 to 06:00 the day after on Friday"),
    ({"blackouts": [{"days": ["mon", "tue", "wed"], "from": "12:00", "until": "13:00"}]},
     "At 09:00 (UTC), except from 12:00 to 13:00 on Monday to Wednesday"),
    (FREEZE, "At 09:00 (UTC), except from Mon 2026-11-30 00:00 UTC to Wed 2026-12-02 12:00 UTC"),
    ({"blackouts": [{"from": f"0{hour}:00", "until": f"0{hour}:30"} for hour in range(5)]},
     "At 09:00 (UTC), except from 00:00 to 00:30, from 01:00 to 01:30, from 02:00 to 02:30, "
     "and 2 more blackouts"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "words"), WORDS)
def test_the_words_say_what_is_excluded(fields: Fields, words: str) -> None:
    assert less("0 9 * * *", "UTC", fields).describe() == words


def test_the_words_name_the_zone_where_the_schedule_has_none_or_another() -> None:
    every = less("every 1h", "Europe/Berlin", WEEKEND)
    assert every.describe() == "Every hour of elapsed time, except on Saturday and Sunday (Europe/Berlin)"
    of_its_own = excepting(parse("Mon 09:00 Europe/Riga", "UTC"), calendar("UTC", WEEKEND))
    assert of_its_own.describe().endswith("(Europe/Riga), except on Saturday and Sunday (UTC)")


def test_the_rest_is_as_without_a_calendar() -> None:
    base = parse("30 2 * * *", "America/New_York")
    schedule = excepting(base, calendar("America/New_York", WEEKEND | CHRISTMAS))
    assert schedule.shortest_period() == base.shortest_period()
    assert (schedule.text, schedule.zone, schedule.kind, schedule.anchored) == (
        "30 2 * * *", "America/New_York", "cron", False,
    )  # fmt: skip
    december = less("30 2 * * *", "America/New_York", CHRISTMAS)
    moved = december.upcoming(datetime(2026, 3, 7, 12, tzinfo=UTC), 1)
    assert moved[0].note == "02:30 does not exist that day; runs at 03:00 when clocks go forward"


# Holidays

UNKNOWN = [
    # country, subdivision, category, the field, what would do
    ("XX", None, "public", "holidays.country", "expected a country's ISO 3166-1 code, such as US, DE or JP"),
    ("UK", None, "public", "holidays.country", "did you mean GB (United Kingdom)?"),
    ("USA", None, "public", "holidays.country", "did you mean US (United States)?"),
    ("Germny", None, "public", "holidays.country", "did you mean DE (Germany) or GG (Guernsey)?"),
    ("DE", "Bayrn", "public", "holidays.subdivision", "did you mean BY?"),
    ("AT", "X", "public", "holidays.subdivision", "AT has 1, 2, 3, 4, 5, 6, 7, 8, 9"),
    ("SG", "01", "public", "holidays.subdivision", "SG has none: leave it out"),
    ("DE", None, "publik", "holidays.categories", "DE has catholic, public, school"),
]


@pytest.mark.parametrize(("country", "subdivision", "category", "field", "remedy"), UNKNOWN)
def test_unknown_holidays_are_refused_with_what_comes_nearest(
    country: str, subdivision: str | None, category: str, field: str, remedy: str
) -> None:
    with pytest.raises(ScheduleError) as refused:
        find_holidays(country, subdivision, (category,))
    assert refused.value.field == field
    assert refused.value.remedy == remedy


def test_a_country_and_a_subdivision_are_known_by_code_or_name_in_either_case() -> None:
    ways = [("DE", "BY"), ("de", "by"), ("De", "bayern")]
    assert {find_holidays(country, part, ("public",)).name for country, part in ways} == {"DE-BY"}


KNOWN = [
    # whose, the year, and all days of it that are public holidays
    (US, 2026, "01-01 01-19 02-16 05-25 06-19 07-03 07-04 09-07 10-12 11-11 11-26 12-25"),
    ({"holidays": {"country": "GB", "subdivision": "ENG"}}, 2026,
     "01-01 04-03 04-06 05-04 05-25 08-31 12-25 12-26 12-28"),
    (BAVARIA, 2027, "01-01 01-06 03-26 03-29 05-01 05-06 05-17 05-27 10-03 11-01 12-25 12-26"),
    ({"holidays": {"country": "IN"}}, 2040, None),  # the package knows some of them, and warns of it
    (US, 2100, None),
    (US, 2101, ""),
    ({"holidays": {"country": "LK"}}, 2027, ""),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "year", "expected"), KNOWN)
def test_holidays_are_what_the_package_knows_of_the_year_and_ordinary_days_beyond(
    fields: Fields, year: int, expected: str | None
) -> None:
    excluding = calendar("UTC", fields)
    days = [date(year, 1, 1) + timedelta(days=n) for n in range(365)]
    instants = {day: int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) for day in days}
    found = [f"{day:%m-%d}" for day in days if excluding.excluded_until(instants[day]) is not None]
    assert found if expected is None else found == expected.split()


def test_the_package_is_not_imported_until_a_job_has_holidays() -> None:
    asks = (
        "import sys, carapace_cron.plugin as _; print('holidays' in sys.modules);"
        "from carapace_cron.schedule.public_holidays import find_holidays;"
        "find_holidays('US', None, ('public',)); print('holidays' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True, check=True).stdout
    assert shown.split() == ["False", "True"]


# Speed


def test_a_calendar_that_excludes_nothing_costs_less_than_the_schedule_itself() -> None:
    """100,000 next instants, beside the same without: at most twice as slow."""
    base = parse("*/5 * * * *", "America/New_York")
    lunch_break = {"blackouts": [{"days": ["sat"], "from": "12:01", "until": "12:02"}]}
    fields = {"holidays": {"country": "DE"}, "excludeDates": ["2030-01-01"]} | lunch_break
    excepted = excepting(base, calendar("America/New_York", fields))
    start = int(NOW.timestamp())

    def seconds(schedule: Schedule) -> float:
        begin, at = time.process_time(), start
        for _ in range(4_000):
            at = schedule.next_after_timestamp(at) or 0
        return time.process_time() - begin

    # In turns, and short, so that on a busy machine each of them has a quiet moment.
    rounds = [(seconds(base), seconds(excepted)) for _ in range(25)]
    assert min(less for _, less in rounds) < 2 * min(plain for plain, _ in rounds)
