"""One definition of a job is in force: nothing is recorded by one before it, whoever still holds that."""

from __future__ import annotations

import pytest

from carapace_cron.errors import Conflict
from carapace_cron.ledger.planning import empty_plan
from carapace_cron.model.job import Job

from .conftest import Engine, minutes


@pytest.fixture
async def fenced(engine: Engine) -> Engine:
    """An engine whose jobs are in force only when the test says so."""
    engine.runs.by_hand = True
    return engine


async def test_what_is_not_in_force_yet_waits(fenced: Engine) -> None:
    job = fenced.add("* * * * *")
    fenced.start()
    await fenced.clock.advance(62)
    assert await fenced.all_runs(job) == []
    await fenced.put_in_force(job)
    await fenced.clock.advance(1)
    assert minutes([run.scheduled_for for run in await fenced.all_runs(job)]) == ["09:01"]
    assert await fenced.states(job) == ["success"]


@pytest.mark.parametrize(
    ("schedule", "settings"),
    [("at 2026-11-21T09:01:00Z", {}), ("* * * * *", {"endAt": "2026-11-21T09:01:30Z"})],
)
async def test_the_last_instant_of_a_job_waits_like_any_other(
    fenced: Engine, schedule: str, settings: dict[str, str]
) -> None:
    job = fenced.add(schedule, **settings)
    fenced.start()
    await fenced.clock.advance(62)
    assert fenced.finished == []
    await fenced.runs.in_force.put([job])
    await fenced.clock.advance(1)
    assert await fenced.states(job) == ["success"]
    assert [job_id for job_id, _ in fenced.finished] == [job.id]


async def test_an_older_definition_is_refused_and_the_newer_one_takes_over_without_a_hole(
    fenced: Engine,
) -> None:
    """Another gateway has changed the job; this one hears of it a little later."""
    job = fenced.add("* * * * *")
    await fenced.put_in_force(job)
    fenced.start()
    await fenced.clock.advance(61)
    newer = job.evolve(revision=2, command="say new")
    await fenced.runs.in_force.put([newer])
    await fenced.clock.advance(61)
    assert len(await fenced.all_runs(job)) == 1
    assert set(fenced.outdated) == {job.id}
    fenced.jobs[job.id] = newer
    fenced.scheduler.put(newer)
    await fenced.clock.advance(1)
    assert [run.revision for run in await fenced.all_runs(job)] == [1, 2]


async def test_who_asks_for_a_run_of_an_older_definition_is_told_to_try_again(fenced: Engine) -> None:
    job = fenced.add("0 10 * * *")
    await fenced.put_in_force(job)
    await fenced.runs.in_force.put([job.evolve(revision=2, command="say new")])
    with pytest.raises(Conflict, match="just being changed: try again"):
        await fenced.runs.start_now(empty_plan(job), "k", fenced.clock.now())


async def test_an_older_definition_never_comes_into_force_again(fenced: Engine) -> None:
    job = fenced.add("* * * * *")
    newer = job.evolve(revision=3, command="say new")
    in_force = fenced.runs.in_force
    await in_force.put([newer])
    await in_force.put([job])
    await in_force.put([newer.evolve(command="say another")])
    held = await in_force.definition(job.id)
    assert held is not None and Job.model_validate_json(held).command == "say new"


async def test_a_run_does_the_definition_that_was_in_force_when_it_came_due(fenced: Engine) -> None:
    job = fenced.add("* * * * *", "say old")
    await fenced.put_in_force(job)
    fenced.start(executor=False)
    await fenced.clock.advance(61)
    await fenced.change(job, command="say new")
    fenced.start(scheduler=False)
    await fenced.clock.advance(60)
    assert [run.output for run in await fenced.all_runs(job)] == ["old", "new"]
