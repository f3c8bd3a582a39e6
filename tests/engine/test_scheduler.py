"""Each due instant of an enabled job has one record: shown on a real ledger, with a clock the test moves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from carapace_cron.ledger.deliveries import Deliveries
from carapace_cron.ledger.planning import JobPlan, Planned
from carapace_cron.ledger.tables import runs

from .conftest import START, Engine, minutes


async def test_it_runs_each_instant_once(engine: Engine) -> None:
    job = engine.add("* * * * *")
    engine.start()
    await engine.clock.advance(5 * 60)
    runs = await engine.all_runs(job)
    assert minutes([run.scheduled_for for run in runs]) == ["09:01", "09:02", "09:03", "09:04", "09:05"]
    assert {run.status for run in runs} == {"success"}
    assert [work.attempt for work in engine.runner.began] == [1] * 5


async def test_it_runs_nothing_twice_when_two_schedulers_tick(engine: Engine) -> None:
    job = engine.add("* * * * *")
    twin = Engine(engine.path, engine.clock)
    twin.jobs = engine.jobs
    await twin.open()
    engine.start()
    twin.start(executor=False)
    await engine.clock.advance(3 * 60)
    assert await engine.states(job) == ["success"] * 3
    await twin.crash()


async def test_it_takes_no_instant_of_the_time_before_the_job_was_made(engine: Engine) -> None:
    await engine.clock.advance(0.5)
    job = engine.add("* * * * *")
    engine.start()
    await engine.clock.advance(60)
    assert minutes([run.scheduled_for for run in await engine.all_runs(job)]) == ["09:01"]


async def test_pause_takes_effect_for_the_next_instant(engine: Engine) -> None:
    job = engine.add("* * * * *")
    engine.start()
    await engine.clock.advance(60 + 59)
    engine.scheduler.put(job.evolve(enabled=False, updated_at=engine.clock.now()))
    await engine.clock.advance(120)
    assert len(await engine.all_runs(job)) == 1
    assert engine.scheduler.next_at(job.id) is None


async def test_a_new_schedule_takes_effect_for_the_next_instant(engine: Engine) -> None:
    job = engine.add("*/10 * * * *")
    engine.start()
    await engine.clock.advance(60)
    changed = job.evolve(schedule="* * * * *", revision=2, scheduled_since=engine.clock.now())
    engine.jobs[job.id] = changed
    engine.scheduler.put(changed)
    await engine.clock.advance(120)
    runs = await engine.all_runs(job)
    assert minutes([run.scheduled_for for run in runs]) == ["09:02", "09:03"]
    assert {run.revision for run in runs} == {2}


async def test_an_update_that_keeps_the_schedule_repeats_and_loses_nothing(engine: Engine) -> None:
    job = engine.add("* * * * *")
    engine.start()
    await engine.clock.advance(90)
    engine.jobs[job.id] = job.evolve(revision=2, description="new")
    engine.scheduler.put(engine.jobs[job.id])
    await engine.clock.advance(60)
    assert [run.revision for run in await engine.all_runs(job)] == [1, 2]


async def test_a_delay_of_more_than_24_days_is_waited_out(engine: Engine) -> None:
    """Timers that overflow at 2^31 ms fire at once; ours waits."""
    job = engine.add("0 0 25 12 *")
    engine.start()
    await engine.clock.advance(60)
    assert await engine.all_runs(job) == []
    engine.clock.step(timedelta(days=33, hours=14, minutes=58))
    await engine.clock.advance(58)
    assert await engine.all_runs(job) == []
    await engine.clock.advance(4)
    (run,) = await engine.all_runs(job)
    assert (run.scheduled_for, run.status) == (datetime(2026, 12, 25, tzinfo=UTC), "success")


async def test_a_clock_set_back_an_hour_repeats_nothing(engine: Engine) -> None:
    job = engine.add("* * * * *")
    engine.start()
    await engine.clock.advance(180)
    engine.clock.step(timedelta(hours=-1))
    await engine.clock.advance(180)
    assert minutes([run.scheduled_for for run in await engine.all_runs(job)]) == ["09:01", "09:02", "09:03"]
    await engine.clock.advance(58 * 60)
    assert len(await engine.all_runs(job)) == 4


async def test_a_job_made_after_the_clock_was_set_back_runs_on_the_new_time(engine: Engine) -> None:
    engine.add("* * * * *")
    engine.start()
    await engine.clock.advance(180)
    engine.clock.step(timedelta(hours=-1))
    late = engine.add("* * * * *")
    await engine.clock.advance(60)
    assert minutes([run.scheduled_for for run in await engine.all_runs(late)]) == ["08:04"]


async def test_a_clock_set_forward_is_one_catch_up(engine: Engine) -> None:
    job = engine.add("* * * * *", catchUp="latest")
    engine.start()
    await engine.clock.advance(30)
    engine.clock.step(timedelta(minutes=30))
    await engine.clock.advance(5)
    states = await engine.states(job)
    assert states == ["missed"] * 29 + ["success"]
    last = (await engine.all_runs(job))[-1]
    assert last.trigger == "catchUp"


async def test_a_leap_loses_no_instant_of_a_job_that_began_within_it(engine: Engine) -> None:
    """Jobs of one schedule are looked at together; the next instant of another is not the first of all."""
    engine.add("* * * * *")
    late = engine.add("* * * * *", startAt="2026-11-21T09:10:00Z", catchUp="all")
    engine.start()
    await engine.clock.advance(60)
    engine.clock.step(timedelta(minutes=12))
    await engine.clock.advance(5)
    missed = minutes([run.scheduled_for for run in await engine.all_runs(late)])
    assert missed == ["09:10", "09:11", "09:12", "09:13"]


async def test_a_clock_set_back_and_ahead_again_loses_no_instant_of_a_job_beside_a_new_one(
    engine: Engine,
) -> None:
    old = engine.add("* * * * *", catchUp="all")
    engine.start()
    await engine.clock.advance(60)
    engine.clock.step(timedelta(hours=-1))
    engine.add("* * * * *")
    await engine.clock.advance(120)
    engine.clock.step(timedelta(hours=1))
    await engine.clock.advance(65)
    runs = minutes([run.scheduled_for for run in await engine.all_runs(old)])
    assert runs == ["09:01", "09:02", "09:03", "09:04"]


async def test_missed_instants_say_why(engine: Engine) -> None:
    job = engine.add("*/10 * * * *", catchUp="none")
    engine.start()
    engine.clock.step(timedelta(minutes=25))
    await engine.clock.advance(5)
    reasons = [run.reason or "" for run in await engine.all_runs(job)]
    assert reasons[0].startswith("900 s late, and the job's catchUp is none")
    assert await engine.states(job) == ["missed", "missed"]


async def test_catch_up_all_runs_each_missed_instant_one_after_another(engine: Engine) -> None:
    job = engine.add("*/10 * * * *", catchUp="all", command="hang")
    engine.start()
    engine.clock.step(timedelta(minutes=45))
    await engine.clock.advance(5)
    assert await engine.states(job) == ["queued", "queued", "queued", "running"], "the newest first"
    engine.runner.let_go.set()
    await engine.clock.advance(5)
    assert await engine.states(job) == ["success"] * 4
    assert engine.runner.most_working == 1


async def test_catch_up_takes_the_oldest_first_where_that_is_asked_for(engine: Engine) -> None:
    oldest = {"catchUp": "all", "catchUpOrder": "oldestFirst", "catchUpLimit": 2}
    job = engine.add("*/10 * * * *", command="hang", **oldest)
    engine.start()
    engine.clock.step(timedelta(minutes=45))
    await engine.clock.advance(5)
    assert await engine.states(job) == ["missed", "missed", "running", "queued"]


async def test_the_owner_hears_once_of_all_that_an_outage_cost(engine: Engine) -> None:
    job = engine.add("* * * * *")
    quiet = engine.add("* * * * *", notify="never")
    engine.start(executor=False)
    engine.clock.step(timedelta(minutes=5))
    await engine.clock.advance(1)
    waiting = await Deliveries(engine.database).page(tenant=None)
    (notice,) = [delivery.notice for delivery in waiting]
    assert (notice.job_id, notice.event, notice.success) == (job.id, "run.missed", False)
    assert (notice.error or "").startswith("4 missed (2026-11-21T09:01:00Z to 2026-11-21T09:04:00Z)")
    assert (await engine.states(quiet))[:4] == ["missed"] * 4


async def test_late_runs_are_spread(engine: Engine) -> None:
    jobs = [engine.add("*/10 * * * *") for _ in range(30)]
    engine.start(executor=False)
    engine.clock.step(timedelta(minutes=12))
    await engine.clock.advance(0.5)
    starts = sorted([(await engine.all_runs(job))[0].available_at for job in jobs])
    slots = [int((start - engine.clock.now()).total_seconds() * 10 + 5) for start in starts]
    assert slots == list(range(30)), "one in each tenth of a second, somewhere within it"


async def test_late_runs_of_one_job_are_spread_too_however_short_they_are(engine: Engine) -> None:
    job = engine.add("* * * * *", catchUp="all")
    again = await engine.restarted()
    again.clock.step(timedelta(minutes=30))
    later = await again.restarted()
    later.start()
    await later.clock.advance(10)
    runs = [run for run in await later.all_runs(job) if run.trigger == "catchUp"]
    starts = sorted(run.started_at for run in runs if run.started_at is not None)
    assert len(starts) == len(runs) == 30
    assert timedelta(seconds=2.8) < starts[-1] - starts[0] < timedelta(seconds=4)


async def test_jitter_is_the_same_for_every_instant_of_a_job(engine: Engine) -> None:
    job = engine.add("* * * * *", jitterSeconds=30, overlap="allow")
    engine.start(executor=False)
    await engine.clock.advance(130)
    runs = await engine.all_runs(job)
    offsets = {run.available_at - run.scheduled_for for run in runs if run.available_at}
    assert len(runs) == 2 and len(offsets) == 1
    assert timedelta(0) < offsets.pop() < timedelta(seconds=30)


async def test_max_runs_ends_the_job(engine: Engine) -> None:
    job = engine.add("* * * * *", maxRuns=2)
    engine.start()
    await engine.clock.advance(10 * 60)
    assert len(await engine.all_runs(job)) == 2
    assert engine.finished == [(job.id, "completed: maxRuns 2 is reached")]


@pytest.mark.parametrize("order", ["newestFirst", "oldestFirst"])
async def test_what_was_missed_before_the_last_of_max_runs_has_its_record(engine: Engine, order: str) -> None:
    """Whether the run that uses it up is recorded before the misses or after them."""
    job = engine.add("*/10 * * * *", maxRuns=1, catchUpOrder=order)
    engine.start()
    engine.clock.step(timedelta(minutes=25))
    await engine.clock.advance(15 * 60)
    assert await engine.states(job) == ["missed", "success"]


async def test_start_and_end_bound_the_instants(engine: Engine) -> None:
    job = engine.add("* * * * *", startAt="2026-11-21T09:03:00Z", endAt="2026-11-21T09:05:00Z")
    engine.start()
    await engine.clock.advance(10 * 60)
    runs = await engine.all_runs(job)
    assert minutes([run.scheduled_for for run in runs]) == ["09:03", "09:04", "09:05"]
    assert engine.finished == [(job.id, "completed: no instant is left before endAt")]


async def test_a_one_shot_runs_once_and_is_finished(engine: Engine) -> None:
    job = engine.add("at 2026-11-21T09:02:00Z")
    engine.start()
    await engine.clock.advance(10 * 60)
    assert await engine.states(job) == ["success"]
    assert engine.finished == [(job.id, "completed: the schedule has no instant left")]


async def test_a_failing_ledger_delays_an_instant_and_loses_none(engine: Engine) -> None:
    job = engine.add("* * * * *")
    engine.start()
    with engine.ledger_away():
        await engine.clock.advance(61.5)
    assert await engine.states(job) == []
    await engine.clock.advance(3)
    assert await engine.states(job) == ["success"]


async def test_after_a_restart_missed_instants_are_caught_up(engine: Engine) -> None:
    job = engine.add("* * * * *")
    engine.start()
    await engine.clock.advance(120)
    await engine.crash()
    engine.clock.step(timedelta(minutes=5))
    again = await engine.restarted()
    again.start()
    await again.clock.advance(10)
    assert await again.states(job) == ["success"] * 2 + ["missed"] * 4 + ["success"]


async def test_a_long_outage_is_recorded_in_bounded_work(engine: Engine) -> None:
    job = engine.add("* * * * *")
    engine.start(executor=False)
    engine.clock.step(timedelta(days=400))
    await engine.clock.advance(1)
    runs = await engine.all_runs(job)
    assert len(runs) == 1001
    assert "like every instant from then until" in (runs[0].reason or "")
    assert runs[-1].status == "queued"


async def test_many_jobs_of_one_schedule_are_all_recorded(engine: Engine) -> None:
    jobs = [engine.add("* * * * *") for _ in range(600)]
    engine.start(executor=False)
    await engine.clock.advance(61)
    assert sum([len(await engine.all_runs(job)) for job in jobs[::50]]) == 12
    assert len(engine.scheduler) == 600


async def test_tenants_take_turns_in_what_is_due(engine: Engine) -> None:
    for _ in range(150):
        engine.add("* * * * *")
    few = [engine.add("* * * * *", tenant="other") for _ in range(2)]
    engine.start(executor=False)
    await engine.clock.advance(60)
    in_order = sa.select(runs.c.job_id).order_by(runs.c.sequence)
    recorded = list(await engine.database.read(lambda c: c.execute(in_order).scalars()))
    assert len(recorded) == 152
    assert [recorded.index(job.id) for job in few] == [1, 3]


async def test_what_came_due_before_a_pause_is_recorded_though_the_ledger_was_away(engine: Engine) -> None:
    job = engine.add("* * * * *")
    engine.start()
    with engine.ledger_away():
        await engine.clock.advance(125)
        engine.scheduler.put(job.evolve(enabled=False, updated_at=engine.clock.now()))
    await engine.clock.advance(60)
    assert await engine.states(job) == ["missed", "missed"]
    assert "before this instant could start" in ((await engine.all_runs(job))[0].reason or "")


async def test_what_came_due_before_a_new_schedule_is_recorded(engine: Engine) -> None:
    """After a start, before the first pass: the instants that were missed are the old definition's."""
    job = engine.add("* * * * *")
    engine.clock.step(timedelta(minutes=3, seconds=5))
    changed = job.evolve(schedule="*/10 * * * *", revision=2, scheduled_since=engine.clock.now())
    engine.jobs[job.id] = changed
    engine.scheduler.put(changed)
    engine.start()
    await engine.clock.advance(7 * 60)
    assert await engine.states(job) == ["missed"] * 3 + ["success"]


