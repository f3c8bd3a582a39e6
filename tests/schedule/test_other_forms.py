"""Every, at, in, OnCalendar and RRULE: what they mean, across clock changes too, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from dateutil.rrule import rrulestr
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oncalendar import BaseIterator

from carapace_cron.schedule import ScheduleError, parse

MADE = datetime(2026, 11, 21, 12, 34, 56, tzinfo=UTC)


def _local(text: str, zone: str, after: datetime, count: int, anchor: datetime | None = MADE) -> list[str]:
    schedule = parse(text, zone, anchor=anchor)
    clock = ZoneInfo(zone)
    upcoming = schedule.upcoming(after, count)
    backwards = [schedule.previous(each.at + timedelta(seconds=1)) for each in upcoming]
    assert backwards == [each.at for each in upcoming]
    return [each.at.astimezone(clock).strftime("%Y-%m-%d %H:%M:%S %z") for each in upcoming]


# --- every -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "normal", "seconds"),
    [
        ("every 15m", "every 15m", 900),
        ("@every 1h30m", "every 1h30m", 5400),
        ("EVERY 2 Hours", "every 2h", 7200),
        ("every 90 minutes", "every 1h30m", 5400),
        ("every 1 week 2 days", "every 1w2d", 777_600),
        ("every 30s", "every 30s", 30),
    ],
)
def test_every_counts_elapsed_time_from_its_anchor(text: str, normal: str, seconds: int) -> None:
    schedule = parse(text, "America/New_York", anchor=MADE)
    assert (schedule.text, schedule.kind, schedule.anchored) == (normal, "every", True)
    assert schedule.shortest_period() == timedelta(seconds=seconds)
    first = schedule.next_after(MADE)
    assert first == MADE + timedelta(seconds=seconds)
    assert schedule.previous(first) is None
    assert schedule.next_after(MADE - timedelta(days=9)) == first
    assert schedule.previous(first + timedelta(seconds=1)) == first
    assert schedule.next_after(first) == first + timedelta(seconds=seconds)


def test_every_counts_from_the_epoch_without_an_anchor_and_takes_no_notice_of_clock_changes() -> None:
    schedule = parse("every 6h", "America/New_York")
    assert [f"{at:%d %H:%M}" for at in schedule.between(MADE, MADE + timedelta(days=1))] == [
        "21 18:00",
        "22 00:00",
        "22 06:00",
        "22 12:00",
    ]
    change = datetime(2026, 3, 8, 7, tzinfo=UTC)
    assert schedule.next_after(change - timedelta(hours=1)) == change + timedelta(hours=5)


# --- at and in ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "normal", "expected"),
    [
        ("at 2026-12-01T09:00", "at 2026-12-01T09:00:00", "2026-12-01 14:00:00"),
        ("at 2026-12-01 09:00:30", "at 2026-12-01T09:00:30", "2026-12-01 14:00:30"),
        ("at 2026-12-01T09:00:00Z", "at 2026-12-01T09:00:00Z", "2026-12-01 09:00:00"),
        ("at 2026-12-01t09:00z", "at 2026-12-01T09:00:00Z", "2026-12-01 09:00:00"),
        ("at 2026-12-01T09:00+01:00", "at 2026-12-01T09:00:00+01:00", "2026-12-01 08:00:00"),
        ("at 2026-12-01T09:00-0530", "at 2026-12-01T09:00:00-05:30", "2026-12-01 14:30:00"),
        ("in 20m", "in 20m", "2026-11-21 12:54:56"),
        ("in 1 hour 30 minutes", "in 1h30m", "2026-11-21 14:04:56"),
    ],
)
def test_at_and_in_come_once(text: str, normal: str, expected: str) -> None:
    schedule = parse(text, "America/New_York", anchor=MADE)
    assert (schedule.text, schedule.kind) == (normal, "at")
    at = schedule.next_after(MADE)
    assert at is not None and f"{at:%Y-%m-%d %H:%M:%S}" == expected
    assert schedule.next_after(at) is None and schedule.previous(at) is None
    assert schedule.previous(at + timedelta(microseconds=1)) == at
    assert schedule.shortest_period() == timedelta.max


@pytest.mark.parametrize(
    ("text", "zone", "expected", "note"),
    [
        (
            "at 2027-03-14T02:30",
            "America/New_York",
            "2027-03-14 07:00",
            "02:30 does not exist that day; runs at 03:00 when clocks go forward",
        ),
        (
            "at 2026-11-01T01:30",
            "America/New_York",
            "2026-11-01 05:30",
            "01:30 comes twice that day; runs the first time only",
        ),
        ("at 2026-11-01T01:30-05:00", "America/New_York", "2026-11-01 06:30", None),
    ],
)
def test_at_says_what_a_clock_change_does_to_it(
    text: str, zone: str, expected: str, note: str | None
) -> None:
    (once,) = parse(text, zone).upcoming(datetime(2026, 1, 1, tzinfo=UTC), 5)
    assert f"{once.at:%Y-%m-%d %H:%M}" == expected
    assert once.note == note


# --- OnCalendar --------------------------------------------------------------------------------------------

CALENDAR_EVENTS = [
    "minutely",
    "hourly",
    "daily",
    "weekly",
    "monthly",
    "quarterly",
    "semiannually",
    "yearly",
    "Mon..Fri 09:00",
    "Mon,Wed *-*-* 08:30:15",
    "*-*-01 00:00",
    "*-*~1 12:00",
    "*-02~03 06:00",
    "*:0/15",
    "*-*-* 00/6:30",
    "Sat *-*-1..7 18:00:00",
    "2026,2028-02-29 00:00",
    "Thu,Fri 2027-*-1,5 11:12:13",
]


@pytest.mark.parametrize("text", CALENDAR_EVENTS)
def test_oncalendar_means_in_utc_what_it_means_to_the_library(text: str) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    ours = [each.at for each in parse(text, "UTC").upcoming(start, 20)]
    assert ours == list(islice(BaseIterator(text, start), 20))


def test_oncalendar_goes_by_our_rule_when_clocks_change() -> None:
    spring = datetime(2024, 3, 9, 12, tzinfo=UTC)
    assert _local("*-*-* 02:30", "America/New_York", spring, 2) == [
        "2024-03-10 03:00:00 -0400",
        "2024-03-11 02:30:00 -0400",
    ]
    autumn = datetime(2024, 11, 3, 4, 45, tzinfo=UTC)
    assert _local("*:0/30", "America/New_York", autumn, 4) == [
        "2024-11-03 01:00:00 -0400",
        "2024-11-03 01:30:00 -0400",
        "2024-11-03 01:00:00 -0500",
        "2024-11-03 01:30:00 -0500",
    ]
    assert _local("01:30", "America/New_York", autumn, 2) == [
        "2024-11-03 01:30:00 -0400",
        "2024-11-04 01:30:00 -0500",
    ]


def test_oncalendar_may_name_its_zone() -> None:
    schedule = parse("Mon 09:00 Europe/Riga", "UTC")
    assert (schedule.zone, schedule.text) == ("Europe/Riga", "Mon 09:00")
    assert schedule == parse("Mon 09:00", "Europe/Riga")


# --- RRULE -------------------------------------------------------------------------------------------------

_SOME = st.sampled_from
_RULES = st.one_of(
    st.builds(
        "FREQ=DAILY;INTERVAL={}{}".format, st.integers(1, 9), _SOME(["", ";BYDAY=MO,WE", ";BYMONTH=3,7"])
    ),
    st.builds(
        "FREQ=WEEKLY;INTERVAL={};WKST={}{}".format,
        st.integers(1, 5),
        _SOME(["MO", "SU", "WE"]),
        _SOME(["", ";BYDAY=MO,FR", ";BYDAY=SU;BYHOUR=6,18", ";BYMONTH=2;BYDAY=TU"]),
    ),
    st.builds(
        "FREQ=MONTHLY;INTERVAL={}{}".format,
        st.integers(1, 7),
        _SOME(
            [
                "",
                ";BYMONTHDAY=31",
                ";BYMONTHDAY=1,-1",
                ";BYDAY=-1FR",
                ";BYDAY=2MO,3TU",
                ";BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1",
                ";BYMONTHDAY=13;BYDAY=FR",
            ]
        ),
    ),
    st.builds(
        "FREQ=YEARLY;INTERVAL={}{}".format,
        st.integers(1, 3),
        _SOME(
            [
                "",
                ";BYMONTH=2;BYMONTHDAY=29",
                ";BYYEARDAY=1,-1",
                ";BYWEEKNO=20;BYDAY=MO",
                ";BYDAY=20MO",
                ";BYMONTH=1,6;BYDAY=1SU",
                ";BYMONTH=5",
            ]
        ),
    ),
    st.builds("FREQ={};INTERVAL={}".format, _SOME(["HOURLY", "MINUTELY", "SECONDLY"]), _SOME([1, 5, 7, 977])),
    st.builds(
        "FREQ=HOURLY;INTERVAL={}{}".format,
        _SOME([1, 6, 24]),
        _SOME([";BYMINUTE=0,30", ";BYDAY=SA", ";BYSECOND=5,9", ";BYMINUTE=1,2;BYSECOND=3,4;BYMONTH=5"]),
    ),
    st.builds(
        "FREQ=MINUTELY;INTERVAL={}{}".format,
        _SOME([1, 15, 90]),
        _SOME([";BYHOUR=3,4,5,6,7,8,9,10,11,12", ";BYSECOND=5,9", ";BYDAY=MO,TH"]),
    ),
    st.builds("FREQ=SECONDLY;INTERVAL={};BYHOUR=9,10,11,12".format, _SOME([1, 45, 1800])),
)


@settings(max_examples=60, deadline=None)
@given(
    rule=_RULES,
    start=st.datetimes(datetime(2000, 1, 1), datetime(2010, 12, 31)).map(
        lambda at: at.replace(microsecond=0)
    ),
    skip=st.integers(0, 40),
)
def test_a_rule_entered_anywhere_means_what_dateutil_finds_walking_from_its_start(
    rule: str, start: datetime, skip: int
) -> None:
    theirs = list(islice(rrulestr(rule, dtstart=start), skip, skip + 6))
    text = f"DTSTART:{start:%Y%m%dT%H%M%S} {rule}"
    assume(theirs)
    schedule = parse(text, "UTC")
    at = theirs[0].replace(tzinfo=UTC) - timedelta(seconds=1)
    ours = [each.at.replace(tzinfo=None) for each in schedule.upcoming(at, 6)]
    assert ours == [each for each in theirs if each.year < 2200]
    backwards = [schedule.previous(each.replace(tzinfo=UTC)) for each in ours[1:]]
    assert backwards == [each.replace(tzinfo=UTC) for each in ours[:-1]]


def test_a_rule_goes_by_our_rule_when_clocks_change() -> None:
    daily = "DTSTART:20240301T023000 RRULE:FREQ=DAILY"
    assert _local(daily, "America/New_York", datetime(2024, 3, 9, 12, tzinfo=UTC), 2) == [
        "2024-03-10 03:00:00 -0400",
        "2024-03-11 02:30:00 -0400",
    ]
    hourly = "DTSTART:20240301T003000 RRULE:FREQ=HOURLY"
    assert _local(hourly, "America/New_York", datetime(2024, 11, 3, 4, 45, tzinfo=UTC), 3) == [
        "2024-11-03 01:30:00 -0400",
        "2024-11-03 01:30:00 -0500",
        "2024-11-03 02:30:00 -0500",
    ]


def test_a_rule_may_come_in_two_lines_with_its_start_and_zone() -> None:
    schedule = parse("DTSTART;TZID=Europe/Berlin:20260105T090000\r\nRRULE:FREQ=WEEKLY;BYDAY=MO", "UTC")
    assert (schedule.zone, schedule.text) == (
        "Europe/Berlin",
        "DTSTART:20260105T090000 RRULE:FREQ=WEEKLY;BYDAY=MO",
    )
    assert schedule.next_after(datetime(2025, 1, 1, tzinfo=UTC)) == datetime(2026, 1, 5, 8, tzinfo=UTC)
    in_utc = parse("DTSTART:20260105T080000Z FREQ=DAILY", "Europe/Berlin")
    assert in_utc.next_after(datetime(2026, 7, 1, tzinfo=UTC)) == datetime(2026, 7, 1, 7, tzinfo=UTC)


def test_a_rule_without_a_start_counts_from_the_anchor_and_comes_after_it() -> None:
    three = parse("FREQ=DAILY;COUNT=3", "America/New_York", anchor=MADE)
    assert three.anchored
    assert [f"{at:%m-%d %H:%M:%S}" for at in three.between(MADE, MADE + timedelta(days=9))] == [
        "11-22 12:34:56",
        "11-23 12:34:56",
        "11-24 12:34:56",
    ]
    assert three.previous(MADE + timedelta(days=30)) == MADE + timedelta(days=3)
    nine = parse("FREQ=DAILY;BYHOUR=9", "America/New_York", anchor=MADE)
    assert nine.next_after(MADE) == datetime(2026, 11, 21, 14, tzinfo=UTC)  # not 14:34:56


def test_until_is_the_last_instant() -> None:
    start = "DTSTART:20260101T090000 RRULE:FREQ=DAILY;UNTIL="
    for until in ("20260103T090000", "20260103T140000Z", "20260103T235959"):
        schedule = parse(start + until, "America/New_York")
        assert schedule.next_after(datetime(2026, 1, 3, 14, tzinfo=UTC)) is None
        assert schedule.previous(MADE) == datetime(2026, 1, 3, 14, tzinfo=UTC)


REFUSED = [
    (
        "every 0m",
        'bad duration "0m" in "every 0m": expected a duration of at least a second, '
        "such as 15m, "
        "1h30m or 2 hours (s, m, h, d, w)",
    ),
    (
        "every 11 years",
        'bad duration "11 years" in "every 11 years": expected a duration of at least a second, '
        "such as 15m, 1h30m or 2 hours (s, m, h, d, w)",
    ),
    ("every 9999 weeks", 'bad duration "9999 weeks" in "every 9999 weeks": expected at most ten years'),
    (
        "in 5 minutes",
        'bad schedule "in 5 minutes": counts from when the job is made, and none was given here; '
        'use "at" with a time',
    ),
    (
        "at noon",
        'bad time "noon" in "at noon": expected a time such as 2026-12-01T09:00 (in the job\'s zone), '
        "…T09:00Z or …T09:00+01:00",
    ),
    (
        "at 2026-02-30T09:00",
        'bad time "2026-02-30T09:00" in "at 2026-02-30T09:00": no such time (day is out of range for month)',
    ),
    (
        "at 9999-12-31T09:00",
        'bad time "9999-12-31T09:00" in "at 9999-12-31T09:00": expected a year from 1970 to 2199',
    ),
    ("Mon 25:00", 'bad hour "Mon 25:00": expected an OnCalendar expression such as Mon..Fri *-*-* 09:00:00'),
    ("*-02-31", 'bad schedule "*-02-31": names a day that no year has'),
    (
        "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30",
        'bad schedule "RRULE:FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30": names a day that no year has',
    ),
    (
        "DTSTART:20260101T090000 FREQ=DAILY;INTERVAL=7;BYDAY=MO",
        'bad schedule "DTSTART:20260101T090000 RRULE:FREQ=DAILY;INTERVAL=7;BYDAY=MO": never comes',
    ),
    ("FREQ=DAILY;COUNT=5000", 'bad COUNT "5000" in "FREQ=DAILY;COUNT=5000": expected 1–1000'),
    ("FREQ=DAILY;BYHOUR=24", 'bad BYHOUR "24" in "FREQ=DAILY;BYHOUR=24": expected 0–23'),
    ("FREQ=DAILY;FREQ=DAILY", 'bad RRULE part "FREQ=DAILY" in "FREQ=DAILY;FREQ=DAILY": FREQ is given twice'),
    (
        "FREQ=WEEKLY;BYDAY=2MO",
        'bad BYDAY "2MO" in "FREQ=WEEKLY;BYDAY=2MO": a number before the weekday is for '
        "FREQ=MONTHLY and YEARLY",
    ),
    (
        "hello world",
        'bad schedule "hello world": expected cron ("0 9 * * MON-FRI"), "every 15m", '
        '"at 2026-12-01T09:00", "in 20m", OnCalendar ("Mon..Fri 09:00") or RRULE ("FREQ=DAILY;BYHOUR=9")',
    ),
]


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_it_refuses_with_a_sentence(text: str, message: str) -> None:
    with pytest.raises(ScheduleError) as refused:
        parse(text, "UTC")
    assert str(refused.value) == message


def test_a_time_in_a_day_that_the_zone_left_out_is_refused() -> None:
    with pytest.raises(ScheduleError, match="clocks in Pacific/Apia skip that day"):
        parse("at 2011-12-30T09:00", "Pacific/Apia")
