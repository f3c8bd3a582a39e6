"""What the gateway does to jobs by itself: after a failure half way, after a kill, never against a caller."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from carapace_cron.errors import ConfigurationError, Unavailable
from carapace_cron.ledger.events import Event
from carapace_cron.ledger.planning import empty_plan
from carapace_cron.services.patience import JOBS_AT_ONCE, Patience

MINUTELY = {"cronExpression": "* * * * *"}


class Away:
    """What fails in the place of a method, until it is `back`. `calls`: the first argument of each call."""

    def __init__(self, method: Callable[..., Awaitable[Any]], error: Exception | None = None) -> None:
        self._method = method
        self._error = error or Unavailable("it is away")
        self.calls: list[Any] = []
        self.only: Any = None  # the first argument for which alone it fails
        self.back = False

    async def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.calls.append(arguments[0])
        if not self.back and self.only in (None, arguments[0]):
            raise self._error
        return await self._method(*arguments, **named)


async def is_gone(api: Any, job_id: str) -> bool:
    return not (await api.answer("get", [job_id]))["success"]


async def states(api: Any, job_id: str) -> list[str]:
    """Of the job's runs, oldest first."""
    return [run["status"] for run in await api.runs(jobId=job_id)][::-1]


class TestADeletionThatFailedHalfWay:
    """The job is buried, and the ledger was away when its runs were to be cancelled."""

    async def half_deleted(self, open_api: Any, monkeypatch: Any) -> tuple[Any, str, Away]:
        api = await open_api(max_concurrent_runs=1)
        job = await api.create(command="agent: hang", overlap="queue")
        runs = [await api.data("run", [job["id"]]) for _ in range(3)]
        await api.run_in(runs[0]["id"], {"running"})
        away = Away(api.cron._house._ledger.cancel_all)
        monkeypatch.setattr(api.cron._house._ledger, "cancel_all", away)
        assert (await api.refusal("delete", [job["id"]]))["code"] == "unavailable"
        assert await is_gone(api, job["id"])
        assert await states(api, job["id"]) == ["running", "queued", "queued"]
        return api, job["id"], away

    async def test_deleting_again_completes_it(self, open_api: Any, monkeypatch: Any) -> None:
        api, job_id, away = await self.half_deleted(open_api, monkeypatch)
        away.back = True
        assert await api.answer("delete", [job_id]) == {"success": True}
        assert (await states(api, job_id))[1:] == ["cancelled", "cancelled"]

    async def test_upkeep_completes_it_if_nobody_asks(self, open_api: Any, monkeypatch: Any) -> None:
        api, job_id, away = await self.half_deleted(open_api, monkeypatch)
        away.back = True
        await api.clock.advance(6)
        assert (await states(api, job_id))[1:] == ["cancelled", "cancelled"]

    async def test_the_next_start_completes_it(self, open_api: Any, monkeypatch: Any) -> None:
        _, job_id, away = await self.half_deleted(open_api, monkeypatch)
        api = await open_api()
        assert (await states(api, job_id))[1:] == ["cancelled", "cancelled"]
        assert api.agents.calls == []
        assert len(away.calls) > 1, "the stop had tried, too"

    async def test_a_start_leaves_the_runs_of_a_job_alone_that_cannot_be_read(self, open_api: Any) -> None:
        api = await open_api(max_concurrent_runs=1)
        job = await api.create(command="agent: hang", overlap="queue")
        runs = [await api.data("run", [job["id"]]) for _ in range(2)]
        await api.run_in(runs[0]["id"], {"running"})
        objects, key = api.cron._house._objects, f"cron/jobs/{job['id']}.json"
        await objects.put(key, b"half a docu", if_match=(await objects.get(key)).etag)
        api = await open_api(max_concurrent_runs=1)
        assert "cancelled" not in await states(api, job["id"])


