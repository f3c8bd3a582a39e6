"""The fate of each due instant, as a table that a person could check."""

from __future__ import annotations

import pytest

from carapace_cron.model.job import CatchUp
from carapace_cron.occurrences import LISTED_MISSES, LatePolicy, occurrences
from carapace_cron.schedule import parse

MINUTE = parse("* * * * *", "UTC")

# (seconds since the last minute that has its record, policy, window) → what becomes of each minute since.
# r = runs on time, c = is caught up, m = missed
TABLE: list[tuple[int, CatchUp, int, str]] = [
    (59, "latest", 3600, ""),
    (60, "latest", 3600, "r"),
    (60, "none", 3600, "r"),
    (70, "none", 0, "r"),
    (71, "none", 3600, "m"),
    (75, "latest", 3600, "c"),
    (75, "all", 3600, "c"),
    (75, "latest", 0, "m"),
    (300, "latest", 3600, "mmmmr"),
    (60, "all", 3600, "r"),
    (300, "all", 3600, "ccccc"),
    (300, "none", 3600, "mmmmr"),
    (330, "latest", 3600, "mmmmc"),
    (330, "all", 100, "mmmcc"),
    (330, "none", 3600, "mmmmm"),
    (330, "latest", 10, "mmmmm"),
]


def fates(late: int, policy: CatchUp, window: int) -> str:
    due = occurrences(MINUTE, LatePolicy(policy, window), after=0, now=late)
    assert [one.at for one in due] == list(range(60, late + 1, 60))
    assert all(one.reason for one in due if one.verdict == "missed")
    return "".join(
        "m" if one.verdict == "missed" else {"schedule": "r", "catchUp": "c"}[one.trigger] for one in due
    )


@pytest.mark.parametrize(("late", "policy", "window", "expected"), TABLE)
def test_the_fate_of_each_instant(late: int, policy: CatchUp, window: int, expected: str) -> None:
    assert fates(late, policy, window) == expected


def test_catch_up_all_is_capped() -> None:
    due = occurrences(MINUTE, LatePolicy("all", 10**6, limit=30), after=0, now=60 * 500)
    assert sum(one.verdict == "run" for one in due) == 30
    assert len(due) == 500


def test_a_very_long_gap_is_recorded_in_bounded_work_and_leaves_no_hole() -> None:
    year = 365 * 86_400
    due = occurrences(MINUTE, LatePolicy("latest"), after=0, now=year)
    assert len(due) == LISTED_MISSES + 1
    assert due[0].at == 60 and due[-1].at == year
    assert [one.at for one in due[1:]] == list(range(year - 60 * (LISTED_MISSES - 1), year + 1, 60))
    assert "1970-12-31T07:21:00Z" in (due[0].reason or "")


def test_catch_up_all_runs_what_fell_into_a_gap_of_seconds() -> None:
    """They come due together within the time that counts as on time, and must not skip each other."""
    each_second = parse("* * * * * *", "UTC")
    due = occurrences(each_second, LatePolicy("all"), after=0, now=5)
    assert [(one.at, one.trigger) for one in due] == [(at, "catchUp") for at in range(1, 6)]
