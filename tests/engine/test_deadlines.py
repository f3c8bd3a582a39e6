"""`deadlineSeconds`, from a run's instant: past it nothing starts, nothing waits, nothing works."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from carapace_cron.ledger.deliveries import Deliveries
from carapace_cron.ledger.planning import empty_plan
from carapace_cron.model.job import Job
from carapace_cron.model.limits import Limits
from carapace_cron.model.run import Run

from .conftest import Engine


async def due_now(engine: Engine, job: Job, key: str = "k") -> Run:
    return await engine.runs.start_now(empty_plan(job), key, engine.clock.now())


async def the_run(engine: Engine, job: Job) -> Run:
    (run,) = await engine.all_runs(job)
    return run


async def told(engine: Engine, job: Job) -> list[str]:
    """What the owner of a job hears, in order."""
    notices = [delivery.notice for delivery in await Deliveries(engine.database).page(tenant=None)]
    return [f"{one.event} {one.status}" for one in notices[::-1] if one.job_id == job.id]


async def test_work_is_stopped_at_the_deadline(engine: Engine) -> None:
    job = engine.add("0 10 * * *", "hang", deadlineSeconds=0.05, timeoutSeconds=60)
    engine.start()
    run = await due_now(engine, job)
    while not engine.runner.stopped:
        await asyncio.sleep(0.01)
    engine.clock.step(timedelta(seconds=0.05))
    await engine.clock.advance(6)
    ended = await engine.runs.get(run.id)
    assert ended is not None and (ended.status, ended.attempt) == ("timeout", 1)
    assert (ended.error or "").endswith("the rest of the job's deadlineSeconds 0.05")


async def test_the_shorter_of_timeout_and_deadline_counts(engine: Engine) -> None:
    job = engine.add("0 10 * * *", "hang", deadlineSeconds=60, timeoutSeconds=0.05, retry={"maxAttempts": 1})
    engine.start()
    await due_now(engine, job)
    while not engine.runner.stopped:
        await asyncio.sleep(0.01)
    await engine.clock.advance(1)
    assert (await the_run(engine, job)).error == "stopped after 0.05 s, the job's timeoutSeconds"


async def test_a_run_that_is_missed_in_the_queue_counts_for_max_runs(engine: Engine) -> None:
    """The schedule made it, and the job was over with it by then."""
    job = engine.add("* * * * *", "hang", overlap="queue", deadlineSeconds=90, timeoutSeconds=3600, maxRuns=2)
    engine.start()
    await engine.clock.advance(2 * 60 + 1)
    assert engine.finished == [(job.id, "completed: maxRuns 2 is reached")]
    await engine.clock.advance(5 * 60)
    assert await engine.states(job) == ["running", "missed"]
    assert len(engine.finished) == 1


async def test_runs_that_wait_behind_another_are_missed_at_their_deadline(engine: Engine) -> None:
    job = engine.add("0 10 * * *", "hang", overlap="queue", timeoutSeconds=86_400)
    engine.start()
    await due_now(engine, job)
    await engine.clock.advance(1)
    hurried = await engine.change(job, deadline_seconds=30)
    waiting = [await due_now(engine, hurried, key) for key in ("second", "third")]
    await engine.clock.advance(31)
    ended = [await engine.runs.get(run.id) for run in waiting]
    assert [run.status for run in ended if run] == ["missed", "missed"]
    for run in ended:
        assert run is not None and run.finished_at is not None and run.deadline_at is not None
        assert run.finished_at - run.deadline_at < timedelta(seconds=0.1), "then, not when it would be free"
        assert "passed before it could start" in (run.reason or "")
    assert await told(engine, job) == ["run.missed missed"] * 2
    assert (await engine.states(job))[0] == "running"


async def test_a_run_that_waits_for_a_limit_is_missed_at_its_deadline(engine: Engine) -> None:
    await engine.database.close()
    engine.limits = Limits({"tag:db": 1})
    await engine.open()
    busy = engine.add("0 10 * * *", "hang", tags=["db"], timeoutSeconds=86_400)
    urgent = engine.add("0 10 * * *", "ok", tags=["db"], deadlineSeconds=30)
    patient = engine.add("0 10 * * *", "ok", tags=["db"])
    engine.start()
    for job in (busy, urgent, patient):
        await due_now(engine, job)
    await engine.clock.advance(31)
    assert await engine.states(urgent) == ["missed"]
    assert (await the_run(engine, urgent)).held_by is None
    engine.runner.let_go.set()
    await engine.clock.advance(1)
    assert await engine.states(patient) == ["success"]


async def test_a_run_that_waits_for_a_slot_is_missed_at_its_deadline(engine: Engine) -> None:
    engine.slots = 1
    await engine.database.close()
    await engine.open()
    busy = engine.add("0 10 * * *", "hang", timeoutSeconds=86_400)
    urgent = engine.add("0 10 * * *", "ok", deadlineSeconds=30)
    engine.start()
    await due_now(engine, busy)
    await engine.clock.advance(0.1)
    await due_now(engine, urgent)
    await engine.clock.advance(36)
    assert await engine.states(urgent) == ["missed"]
    assert [one.status for one in engine.expired] == ["missed"]


async def test_no_retry_begins_at_the_deadline_or_after_it(engine: Engine) -> None:
    """5 s after the first attempt is within 14 s, 10 s after the second is not."""
    job = engine.add("0 10 * * *", "fail", deadlineSeconds=14)
    engine.start()
    await due_now(engine, job)
    await engine.clock.advance(6)
    run = await the_run(engine, job)
    assert (run.status, run.attempt, run.error) == ("failure", 2, "it said no")


async def test_a_deadline_that_comes_while_a_retry_waits_for_a_slot_is_a_timeout(engine: Engine) -> None:
    engine.slots = 1
    await engine.database.close()
    await engine.open()
    job = engine.add("0 10 * * *", "fail", deadlineSeconds=30, pauseAfterFailures=1)
    busy = engine.add("0 10 * * *", "hang", timeoutSeconds=86_400)
    engine.start()
    await due_now(engine, job)
    await engine.clock.advance(1)
    await due_now(engine, busy)
    await engine.clock.advance(36)
    run = await the_run(engine, job)
    assert (run.status, run.attempt) == ("timeout", 1)
    assert "passed before it was tried again" in (run.reason or "")
    known = (await engine.runs.progress_of([job.id]))[job.id]
    assert (known.execution_count, known.failures_in_row, known.last_status) == (1, 1, "timeout")
    assert await told(engine, job) == ["run.completed timeout", "job.paused timeout"]
    assert [job_id for job_id, _ in engine.failing] == [job.id], "it is a failure like any other"


async def test_the_next_of_a_job_goes_on_where_one_was_missed(engine: Engine) -> None:
    job = engine.add("0 10 * * *", "hang", overlap="queue", deadlineSeconds=30)
    await due_now(engine, job)
    await engine.clock.advance(20)
    second = await due_now(engine, job, "second")
    assert second.available_at is None, "it waits for the first"
    await engine.clock.advance(11)
    engine.start(scheduler=False)
    await engine.clock.advance(0.5)
    assert await engine.states(job) == ["missed", "running"]


async def test_after_an_outage_what_is_past_its_deadline_is_missed_and_told_in_one_notice(
    engine: Engine,
) -> None:
    job = engine.add("* * * * *", catchUp="all", deadlineSeconds=150)
    engine.clock.step(timedelta(minutes=10, seconds=5))
    engine.start()
    await engine.clock.advance(5)
    assert await engine.states(job) == ["missed"] * 7 + ["success"] * 3
    assert "its deadline, 150 s after it, had passed" in ((await engine.all_runs(job))[0].reason or "")
    assert (await told(engine, job)).count("run.missed missed") == 1


async def test_a_deadline_of_some_seconds_that_a_busy_gateway_costs_is_told(engine: Engine) -> None:
    job = engine.add("* * * * *", deadlineSeconds=3)
    engine.start(executor=False)
    await engine.clock.advance(60 + 5)
    engine.start(scheduler=False)
    await engine.clock.advance(0.5)
    assert await engine.states(job) == ["missed"]
    assert await told(engine, job) == ["run.missed missed"]


@pytest.mark.parametrize("late", [29.9, 30.0])
async def test_the_deadline_itself_is_too_late(engine: Engine, late: float) -> None:
    job = engine.add("0 10 * * *", deadlineSeconds=30)
    run = await due_now(engine, job)
    engine.clock.step(run.scheduled_for + timedelta(seconds=late) - engine.clock.now())
    engine.start(scheduler=False)
    await engine.clock.advance(0.05)
    assert await engine.states(job) == ["success" if late < 30 else "missed"]


async def test_many_that_are_late_end_a_hundred_a_time(engine: Engine) -> None:
    jobs = [engine.add("0 10 * * *", deadlineSeconds=1, notify="never") for _ in range(250)]
    for job in jobs:
        await due_now(engine, job)
    fresh = engine.add("0 10 * * *")
    await engine.clock.advance(2)
    engine.start(scheduler=False)
    await due_now(engine, fresh)
    await engine.clock.advance(0.5)
    assert len(engine.expired) == 250
    assert [work.job_id for work in engine.runner.began] == [fresh.id]