async def test_a_job_that_cannot_be_scheduled_costs_no_other_an_instant(engine: Engine) -> None:
    jobs = [engine.add("* * * * *") for _ in range(20)]
    poisoned, broken = jobs[3], True
    real = engine.scheduler._document

    def document(job_id: str) -> bytes:
        if job_id == poisoned.id and broken:
            raise RuntimeError("a defect")
        return real(job_id)

    engine.scheduler._document = document
    engine.start()
    await engine.clock.advance(125)
    for job in jobs:
        assert await engine.states(job) == ([] if job is poisoned else ["success", "success"])
    broken = False
    await engine.clock.advance(60)
    assert await engine.states(poisoned) == ["missed", "missed", "success"]


async def test_a_plan_that_the_ledger_cannot_take_costs_no_other_an_instant(engine: Engine) -> None:
    poisoned, healthy = engine.add("* * * * *"), engine.add("* * * * *")
    real = engine.runs.record_due

    async def picky(plans: list[JobPlan], now: object) -> list[Planned]:
        if any(plan.job_id == poisoned.id for plan in plans):
            raise RuntimeError("cannot be kept")
        return await real(plans, now)  # type: ignore[arg-type]

    engine.runs.record_due = picky  # type: ignore[method-assign,assignment]
    engine.start()
    await engine.clock.advance(125)
    assert await engine.states(healthy) == ["success", "success"]