class TestDeleteAfterRun:
    """It is kept across a kill, and a caller who takes it back is heard."""

    async def ran(self, open_api: Any, monkeypatch: Any, **fields: Any) -> tuple[Any, str, Away]:
        """A job whose run has ended, and which could not be deleted."""
        api = await open_api()
        job = await api.create(**{**MINUTELY, "deleteAfterRun": True, **fields})
        away = Away(api.cron._house.removals.remove)
        monkeypatch.setattr(api.cron._house.removals, "remove", away)
        await api.clock.advance(61)
        assert await states(api, job["id"]) == ["success"] and away.calls
        return api, job["id"], away

    async def test_the_next_start_deletes_it_before_it_can_run_again(
        self, open_api: Any, monkeypatch: Any
    ) -> None:
        api, job_id, _ = await self.ran(open_api, monkeypatch, catchUp="all")
        await open_api.stop()
        api.clock.step(timedelta(minutes=60))
        api = await open_api()
        assert await is_gone(api, job_id)
        await api.clock.advance(120)
        assert await states(api, job_id) == ["success"], "nothing of the hour is caught up"

    async def test_a_job_that_was_switched_off_after_its_only_instant_is_deleted_too(
        self, open_api: Any, monkeypatch: Any
    ) -> None:
        only = {"cronExpression": "at 2026-01-30T12:01:00Z"}
        api, job_id, _ = await self.ran(open_api, monkeypatch, **only)
        await api.clock.advance(10)
        assert (await api.data("get", [job_id]))["enabled"] is False
        assert await is_gone(await open_api(), job_id)

    async def test_a_stop_deletes_what_is_still_to_be_deleted(
        self, open_api: Any, monkeypatch: Any
    ) -> None:
        api, job_id, away = await self.ran(open_api, monkeypatch)
        store, away.back = api.cron._house._store, True
        await open_api.stop()
        assert store.get(job_id) is None

    async def test_a_run_by_hand_is_no_reason_for_the_next_start_either(self, open_api: Any) -> None:
        api = await open_api()
        job = await api.create(**MINUTELY, command="agent: hang", deleteAfterRun=True, overlap="allow")
        await api.clock.advance(61)  # the scheduled run works, and has not ended
        manual = await api.data("run", [job["id"]])
        await api.run_in(manual["id"], {"running"})
        await api.data("cancel", [manual["id"]])
        await api.run_in(manual["id"])
        assert not await is_gone(await open_api(), job["id"])

    async def test_a_backfill_is_no_reason_either(self, api: Any) -> None:
        house, job = api.cron._house, await api.create(**MINUTELY, deleteAfterRun=True, overlap="allow")
        kept, now = house._store.get(job["id"]), api.clock.now()
        event = Event(now, "acme", "alice", "alice", "job.backfilled", kept.id, kept.id)
        await house._ledger.backfill(empty_plan(kept), [now - timedelta(minutes=5)], now, event)
        await api.clock.advance(10)
        assert await states(api, job["id"]) == ["success"] and not await is_gone(api, job["id"])
        await api.clock.advance(60)
        assert await is_gone(api, job["id"])

    async def test_a_run_after_another_job_is_one(self, open_api: Any, monkeypatch: Any) -> None:
        api = await open_api()
        first = await api.create(**MINUTELY)
        follower = await api.create(
            cronExpression="never", after=[{"jobId": first["id"]}], deleteAfterRun=True
        )
        removals = api.cron._house.removals
        monkeypatch.setattr(removals, "remove", Away(removals.remove))
        await api.clock.advance(61)
        assert await states(api, follower["id"]) == ["success"]
        assert await is_gone(await open_api(), follower["id"])

    async def test_one_who_takes_it_back_keeps_the_job(self, open_api: Any, monkeypatch: Any) -> None:
        api, job_id, away = await self.ran(open_api, monkeypatch)
        assert (await api.data("update", [job_id, {"deleteAfterRun": False}]))["deleteAfterRun"] is False
        away.back = True
        await api.clock.advance(60)
        assert not await is_gone(api, job_id)
        assert not await is_gone(await open_api(), job_id)

    async def test_one_who_takes_it_back_while_it_is_being_deleted_keeps_the_job(self, api: Any) -> None:
        house, job = api.cron._house, await api.create(deleteAfterRun=True)
        async with house._store._lock(job["id"]):  # both wait, the update in front
            update = asyncio.create_task(api.data("update", [job["id"], {"deleteAfterRun": False}]))
            while not house._store._lock(job["id"])._waiters:
                await asyncio.sleep(0.001)
            deletion = asyncio.create_task(house._upkeep._delete(job["id"]))
            await asyncio.sleep(0)
        await asyncio.gather(update, deletion)
        assert not await is_gone(api, job["id"])


