"""What happens to a schedule when clocks change, as tables that a cron user can check.

New York 2024: clocks go from 02:00 EST to 03:00 EDT on 10 March (07:00 UTC) and from 02:00 EDT to 01:00 EST
on 3 November (06:00 UTC).
"""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from carapace_cron.schedule import parse

TABLE = [
    # schedule, zone, asked after (UTC), the local times it runs at
    ("30 2 * * *", "America/New_York", "2024-03-09T12:00", ["03-10 03:00", "03-11 02:30"]),
    ("0,15,30 2 * * *", "America/New_York", "2024-03-09T12:00", ["03-10 03:00", "03-11 02:00"]),
    ("30 1,2,3 * * *", "America/New_York", "2024-03-10T06:00", ["03-10 01:30", "03-10 03:00", "03-10 03:30"]),
    ("0 3 * * *", "America/New_York", "2024-03-10T06:00", ["03-10 03:00", "03-11 03:00"]),
    ("*/30 * * * *", "America/New_York", "2024-03-10T06:00", ["03-10 01:30", "03-10 03:00", "03-10 03:30"]),
    ("*/30 2 * * *", "America/New_York", "2024-03-10T04:00", ["03-11 02:00", "03-11 02:30"]),
    ("0 */2 * * *", "America/New_York", "2024-03-10T04:00", ["03-10 00:00", "03-10 04:00", "03-10 06:00"]),
    ("30 1 * * *", "America/New_York", "2024-11-03T04:00", ["11-03 01:30", "11-04 01:30"]),
    ("30 1 * * *", "America/New_York", "2024-11-03T06:10", ["11-04 01:30"]),
    ("0,30 1 * * *", "America/New_York", "2024-11-03T05:10", ["11-03 01:30", "11-04 01:00"]),
    ("30 * * * *", "America/New_York", "2024-11-03T04:45", ["11-03 01:30", "11-03 01:30", "11-03 02:30"]),
    ("30 0-23 * * *", "America/New_York", "2024-11-03T04:45", ["11-03 01:30", "11-03 02:30"]),
    ("30 2 * * *", "Europe/Berlin", "2024-03-30T12:00", ["03-31 03:00", "04-01 02:30"]),
    ("30 2 * * *", "Europe/Berlin", "2024-10-26T12:00", ["10-27 02:30", "10-28 02:30"]),
    # Lord Howe moves by half an hour: 02:00 to 02:30 on 6 October, 02:00 to 01:30 on 7 April 2024.
    ("15 2 * * *", "Australia/Lord_Howe", "2024-10-05T00:00", ["10-06 02:30", "10-07 02:15"]),
    ("0 */3 * * *", "Australia/Lord_Howe", "2024-10-05T13:31", ["10-06 03:00", "10-06 06:00"]),
    ("45 1 * * *", "Australia/Lord_Howe", "2024-04-06T12:00", ["04-07 01:45", "04-08 01:45"]),
    ("45 * * * *", "Australia/Lord_Howe", "2024-04-06T14:00", ["04-07 01:45", "04-07 01:45", "04-07 02:45"]),
    # Sao Paulo went from midnight to 01:00 on 4 November 2018.
    ("0 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00", ["11-04 01:00", "11-05 00:00"]),
    ("*/30 * 4 11 *", "America/Sao_Paulo", "2018-11-01T00:00", ["11-04 01:00", "11-04 01:30"]),
    # Apia had no 30 December 2011: 24 hours are not made up.
    ("0 12 * * *", "Pacific/Apia", "2011-12-29T12:00", ["12-29 12:00", "12-31 12:00"]),
    ("0 0 30 * *", "Pacific/Apia", "2011-12-01T12:00", ["01-30 00:00"]),
    # Two that kept cronsim 2.8 busy for ever: St John's changed at one minute past midnight.
    ("30 */2 * * *", "America/St_Johns", "2009-11-01T02:32", ["11-01 00:30", "11-01 02:30"]),
    ("0 */4 * * 0", "America/St_Johns", "2009-11-01T02:32", ["11-01 00:00", "11-01 04:00"]),
]


@pytest.mark.parametrize(("text", "zone", "after", "expected"), TABLE)
def test_it_runs_at_these_local_times(text: str, zone: str, after: str, expected: list[str]) -> None:
    schedule, at = parse(text, zone), datetime.fromisoformat(after).replace(tzinfo=UTC)
    found = []
    for _ in expected:
        following = schedule.next_after(at)
        assert following is not None and following > at
        at = following
        found.append(at.astimezone(ZoneInfo(zone)).strftime("%m-%d %H:%M"))
    assert found == expected