async def test_a_ledger_that_was_away_does_not_push_catch_up_runs_far_off(engine: Engine) -> None:
    jobs = [engine.add("*/10 * * * *") for _ in range(30)]
    engine.start(executor=False)
    with engine.ledger_away():
        await engine.clock.advance(15 * 60)
    await engine.clock.advance(2)
    starts = [(await engine.all_runs(job))[0].available_at for job in jobs]
    assert max(starts) - engine.clock.now() < timedelta(seconds=4)


async def test_max_runs_holds_though_the_job_changes_while_it_is_recorded(engine: Engine) -> None:
    job = engine.add("* * * * *", maxRuns=1)
    real = engine.runs.record_due

    async def renamed_meanwhile(plans: list[JobPlan], now: object) -> list[Planned]:
        engine.jobs[job.id] = job.evolve(name="another", revision=2)
        engine.scheduler.put(engine.jobs[job.id])
        return await real(plans, now)  # type: ignore[arg-type]

    engine.runs.record_due = renamed_meanwhile  # type: ignore[method-assign,assignment]
    engine.start()
    await engine.clock.advance(5 * 60)
    assert await engine.states(job) == ["success"]


async def test_a_clock_that_was_a_year_ahead_does_not_silence_a_job_for_a_year(engine: Engine) -> None:
    job = engine.add("0 * * * *")
    engine.start()
    engine.clock.step(timedelta(days=365))
    await engine.clock.advance(3600)
    engine.clock.step(timedelta(days=-365))
    await engine.clock.advance(2 * 3600)
    runs = [run for run in await engine.all_runs(job) if run.scheduled_for < START + timedelta(days=1)]
    assert [run.status for run in runs][-2:] == ["success", "success"]


