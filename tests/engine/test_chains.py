"""Chains: the end of a run of A starts one of B, once, with A's output as data."""

from __future__ import annotations

import asyncio

import pytest

from carapace_cron.ledger.planning import empty_plan
from carapace_cron.model.job import Job, Upstream
from carapace_cron.model.limits import Limits
from carapace_cron.model.run import Run

from .conftest import Engine

NEVER = "0 0 1 1 *"  # not on any day of these stories


async def chain(engine: Engine, first: Job, when: str = "success", **fields: object) -> Job:
    """B, which runs after A; both in force."""
    follower = engine.add(NEVER, **{"after": [{"jobId": first.id, "when": when}], **fields})
    await engine.put_in_force(first, follower)
    return follower


async def run_now(engine: Engine, job: Job, key: str = "k") -> Run:
    run = await engine.runs.start_now(empty_plan(job), key, engine.clock.now())
    await engine.clock.advance(0.5)
    ended = await engine.runs.get(run.id)
    assert ended is not None
    return ended


async def test_it_runs_after_the_other_with_its_output_as_data(engine: Engine) -> None:
    first = engine.add(NEVER, "say forty-two")
    follower = await chain(engine, first)
    engine.start()
    cause = await run_now(engine, first)
    (run,) = await engine.all_runs(follower)
    assert (run.status, run.trigger, run.caused_by) == ("success", "chain", cause.id)
    work = engine.runner.began[-1]
    assert work.upstream is not None
    assert work.upstream["output"] == "forty-two"
    assert (work.upstream["jobId"], work.upstream["runId"]) == (first.id, cause.id)
    assert (work.upstream["status"], work.upstream["error"]) == ("success", None)
    assert engine.runner.began[0].upstream is None


async def test_ends_that_are_recorded_together_start_a_run_each(engine: Engine) -> None:
    firsts = [engine.add("* * * * *", "hang") for _ in range(3)]
    followers = [await chain(engine, first) for first in firsts]
    engine.start()
    await engine.clock.advance(60.5)
    engine.runner.let_go.set()
    await engine.clock.advance(1)
    assert [await engine.states(follower) for follower in followers] == [["success"]] * 3


@pytest.mark.parametrize(
    ("ends", "starts"),
    [
        ("success", {"success", "end"}),
        ("failure", {"failure", "end"}),
        ("timeout", {"failure", "end"}),
        ("cancelled", set()),
        ("skipped", set()),
        ("missed", set()),
    ],
)
async def test_which_end_starts_whom(engine: Engine, ends: str, starts: set[str]) -> None:
    command = {"success": "ok", "failure": "fail"}.get(ends, "hang")
    settings = {"timeout": {"timeoutSeconds": 0.01}, "missed": {"deadlineSeconds": 5}}.get(ends, {})
    first = engine.add("* * * * *", command, retry={"maxAttempts": 1}, **settings)
    followers = {when: await chain(engine, first, when) for when in ("success", "failure", "end")}
    engine.start(executor=False)
    await engine.clock.advance({"skipped": 120, "missed": 66}.get(ends, 61))
    engine.start(scheduler=False)
    await engine.clock.advance(0.1)
    if ends == "cancelled":
        (run,) = await engine.all_runs(first)
        await engine.runs.cancel(run.id, "enough", engine.clock.now())
    while ends == "timeout" and not engine.runner.stopped:
        await asyncio.sleep(0.005)
    await engine.clock.advance(1)
    assert ends in await engine.states(first)
    assert {when for when, job in followers.items() if await engine.all_runs(job)} == starts


async def test_only_the_last_attempt_is_an_end(engine: Engine) -> None:
    first = engine.add(NEVER, "failtimes 2")
    on_failure, on_end = await chain(engine, first, "failure"), await chain(engine, first, "end")
    engine.start()
    await run_now(engine, first)
    assert await engine.all_runs(on_end) == []
    await engine.clock.advance(20)
    assert (await engine.states(on_end), await engine.states(on_failure)) == (["success"], [])


async def test_a_run_cancelled_between_its_attempts_starts_nothing(engine: Engine) -> None:
    first = engine.add(NEVER, "fail")
    follower = await chain(engine, first, "end")
    engine.start()
    run = await run_now(engine, first)
    assert await engine.runs.cancel(run.id, "enough", engine.clock.now()) == "cancelled"
    await engine.clock.advance(1)
    assert await engine.all_runs(follower) == []


async def test_a_timeout_in_the_queue_is_an_end_too(engine: Engine) -> None:
    """The deadline passes while a retry waits for a slot."""
    await engine.database.close()
    engine.slots = 1
    await engine.open()
    first = engine.add(NEVER, "fail", deadlineSeconds=30)
    busy = engine.add(NEVER, "hang")
    follower = await chain(engine, first, "failure")
    engine.start()
    await run_now(engine, first)
    await run_now(engine, busy)
    await engine.clock.advance(36)
    engine.runner.let_go.set()
    await engine.clock.advance(1)
    assert (await engine.states(first), await engine.states(follower)) == (["timeout"], ["success"])
    assert engine.runner.began[-1].upstream is not None
    assert engine.runner.began[-1].upstream["status"] == "timeout"


async def test_a_chain_goes_on_from_link_to_link(engine: Engine) -> None:
    first = engine.add(NEVER, "say one")
    second = await chain(engine, first, command="say two")
    third = await chain(engine, second, command="say three")
    engine.start()
    await run_now(engine, first)
    assert [work.job_id for work in engine.runner.began] == [first.id, second.id, third.id]


