"""Which errors are tried again, and when: `retry` of a job."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from carapace_cron.ledger.planning import empty_plan
from carapace_cron.model.job import Job, RetryPolicy
from carapace_cron.model.run import Run

from .conftest import Engine

NEVER = "0 0 1 1 *"  # not on any day of these stories


async def ended(engine: Engine, job: Job) -> Run:
    """A run of the job, begun now, at its end."""
    run = await engine.runs.start_now(empty_plan(job), "k", engine.clock.now())
    engine.start()
    async with asyncio.timeout(10):
        while (now := await engine.runs.get(run.id)) is None or now.status in ("queued", "running"):
            await engine.clock.advance(1)
            await asyncio.sleep(0.005)
    return now


@pytest.mark.parametrize(
    ("on", "command", "attempts"),
    [
        ([], "fail", 3),
        ([], "answered 404", 3),
        (["failure"], "fail", 3),
        (["failure"], "answered 404", 3),
        (["timeout"], "fail", 1),
        (["lost"], "answered 503", 1),
        (["503"], "answered 503", 3),
        (["503"], "answered 500", 1),
        (["5xx"], "answered 500", 3),
        (["5xx"], "answered 404", 1),
        (["429", "5xx"], "answered 429", 3),
        (["5xx"], "fail", 1),
        (["5xx"], "raise", 1),
        (["failure"], "raise", 3),
        ([], "forbidden", 1),
        (["failure"], "forbidden", 1),
    ],
)
async def test_which_failures_are_tried_again(
    engine: Engine, on: list[str], command: str, attempts: int
) -> None:
    job = engine.add(NEVER, command, retry={"maxAttempts": 3, "initialSeconds": 1, "on": on})
    run = await ended(engine, job)
    assert (run.status, run.attempt) == ("failure", attempts)


@pytest.mark.parametrize(("on", "attempts"), [([], 2), (["timeout"], 2), (["failure", "5xx", "lost"], 1)])
async def test_a_timeout_is_an_error_of_its_own(engine: Engine, on: list[str], attempts: int) -> None:
    retry = {"maxAttempts": 2, "initialSeconds": 0, "on": on}
    job = engine.add(NEVER, "hang", timeoutSeconds=0.01, retry=retry)
    run = await ended(engine, job)
    assert (run.status, run.attempt) == ("timeout", attempts)


@pytest.mark.parametrize(
    ("on", "states"),
    [
        ([], ["lost", "success"]),
        (["lost"], ["lost", "success"]),
        (["failure", "timeout", "5xx"], ["lost"]),
    ],
)
async def test_an_attempt_that_a_crash_cut_off_is_an_error_of_its_own(
    engine: Engine, on: list[str], states: list[str]
) -> None:
    job = engine.add("* * * * *", "hang", retry={"initialSeconds": 1, "on": on})
    engine.start()
    await engine.clock.advance(60)
    again = await engine.restarted()
    again.runner.let_go.set()
    again.start()
    await again.clock.advance(5)
    (run,) = await again.all_runs(job)
    assert [attempt["state"] for attempt in await again.runs.attempts(run.id)] == states
    assert run.status == ("failure" if states == ["lost"] else "success")


@pytest.mark.parametrize(
    ("retry", "waits"),
    [
        ({}, [5, 10, 20]),
        ({"initialSeconds": 1, "factor": 1}, [1, 1, 1]),
        ({"initialSeconds": 10, "factor": 3, "maxSeconds": 25}, [10, 25, 25]),
        ({"initialSeconds": 0}, [0, 0, 0]),
        ({"maxAttempts": 2}, [5]),
        ({"maxAttempts": 1}, []),
    ],
)
async def test_how_long_it_waits_in_between(engine: Engine, retry: dict[str, Any], waits: list[int]) -> None:
    job = engine.add(NEVER, "fail", retry=retry)
    run = await ended(engine, job)
    attempts = await engine.runs.attempts(run.id)
    between = [later["started_at"] - one["finished_at"] for one, later in pairwise(attempts)]
    assert [round(wait.total_seconds()) for wait in between] == waits


@pytest.mark.parametrize(("jitter", "least"), [(0.0, 8.0), (0.5, 4.0), (1.0, 0.0)])
def test_jitter_takes_away_a_part_and_never_adds_one(jitter: float, least: float) -> None:
    policy = RetryPolicy(initial_seconds=8, jitter=jitter)
    waits = [policy.wait_seconds(1, dice / 100) for dice in range(100)]
    assert max(waits) == 8 and min(waits) == pytest.approx(least, abs=0.1)


async def test_a_retry_never_begins_before_the_attempt_before_it_has_ended(engine: Engine) -> None:
    job = engine.add("* * * * *", "hang", timeoutSeconds=0.01, retry={"maxAttempts": 3, "initialSeconds": 0})
    engine.start()
    await engine.clock.advance(60)
    while len(engine.runner.stopped) < 3:
        await engine.clock.advance(0)
        await asyncio.sleep(0.005)
    await engine.clock.advance(1)
    (run,) = await engine.all_runs(job)
    attempts = await engine.runs.attempts(run.id)
    assert engine.runner.most_working == 1
    assert all(later["started_at"] >= one["finished_at"] for one, later in pairwise(attempts))