async def test_a_clock_that_was_a_year_ahead_hides_no_later_outage(engine: Engine) -> None:
    """What the ledger knows of how far a job has come is set right with the clock."""
    job = engine.add("*/5 * * * *", catchUp="all", catchUpOrder="oldestFirst")
    engine.start()
    engine.clock.step(timedelta(days=400))
    await engine.clock.advance(2)
    engine.clock.step(-timedelta(days=400))
    await engine.clock.advance(601)
    away = await engine.restarted()
    away.clock.step(timedelta(minutes=12))
    again = await away.restarted()
    again.start()
    await again.clock.advance(5)
    runs = [run for run in await again.all_runs(job) if run.scheduled_for < START + timedelta(days=1)]
    assert minutes([run.scheduled_for for run in runs if run.status == "success"]) == [
        "09:10",
        "09:15",
        "09:20",
    ]


async def test_a_job_made_while_the_clock_was_a_year_ahead_is_due_once_it_is_right(engine: Engine) -> None:
    engine.clock.step(timedelta(days=400))
    job = engine.add("*/5 * * * *", catchUp="all", catchUpOrder="oldestFirst")
    await engine.put_in_force(job)
    engine.start()
    await engine.clock.advance(2)
    engine.clock.step(-timedelta(days=400))
    await engine.clock.advance(301)
    assert await engine.states(job) == ["success"]
    away = await engine.restarted()
    away.clock.step(timedelta(minutes=7))
    again = await away.restarted()
    again.start()
    await again.clock.advance(5)
    assert minutes([run.scheduled_for for run in await again.all_runs(job)]) == ["09:05", "09:10"]


