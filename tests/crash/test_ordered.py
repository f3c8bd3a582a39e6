"""The judge of orders finds what is wrong: each promise broken by hand, one at a time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from crash.ordered import Asked, Backfill, Change, OrderedJob, Terms, judge_orders, made
from support.checker import EPOCH, Evidence, instants_without_one_record

NINE = datetime(2026, 11, 21, 9, tzinfo=UTC)
START = NINE.timestamp()


def ordered() -> OrderedJob:
    """Made at 0.4 for every second, paused on the way from 3.5 to 4.5, again for every second from 6 on;
    then every fifth second before 6 is backfilled."""
    job = OrderedJob("a job", id="job_a", created=NINE + timedelta(seconds=0.4))
    job.changes = [
        Change(Terms(1, 1), START + 0.4, START + 0.4),
        Change(Terms(1, 1, enabled=False), START + 3.5, START + 4.5),
        Change(Terms(1, 2), START + 5.9, START + 6.0),
    ]
    job.asked = [Asked(1, "run_asked", cancelled_at=START + 5)]
    job.backfills = [Backfill(Terms(5, 2), NINE, NINE + timedelta(seconds=6), acknowledged=True)]
    return job


RUNS = (
    ("1", 1, "schedule", 1),
    ("2", 2, "schedule", 1),
    ("3", 3, "schedule", 1),
    ("asked", 4.2, "manual", 1),
    ("7", 7, "schedule", 2),
    ("0", 0, "backfill", 2),
    ("5", 5, "backfill", 2),
)


def as_ordered() -> Evidence:
    """Runs at 1, 2, 3 and 7, one that was asked for at 4.2 and cancelled at 5, and backfills at 0 and 5."""
    seen = Evidence([], [], [])
    for name, second, trigger, version in RUNS:
        manual = name == "asked"
        row = {"id": f"run_{name}", "job_id": "job_a", "trigger": trigger}
        times = {"scheduled_for": micros(second), "finished_at": micros(second + 1)}
        ended = {"status": "cancelled" if manual else "success", "attempt": 1, "reason": None}
        seen.runs.append({**row, **times, **ended})
        seen.attempts.append({"run_id": f"run_{name}", "number": 1, "started_at": micros(second)})
        seen.requests.append({"what": "begin", "run": f"run_{name}", "query": f"v={version}"})
    return seen


def micros(second: float) -> int:
    return (NINE - EPOCH + timedelta(seconds=second)) // timedelta(microseconds=1)


def faults(job: OrderedJob, seen: Evidence) -> list[str]:
    until = NINE + timedelta(seconds=7)
    return [*judge_orders([job], seen), *instants_without_one_record([made(job, seen)], seen, until)]


def test_it_finds_nothing_where_all_is_as_ordered() -> None:
    assert faults(ordered(), as_ordered()) == []


def test_it_takes_an_instant_while_the_pause_was_on_its_way() -> None:
    seen = as_ordered()
    seen.runs.append({**seen.runs[0], "id": "run_4", "scheduled_for": micros(4)})
    assert faults(ordered(), seen) == []


def test_it_takes_a_cancelled_run_that_was_done_just_then_or_had_failed_before() -> None:
    seen = as_ordered()
    seen.runs[3]["status"] = "success"
    assert faults(ordered(), seen) == []
    seen.runs[3] |= {"status": "failure", "finished_at": micros(4.9)}
    assert faults(ordered(), seen) == []


Break = Callable[[OrderedJob, Evidence], Any]
BROKEN: dict[str, Break] = {
    "no record for 2026-11-21 09:00:07": lambda job, seen: seen.runs.pop(4),
    "09:00:05.500000+00:00, which is not": lambda job, seen: seen.runs[0].update(scheduled_for=micros(5.5)),
    "did v=1; in force was [2]": lambda job, seen: seen.requests[4].update(query="v=1"),
    "09:00:05+00:00 was to be backfilled, and has not run": lambda job, seen: seen.runs.pop(6),
    "09:00:00+00:00 was to be backfilled": lambda job, seen: seen.runs[5].update(status="missed"),
    "nobody asked to backfill 2026-11-21 09:00:03": lambda job, seen: seen.runs[2].update(trigger="backfill"),
    "run_5 for 2026-11-21 09:00:05+00:00 did v=1": lambda job, seen: seen.requests[6].update(query="v=1"),
    "did v=2; in force was [1]": lambda job, seen: seen.requests[3].update(query="v=2"),
    "run run_asked of a job was promised and is not there": lambda job, seen: seen.runs.pop(3),
    "nobody asked for run run_asked": lambda job, seen: job.asked.clear(),
    "2 wishes led to run run_asked": lambda job, seen: job.asked.append(Asked(1, "run_asked")),
    "was cancelled, and ended as failure": lambda job, seen: seen.runs[3].update(status="failure"),
    "run_asked began after it was": lambda job, seen: seen.attempts[3].update(started_at=micros(5.1)),
}


@pytest.mark.parametrize("sentence", BROKEN)
def test_it_says_what_was_not_done_as_ordered(sentence: str) -> None:
    job, seen = ordered(), as_ordered()
    BROKEN[sentence](job, seen)
    assert [fault for fault in faults(job, seen) if sentence in fault]


def test_what_was_answered_is_in_force_and_what_was_not_may_be() -> None:
    job = ordered()
    job.changes.append(Change(Terms(3, 3), START + 8))
    assert job.possible(START + 3) == [Terms(1, 1)]
    assert job.possible(START + 4) == [Terms(1, 1), Terms(1, 1, enabled=False)]
    assert job.possible(START + 5) == [Terms(1, 1, enabled=False)]
    assert job.possible(START + 8) == [Terms(1, 2)]
    assert job.possible(START + 99) == [Terms(1, 2), Terms(3, 3)]
