"""The tables of docs/reference/schedules.md and the time lines of docs/why/daylight-saving.md hold."""

from __future__ import annotations

import itertools
import re
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from carapace_cron.calendars import calendar_of
from carapace_cron.model.calendar import CalendarPolicy
from carapace_cron.schedule import ScheduleError, parse
from carapace_cron.schedule.excepting import excepting

DOCS = Path(__file__).parents[2] / "docs"
NEW_YORK = ZoneInfo("America/New_York")
MADE = datetime(2026, 11, 21, 12, 0, tzinfo=NEW_YORK)

_PAGE = (DOCS / "reference" / "schedules.md").read_text()
_ROWS = [[cell.strip() for cell in row.strip("|").split("|")] for row in re.findall(r"^\|.*\|$", _PAGE, re.M)]
ACCEPTED = [
    (example, row[-1])
    for row in _ROWS
    if re.match(r"[0-9]{4}-", row[-1]) and "{" not in row[1]
    for example in re.findall(r"`([^`]+)`", row[0] if row[0].startswith("`@") else row[1])
]
CALENDARS = [(row[1].strip("`"), row[2].strip("`"), row[3]) for row in _ROWS if row[1].startswith("`{")]
REFUSED = [(row[0].strip("`"), row[1].strip("`")) for row in _ROWS if row[1].startswith("`bad ")]


@pytest.mark.parametrize(("text", "expected"), ACCEPTED)
def test_an_accepted_form_gives_what_the_page_says(text: str, expected: str) -> None:
    times = expected.split(", ")
    schedule = parse(text, "America/New_York", anchor=MADE)
    upcoming = [each.at.astimezone(NEW_YORK) for each in schedule.upcoming(MADE, len(times))]
    assert [f"{at:%Y-%m-%d %H:%M:%S}".removesuffix(":00") for at in upcoming] == times


@pytest.mark.parametrize(("fields", "text", "expected"), CALENDARS)
def test_a_calendar_leaves_what_the_page_says(fields: str, text: str, expected: str) -> None:
    times = expected.split(", ")
    calendar = calendar_of(CalendarPolicy.model_validate_json(fields), "America/New_York")
    schedule = excepting(parse(text, "America/New_York", anchor=MADE), calendar)
    upcoming = [each.at.astimezone(NEW_YORK) for each in schedule.upcoming(MADE, len(times))]
    assert [f"{at:%Y-%m-%d %H:%M}" for at in upcoming] == times


@pytest.mark.parametrize(("text", "expected"), REFUSED)
def test_a_refused_form_is_answered_as_the_page_says(text: str, expected: str) -> None:
    with pytest.raises(ScheduleError) as refused:
        parse(text, "America/New_York", anchor=MADE)
    assert str(refused.value) == expected


def test_the_page_is_read_whole() -> None:
    assert len(ACCEPTED) == 44
    assert len(CALENDARS) == 9
    assert len(REFUSED) == 12


_PARAGRAPHS = (DOCS / "why" / "daylight-saving.md").read_text().split("\n\n")
_LINE = re.compile(r"    ([0-9*]\S*(?: \S+){4}) {2,}(\S.*?) {2,}(\S.*)")


@pytest.mark.parametrize(
    ("begins", "zone", "days"),
    [
        ("New York, 2024.", "America/New_York", ["2024-03-10", "2024-11-03"]),
        ("Berlin, 2024.", "Europe/Berlin", ["2024-03-31", "2024-10-27"]),
        ("Lord Howe, 2024.", "Australia/Lord_Howe", ["2024-10-06", "2024-04-07"]),
    ],
)
def test_the_time_lines_hold(begins: str, zone: str, days: list[str]) -> None:
    place = next(n for n, paragraph in enumerate(_PARAGRAPHS) if paragraph.startswith(begins))
    drawn = itertools.takewhile(lambda paragraph: paragraph.startswith("    "), _PARAGRAPHS[place + 1 :])
    lines = [match.groups() for line in "\n".join(drawn).splitlines() if (match := _LINE.fullmatch(line))]
    assert lines
    for text, *columns in lines:
        for day, column in zip(days, columns, strict=True):
            begin = datetime.fromisoformat(day).replace(tzinfo=ZoneInfo(zone))
            upcoming = parse(text, zone).upcoming(begin - timedelta(seconds=1), 60)
            runs = [each.local.split(" ", 2)[2] for each in upcoming if day in each.local]
            said = [item for item in column.replace(", once", "").split(", ") if item not in ("…", "none")]
            windows = [runs[n : n + len(said)] for n in range(len(runs))] if said else [runs]
            assert said in windows, (text, day)
