"""The judge can be trusted only if it finds what is wrong: each promise broken by hand, one at a time."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support.checker import EPOCH, Evidence, JobMade, each_second, judge, unlike_the_answers

MADE = datetime(2026, 11, 21, 9, 0, 0, 400_000, tzinfo=UTC)
UNTIL = MADE + timedelta(seconds=4)
JOB = JobMade(id="job_a", created=MADE, due=each_second(1), channel="hook", path="/quick")
STORY = ((1, "success", 1), (2, "success", 2), (3, "skipped", 0), (4, "missed", 0))

Break = Callable[[Evidence], Any]


def micros(second: float) -> int:
    return (datetime(2026, 11, 21, 9, 0, tzinfo=UTC) - EPOCH + timedelta(seconds=second)) // timedelta(
        microseconds=1
    )


def as_promised() -> Evidence:
    """Four instants: two runs, the second at its second attempt; one skipped, one missed."""
    seen = Evidence([], [], [])
    for second, status, attempts in STORY:
        run, reason = f"run_{second}", None if attempts else "a reason"
        times = {"scheduled_for": micros(second), "finished_at": micros(second + 0.5)}
        row = {"id": run, "job_id": "job_a", "status": status, "reason": reason, "attempt": attempts}
        seen.runs.append({**row, **times})
        for number in range(1, attempts + 1):
            begun = micros(second + number / 10)
            state = "success" if number == attempts else "failure"
            times = {"started_at": begun, "finished_at": begun + 1}
            seen.attempts.append({"run_id": run, "number": number, "state": state, **times})
            seen.requests.append({"what": "begin", "run": run, "attempt": number})
            seen.requests.append({"what": "end", "run": run, "attempt": number})
        if status != "skipped":
            tell(seen, run)
    return seen


def tell(seen: Evidence, run: str) -> None:
    key = f"{run}.ended"
    seen.deliveries.append({"id": key, "subject": run, "channel_id": "hook", "state": "delivered"})
    body = {"id": key, "runId": run}
    seen.arrivals.append({"channel": "hook", "key": key, "signed": True, "body": body})


def test_it_finds_nothing_where_all_is_as_promised() -> None:
    assert judge([JOB], as_promised(), UNTIL) == []


def test_it_takes_a_notice_that_came_twice_under_one_key() -> None:
    seen = as_promised()
    seen.arrivals.append(seen.arrivals[0])
    assert judge([JOB], seen, UNTIL) == []


BROKEN: dict[str, tuple[Break, str]] = {
    "an instant without a record": (lambda seen: seen.runs.pop(2), "no record for 2026-11-21 09:00:03"),
    "an instant with two": (
        lambda seen: seen.runs.append({**seen.runs[3], "id": "run_5"}),
        "2 records for 2026-11-21 09:00:04",
    ),
    "a record of no instant": (
        lambda seen: seen.runs[3].update(scheduled_for=micros(4.5)),
        "09:00:04.500000+00:00, which is not due",
    ),
    "a run of nobody's": (lambda seen: seen.runs[3].update(job_id="job_b"), "unknown job job_b"),
    "a run without an end": (lambda seen: seen.runs[0].update(status="running"), "has not ended: running"),
    "a miss without a reason": (lambda seen: seen.runs[3].update(reason=None), "missed with reason None"),
    "a hole between attempts": (lambda seen: seen.attempts.pop(1), "run run_2: attempts [2]"),
    "attempts that overlap": (
        lambda seen: seen.attempts[2].update(started_at=micros(2)),
        "attempt 2 began before the last had ended",
    ),
    "a success that is tried again": (
        lambda seen: seen.attempts[1].update(state="success"),
        "although attempt 1 was a success",
    ),
    "an attempt that is started twice": (
        lambda seen: seen.requests.extend(seen.requests[:2]),
        "attempt ('run_1', 1) was started 2 times",
    ),
    "an attempt in no record": (
        lambda seen: seen.requests.append({"what": "begin", "run": "run_1", "attempt": 7}),
        "('run_1', 7) was started, and is in no record",
    ),
    "a success that nobody saw": (
        lambda seen: seen.requests.clear(),
        "recorded as success, and nobody saw it",
    ),
    "a retry during the attempt before": (
        lambda seen: seen.requests.insert(3, seen.requests.pop(4)),
        "run run_2: ('run_2', 2) began during ('run_2', 1)",
    ),
    "two runs of a job at once": (
        lambda seen: seen.requests.insert(1, seen.requests.pop(2)),
        "job job_a: ('run_2', 1) began during ('run_1', 1)",
    ),
    "a result that never came": (lambda seen: seen.arrivals.pop(1), "nothing arrived of run_2"),
    "a miss that nobody heard of": (lambda seen: seen.arrivals.pop(2), "of all that job_a missed"),
    "results out of order": (lambda seen: seen.arrivals.reverse(), "part from the outbox at number 1"),
    "a notice under two keys": (
        lambda seen: seen.arrivals.append({**seen.arrivals[0], "key": "other"}),
        "run run_1 came under",
    ),
    "an unsigned notice": (lambda seen: seen.arrivals[0].update(signed=False), "is not signed"),
    "a notice left in the outbox": (lambda seen: seen.deliveries[0].update(state="waiting"), "is waiting"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_it_finds(broken: str) -> None:
    breaking, sentence = BROKEN[broken]
    seen = deepcopy(as_promised())
    breaking(seen)
    assert sentence in "\n".join(judge([JOB], seen, UNTIL))


def test_it_finds_an_answer_that_differs_from_the_ledger() -> None:
    seen = as_promised()
    answers = [
        {
            "id": run["id"], "jobId": run["job_id"], "status": run["status"], "attempt": run["attempt"],
            "scheduledFor": f"2026-11-21T09:00:0{4 - number}Z",
        }
        for number, run in enumerate(reversed(seen.runs))
    ]
    assert unlike_the_answers(answers, seen) == []
    answers[0]["status"] = "success"
    assert len(unlike_the_answers(answers, seen)) == 1
    assert len(unlike_the_answers(answers[1:], seen)) == 1