async def test_several_can_follow_one_and_one_can_follow_several(engine: Engine) -> None:
    a, b = engine.add(NEVER), engine.add(NEVER)
    both = engine.add(NEVER, after=[{"jobId": a.id}, {"jobId": b.id}], overlap="queue")
    other = await chain(engine, a)
    await engine.put_in_force(b, both)
    engine.start()
    await run_now(engine, a)
    await run_now(engine, b)
    assert (len(await engine.all_runs(both)), len(await engine.all_runs(other))) == (2, 1)


async def test_a_paused_job_follows_nobody_and_a_resumed_one_does_again(engine: Engine) -> None:
    first = engine.add(NEVER)
    follower = await chain(engine, first)
    engine.start()
    paused = await engine.change(follower, enabled=False)
    await run_now(engine, first, "1")
    assert await engine.all_runs(follower) == []
    await engine.change(paused, enabled=True)
    await run_now(engine, first, "2")
    assert await engine.states(follower) == ["success"], "what ended during the pause starts nothing"


async def test_a_deleted_job_follows_nobody(engine: Engine) -> None:
    first = engine.add(NEVER)
    follower = await chain(engine, first)
    engine.start()
    await engine.runs.in_force.put([follower.evolve(revision=2, deleted_at=engine.clock.now())])
    await run_now(engine, first)
    assert await engine.all_runs(follower) == []


@pytest.mark.parametrize(
    ("overlap", "states"),
    [
        ("skip", ["running", "skipped"]),
        ("queue", ["running", "queued"]),
        ("allow", ["running", "running"]),
        ("cancelPrevious", ["cancelled", "running"]),
    ],
)
async def test_overlap_holds_for_chains_too(engine: Engine, overlap: str, states: list[str]) -> None:
    first = engine.add(NEVER)
    follower = await chain(engine, first, command="hang", overlap=overlap)
    engine.start()
    await run_now(engine, first, "1")
    await run_now(engine, first, "2")
    assert await engine.states(follower) == states
    if overlap == "skip":
        assert "has not ended and the job's overlap is skip" in (
            (await engine.all_runs(follower))[1].reason or ""
        )


async def test_an_end_is_followed_once_whatever_a_crash_makes_of_it(engine: Engine) -> None:
    """Killed after the end is recorded, then before the end of what it started is."""
    first = engine.add(NEVER)
    follower = await chain(engine, first, command="hang")
    engine.start()
    await run_now(engine, first)
    again = await engine.restarted()
    again.runner.let_go.set()
    again.start()
    await again.clock.advance(10)
    (run,) = await again.all_runs(follower)
    assert (run.status, run.attempt) == ("success", 2)
    assert again.runner.began[-1].upstream is not None, "the second attempt has the data, too"


async def test_an_attempt_that_a_crash_cut_off_is_followed_once_it_has_failed(engine: Engine) -> None:
    first = engine.add(NEVER, "hang", retry={"maxAttempts": 1})
    follower = await chain(engine, first, "failure")
    engine.start()
    await run_now(engine, first)
    again = await engine.restarted()
    again.start()
    await again.clock.advance(1)
    assert (await again.states(first), await again.states(follower)) == (["failure"], ["success"])


async def test_an_end_that_is_refused_starts_nothing(engine: Engine) -> None:
    """The first owner lost its lease: only the end of the second counts, and starts one run."""
    first = engine.add(NEVER, "hang", retry={"maxAttempts": 2, "initialSeconds": 0})
    follower = await chain(engine, first)
    engine.start()
    await run_now(engine, first)
    thief = Engine(engine.path, engine.clock)
    thief.jobs = engine.jobs
    engine.successors.append(thief)
    await thief.open()
    thief.start(scheduler=False)
    await engine.clock.advance(1)
    engine.runner.let_go.set()
    await engine.clock.advance(1)
    assert await thief.all_runs(follower) == []
    thief.runner.let_go.set()
    await engine.clock.advance(1)
    assert len(await thief.all_runs(follower)) == 1


async def test_chains_that_would_run_in_a_circle_are_left_out_and_named(engine: Engine) -> None:
    a, b, c = (engine.add(NEVER) for _ in range(3))
    await engine.put_in_force(a, b, c)
    put = engine.runs.in_force.put
    assert await put([b.evolve(revision=2, after=after(a)), c.evolve(revision=2, after=after(b))]) == []
    assert await put([a.evolve(revision=2, after=after(c))]) == [a.id]
    assert await put([a.evolve(revision=3, after=after(a))]) == [a.id]
    engine.start()
    await run_now(engine, a.evolve(revision=3, after=after(a)))
    assert [work.job_id for work in engine.runner.began] == [a.id, b.id, c.id], "and no further"


def after(job: Job) -> tuple[Upstream, ...]:
    return (Upstream(job_id=job.id),)


async def test_a_limit_holds_what_a_chain_starts(engine: Engine) -> None:
    await engine.database.close()
    engine.limits = Limits({"tag:db": 1})
    await engine.open()
    busy = engine.add(NEVER, "hang", tags=["db"])
    first = engine.add(NEVER)
    follower = await chain(engine, first, tags=["db"])
    engine.start()
    await run_now(engine, busy)
    await run_now(engine, first)
    (run,) = await engine.all_runs(follower)
    assert (run.status, run.held_by) == ("queued", "tag:db")
    engine.runner.let_go.set()
    await engine.clock.advance(1)
    assert await engine.states(follower) == ["success"]


async def test_a_chained_run_has_a_deadline_from_its_own_start(engine: Engine) -> None:
    first = engine.add("* * * * *")
    follower = await chain(engine, first, deadlineSeconds=30)
    engine.start()
    await engine.clock.advance(61)
    (run,) = await engine.all_runs(follower)
    assert run.deadline_at is not None
    assert (run.deadline_at - run.scheduled_for).total_seconds() == 30