async def test_on_time_runs_go_before_what_an_outage_left_behind(engine: Engine) -> None:
    for _ in range(30):
        engine.add("* * * * *", catchUp="none")
    engine.clock.step(timedelta(days=1))
    await engine.clock.advance(59.9)
    prompt = engine.add("* * * * *", overlap="allow")
    order: list[str] = []
    real = engine.runs.record_due

    async def watched(plans: list[JobPlan], now: object) -> list[Planned]:
        order.extend(plan.job_id for plan in plans)
        if len(order) == len(plans):
            await engine.clock.advance(0.2)
        return await real(plans, now)  # type: ignore[arg-type]

    engine.runs.record_due = watched  # type: ignore[method-assign,assignment]
    await engine.scheduler._pass()
    assert prompt.id in order[:5]


async def test_a_ledger_that_is_away_is_told_and_so_is_its_return(engine: Engine) -> None:
    engine.add("* * * * *")
    engine.start()
    with engine.ledger_away():
        assert engine.scheduler.trouble is None
        await engine.clock.advance(70)
        assert engine.scheduler.trouble == "the ledger is away"
        assert engine.scheduler.overdue_seconds() >= 9
    await engine.clock.advance(2)
    assert engine.scheduler.trouble is None and engine.scheduler.overdue_seconds() == 0
