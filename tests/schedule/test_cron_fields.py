"""Cron's fields, in UTC: what each form names, and what is refused, with the sentence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carapace_cron.schedule import ScheduleError, parse

START = datetime(2026, 1, 1, tzinfo=UTC) - timedelta(seconds=1)  # a Thursday's midnight is in reach

NAMES = [
    # expression, the first instants from 2026-01-01 00:00 on
    ("* * * * *", ["01-01 00:00:00", "01-01 00:01:00"]),
    ("5,10 * * * *", ["01-01 00:05:00", "01-01 00:10:00", "01-01 01:05:00"]),
    ("50-52 23 * * *", ["01-01 23:50:00", "01-01 23:51:00", "01-01 23:52:00", "01-02 23:50:00"]),
    ("*/25 * * * *", ["01-01 00:00:00", "01-01 00:25:00", "01-01 00:50:00", "01-01 01:00:00"]),
    ("5/20 * * * *", ["01-01 00:05:00", "01-01 00:25:00", "01-01 00:45:00", "01-01 01:05:00"]),
    ("10-30/10 1 * * *", ["01-01 01:10:00", "01-01 01:20:00", "01-01 01:30:00", "01-02 01:10:00"]),
    ("1-1 2 * * *", ["01-01 02:01:00", "01-02 02:01:00"]),
    ("7-7/2 2 * * *", ["01-01 02:07:00", "01-02 02:07:00"]),
    ("0 22-22 * * *", ["01-01 22:00:00", "01-02 22:00:00"]),
    ("0 0 1 jan,jul *", ["01-01 00:00:00", "07-01 00:00:00"]),
    ("0 0 * * mon", ["01-05 00:00:00", "01-12 00:00:00"]),
    ("0 0 * * 0", ["01-04 00:00:00", "01-11 00:00:00"]),
    ("0 0 * * 7", ["01-04 00:00:00", "01-11 00:00:00"]),
    ("0 0 * * FRI-7", ["01-02 00:00:00", "01-03 00:00:00", "01-04 00:00:00", "01-09 00:00:00"]),
    ("0 0 * * 1/2", ["01-02 00:00:00", "01-04 00:00:00", "01-05 00:00:00", "01-07 00:00:00"]),
    ("0 0 L * *", ["01-31 00:00:00", "02-28 00:00:00", "03-31 00:00:00"]),
    ("0 0 LW * *", ["01-30 00:00:00", "02-27 00:00:00", "03-31 00:00:00"]),
    ("0 0 1W * *", ["01-01 00:00:00", "02-02 00:00:00", "03-02 00:00:00"]),  # 1 February is a Sunday
    ("0 0 15W * *", ["01-15 00:00:00", "02-16 00:00:00", "03-16 00:00:00"]),
    ("0 0 31W * *", ["01-30 00:00:00", "03-31 00:00:00"]),  # 31 January is a Saturday
    ("0 0 1,15W,L * *", ["01-01 00:00:00", "01-15 00:00:00", "01-31 00:00:00", "02-01 00:00:00"]),
    ("0 0 * * 5L", ["01-30 00:00:00", "02-27 00:00:00"]),
    ("0 0 * * FRIL", ["01-30 00:00:00", "02-27 00:00:00"]),
    ("0 0 * * 1#2", ["01-12 00:00:00", "02-09 00:00:00"]),
    ("0 0 * * MON#1,WED", ["01-05 00:00:00", "01-07 00:00:00", "01-14 00:00:00"]),
    ("0 0 * * 4#5", ["01-29 00:00:00", "04-30 00:00:00"]),  # months with five Thursdays
    ("0 0 13 * 5", ["01-02 00:00:00", "01-09 00:00:00", "01-13 00:00:00"]),  # either
    ("0 0 */2 * 1", ["01-05 00:00:00", "01-19 00:00:00"]),  # both: an odd day that is a Monday
    ("0 0 1-7 * */7", ["01-04 00:00:00", "02-01 00:00:00"]),  # both: a Sunday in the first week
    ("30 0 9 * * *", ["01-01 09:00:30", "01-02 09:00:30"]),
    ("*/30 * * * * *", ["01-01 00:00:00", "01-01 00:00:30", "01-01 00:01:00"]),
    ("@hourly", ["01-01 00:00:00", "01-01 01:00:00"]),
    ("@daily", ["01-01 00:00:00", "01-02 00:00:00"]),
    ("@Midnight", ["01-01 00:00:00", "01-02 00:00:00"]),
    ("@weekly", ["01-04 00:00:00", "01-11 00:00:00"]),
    ("@monthly", ["01-01 00:00:00", "02-01 00:00:00"]),
    ("@yearly", ["01-01 00:00:00", "01-01 00:00:00"]),
    ("@annually", ["01-01 00:00:00", "01-01 00:00:00"]),
    ("  0   9  * * *  ", ["01-01 09:00:00"]),
]


@pytest.mark.parametrize(("text", "expected"), NAMES)
def test_it_names_these_instants(text: str, expected: list[str]) -> None:
    schedule, at, found = parse(text, "UTC"), START, []
    for _ in expected:
        following = schedule.next_after(at)
        assert following is not None
        assert schedule.previous(following + timedelta(microseconds=1)) == following
        at = following
        found.append(f"{at:%m-%d %H:%M:%S}")
    assert found == expected


REFUSED = [
    # text, field, message
    ("61 * * * *", "minute", 'bad minute "61" in "61 * * * *": expected 0–59'),
    ("* 24 * * *", "hour", 'bad hour "24" in "* 24 * * *": expected 0–23'),
    ("0 0 0 * *", "day of month", 'bad day of month "0" in "0 0 0 * *": expected 1–31, L, LW or 15W'),
    ("0 0 1 13 *", "month", 'bad month "13" in "0 0 1 13 *": expected 1–12 or JAN–DEC'),
    ("60 * * * * *", "second", 'bad second "60" in "60 * * * * *": expected 0–59'),
    (
        "0 0 * * 8",
        "day of week",
        'bad day of week "8" in "0 0 * * 8": expected 0–7 or SUN–SAT (0 and 7 are Sunday), FRIL or MON#2',
    ),
    (
        "30-20 * * * *",
        "minute",
        'bad minute "30-20" in "30-20 * * * *": the range is reversed; expected "20-30", '
        'or "30-59,0-20" to go past the end',
    ),
    (
        "0 0 * * FRI-SUN",
        "day of week",
        'bad day of week "FRI-SUN" in "0 0 * * FRI-SUN": the range is reversed; '
        'Sunday at its end is 7: "FRI-7"',
    ),
    ("1,,2 * * * *", "minute", 'bad minute "" in "1,,2 * * * *": expected 0–59'),
    (
        "*/0 * * * *",
        "minute",
        'bad minute "*/0" in "*/0 * * * *": expected a step of 1 or more after the slash',
    ),
    (
        "*/90 * * * *",
        "minute",
        'bad minute "*/90" in "*/90 * * * *": a step of 90 leaves the field, which ends at 59; '
        'for elapsed time use "every 90m"',
    ),
    (
        "0 9 * *",
        "schedule",
        'bad schedule "0 9 * *": expected 5 fields (minute, hour, day of month, month, day of week), '
        "or 6 with the seconds first, found 4",
    ),
    ("0 0 31 2 *", "schedule", 'bad schedule "0 0 31 2 *": names a day that no year has'),
    ("0 0 31 4,6,9,11 *", "schedule", 'bad schedule "0 0 31 4,6,9,11 *": names a day that no year has'),
    ("0 0 31W feb *", "schedule", 'bad schedule "0 0 31W FEB *": names a day that no year has'),
    (
        "@reboot",
        "schedule",
        'bad schedule "@reboot": a gateway\'s start is not a time; expected a schedule, such as @daily',
    ),
    ("0 9\n* * *", "schedule", 'bad schedule "0 9\\n* * *": expected one line of printable ASCII'),
    ("０ 9 * * *", "schedule", 'bad schedule "\\uff10 9 * * *": expected one line of printable ASCII'),
    (
        "0," * 130 + "0 * * * *",
        "schedule",
        'bad schedule "' + "0," * 39 + '…": expected at most 256 characters, found 269',
    ),
]


@pytest.mark.parametrize(("text", "field", "message"), REFUSED)
def test_it_refuses_with_field_value_and_remedy(text: str, field: str, message: str) -> None:
    with pytest.raises(ScheduleError) as refused:
        parse(text, "UTC")
    assert str(refused.value) == message
    assert refused.value.field == field
    assert refused.value.value.upper() in text.upper() and refused.value.remedy in message


@pytest.mark.parametrize(
    "text",
    ["", " ", "*", "* * * * * * *", "a * * * *", "1- * * * *", "-1 * * * *", "*/x * * * *", "1/ * * * *",
     "1-2-3 * * * *", "* * L-3 * *", "* * * * L", "* * * * 1#6", "* * * * 1-5#2", "* * * * MONDAY",
     "* * ? * *", "* * 0W * *", "H * * * *", "* * W * *", "1.5 * * * *", "@every", "@every 5", "@foo"],
)  # fmt: skip
def test_it_refuses_what_only_looks_like_cron(text: str) -> None:
    with pytest.raises(ScheduleError):
        parse(text, "UTC")


def test_a_day_in_a_leap_year_only_is_not_never() -> None:
    leap = parse("0 0 29 2 *", "UTC")
    assert leap.next_after(datetime(2096, 3, 1, tzinfo=UTC)) == datetime(2104, 2, 29, tzinfo=UTC)
    fifth_sunday = parse("0 0 * 2 SUN#5", "UTC")  # 2032, then after 28 years, but 40 across 2100
    assert fifth_sunday.next_after(datetime(2026, 1, 1, tzinfo=UTC)) == datetime(2032, 2, 29, tzinfo=UTC)
    assert fifth_sunday.next_after(datetime(2088, 3, 1, tzinfo=UTC)) == datetime(2128, 2, 29, tzinfo=UTC)


def test_nothing_comes_after_2199_or_before_1900() -> None:
    daily = parse("0 0 * * *", "UTC")
    assert daily.next_after(datetime(2199, 12, 31, tzinfo=UTC)) is None
    assert daily.previous(datetime(1900, 1, 1, tzinfo=UTC)) is None
    assert daily.next_after(datetime.min.replace(tzinfo=UTC)) == datetime(1900, 1, 1, tzinfo=UTC)
    assert daily.previous(datetime.max.replace(tzinfo=UTC)) == datetime(2199, 12, 31, tzinfo=UTC)


SHORTEST = [
    ("* * * * * *", 1),
    ("*/30 * * * * *", 30),
    ("0,1 * * * *", 60),
    ("0 0,59 * * * *", 60),
    ("0,59 * * * *", 60),
    ("0 0,23 * * *", 3600),
    ("59 23 * * 1", 7 * 86_400),
    ("0,59 0,23 * * *", 60),
    ("58 59 23,0 * * *", 3600),
    ("0,59 * * * * *", 1),
    ("*/7 * * * *", 4 * 60),
    ("0 */5 * * *", 4 * 3600),
    ("0 12 * * *", 86_400),
    ("0 0 1,31 * *", 86_400),
    ("0 0 1 * *", 28 * 86_400),
    ("0 0 31 12 *", 365 * 86_400),
    ("0 0 29 2 *", 1461 * 86_400),
]


@pytest.mark.parametrize(("text", "seconds"), SHORTEST)
def test_it_knows_its_shortest_period(text: str, seconds: int) -> None:
    assert parse(text, "Europe/Berlin").shortest_period() == timedelta(seconds=seconds)


_numbers = st.lists(st.integers(0, 59), min_size=1, max_size=4).map(lambda ns: ",".join(map(str, ns)))


@given(minute=_numbers, second=_numbers, hour=st.sampled_from(["*", "0,23", "5", "9-17/4", "*/9"]))
def test_no_two_instants_are_closer_than_the_shortest_period(minute: str, second: str, hour: str) -> None:
    schedule = parse(f"{second} {minute} {hour} * * *", "UTC")
    start = datetime(2026, 1, 1, tzinfo=UTC)
    window = schedule.between(start, start + timedelta(days=3))
    gaps = {later - earlier for earlier, later in pairwise(islice(window, 2000))}
    assert min(gaps) == schedule.shortest_period()
