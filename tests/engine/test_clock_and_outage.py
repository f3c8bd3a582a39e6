"""What an outage and a moved clock do together, and a clock that was a year ahead."""

from __future__ import annotations

from datetime import timedelta

from .conftest import Engine, minutes


async def test_an_instant_that_comes_again_after_an_outage_has_its_record(engine: Engine) -> None:
    """The ledger is away at 09:02, then the clock is set back: 09:02 is to come once more."""
    job = engine.add("* * * * *")
    engine.start()
    await engine.clock.advance(90)
    with engine.ledger_away():
        await engine.clock.advance(30.2)
        engine.clock.step(-timedelta(seconds=7))
    await engine.clock.advance(70)
    assert minutes([run.scheduled_for for run in await engine.all_runs(job)]) == ["09:01", "09:02", "09:03"]


async def test_a_retry_that_a_clock_a_year_ahead_put_off_does_not_stop_its_job_for_a_year(
    engine: Engine,
) -> None:
    """Until it is let go, at a start or within the hour, it is alive and so in the way of the others."""
    job = engine.add("*/5 * * * *", "failtimes 1", retry={"initialSeconds": 3600})
    engine.start()
    engine.clock.step(timedelta(days=400))
    await engine.clock.advance(3)
    engine.clock.step(-timedelta(days=400))
    await engine.clock.advance(60)
    late = next(run for run in await engine.all_runs(job) if run.status == "queued")
    assert late.available_at is not None and late.available_at > engine.clock.now() + timedelta(days=399)
    await engine.runs.release_far(engine.clock.now())
    await engine.clock.advance(1)
    again = await engine.runs.get(late.id)
    assert again is not None and (again.status, again.attempt) == ("success", 2)


async def test_no_honest_wait_is_cut_short_by_looking_for_those_of_a_wrong_clock(engine: Engine) -> None:
    daily = {"initialSeconds": 3600, "factor": 10, "maxSeconds": 86_400}
    retried = engine.add("0 10 * * *", "fail", retry=daily)
    engine.catch_up_per_second = 1 / 86_400  # a late run a day
    engine = await engine.restarted()
    caught_up = engine.add("0 8 * * *", scheduledSince="2026-11-15T00:00:00Z", catchUp="all", overlap="allow",
                           catchUpWindowSeconds=30 * 86_400)  # fmt: skip
    engine.start()
    await engine.clock.advance(3 * 3600)
    runs = [*await engine.all_runs(retried), *await engine.all_runs(caught_up)]
    waiting = {run.id: run.available_at for run in runs if run.status == "queued"}
    assert max(at for at in waiting.values() if at) > engine.clock.now() + timedelta(days=3)
    await engine.runs.release_held(engine.clock.now())
    after = [await engine.runs.get(run_id) for run_id in waiting]
    assert {run.id: run.available_at for run in after if run is not None} == waiting
