"""Limits by channel, tag and tenant: never more at work, never idle room, and turns for all who wait."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from carapace_cron.ledger.claiming import fair_shares
from carapace_cron.ledger.planning import empty_plan
from carapace_cron.ledger.turns import Turns
from carapace_cron.model.job import Job
from carapace_cron.model.limits import Limits
from carapace_cron.model.run import Run

from .conftest import Engine


async def opened(engine: Engine, by_label: Mapping[str, int], **more: int | None) -> None:
    """The engine, opened anew with these limits and slots for all."""
    await engine.database.close()
    engine.limits = Limits(dict(by_label), more.get("per_tenant"))
    engine.slots = more.get("slots") or 50
    await engine.open()


async def due_now(engine: Engine, job: Job, key: str = "k") -> Run:
    return await engine.runs.start_now(empty_plan(job), key, engine.clock.now())


async def held_by(engine: Engine, *jobs: Job) -> list[str | None]:
    return [run.held_by for job in jobs for run in await engine.all_runs(job)]


async def test_of_a_tag_no_more_work_at_once_than_its_limit(engine: Engine) -> None:
    await opened(engine, {"tag:db": 2})
    jobs = [engine.add("* * * * *", "hang", tags=["report", "db"]) for _ in range(5)]
    other = engine.add("* * * * *", "hang", tags=["report"])
    engine.start()
    await engine.clock.advance(60)
    states = [state for job in jobs for state in await engine.states(job)]
    assert Counter(states) == {"running": 2, "queued": 3}
    assert Counter(await held_by(engine, *jobs)) == {None: 2, "tag:db": 3}
    assert await engine.states(other) == ["running"]
    engine.runner.let_go.set()
    await engine.clock.advance(1)
    assert [await engine.states(job) for job in jobs] == [["success"]] * 5


async def test_a_thousand_that_wait_for_a_limit_of_one_go_one_by_one_and_hold_up_nobody(
    engine: Engine,
) -> None:
    await opened(engine, {"tag:db": 1}, slots=5)
    for _ in range(1_000):
        engine.add("* * * * *", "hang", tags=["db"])
    engine.start(executor=False)
    await engine.clock.advance(60)
    claims = count_claims(engine)
    engine.start(scheduler=False)
    await engine.clock.advance(0.5)
    assert engine.runner.working == 1
    assert len(claims) <= 12, "a hundred are set aside a claim"
    quick = engine.add("0 0 1 1 *", tags=["other"])
    run = await due_now(engine, quick)
    await engine.clock.advance(0.5)
    assert await engine.states(quick) == ["success"]
    for _ in range(20):
        engine.runner.let_go.set()
        engine.runner.let_go.clear()
        await engine.clock.advance(0.1)
    assert len(engine.runner.began) == 1 + 1 + 20 and engine.runner.most_working <= 2
    assert run.held_by is None


def count_claims(engine: Engine) -> list[int]:
    """One entry for each claim from now on."""
    claims: list[int] = []
    real = engine.runs.claim

    async def counted(**asked):  # type: ignore[no-untyped-def]
        claims.append(asked["slots"])
        return await real(**asked)

    engine.runs.claim = counted  # type: ignore[method-assign]
    return claims


async def test_a_channel_has_its_limit_too_and_a_blank_in_its_name_is_an_underscore(engine: Engine) -> None:
    await opened(engine, {"channel:ops_room": 1})
    first, second = (engine.add("* * * * *", "hang", channelId="ops room") for _ in range(2))
    engine.start()
    await engine.clock.advance(60)
    assert sorted(await held_by(engine, first, second), key=str) == [None, "channel:ops_room"]


async def test_a_tenant_has_no_more_at_work_than_its_limit(engine: Engine) -> None:
    await opened(engine, {}, per_tenant=2)
    of_acme = [engine.add("* * * * *", "hang", userId=user) for user in ("alice", "bob", "bob")]
    of_other = engine.add("* * * * *", "hang", tenant="other", userId="charlie")
    engine.start()
    await engine.clock.advance(60)
    assert sorted([(await engine.states(job))[0] for job in of_acme]) == ["queued", "running", "running"]
    assert await engine.states(of_other) == ["running"]


async def test_a_retry_waits_without_taking_up_room(engine: Engine) -> None:
    await opened(engine, {"tag:db": 1})
    failing = engine.add("0 10 * * *", "fail", tags=["db"], retry={"initialSeconds": 60})
    patient = engine.add("0 10 * * *", "hang", tags=["db"])
    engine.start()
    await due_now(engine, failing)
    await due_now(engine, patient)
    await engine.clock.advance(30)
    assert (await engine.states(failing), await engine.states(patient)) == (["queued"], ["running"])
    await engine.clock.advance(31)
    assert await held_by(engine, failing) == ["tag:db"], "its second attempt has to wait like any other"


async def test_a_higher_limit_at_a_restart_lets_those_go_that_wait(engine: Engine) -> None:
    await opened(engine, {"tag:db": 1})
    jobs = [engine.add("0 10 * * *", "hang", tags=["db"], retry={"maxAttempts": 1}) for _ in range(5)]
    engine.start()
    for job in jobs:
        await due_now(engine, job)
    await engine.clock.advance(1)
    assert engine.runner.working == 1
    again = await engine.restarted(limits=Limits({"tag:db": 3}))
    again.start()
    await again.clock.advance(1)
    assert again.runner.working == 3
    assert sorted(await held_by(again, *jobs), key=str) == [None] * 4 + ["tag:db"]


async def test_a_limit_that_is_gone_at_a_restart_holds_nobody(engine: Engine) -> None:
    await opened(engine, {"tag:db": 1})
    jobs = [engine.add("0 10 * * *", "hang", tags=["db"]) for _ in range(3)]
    engine.start()
    for job in jobs:
        await due_now(engine, job)
    await engine.clock.advance(1)
    again = await engine.restarted(limits=Limits())
    again.start()
    await again.clock.advance(10)
    assert again.runner.working == 3


async def test_a_held_run_can_be_cancelled_and_the_next_of_its_job_goes_on(engine: Engine) -> None:
    await opened(engine, {"tag:db": 1})
    busy = engine.add("0 10 * * *", "hang", tags=["db"])
    waiting = engine.add("0 10 * * *", "hang", tags=["db"], overlap="queue")
    engine.start()
    await due_now(engine, busy)
    await engine.clock.advance(1)
    held = await due_now(engine, waiting, "first")
    await due_now(engine, waiting, "second")
    await engine.clock.advance(1)
    assert await held_by(engine, waiting) == ["tag:db", None]
    assert await engine.runs.cancel(held.id, "not today", engine.clock.now()) == "cancelled"
    await engine.clock.advance(1)
    assert await engine.states(waiting) == ["cancelled", "queued"]
    assert await held_by(engine, waiting) == [None, "tag:db"]
    engine.runner.let_go.set()
    await engine.clock.advance(1)
    assert await engine.states(waiting) == ["cancelled", "success"]


async def test_room_that_a_run_cannot_use_goes_to_the_next(engine: Engine) -> None:
    """It waits for two limits: while the second holds it, whoever needs only the first does not wait."""
    await opened(engine, {"channel:ops": 1, "tag:db": 1})
    ops = engine.add("0 10 * * *", "hang", channelId="ops")
    db = engine.add("0 10 * * *", "hang", tags=["db"])
    both = engine.add("0 10 * * *", "hang", channelId="ops", tags=["db"])
    after = engine.add("0 10 * * *", "hang", channelId="ops")
    engine.start()
    first = await due_now(engine, ops)
    for job in (db, both, after):
        await due_now(engine, job)
        await engine.clock.advance(0.1)
    assert await held_by(engine, both, after) == ["channel:ops", "channel:ops"]
    await engine.runs.cancel(first.id, "enough", engine.clock.now())
    await engine.clock.advance(1)
    assert await held_by(engine, both, after) == ["tag:db", None]
    assert await engine.states(after) == ["running"]


async def test_room_of_a_run_that_is_cancelled_before_it_uses_it_goes_to_the_next(engine: Engine) -> None:
    await opened(engine, {"tag:db": 1}, slots=2)
    busy, second, third = (engine.add("0 10 * * *", "hang", tags=["db"]) for _ in range(3))
    working, in_between = (engine.add("0 10 * * *", "hang") for _ in range(2))
    engine.start()
    first, let_go, _ = [await due_now(engine, job) for job in (busy, second, third)]
    await engine.clock.advance(1)
    assert await held_by(engine, second, third) == ["tag:db", "tag:db"]
    for job in (working, in_between):
        await due_now(engine, job)
        await engine.clock.advance(1)
    await engine.runs.cancel(first.id, "enough", engine.clock.now())
    await engine.clock.advance(1)
    assert await engine.states(in_between) == ["running"], "it took the slot"
    assert await held_by(engine, second, third) == [None, "tag:db"], "and the second has the room"
    await engine.runs.cancel(let_go.id, "not today", engine.clock.now())
    assert await held_by(engine, second, third) == [None, None]


async def test_room_that_a_full_tenant_cannot_use_goes_to_another(engine: Engine) -> None:
    """Acme's second run is let go, and stands behind other work of acme's that leaves it no room."""
    await opened(engine, {"tag:db": 1}, per_tenant=2)
    first, second = (engine.add("0 0 1 1 *", "hang", tags=["db"], overlap="allow") for _ in range(2))
    long, longer = (engine.add("0 0 1 1 *", "hang") for _ in range(2))
    theirs = engine.add("0 0 1 1 *", "ok", tenant="other")
    waiting = engine.add("0 0 1 1 *", "ok", tenant="other", tags=["db"])
    engine.start()
    for job in (first, second, long, theirs, waiting, longer):
        await due_now(engine, job)
        await engine.clock.advance(1)
    assert await held_by(engine, second, waiting) == ["tag:db", "tag:db"]
    [run] = await engine.all_runs(first)
    await engine.runs.cancel(run.id, "enough", engine.clock.now())
    await engine.clock.advance(2)
    assert await engine.states(longer) == ["running"]
    assert (await engine.states(second), await engine.states(waiting)) == (["queued"], ["success"])


async def test_room_that_nobody_can_use_lets_one_run_of_a_lane_go_and_no_more(engine: Engine) -> None:
    await opened(engine, {"tag:db": 1}, per_tenant=2)
    first, *others = (engine.add("0 0 1 1 *", "hang", tags=["db"], overlap="allow") for _ in range(5))
    long, longer = (engine.add("0 0 1 1 *", "hang") for _ in range(2))
    engine.start()
    for job in (first, *others, long, longer):
        await due_now(engine, job)
        await engine.clock.advance(1)
    [run] = await engine.all_runs(first)
    await engine.runs.cancel(run.id, "enough", engine.clock.now())
    await engine.clock.advance(20)
    assert await engine.states(longer) == ["running"]
    assert Counter(await held_by(engine, *others)) == {"tag:db": 3, None: 1}


async def test_tenants_take_turns_at_a_limit(engine: Engine) -> None:
    """However many of one tenant wait for it, another's next run is not behind all of them."""
    await opened(engine, {"tag:db": 1})
    of_acme = [engine.add("0 10 * * *", "hang", tags=["db"]) for _ in range(20)]
    of_other = engine.add("0 10 * * *", "hang", tags=["db"], tenant="other", userId="charlie")
    engine.start()
    for job in [*of_acme, of_other]:
        await due_now(engine, job)
    await engine.clock.advance(1)
    for _ in range(2):
        engine.runner.let_go.set()
        engine.runner.let_go.clear()
        await engine.clock.advance(0.2)
    assert of_other.id in [work.job_id for work in engine.runner.began[:3]]


async def test_with_one_slot_each_tenant_has_its_turn(engine: Engine) -> None:
    """Ties go to whoever had no turn for longest, not to the name that comes first."""
    await opened(engine, {}, slots=1)
    for _ in range(20):
        engine.add("* * * * *")
    last = engine.add("* * * * *", tenant="zeta", userId="zoe")
    late = engine.add("* * * * *", userId="bob")
    engine.start(executor=False)
    await engine.clock.advance(60)
    engine.start(scheduler=False)
    await engine.clock.advance(0.5)
    began = [work.job_id for work in engine.runner.began]
    assert len(began) == 22
    assert began.index(last.id) <= 1 and began.index(late.id) <= 3


def test_whoever_had_no_turn_for_longest_comes_first() -> None:
    turns = Turns()
    ready = {"a/x": 9, "a/y": 9, "b/z": 9}
    order = []
    for _ in range(6):
        (lane,) = fair_shares(ready, {}, 1, None, turns)
        turns.note(lane)
        order.append(lane)
    assert order == ["a/x", "b/z", "a/y", "b/z", "a/x", "b/z"]
