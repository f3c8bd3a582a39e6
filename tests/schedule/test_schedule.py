"""What every schedule answers, whatever its form; and the zones it stands on."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
import tzdata  # type: ignore[import-untyped]  # ships data and one version string
from hypothesis import given, settings
from hypothesis import strategies as st

from carapace_cron.schedule import Schedule, ScheduleError, parse
from carapace_cron.schedule.zone import load_zone, tzdata_version, zone_names

MADE = datetime(2026, 11, 21, 12, 34, 56, tzinfo=UTC)

FORMS = [
    # text, its normal form, kind, whether the anchor matters, in words
    ("0  9 * * mon-fri", "0 9 * * MON-FRI", "cron", False, "At 09:00, Monday to Friday (Europe/Berlin)"),
    ("@Daily", "@daily", "cron", False, "At 00:00 (Europe/Berlin)"),
    ("*/15 * * * *", "*/15 * * * *", "cron", False, "Every 15 minutes (Europe/Berlin)"),
    (
        "0 9 1,15 * 3",
        "0 9 1,15 * 3",
        "cron",
        False,
        "At 09:00, on the 1st and the 15th, or on Wednesday (Europe/Berlin)",
    ),
    (
        "0 9 */2 * 1",
        "0 9 */2 * 1",
        "cron",
        False,
        "At 09:00, on every 2nd day from the 1st to the 31st, if it is on Monday (Europe/Berlin)",
    ),
    (
        "0 9 LW 1-3,6 *",
        "0 9 LW 1-3,6 *",
        "cron",
        False,
        "At 09:00, on the last workday of the month, in January to March and June (Europe/Berlin)",
    ),
    (
        "0 9 * * 1#1,5L",
        "0 9 * * 1#1,5L",
        "cron",
        False,
        "At 09:00, on the first Monday and the last Friday of the month (Europe/Berlin)",
    ),
    ("30 0 9 * * *", "30 0 9 * * *", "cron", False, "At 09:00:30 (Europe/Berlin)"),
    ("@every 90m", "every 1h30m", "every", True, "Every 1 hour 30 minutes of elapsed time"),
    (
        "in 60s",
        "in 1m",
        "at",
        True,
        "Once, 1 minute after it is made, at Sat 2026-11-21 13:35:56 CET (Europe/Berlin)",
    ),
    (
        "at 2026-12-01 09:00",
        "at 2026-12-01T09:00:00",
        "at",
        False,
        "Once, at Tue 2026-12-01 09:00:00 CET (Europe/Berlin)",
    ),
    (
        "Mon..Fri 09:00",
        "Mon..Fri 09:00",
        "oncalendar",
        False,
        'On the calendar event "Mon..Fri 09:00" (Europe/Berlin)',
    ),
    (
        "freq=monthly;byday=-1fr;byhour=9",
        "RRULE:FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=9",
        "rrule",
        True,
        "Every month, on the last Friday, at hour 9, from 2026-11-21 13:00:00 (Europe/Berlin)",
    ),
    (
        "DTSTART:20260105T090000 FREQ=WEEKLY;COUNT=5",
        "DTSTART:20260105T090000 RRULE:FREQ=WEEKLY;COUNT=5",
        "rrule",
        False,
        "Every week, 5 times, from 2026-01-05 09:00:00 (Europe/Berlin)",
    ),
]


@pytest.mark.parametrize(("text", "normal", "kind", "anchored", "words"), FORMS)
def test_it_says_what_it_is(text: str, normal: str, kind: str, anchored: bool, words: str) -> None:
    schedule = parse(text, "Europe/Berlin", anchor=MADE)
    assert (schedule.text, schedule.zone, schedule.kind) == (normal, "Europe/Berlin", kind)
    assert schedule.anchored is anchored
    assert schedule.describe() == words


@pytest.mark.parametrize("text", [form[0] for form in FORMS])
def test_its_text_parses_to_an_equal_schedule(text: str) -> None:
    schedule = parse(text, "Europe/Berlin", anchor=MADE)
    again = parse(schedule.text, schedule.zone, anchor=MADE)
    assert again == schedule and hash(again) == hash(schedule)
    assert parse(schedule.text, "Europe/Riga", anchor=MADE) != schedule
    later = parse(text, "Europe/Berlin", anchor=MADE + timedelta(days=1))
    assert (later == schedule) is not schedule.anchored


def test_it_takes_an_instant_in_any_zone_and_answers_in_utc() -> None:
    schedule = parse("0 9 * * *", "America/New_York")
    expected = datetime(2024, 3, 10, 13, tzinfo=UTC)
    frozen = timezone(timedelta(hours=-5))  # the offset before the change; the answer is after it
    for zone in (UTC, frozen, ZoneInfo("America/New_York"), ZoneInfo("Asia/Kolkata")):
        found = schedule.next_after(datetime(2024, 3, 9, 17, tzinfo=UTC).astimezone(zone))
        assert found == expected and found.tzinfo is UTC


@pytest.mark.parametrize("text", [form[0] for form in FORMS] + ["DTSTART:20260105T090000 FREQ=YEARLY"])
def test_it_answers_none_beyond_the_ends_of_time(text: str) -> None:
    schedule = parse(text, "Europe/Berlin", anchor=MADE)
    assert schedule.next_after(datetime.max.replace(tzinfo=UTC)) is None
    assert schedule.previous(datetime.min.replace(tzinfo=UTC)) is None
    earliest = schedule.next_after(datetime.min.replace(tzinfo=UTC))
    latest = schedule.previous(datetime.max.replace(tzinfo=UTC))
    assert earliest is not None and latest is not None
    assert schedule.previous(earliest) is None and schedule.next_after(latest) is None


def test_next_and_previous_are_strict_to_the_microsecond() -> None:
    schedule, nine = parse("0 9 * * *", "UTC"), datetime(2026, 1, 5, 9, tzinfo=UTC)
    moment, day = timedelta(microseconds=1), timedelta(days=1)
    assert schedule.next_after(nine - moment) == nine
    assert schedule.next_after(nine) == schedule.next_after(nine + moment) == nine + day
    assert schedule.previous(nine + moment) == nine
    assert schedule.previous(nine) == schedule.previous(nine - moment) == nine - day


def test_between_leaves_out_its_start_and_includes_its_end() -> None:
    schedule, nine = parse("0 9 * * *", "UTC"), datetime(2026, 1, 5, 9, tzinfo=UTC)
    assert list(schedule.between(nine, nine + timedelta(days=2))) == [
        nine + timedelta(days=1),
        nine + timedelta(days=2),
    ]
    assert list(schedule.between(nine, nine)) == []


def test_upcoming_says_what_a_clock_change_moved() -> None:
    before = datetime(2026, 3, 7, 12, tzinfo=UTC)
    shown = [
        (each.local, each.note) for each in parse("15,30 2 * * *", "America/New_York").upcoming(before, 2)
    ]
    assert shown == [
        (
            "Sun 2026-03-08 03:00 EDT",
            "02:15 to 02:30 do not exist that day; runs once, at 03:00 when clocks go forward",
        ),
        ("Mon 2026-03-09 02:15 EDT", None),
    ]
    autumn = datetime(2026, 11, 1, 5, 20, tzinfo=UTC)
    twice = parse("*/30 * * * *", "America/New_York").upcoming(autumn, 3)
    assert [(each.local, each.note) for each in twice] == [
        ("Sun 2026-11-01 01:30 EDT", None),
        ("Sun 2026-11-01 01:00 EST", "01:00 comes twice that day; this is the second time"),
        ("Sun 2026-11-01 01:30 EST", "01:30 comes twice that day; this is the second time"),
    ]


def test_offsets_with_seconds_are_exact() -> None:
    monrovia = parse("0 12 * * *", "Africa/Monrovia")  # 44 minutes 30 seconds west until 1972
    assert monrovia.next_after(datetime(1971, 6, 1, tzinfo=UTC)) == datetime(
        1971, 6, 1, 12, 44, 30, tzinfo=UTC
    )
    quarter = parse("*/15 * * * *", "Africa/Monrovia")
    assert quarter.next_after(datetime(1971, 6, 1, tzinfo=UTC)) == datetime(1971, 6, 1, 0, 14, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "remedy"),
    [
        ("America/NewYork", "did you mean America/New_York"),
        ("europe/berlin", "did you mean Europe/Berlin"),
        ("Berlin", "did you mean Europe/Berlin"),
        ("../../etc/passwd", "expected an IANA name such as America/New_York, Europe/Berlin or UTC"),
        ("", "expected an IANA name"),
    ],
)
def test_an_unknown_zone_is_refused_with_the_nearest_names(zone: str, remedy: str) -> None:
    with pytest.raises(ScheduleError) as refused:
        parse("@daily", zone)
    assert refused.value.field == "timezone" and refused.value.value == zone
    assert refused.value.remedy.startswith(remedy)


def test_older_names_of_zones_are_accepted() -> None:
    for zone in ("EST5EDT", "US/Eastern", "Etc/GMT+5", "GMT"):
        assert parse("@daily", zone).zone == zone
    assert len(zone_names()) > 500


def test_zones_come_from_the_tzdata_package_whatever_the_environment_says() -> None:
    asks = (
        "from carapace_cron.schedule.zone import load_zone, tzdata_version;"
        "zone = load_zone('Europe/Berlin'); print(tzdata_version(), len(zone.starts))"
    )
    shown = {
        subprocess.run(
            [sys.executable, "-c", asks],
            env={**os.environ, "PYTHONTZPATH": path},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for path in ("", "/nowhere", "/usr/share/zoneinfo")
    }
    assert shown == {f"{tzdata.IANA_VERSION} {len(load_zone('Europe/Berlin').starts)}\n"}
    assert tzdata_version() == tzdata.IANA_VERSION


def _everything(schedule: Schedule) -> None:
    schedule.upcoming(MADE, 2)
    schedule.previous(MADE)
    schedule.shortest_period()
    schedule.describe()


_PIECES = [
    *(
        "*",
        "/",
        ",",
        "-",
        "#",
        "L",
        "W",
        "0",
        "1",
        "5",
        "7",
        "15",
        "31",
        "59",
        "60",
        "99",
        "MON",
        "JAN",
        "FRIL",
    ),
    *(
        "@",
        "every ",
        "at ",
        "in ",
        "1h",
        ":",
        "..",
        "~",
        "*-*-*",
        "UTC",
        "daily",
        "2026-12-01",
        "09:00",
        "Z",
        "T",
    ),
    *("FREQ=", "DAILY", "SECONDLY", ";", "=", "BYDAY=MO", "BYMONTHDAY=31", "BYSETPOS=-1", "BYHOUR=9"),
    *("INTERVAL=", "COUNT=", "UNTIL=", "DTSTART:", "20260101T090000 "),
]
_pieces = st.lists(
    st.sampled_from(_PIECES),
    max_size=14,
).map("".join)
_hostile = st.one_of(st.text(max_size=300), _pieces, st.lists(_pieces, max_size=7).map(" ".join))


@settings(max_examples=300, deadline=timedelta(seconds=5))
@given(text=_hostile, zone=st.one_of(st.just("America/New_York"), st.text(max_size=30)))
def test_only_a_schedule_error_ever_comes_out_and_quickly(text: str, zone: str) -> None:
    try:
        schedule = parse(text, zone, anchor=MADE)
    except ScheduleError as refused:
        assert str(refused).isprintable()
        assert len(str(refused)) < 700
    else:
        _everything(schedule)


_numbers = st.lists(st.integers(1, 31), min_size=1, max_size=4).map(lambda ns: ",".join(map(str, ns)))
_part = st.one_of(
    st.builds("BYMONTH={}".format, st.integers(1, 12)),
    st.builds("BYMONTHDAY={}".format, _numbers),
    st.builds("BYYEARDAY=-{}".format, _numbers),
    st.builds("BYWEEKNO={}".format, _numbers),
    st.sampled_from(["BYDAY=MO", "BYDAY=5SU", "BYHOUR=3,23", "BYMINUTE=0,59", "BYSECOND=7", "BYSETPOS=300"]),
    st.builds("INTERVAL={}".format, st.sampled_from([2, 7, 60, 1440, 86_400, 99_999])),
    st.builds("COUNT={}".format, st.integers(1, 1000)),
)


@settings(max_examples=100, deadline=timedelta(seconds=5))
@given(
    frequency=st.sampled_from(["YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY", "MINUTELY", "SECONDLY"]),
    parts=st.lists(_part, max_size=4, unique_by=lambda part: part.partition("=")[0]),
)
def test_no_rule_takes_long_to_answer_or_to_refuse(frequency: str, parts: list[str]) -> None:
    try:
        _everything(parse(";".join([f"FREQ={frequency}", *parts]), "America/New_York", anchor=MADE))
    except ScheduleError as refused:
        assert refused.remedy
