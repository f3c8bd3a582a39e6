"""Backfill: past instants get their runs, each at most once ever, whatever became of them before."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from carapace_cron.errors import Conflict
from carapace_cron.ledger.asked import MAX_WAITING, SPREAD, Backfilled
from carapace_cron.ledger.events import Event, Events
from carapace_cron.ledger.planning import empty_plan
from carapace_cron.model.job import Job

from .conftest import START, Engine, minutes

NEVER = "0 0 1 1 *"  # not on any day of these stories


def ago(*minutes_: int) -> list[datetime]:
    """Instants before the story begins, oldest first."""
    return [START - timedelta(minutes=one) for one in minutes_]


async def backfill(
    engine: Engine, job: Job, instants: list[datetime], *, dry_run: bool = False
) -> list[Backfilled]:
    now = engine.clock.now()
    event = Event(now, job.tenant, job.user_id, "bob", "job.backfilled", job.id, job.id)
    return await engine.runs.backfill(empty_plan(job), instants, now, None if dry_run else event)


def fates(answers: list[Backfilled]) -> list[str]:
    return [one.fate for one in answers]


async def test_instants_without_a_record_run_one_by_one_the_oldest_first(engine: Engine) -> None:
    job = engine.add(NEVER)
    await engine.put_in_force(job)
    engine.start()
    assert fates(await backfill(engine, job, ago(3, 2, 1))) == ["run"] * 3
    await engine.clock.advance(1)
    assert minutes([work.scheduled_for for work in engine.runner.began]) == ["08:57", "08:58", "08:59"]
    assert engine.runner.most_working == 1
    runs = await engine.all_runs(job)
    assert {(run.status, run.trigger, run.reason) for run in runs} == {
        ("success", "backfill", "asked for by bob")
    }


async def test_a_dry_run_tells_the_same_and_does_nothing(engine: Engine) -> None:
    job = engine.add(NEVER)
    await engine.put_in_force(job)
    told = await backfill(engine, job, ago(3, 2, 1), dry_run=True)
    engine.start()
    await engine.clock.advance(1)
    assert (await engine.all_runs(job), engine.runner.began) == ([], [])
    assert await backfill(engine, job, ago(3, 2, 1)) == told


async def test_it_is_in_the_audit_trail_and_a_dry_run_is_not(engine: Engine) -> None:
    job = engine.add(NEVER)
    await engine.put_in_force(job)
    await backfill(engine, job, ago(1), dry_run=True)
    await backfill(engine, job, ago(1))
    trail = await Events(engine.database).page(tenant="acme", actions=["job.backfilled"])
    assert [(event.actor, event.job_id) for event in trail] == [("bob", job.id)]


async def test_what_was_missed_or_skipped_runs_after_all_and_what_has_run_is_left_alone(
    engine: Engine,
) -> None:
    job = engine.add("* * * * *", catchUp="none")
    engine.start()
    await engine.clock.advance(60)
    engine.clock.step(timedelta(minutes=3, seconds=20))
    await engine.clock.advance(41)
    before = await engine.all_runs(job)
    assert [run.status for run in before] == ["success", "missed", "missed", "missed", "success"]
    answers = await backfill(engine, job, [run.scheduled_for for run in before])
    assert fates(answers) == ["leave", "runAgain", "runAgain", "runAgain", "leave"]
    assert [one.status for one in answers] == ["success", "missed", "missed", "missed", "success"]
    await engine.clock.advance(1)
    after = await engine.all_runs(job)
    assert [run.status for run in after] == ["success"] * 5
    assert [run.id for run in after] == [run.id for run in before], "under the ids that they had"
    assert (after[1].reason or "").startswith("asked for by bob; it was missed: ")


async def test_asked_again_it_changes_nothing(engine: Engine) -> None:
    job = engine.add(NEVER)
    await engine.put_in_force(job)
    await backfill(engine, job, ago(3, 2, 1))
    assert fates(await backfill(engine, job, ago(4, 3, 2, 1))) == ["run", "leave", "leave", "leave"]
    engine.start()
    await engine.clock.advance(1)
    assert fates(await backfill(engine, job, ago(4, 3, 2, 1))) == ["leave"] * 4
    assert await engine.states(job) == ["success"] * 4


async def test_it_waits_for_the_run_that_works(engine: Engine) -> None:
    job = engine.add("* * * * *", "hang", overlap="queue")
    engine.start()
    await engine.clock.advance(61)
    await backfill(engine, job, ago(2, 1))
    await engine.clock.advance(60)
    assert await engine.states(job) == ["queued", "queued", "running", "queued"]
    engine.runner.let_go.set()
    await engine.clock.advance(1)
    order = minutes([work.scheduled_for for work in engine.runner.began])
    assert order == ["09:01", "08:58", "08:59", "09:02"], "in the order in which they were recorded"
    assert engine.runner.most_working == 1


async def test_its_runs_are_in_the_way_of_the_schedule_like_any_other(engine: Engine) -> None:
    job = engine.add("* * * * *", "hang")
    await engine.put_in_force(job)
    await backfill(engine, job, ago(2, 1))
    engine.start()
    await engine.clock.advance(61)
    assert await engine.states(job) == ["running", "queued", "skipped"]


async def test_where_runs_may_overlap_they_are_spread(engine: Engine) -> None:
    job = engine.add(NEVER, overlap="allow")
    await engine.put_in_force(job)
    await backfill(engine, job, ago(3, 2, 1))
    starts = [run.available_at - START for run in await engine.all_runs(job) if run.available_at]
    assert starts == [SPREAD * number for number in range(3)]


async def test_a_paused_job_can_be_backfilled(engine: Engine) -> None:
    job = engine.add("* * * * *", enabled=False)
    await engine.put_in_force(job)
    await backfill(engine, job, ago(1))
    engine.start()
    await engine.clock.advance(120)
    assert await engine.states(job) == ["success"]


async def test_a_deadline_that_has_long_passed_does_not_end_them(engine: Engine) -> None:
    job = engine.add(NEVER, deadlineSeconds=1)
    await engine.put_in_force(job)
    await backfill(engine, job, ago(600))
    engine.start()
    await engine.clock.advance(1)
    (run,) = await engine.all_runs(job)
    assert (run.status, run.deadline_at) == ("success", None)


async def test_max_runs_does_not_count_them(engine: Engine) -> None:
    job = engine.add("* * * * *", maxRuns=1)
    await engine.put_in_force(job)
    await backfill(engine, job, ago(2, 1))
    engine.start()
    await engine.clock.advance(61)
    assert await engine.states(job) == ["success"] * 3


async def test_no_more_wait_than_may(engine: Engine) -> None:
    job = engine.add(NEVER)
    await engine.put_in_force(job)
    await backfill(engine, job, ago(*range(MAX_WAITING, 0, -1)))
    for dry_run in (True, False):
        with pytest.raises(Conflict, match=r"1000 runs of this job have not ended and 1 more are asked for"):
            await backfill(engine, job, ago(MAX_WAITING + 1), dry_run=dry_run)
    assert len(await engine.all_runs(job)) == MAX_WAITING


async def test_a_definition_that_is_no_longer_in_force_is_not_backfilled(engine: Engine) -> None:
    job = engine.add(NEVER)
    await engine.put_in_force(job)
    await engine.change(job, command="say new")
    with pytest.raises(Conflict, match="just being changed"):
        await backfill(engine, job, ago(1))


async def test_a_crash_in_the_middle_loses_none_and_doubles_none(engine: Engine) -> None:
    job = engine.add(NEVER, "hang")
    await engine.put_in_force(job)
    await backfill(engine, job, ago(3, 2, 1))
    engine.start()
    await engine.clock.advance(1)
    again = await engine.restarted()
    again.runner.let_go.set()
    again.start()
    await again.clock.advance(10)
    assert await again.states(job) == ["success"] * 3
    assert [run.attempt for run in await again.all_runs(job)] == [2, 1, 1]


async def test_an_instant_that_is_just_coming_due_is_run_by_one_of_the_two(engine: Engine) -> None:
    """The scheduler has not recorded it yet when somebody asks for it."""
    job = engine.add("* * * * *")
    await engine.put_in_force(job)
    await engine.clock.advance(61)
    due = START + timedelta(minutes=1)
    assert fates(await backfill(engine, job, [due])) == ["run"]
    engine.start()
    await engine.clock.advance(1)
    (run,) = await engine.all_runs(job)
    assert (run.status, run.trigger) == ("success", "backfill")
