"""A run is started once per attempt, retried without overlap, and stopped when it is told to stop."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from carapace_cron.errors import Conflict, Unavailable
from carapace_cron.executor import TAKEOVER_SECONDS
from carapace_cron.ledger.claiming import fair_shares
from carapace_cron.ledger.deliveries import Deliveries
from carapace_cron.ledger.planning import empty_plan
from carapace_cron.model.run import Outcome
from carapace_cron.ports.runner import Work

from .conftest import Engine


async def test_a_failed_attempt_is_tried_again_after_5_10_and_20_seconds(engine: Engine) -> None:
    job = engine.add("0 10 * * *", command="fail")
    engine.start()
    await engine.runs.start_now(empty_plan(job), "k", engine.clock.now())
    await engine.clock.advance(60)
    (run,) = await engine.all_runs(job)
    attempts = await engine.runs.attempts(run.id)
    begun = [round((attempt["started_at"] - run.scheduled_for).total_seconds()) for attempt in attempts]
    assert begun == [0, 5, 15, 35]
    assert (run.status, run.attempt, run.error) == ("failure", 4, "it said no")


async def test_a_retry_that_succeeds_ends_the_run_well(engine: Engine) -> None:
    job = engine.add("* * * * *", command="failtimes 2")
    engine.start()
    await engine.clock.advance(60 + 20)
    (run,) = await engine.all_runs(job)
    assert (run.status, run.attempt) == ("success", 3)
    assert [status for _, status in engine.ended] == ["queued", "queued", "success"]


async def test_a_run_between_two_attempts_still_counts_as_alive(engine: Engine) -> None:
    job = engine.add("* * * * *", command="fail", retry={"maxAttempts": 2, "initialSeconds": 70})
    engine.start()
    await engine.clock.advance(125)
    assert await engine.states(job) == ["queued", "skipped"]
    assert "had not ended" in ((await engine.all_runs(job))[1].reason or "")


async def test_a_command_that_is_refused_is_not_tried_again(engine: Engine) -> None:
    job = engine.add("* * * * *", command="forbidden")
    engine.start()
    await engine.clock.advance(65)
    (run,) = await engine.all_runs(job)
    assert (run.status, run.attempt, run.error) == ("failure", 1, "command forbidden is not run here")


async def test_what_a_runner_raises_is_not_told(engine: Engine) -> None:
    job = engine.add("* * * * *", command="raise", retry={"maxAttempts": 1})
    engine.start()
    await engine.clock.advance(61)
    (run,) = await engine.all_runs(job)
    assert run.status == "failure"
    assert "secret" not in (run.error or "") and run.id in (run.error or "")


async def test_a_timeout_stops_the_work(engine: Engine) -> None:
    job = engine.add("0 10 * * *", command="hang", timeoutSeconds=0.05, retry={"maxAttempts": 1})
    engine.start()
    run = await engine.runs.start_now(empty_plan(job), "k", engine.clock.now())
    while not engine.runner.stopped:
        await asyncio.sleep(0.01)
    await engine.clock.advance(1)
    ended = await engine.runs.get(run.id)
    assert ended is not None
    assert (ended.status, ended.error) == ("timeout", "stopped after 0.05 s, the job's timeoutSeconds")
    assert engine.runner.working == 0


async def test_cancel_stops_a_running_run_and_says_who(engine: Engine) -> None:
    job = engine.add("* * * * *", command="hang")
    engine.start()
    await engine.clock.advance(61)
    (run,) = await engine.all_runs(job)
    assert await engine.runs.cancel(run.id, "alice asked", engine.clock.now()) == "running"
    await engine.clock.advance(0.5)
    (run,) = await engine.all_runs(job)
    assert (run.status, run.reason, engine.runner.stopped) == ("cancelled", "alice asked", [run.id])


async def test_cancel_ends_a_waiting_run_at_once(engine: Engine) -> None:
    job = engine.add("* * * * *", jitterSeconds=60)
    engine.start(executor=False)
    await engine.clock.advance(61)
    (run,) = await engine.all_runs(job)
    assert await engine.runs.cancel(run.id, "not today", engine.clock.now()) == "cancelled"
    assert await engine.runs.cancel(run.id, "again", engine.clock.now()) == "cancelled"
    assert await engine.runs.cancel("run_" + "0" * 26, "x", engine.clock.now()) is None


@pytest.mark.parametrize(
    ("overlap", "states"),
    [
        ("skip", ["running", "skipped", "skipped"]),
        ("queue", ["running", "queued", "queued"]),
        ("allow", ["running", "running", "running"]),
        ("cancelPrevious", ["cancelled", "cancelled", "running"]),
    ],
)
async def test_the_overlap_policies(engine: Engine, overlap: str, states: list[str]) -> None:
    job = engine.add("* * * * *", command="hang", overlap=overlap)
    engine.start()
    await engine.clock.advance(3 * 60 + 1)
    assert await engine.states(job) == states


async def test_queued_runs_follow_each_other_in_order(engine: Engine) -> None:
    job = engine.add("* * * * *", command="hang", overlap="queue")
    engine.start()
    await engine.clock.advance(4 * 60 + 1)
    engine.runner.let_go.set()
    await engine.clock.advance(1)
    assert await engine.states(job) == ["success"] * 4
    instants = [work.scheduled_for for work in engine.runner.began]
    assert instants == sorted(instants) and engine.runner.most_working == 1


async def test_cancel_previous_also_replaces_what_only_waits(engine: Engine) -> None:
    job = engine.add("* * * * *", overlap="cancelPrevious", jitterSeconds=0)
    engine.start(executor=False)
    await engine.clock.advance(2 * 60 + 1)
    first, second = await engine.all_runs(job)
    assert (first.status, second.status) == ("cancelled", "queued")
    assert second.available_at is not None


async def test_a_slow_job_delays_no_other_while_slots_are_free(engine: Engine) -> None:
    engine.add("* * * * *", command="hang")
    quick = engine.add("* * * * *")
    engine.start()
    await engine.clock.advance(3 * 60 + 1)
    assert await engine.states(quick) == ["success"] * 3


async def test_a_thousand_jobs_of_one_user_do_not_starve_one_of_another(engine: Engine) -> None:
    engine.slots = 2
    await engine.database.close()
    await engine.open()
    for _ in range(1000):
        engine.add("* * * * *", command="ok")
    only = engine.add("* * * * *", command="ok", userId="bob")
    engine.start(executor=False)
    await engine.clock.advance(60)
    engine.loops.append(asyncio.create_task(engine.executor.run()))
    await engine.clock.advance(0.1)
    assert only.id in [work.job_id for work in engine.runner.began[:2]]


def test_slots_go_to_the_tenant_and_then_the_user_with_least() -> None:
    ready = {"a/x": 50, "a/y": 50, "b/z": 1, "c/w": 50}
    assert fair_shares(ready, {"c/w": 2}, 6) == {"a/x": 2, "a/y": 2, "b/z": 1, "c/w": 1}


async def test_only_as_many_as_there_are_slots_work_at_once(engine: Engine) -> None:
    jobs = [engine.add("* * * * *", command="hang") for _ in range(12)]
    engine.start()
    await engine.clock.advance(62)
    assert engine.runner.working == 5
    engine.runner.let_go.set()
    await engine.clock.advance(1)
    assert [await engine.states(job) for job in jobs] == [["success"]] * 12
    assert engine.runner.most_working == 5


async def test_an_interrupted_run_is_found_and_tried_again(engine: Engine) -> None:
    job = engine.add("* * * * *", command="hang")
    engine.start()
    await engine.clock.advance(61)
    again = await engine.restarted()
    again.runner.let_go.set()
    again.start()
    await again.clock.advance(8)
    (run,) = await again.all_runs(job)
    states = [attempt["state"] for attempt in await again.runs.attempts(run.id)]
    assert (run.status, states) == ("success", ["lost", "success"])


async def test_an_interrupted_run_without_retries_is_closed_as_lost(engine: Engine) -> None:
    job = engine.add("* * * * *", command="hang", retry={"maxAttempts": 1})
    engine.start()
    await engine.clock.advance(61)
    again = await engine.restarted()
    again.start()
    await again.clock.advance(1)
    (run,) = await again.all_runs(job)
    assert run.status == "failure" and "what became of it is not known" in (run.error or "")
    assert [attempt["state"] for attempt in await again.runs.attempts(run.id)] == ["lost"]


async def test_stop_lets_attempts_end_within_the_grace(engine: Engine) -> None:
    job = engine.add("* * * * *", command="hang")
    engine.start()
    await engine.clock.advance(61)
    engine.clock.busy.append(lambda: engine.runner.let_go.set() or False)  # type: ignore[func-returns-value]
    await engine.stop(grace=5)
    again = await engine.restarted()
    assert await again.states(job) == ["success"]


async def test_stop_hands_what_does_not_end_to_the_next_start(engine: Engine) -> None:
    job = engine.add("* * * * *", command="hang")
    engine.start()
    await engine.clock.advance(61)
    await engine.stop(grace=1)
    assert engine.runner.working == 0
    again = await engine.restarted()
    (run,) = await again.all_runs(job)
    assert (run.status, run.attempt) == ("queued", 1)


async def test_an_end_after_a_lost_lease_is_refused(engine: Engine) -> None:
    job = engine.add("* * * * *", command="hang", retry={"maxAttempts": 2, "initialSeconds": 0})
    engine.start()
    await engine.clock.advance(61)
    thief = Engine(engine.path, engine.clock)
    thief.jobs = engine.jobs
    await thief.open()
    thief.start(scheduler=False)
    await engine.clock.advance(1)
    engine.runner.let_go.set()
    await engine.clock.advance(1)
    (run,) = await thief.all_runs(job)
    assert (run.status, run.attempt) == ("running", 2)
    assert thief.runner.working == 1
    thief.runner.let_go.set()
    await engine.clock.advance(1)
    assert await thief.states(job) == ["success"]
    assert engine.ended == []
    await thief.crash()


async def test_ends_wait_for_a_ledger_that_is_away(engine: Engine) -> None:
    job = engine.add("* * * * *")
    real, refusals = engine.runs.record_ends, iter([True, True])

    async def flaky(ends):  # type: ignore[no-untyped-def]
        if next(refusals, False):
            raise Unavailable("disk full")
        return await real(ends)

    engine.runs.record_ends = flaky  # type: ignore[method-assign]
    engine.start()
    await engine.clock.advance(65)
    assert await engine.states(job) == ["success"]
    assert len(engine.runner.began) == 1


async def test_a_lost_answer_to_an_end_does_not_make_the_next_attempt_overlap_another(engine: Engine) -> None:
    """The end counts, the run is tried again, and only then is the same end told once more."""
    job = engine.add("* * * * *", "failtimes 1", retry={"initialSeconds": 0}, timeoutSeconds=3600)
    real, answers_lost = engine.runs.record_ends, iter([True])

    async def lossy(ends):  # type: ignore[no-untyped-def]
        answers = await real(ends)
        if next(answers_lost, False):
            raise Unavailable("no answer")
        return answers

    async def fail_then_hang(work: Work) -> Outcome:
        if work.attempt > 1:
            await engine.runner.let_go.wait()
        return Outcome("failure", error="it said no")

    engine.runs.record_ends = lossy  # type: ignore[method-assign]
    engine.runner._do = fail_then_hang  # type: ignore[method-assign]
    engine.start()
    await engine.clock.advance(60 + 150)  # a lease that nobody renews would have run out
    assert [work.attempt for work in engine.runner.began if work.job_id == job.id] == [1, 2]
    assert (engine.runner.working, engine.executor.active) == (1, 1)


async def test_a_clock_that_leaps_in_the_middle_of_a_claim_makes_nobody_take_it_for_abandoned(
    engine: Engine,
) -> None:
    """A heartbeat sees the claim, which seems to have run out, before its answer is here."""
    job = engine.add("0 0 1 1 *", "hang", timeoutSeconds=3600)
    claim = engine.runs.claim

    async def slowly(**asked):  # type: ignore[no-untyped-def]
        claimed = await claim(**asked)
        if claimed.claims:
            engine.clock.step(timedelta(minutes=2))
            await engine.clock.wait(asyncio.Event(), 16)  # a heartbeat, and a second more
        return claimed

    engine.runs.claim = slowly  # type: ignore[method-assign]
    await engine.runs.start_now(empty_plan(job), "key", engine.clock.now())
    engine.start()
    await engine.clock.advance(60)
    assert [work.attempt for work in engine.runner.began] == [1]
    assert await engine.states(job) == ["running"]


async def test_work_that_a_slow_answer_began_is_stopped_before_others_may_take_it(engine: Engine) -> None:
    """Its lease is older than that of the work beside it; then the ledger is away for this gateway only."""
    engine.executor._alone = False
    beside = engine.add("0 0 1 1 *", "hang", timeoutSeconds=3600)
    slow = engine.add("0 0 1 1 *", "hang", timeoutSeconds=3600)
    claim, away = engine.runs.claim, False

    async def slowly(**asked):  # type: ignore[no-untyped-def]
        claimed = await claim(**asked)
        if any(one.job_id == slow.id for one in claimed.claims):
            await engine.clock.wait(asyncio.Event(), 29)
        return claimed

    async def renew(**asked):  # type: ignore[no-untyped-def]
        if away:
            raise Unavailable("no ledger")
        return await type(engine.runs).renew(engine.runs, **asked)

    engine.runs.claim, engine.runs.renew = slowly, renew  # type: ignore[method-assign]
    await engine.runs.start_now(empty_plan(beside), "key", engine.clock.now())
    engine.start()
    await engine.clock.advance(2)
    run = await engine.runs.start_now(empty_plan(slow), "key", engine.clock.now())
    await engine.clock.advance(29.5)
    assert engine.runner.working == 2
    away = True
    await engine.clock.advance(TAKEOVER_SECONDS - 29.5)
    assert engine.runner.stopped == [run.id]


async def test_run_now_with_the_same_key_is_the_same_run(engine: Engine) -> None:
    job = engine.add("0 10 * * *")
    first = await engine.runs.start_now(empty_plan(job), "key", engine.clock.now())
    second = await engine.runs.start_now(empty_plan(job), "key", engine.clock.now() + timedelta(seconds=5))
    other = await engine.runs.start_now(empty_plan(job.evolve(overlap="allow")), "other", engine.clock.now())
    assert first == second and other.id != first.id


async def test_run_now_is_refused_while_a_run_is_alive_and_overlap_is_skip(engine: Engine) -> None:
    job = engine.add("* * * * *", command="hang")
    engine.start()
    await engine.clock.advance(61)
    with pytest.raises(Conflict, match="has not ended"):
        await engine.runs.start_now(empty_plan(job), "key", engine.clock.now())


async def test_a_manual_run_at_the_very_instant_does_not_take_the_place_of_the_scheduled_one(
    engine: Engine,
) -> None:
    job = engine.add("* * * * *", overlap="allow")
    await engine.clock.advance(60)
    await engine.runs.start_now(empty_plan(job), "key", engine.clock.now())
    engine.start()
    await engine.clock.advance(1)
    assert [run.trigger for run in await engine.all_runs(job)] == ["schedule", "manual"]


async def test_many_manual_runs_just_before_an_instant_leave_it_its_place(engine: Engine) -> None:
    job = engine.add("* * * * *", overlap="allow")
    for key in ("one", "two", "three"):
        await engine.runs.start_now(empty_plan(job), key, engine.clock.now() + timedelta(seconds=59.999999))
    engine.start()
    await engine.clock.advance(61)
    runs = [(run.trigger, run.scheduled_for.microsecond) for run in await engine.all_runs(job)]
    assert runs == [("manual", 999_999), ("schedule", 0), ("manual", 1), ("manual", 2)]


async def test_counts_and_the_last_result_are_kept(engine: Engine) -> None:
    job = engine.add("* * * * *", command="fail", retry={"maxAttempts": 1})
    engine.start()
    await engine.clock.advance(121)
    known = (await engine.runs.progress_of([job.id]))[job.id]
    assert (known.execution_count, known.failure_count, known.last_status) == (2, 2, "failure")
    assert known.last_error == "it said no"


async def test_a_run_cancelled_between_two_attempts_counts_and_is_told(engine: Engine) -> None:
    job = engine.add("* * * * *", command="fail", retry={"maxAttempts": 2, "initialSeconds": 3600})
    engine.start()
    await engine.clock.advance(61)
    (run,) = await engine.all_runs(job)
    assert await engine.runs.cancel(run.id, "enough", engine.clock.now()) == "cancelled"
    (delivery,) = await Deliveries(engine.database).page(tenant=None)
    assert (delivery.notice.status, delivery.notice.error) == ("cancelled", "enough")
    known = (await engine.runs.progress_of([job.id]))[job.id]
    assert (known.execution_count, known.last_status) == (1, "cancelled")


async def test_a_run_that_was_to_be_cancelled_when_the_gateway_died_is_cancelled(engine: Engine) -> None:
    job = engine.add("* * * * *", command="hang")
    engine.start()
    await engine.clock.advance(61)
    (run,) = await engine.all_runs(job)
    for task in engine.loops:
        task.cancel()
    await engine.runs.cancel(run.id, "alice asked", engine.clock.now())
    again = await engine.restarted()
    again.start()
    await again.clock.advance(1)
    (run,) = await again.all_runs(job)
    assert (run.status, run.reason) == ("cancelled", "alice asked")
    (delivery,) = await Deliveries(again.database).page(tenant=None)
    assert delivery.notice.status == "cancelled"


@pytest.mark.parametrize("odd", ["none", "number", "status", "metadata", "infinite"])
async def test_an_outcome_that_is_none_fails_its_run_and_nothing_else(engine: Engine, odd: str) -> None:
    bad, good = engine.add("* * * * *", command=f"odd {odd}"), engine.add("* * * * *")
    engine.start()
    await engine.clock.advance(121)
    assert await engine.states(bad) == ["failure"] * 2
    assert await engine.states(good) == ["success"] * 2
    assert "no outcome" in ((await engine.all_runs(bad))[0].error or "")


@pytest.mark.parametrize("metadata", [None, [1], "text", 5])
async def test_metadata_that_is_no_object_fails_the_run_and_holds_no_slot(
    engine: Engine, metadata: object
) -> None:
    job = engine.add("* * * * *")

    async def odd(_work: Work) -> Outcome:
        return Outcome("failure", error="no", metadata=metadata)  # type: ignore[arg-type]  # what a plugin may do

    engine.runner._do = odd  # type: ignore[method-assign]
    engine.start()
    await engine.clock.advance(61)
    assert await engine.states(job) == ["failure"]
    assert engine.executor.active == 0


async def test_output_that_no_encoding_carries_is_cleaned(engine: Engine) -> None:
    job = engine.add("* * * * *", command="odd surrogate")
    engine.start()
    await engine.clock.advance(61)
    assert [(run.status, run.output) for run in await engine.all_runs(job)] == [("success", "ab")]


async def test_a_runner_that_breaks_off_by_itself_has_failed(engine: Engine) -> None:
    job = engine.add("* * * * *", command="stray", retry={"maxAttempts": 1})
    engine.start()
    await engine.clock.advance(121)
    assert await engine.states(job) == ["failure", "failure"]
    assert engine.executor.active == 0


async def test_an_end_that_the_ledger_refuses_harms_no_other(engine: Engine) -> None:
    bad, good = engine.add("* * * * *", command="say bad"), engine.add("* * * * *", command="say good")
    real = engine.runs.record_ends

    async def picky(ends):  # type: ignore[no-untyped-def]
        if any(end.outcome.output == "bad" for end in ends):
            raise RuntimeError("cannot be kept")
        return await real(ends)

    engine.runs.record_ends = picky  # type: ignore[method-assign]
    engine.start()
    await engine.clock.advance(121)
    assert await engine.states(good) == ["success"] * 2
    assert (await engine.states(bad))[0] == "running"
    engine.runs.record_ends = real  # type: ignore[method-assign]
    await engine.clock.advance(90)
    (attempt, *_) = await engine.runs.attempts((await engine.all_runs(bad))[0].id)
    assert attempt["state"] == "lost"


async def test_a_stop_in_the_middle_of_a_claim_reaches_what_it_claims(engine: Engine) -> None:
    job = engine.add("* * * * *", command="hang")
    real, held = engine.runs.claim, asyncio.Event()

    async def slow(**asked):  # type: ignore[no-untyped-def]
        claimed = await real(**asked)
        if claimed.claims:
            await held.wait()
        return claimed

    engine.runs.claim = slow  # type: ignore[method-assign]
    engine.start()
    await engine.clock.advance(61)
    stopping = asyncio.create_task(engine.stop(grace=1))
    await asyncio.sleep(0.01)
    held.set()
    await stopping
    again = await engine.restarted()
    assert await again.states(job) == ["queued"]


async def test_a_stop_ends_though_the_ledger_is_away(engine: Engine) -> None:
    engine.add("* * * * *", command="hang")
    engine.start()
    await engine.clock.advance(61)

    async def away(ends):  # type: ignore[no-untyped-def]
        raise Unavailable("the disk is gone")

    engine.runs.record_ends = away  # type: ignore[method-assign]
    stopping = asyncio.create_task(engine.stop(grace=1))
    await engine.clock.advance(30)
    await asyncio.wait_for(stopping, 5)
    assert engine.runner.working == 0