class TestTheEndOfMaxRuns:
    async def over(self, api: Any, monkeypatch: Any) -> tuple[str, Away]:
        """A job that had all its runs, and which could not be switched off."""
        job = await api.create(**MINUTELY, maxRuns=1)
        away = Away(api.cron._house.jobs.disable)
        monkeypatch.setattr(api.cron._house.jobs, "disable", away)
        await api.clock.advance(61)
        assert away.calls
        return job["id"], away

    async def test_more_runs_that_were_granted_meanwhile_are_run(self, api: Any, monkeypatch: Any) -> None:
        job_id, away = await self.over(api, monkeypatch)
        granted = await api.data("update", [job_id, {"maxRuns": 3}])
        away.back = True
        await api.clock.advance(10)
        shown = await api.data("get", [job_id])
        assert shown["enabled"] and shown["nextExecutionAt"] == granted["nextExecutionAt"]
        await api.clock.advance(180)
        shown = await api.data("get", [job_id])
        assert shown["pausedReason"] == "completed: maxRuns 3 is reached"
        assert len(await states(api, job_id)) == 3

    async def test_the_reason_of_one_who_paused_it_stays(self, api: Any, monkeypatch: Any) -> None:
        job_id, away = await self.over(api, monkeypatch)
        await api.data("pause", [job_id, "the source moves house"])
        away.back = True
        await api.clock.advance(10)
        assert (await api.data("get", [job_id]))["pausedReason"] == "the source moves house"


class TestCancelledBetweenTwoAttempts:
    """No attempt's end tells of it."""

    async def between(self, api: Any, **fields: Any) -> tuple[str, str]:
        retry = {"maxAttempts": 3, "initialSeconds": 3600, "maxSeconds": 3600}
        job = await api.create(**{**MINUTELY, "command": "agent: fail", "retry": retry, **fields})
        await api.clock.advance(61)
        [run] = await api.runs(jobId=job["id"], status="queued")
        assert run["attempt"] == 1
        await api.data("cancel", [run["id"]])
        await api.clock.advance(1)
        return job["id"], run["id"]

    async def test_it_counts(self, api: Any) -> None:
        async with await api.house.socket(who="alice") as socket:
            job_id, run_id = await self.between(api)
            shown = await api.data("get", [job_id])
            assert (shown["executionCount"], shown["failureCount"]) == (1, 0)
            assert (shown["lastStatus"], shown["lastError"]) == ("cancelled", "cancelled by alice")
            while (told := await socket.receive_json(timeout=5))["method"] != "carapace.cron.event":
                pass  # the message in the channel may come first
            heard = told["params"]
            assert (heard["runId"], heard["status"]) == (run_id, "cancelled")
            assert (heard["success"], heard["error"]) == (False, "cancelled by alice")
            assert await api.data("cancel", [run_id]) and (await api.data("get", [job_id])) == shown

    @pytest.mark.parametrize("newer", ["schedule", "asked for"])
    async def test_it_counts_where_a_newer_run_takes_its_place(self, api: Any, newer: str) -> None:
        retry = {"maxAttempts": 3, "initialSeconds": 3600, "maxSeconds": 3600}
        async with await api.house.socket(who="alice") as socket:
            job = await api.create(
                **MINUTELY, command="agent: fail", retry=retry, overlap="cancelPrevious", notify="never"
            )
            await api.clock.advance(61)
            [first] = await api.runs(jobId=job["id"], status="queued")
            if newer == "asked for":
                await api.data("run", [job["id"]])
                await api.clock.advance(1)
            else:
                await api.clock.advance(60)
            assert (await api.run_in(first["id"]))["status"] == "cancelled"
            shown = await api.data("get", [job["id"]])
            assert (shown["executionCount"], shown["lastStatus"]) == (1, "cancelled")
            told = await socket.receive_json(timeout=5)
            heard = told["params"]
            assert (heard["runId"], heard["status"], heard["success"]) == (first["id"], "cancelled", False)

    async def test_it_is_the_run_after_which_the_job_is_deleted(self, api: Any) -> None:
        job_id, _ = await self.between(api, deleteAfterRun=True)
        assert await is_gone(api, job_id)


class TestADeadlineBetweenTwoAttempts:
    async def test_it_counts_is_told_and_pauses_the_job(self, open_api: Any) -> None:
        api = await open_api(max_concurrent_runs=1)
        job = await api.create(command="agent: fail", deadlineSeconds=30, pauseAfterFailures=1)
        busy = await api.create(command="agent: hang")
        run = await api.data("run", [job["id"]])
        await api.run_in(run["id"], {"queued"})
        await api.clock.advance(1)
        await api.run_in((await api.data("run", [busy["id"]]))["id"], {"running"})
        async with await api.house.socket(who="alice") as socket:
            await api.clock.advance(40)
            assert (await api.run_in(run["id"]))["status"] == "timeout"
            while (told := await socket.receive_json(timeout=5))["method"] != "carapace.cron.event":
                pass  # the message in the channel may come first
        assert (told["params"]["runId"], told["params"]["status"]) == (run["id"], "timeout")
        shown = await api.data("get", [job["id"]])
        assert (shown["lastStatus"], shown["failureCount"], shown["enabled"]) == ("timeout", 1, False)


