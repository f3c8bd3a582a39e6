"""`pauseAfterFailures`: at that many in a row the job is to be paused, and its owner hears it once."""

from __future__ import annotations

from datetime import timedelta

import pytest

from carapace_cron.ledger.deliveries import Deliveries
from carapace_cron.ledger.planning import empty_plan
from carapace_cron.model.job import Job
from carapace_cron.model.notice import Notice

from .conftest import Engine

ONCE = {"retry": {"maxAttempts": 1}}


async def failures(engine: Engine, job: Job) -> int:
    return (await engine.runs.progress_of([job.id]))[job.id].failures_in_row


async def pauses_told(engine: Engine, job: Job) -> list[Notice]:
    notices = [delivery.notice for delivery in await Deliveries(engine.database).page(tenant=None)]
    return [one for one in notices if one.job_id == job.id and one.event == "job.paused"]


async def run_now(engine: Engine, job: Job, key: str) -> None:
    await engine.runs.start_now(empty_plan(job), key, engine.clock.now())
    await engine.clock.advance(0.5)


async def test_it_is_to_be_paused_at_the_third_failure_and_not_before(engine: Engine) -> None:
    job = engine.add("* * * * *", "fail", pauseAfterFailures=3, **ONCE)
    engine.start()
    await engine.clock.advance(2 * 60 + 1)
    assert engine.failing == []
    await engine.clock.advance(60)
    reason = "paused after 3 failures in a row, as pauseAfterFailures asks; mend the cause, then resume it"
    assert engine.failing == [(job.id, reason)]
    (notice,) = await pauses_told(engine, job)
    assert notice.error == f"{reason}. The last error: it said no"
    assert notice.title == "a job: paused"


async def test_a_success_between_them_begins_the_count_anew(engine: Engine) -> None:
    job = engine.add("0 10 * * *", "fail", pauseAfterFailures=2, **ONCE)
    engine.start()
    await run_now(engine, job, "1")
    await run_now(engine, well := await engine.change(job, command="ok"), "2")
    await run_now(engine, await engine.change(well, command="fail"), "3")
    assert (await failures(engine, job), engine.failing) == (1, [])


async def test_tries_of_one_run_are_one_failure(engine: Engine) -> None:
    job = engine.add("0 10 * * *", "fail", pauseAfterFailures=2)
    engine.start()
    await run_now(engine, job, "1")
    await engine.clock.advance(60)
    assert (await failures(engine, job), len(engine.runner.began)) == (1, 4)


async def test_a_run_that_is_cancelled_tells_nothing(engine: Engine) -> None:
    job = engine.add("0 10 * * *", "fail", pauseAfterFailures=2, **ONCE)
    engine.start()
    await run_now(engine, job, "1")
    slow = await engine.change(job, command="hang")
    run = await engine.runs.start_now(empty_plan(slow), "2", engine.clock.now())
    await engine.clock.advance(0.5)
    await engine.runs.cancel(run.id, "alice asked", engine.clock.now())
    await engine.clock.advance(0.5)
    assert (await engine.states(job), await failures(engine, job)) == (["failure", "cancelled"], 1)
    await run_now(engine, await engine.change(slow, command="fail"), "3")
    assert len(engine.failing) == 1


async def test_runs_side_by_side_that_fail_are_told_once(engine: Engine) -> None:
    job = engine.add("0 10 * * *", "fail", overlap="allow", pauseAfterFailures=3, **ONCE)
    engine.start(executor=False)
    for number in range(5):
        await engine.runs.start_now(empty_plan(job), str(number), engine.clock.now())
    engine.start(scheduler=False)
    await engine.clock.advance(1)
    assert await failures(engine, job) == 5
    assert engine.failing and {job_id for job_id, _ in engine.failing} == {job.id}
    assert len(await pauses_told(engine, job)) == 1


async def test_what_still_fails_after_the_pause_pauses_nothing_and_tells_nothing(engine: Engine) -> None:
    job = engine.add("0 10 * * *", "fail", overlap="allow", pauseAfterFailures=1, **ONCE)
    engine.start()
    await run_now(engine, job, "1")
    paused = await engine.change(job, enabled=False)
    engine.failing.clear()
    await run_now(engine, paused, "2")
    assert await failures(engine, job) == 2
    assert (engine.failing, len(await pauses_told(engine, job))) == ([], 1)


async def test_a_resume_begins_the_count_anew_and_is_told_anew(engine: Engine) -> None:
    job = engine.add("0 10 * * *", "fail", pauseAfterFailures=2, **ONCE)
    engine.start()
    for key in "12":
        await run_now(engine, job, key)
    paused = await engine.change(job, enabled=False)
    resumed = await engine.change(paused, enabled=True, scheduled_since=engine.clock.now())
    assert await failures(engine, job) == 0
    await run_now(engine, resumed, "3")
    assert len(engine.failing) == 1
    await run_now(engine, resumed, "4")
    assert (len(engine.failing), len(await pauses_told(engine, job))) == (2, 2)


async def test_another_limit_begins_the_count_anew(engine: Engine) -> None:
    """Lowered under what has failed already, it neither pauses at once nor never."""
    job = engine.add("0 10 * * *", "fail", pauseAfterFailures=10, **ONCE)
    engine.start()
    for key in "123":
        await run_now(engine, job, key)
    lowered = await engine.change(job, pause_after_failures=2)
    await run_now(engine, lowered, "4")
    assert engine.failing == []
    await run_now(engine, lowered, "5")
    assert len(engine.failing) == 1


async def test_a_pause_that_a_change_voided_comes_at_the_next_failure(engine: Engine) -> None:
    """Upkeep drops the decision when the job is changed before it is paused."""
    job = engine.add("0 10 * * *", "fail", pauseAfterFailures=1, **ONCE)
    engine.start()
    await run_now(engine, job, "1")
    changed = await engine.change(job, description="mended?")
    await run_now(engine, changed, "2")
    assert len(engine.failing) == 2 and len(await pauses_told(engine, job)) == 2


async def test_a_deleted_job_is_not_paused(engine: Engine) -> None:
    job = engine.add("0 10 * * *", "fail", pauseAfterFailures=1, **ONCE)
    await engine.put_in_force(job)
    run = await engine.runs.start_now(empty_plan(job), "1", engine.clock.now())
    gone = job.evolve(revision=2, deleted_at=engine.clock.now())
    await engine.runs.in_force.put([gone])
    engine.start(scheduler=False)
    await engine.clock.advance(0.5)
    ended = await engine.runs.get(run.id)
    assert ended is not None and ended.status == "failure"
    assert (engine.failing, await pauses_told(engine, job)) == ([], [])


@pytest.mark.parametrize(("notify", "told"), [("never", 0), ("failure", 1), ("always", 1), ("change", 1)])
async def test_who_wants_to_hear_nothing_hears_nothing(engine: Engine, notify: str, told: int) -> None:
    job = engine.add("0 10 * * *", "fail", pauseAfterFailures=1, notify=notify, **ONCE)
    engine.start()
    await run_now(engine, job, "1")
    assert (len(engine.failing), len(await pauses_told(engine, job))) == (1, told)


async def test_an_attempt_that_a_crash_cut_off_counts(engine: Engine) -> None:
    job = engine.add("* * * * *", "hang", pauseAfterFailures=1, **ONCE)
    engine.start()
    await engine.clock.advance(61)
    again = await engine.restarted()
    again.clock.step(timedelta(seconds=5))
    again.start()
    await again.clock.advance(1)
    assert [job_id for job_id, _ in again.failing] == [job.id]