class TestOneThatFails:
    async def test_a_checkpoint_that_is_refused_holds_up_no_other(
        self, api: Any, monkeypatch: Any, caplog: Any
    ) -> None:
        await api.clock.advance(400)
        jobs = [(await api.create(**MINUTELY, name=name))["id"] for name in "ABC"]
        refused = Away(api.cron._house._store.checkpoint, ConfigurationError("this key is closed"))
        refused.only = jobs[0]
        monkeypatch.setattr(api.cron._house._store, "checkpoint", refused)
        with caplog.at_level(logging.WARNING):
            await api.clock.advance(66)
        assert set(refused.calls) == set(jobs)
        assert "a checkpoint waits for 1 job: this key is closed" in caplog.messages

    async def test_all_are_tried_those_that_failed_last_at_the_end(self, caplog: Any) -> None:
        patience, tried = Patience(), []

        async def work(job_id: str) -> None:
            tried.append(job_id)
            if job_id == "a":
                raise ValueError("a bug")

        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                await patience.each("a checkpoint", ["a", "b", "c"], work)
        assert tried == ["a", "b", "c", "b", "c", "a"]
        assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
        assert "a bug" in caplog.text and "Traceback" in caplog.text

    async def test_a_store_that_is_away_is_not_asked_for_every_job_and_not_always_for_the_same(self) -> None:
        patience, tried = Patience(), []
        jobs = [str(number) for number in range(JOBS_AT_ONCE * 3)]

        async def away(job_id: str) -> None:
            tried.append(job_id)
            raise Unavailable("no answer")

        for _ in range(3):
            await patience.each("a checkpoint", jobs, away)
        assert tried == jobs


async def test_what_is_kept_of_a_job_goes_with_its_tombstone(open_api: Any) -> None:
    api = await open_api()
    job = await api.create(**MINUTELY)
    await api.clock.advance(61)
    await api.data("delete", [job["id"]])
    house = api.cron._house
    assert job["id"] in await house._ledger.progress()
    assert house._board.of(job["id"]).execution_count == 1
    assert not {job["id"]} & (house._upkeep._dirty.keys() | house._upkeep._checkpointed_at.keys())
    api = await open_api()
    house = api.cron._house
    assert list(house._board._standings) == [job["id"]]
    api.clock.step(timedelta(days=31))
    await api.clock.advance(3601)
    assert await house._ledger.progress() == {}
    assert (house._board._standings, house._scheduler._known) == ({}, {})


async def test_a_gateway_that_is_not_up_for_long_forgets_old_runs_too(open_api: Any) -> None:
    api = await open_api(keep_runs_days=1)
    job = await api.create(**MINUTELY)
    await api.clock.advance(61)
    await api.data("pause", [job["id"]])
    assert await states(api, job["id"]) == ["success"]
    api = await open_api(keep_runs_days=1)
    api.clock.step(timedelta(days=2))
    await api.clock.advance(19 * 60)
    assert await states(api, job["id"]) == ["success"], "a start has enough to do"
    await api.clock.advance(2 * 60)
    assert await states(api, job["id"]) == []


async def test_a_slow_write_of_one_user_makes_no_other_wait(api: Any, monkeypatch: Any) -> None:
    store, let_go = api.cron._house._store, asyncio.Event()
    create = store.create

    async def slow_for_alice(job: Any) -> Any:
        if job.user_id == "alice":
            await let_go.wait()
        return await create(job)

    monkeypatch.setattr(store, "create", slow_for_alice)
    waiting = [asyncio.create_task(api.create(idempotencyKey="key")) for _ in range(2)]
    await asyncio.sleep(0)
    assert await asyncio.wait_for(api.create(who="bob", idempotencyKey="key"), 5)
    let_go.set()
    first, second = await asyncio.gather(*waiting)
    assert first["id"] == second["id"]
    assert len(api.cron._house.jobs._keyed_creates) == 0


@pytest.mark.parametrize("fields", [{"schedule": "61 * * * *"}, {"cronExpression": "61 * * * *"}])
async def test_a_fault_in_a_schedule_names_the_field_that_was_given(api: Any, fields: Any) -> None:
    data = {"name": "n", "command": "date", "channelId": "gateway", **fields}
    assert (await api.refusal("create", {"data": data}))["field"] == next(iter(fields))
    data = {**data, next(iter(fields)): "* * * * *", "timezone": "Mars/Olympus"}
    assert (await api.refusal("create", {"data": data}))["field"] == "timezone"
