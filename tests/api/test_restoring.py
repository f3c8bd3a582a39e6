"""What was deleted can be brought back, with all that it had, for thirty days."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

MINUTELY = {"cronExpression": "* * * * *"}
RUN_AND_DELETED = {**MINUTELY, "deleteAfterRun": True}


async def deleted(api: Any, **fields: Any) -> str:
    job_id: str = (await api.create(**fields))["id"]
    await api.data("delete", [job_id])
    return job_id


async def states(api: Any, job_id: str) -> list[str]:
    return [run["status"] for run in await api.runs(jobId=job_id)][::-1]


async def is_there(api: Any, job_id: str) -> bool:
    return bool((await api.answer("get", [job_id]))["success"])


class TestWhatComesBack:
    async def test_the_definition_the_counts_and_the_runs(self, open_api: Any) -> None:
        api = await open_api()
        job_id = (await api.create(**MINUTELY, command="agent: fail", retry={"maxAttempts": 1}))["id"]
        await api.clock.advance(121)
        before = await api.data("get", [job_id])
        assert (before["executionCount"], before["failureCount"]) == (2, 2)
        await api.data("delete", [job_id])
        api = await open_api()
        restored = await api.data("restore", [job_id])
        assert restored["restoredAt"] and restored["enabled"]
        for name in before.keys() - {"revision", "updatedAt"}:
            assert restored[name] == before[name], name
        assert restored["revision"] == before["revision"] + 2
        assert restored == await api.data("get", [job_id]) == (await api.data("list"))[0]
        assert await states(api, job_id) == ["failure", "failure"]
        await api.clock.advance(60)
        assert (await api.data("get", [job_id]))["failureCount"] == 3
        assert await api.data("list", {"deleted": True}) == []

    async def test_it_is_due_from_then_on_and_nothing_in_between_is_missed(self, open_api: Any) -> None:
        api = await open_api()
        job_id = await deleted(api, **MINUTELY, catchUp="all")
        await api.clock.advance(150)
        await api.data("restore", [job_id])
        await api.clock.advance(60)
        [run] = await api.runs(jobId=job_id)
        assert (run["scheduledFor"], run["trigger"]) == ("2026-01-30T12:03:00Z", "schedule")
        api = await open_api()
        await api.clock.advance(60)
        assert len(await api.runs(jobId=job_id)) == 2

    async def test_a_paused_job_is_as_it_was_paused(self, api: Any) -> None:
        job_id = (await api.create(**MINUTELY))["id"]
        paused = await api.data("pause", [job_id, "moving", "2026-01-30T12:03:00Z"])
        await api.data("delete", [job_id])
        restored = await api.data("restore", [job_id])
        for name in ("enabled", "pausedReason", "pausedUntil", "nextExecutionAt"):
            assert restored[name] == paused[name], name
        await api.clock.advance(181)
        assert await states(api, job_id) == ["success"]

    async def test_a_pause_that_would_be_over_by_now_is_over(self, api: Any) -> None:
        job_id = (await api.create(**MINUTELY))["id"]
        await api.data("pause", [job_id, "moving", "2026-01-30T12:01:00Z"])
        await api.data("delete", [job_id])
        await api.clock.advance(150)
        await api.data("restore", [job_id])
        await api.clock.advance(60)
        [run] = await api.runs(jobId=job_id)
        assert run["scheduledFor"] == "2026-01-30T12:03:00Z"
        assert (await api.data("get", [job_id]))["enabled"]

    async def test_failures_in_a_row_go_on_being_counted(self, api: Any) -> None:
        failing = {"command": "agent: fail", "retry": {"maxAttempts": 1}, "pauseAfterFailures": 2}
        job_id = (await api.create(**MINUTELY, **failing))["id"]
        await api.clock.advance(61)
        await api.data("delete", [job_id])
        await api.data("restore", [job_id])
        await api.clock.advance(65)
        shown = await api.data("get", [job_id])
        assert shown["pausedReason"].startswith("paused after 2 failures in a row")

    async def test_its_chains_do_both_ways(self, open_api: Any) -> None:
        api = await open_api()
        first = (await api.create())["id"]
        middle = (await api.create(cronExpression="never", after=[{"jobId": first}]))["id"]
        last = (await api.create(cronExpression="never", after=[{"jobId": middle}]))["id"]
        await api.data("delete", [middle])
        api = await open_api()
        await api.run_in((await api.data("run", [first]))["id"])
        assert await states(api, middle) == []
        await api.data("restore", [middle])
        await api.data("run", [first])
        await api.until(lambda: self._has_run(api, last))
        assert [run["trigger"] for run in await api.runs(jobId=middle)] == ["chain"]

    async def _has_run(self, api: Any, job_id: str) -> bool:
        return await states(api, job_id) == ["success"]

    async def test_runs_of_max_runs_stay_counted(self, api: Any) -> None:
        job_id = (await api.create(**MINUTELY, maxRuns=2))["id"]
        await api.clock.advance(61)
        await api.data("delete", [job_id])
        assert "nextExecutionAt" in await api.data("restore", [job_id])
        await api.clock.advance(130)
        assert await states(api, job_id) == ["success", "success"]
        assert (await api.data("get", [job_id]))["pausedReason"] == "completed: maxRuns 2 is reached"

    async def test_what_worked_at_the_deletion_stays_cancelled(self, api: Any) -> None:
        job_id = (await api.create(command="agent: hang", overlap="queue"))["id"]
        runs = [await api.data("run", [job_id]) for _ in range(2)]
        await api.run_in(runs[0]["id"], {"running"})
        await api.data("delete", [job_id])
        await api.data("restore", [job_id])
        assert {(await api.run_in(run["id"]))["status"] for run in runs} == {"cancelled"}


class TestComingBackPaused:
    """What could not be created as it was is not lost: it waits to be mended."""

    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            ({"cronExpression": "at 2026-01-30T12:01:00Z"},
             'restored paused: bad schedule "at 2026-01-30T12:01:00Z": never due after 2026-01-30T12:02:00Z; '
             "expected a later instant"),
            ({**MINUTELY, "endAt": "2026-01-30T12:01:30Z"},
             "restored paused: bad endAt 2026-01-30T12:01:30Z: no instant of the schedule lies before it"),
        ],
    )  # fmt: skip
    async def test_a_job_whose_time_is_over(self, api: Any, fields: Any, reason: str) -> None:
        job_id = await deleted(api, **fields)
        await api.clock.advance(120)
        restored = await api.data("restore", [job_id])
        assert (restored["enabled"], restored["pausedReason"]) == (False, reason)
        assert "nextExecutionAt" not in restored
        mended = {"cronExpression": "0 13 * * *", "endAt": None, "enabled": True}
        assert (await api.data("update", [job_id, mended]))["nextExecutionAt"] == "2026-01-30T13:00:00Z"

    async def test_a_job_whose_channel_is_gone(self, open_api: Any) -> None:
        hook = {"kind": "webhook", "url": "https://hooks.example.com/"}
        api = await open_api(channels={"ops": hook})
        job_id = await deleted(api, channelId="ops")
        api = await open_api()
        gone = 'unknown channel "ops": expected one of gateway'
        assert (await api.data("restore", [job_id]))["pausedReason"] == f"restored paused: {gone}"
        refusal = await api.refusal("resume", [job_id])
        assert (refusal["field"], refusal["error"]) == ("channelId", gone)
        await api.data("update", [job_id, {"channelId": "gateway"}])
        assert (await api.data("resume", [job_id]))["enabled"]

    async def test_a_job_that_is_deleted_after_its_run(self, open_api: Any) -> None:
        api = await open_api()
        job_id = (await api.create(**RUN_AND_DELETED))["id"]
        await api.clock.advance(66)
        assert not await is_there(api, job_id)
        restored = await api.data("restore", [job_id])
        assert (restored["enabled"], restored["pausedReason"]) == (
            False,
            "restored paused: it would be deleted again after its next run, as deleteAfterRun asks",
        )
        for _ in range(2):
            await api.clock.advance(10)
            assert await is_there(api, job_id), "the run that it had is no reason to delete it again"
            api = await open_api()
        await api.data("resume", [job_id])
        await api.clock.advance(66)
        assert await states(api, job_id) == ["success", "success"]
        assert not await is_there(api, job_id)

    async def test_a_run_from_before_that_ends_after_the_restore_deletes_nothing(self, open_api: Any) -> None:
        api = await open_api()
        job_id = (await api.create(**RUN_AND_DELETED, command="agent: hang"))["id"]
        await api.clock.advance(61)
        assert await states(api, job_id) == ["running"]
        await api.data("delete", [job_id])
        await api.data("restore", [job_id])
        await api.clock.advance(10)
        assert await states(api, job_id) == ["cancelled"]
        assert await is_there(api, job_id)
        assert await is_there(await open_api(), job_id)


class TestOnce:
    async def test_two_restores_at_once_are_one(self, open_api: Any) -> None:
        api = await open_api(max_jobs_per_tenant=1)
        job_id = await deleted(api)
        first, second = await asyncio.gather(*(api.data("restore", [job_id]) for _ in range(2)))
        assert first == second and first["revision"] == 3
        assert await api.data("restore", [job_id]) == first, "and again is fine"

    async def test_the_tenants_quota_holds(self, open_api: Any) -> None:
        api = await open_api(max_jobs_per_tenant=1)
        job_id = await deleted(api)
        await api.create()
        refusal = await api.refusal("restore", [job_id])
        assert refusal["code"] == "quota_exceeded" and not await is_there(api, job_id)

    async def test_its_idempotency_key_is_its_own_again(self, api: Any) -> None:
        job_id = await deleted(api, idempotencyKey="k")
        assert (await api.data("restore", [job_id]))["idempotencyKey"] == "k"
        assert (await api.create(idempotencyKey="k"))["id"] == job_id

    async def test_a_key_that_names_another_job_by_now_goes_on_naming_that(self, api: Any) -> None:
        job_id = await deleted(api, idempotencyKey="k")
        newer = await api.create(idempotencyKey="k")
        assert "idempotencyKey" not in await api.data("restore", [job_id])
        assert (await api.create(idempotencyKey="k"))["id"] == newer["id"]
        assert len(await api.data("list")) == 2

    async def test_deleting_and_restoring_by_turns_comes_to_one_end(self, api: Any) -> None:
        job_id = (await api.create(**MINUTELY))["id"]
        await asyncio.gather(
            *(api.answer(method, [job_id]) for _ in range(5) for method in ("delete", "restore"))
        )
        listed = [job["id"] for job in await api.data("list")]
        buried = [job["id"] for job in await api.data("list", {"deleted": True})]
        assert sorted(listed + buried) == [job_id]
        await api.data("restore", [job_id])
        await api.clock.advance(61)
        assert await states(api, job_id) == ["success"]


class TestWhatCanBeRestored:
    async def test_a_list_of_it_with_when_by_whom_and_until_when(self, api: Any) -> None:
        job_id = (await api.create(name="gone"))["id"]
        await api.run_in((await api.data("run", [job_id]))["id"])
        kept = (await api.create())["id"]
        await api.data("delete", [job_id], who="ada")
        [shown] = await api.data("list", {"deleted": True})
        assert (shown["id"], shown["name"], shown["executionCount"]) == (job_id, "gone", 1)
        assert (shown["deletedBy"], shown["deletedAt"]) == ("ada", "2026-01-30T12:00:00Z")
        assert shown["restorableUntil"] == "2026-03-01T12:00:00Z" and "nextExecutionAt" not in shown
        assert [job["id"] for job in await api.data("list")] == [kept]
        assert await api.data("list", {"deleted": True}, who="bob") == []
        assert len(await api.data("list", {"deleted": True, "userId": "alice"}, who="ada")) == 1

    async def test_pages_have_no_gap_and_no_repeat(self, open_api: Any) -> None:
        api = await open_api()
        gone = sorted([await deleted(api) for _ in range(5)])
        api = await open_api()
        seen: list[str] = []
        cursor = None
        while True:
            answer = await api.answer("list", {"deleted": True, "limit": 2, "cursor": cursor})
            seen += [job["id"] for job in answer["data"]]
            cursor = answer["nextCursor"]
            if cursor is None:
                break
        assert seen == gone
        assert (await api.refusal("list", {"deleted": True, "limit": 0}))["field"] == "limit"

    @pytest.mark.parametrize("who", ["bob", "charlie"])
    async def test_nothing_of_anothers(self, api: Any, who: str) -> None:
        job_id = await deleted(api)
        unknown = f'no deleted job "{job_id}": list your jobs with deleted to see which can be restored'
        refusal = await api.refusal("restore", [job_id], who=who)
        assert (refusal["code"], refusal["error"]) == ("not_found", unknown)

    async def test_nothing_after_thirty_days(self, open_api: Any) -> None:
        api = await open_api()
        job_id = await deleted(api)
        api.clock.step(timedelta(days=31))
        await api.clock.advance(3601)
        assert await api.data("list", {"deleted": True}) == []
        assert (await api.refusal("restore", [job_id]))["code"] == "not_found"


async def test_a_deletion_that_failed_half_way_is_completed_before_the_job_is_back(
    api: Any, monkeypatch: Any
) -> None:
    ledger = api.cron._house._ledger
    job_id = (await api.create(command="agent: hang", overlap="queue"))["id"]
    runs = [await api.data("run", [job_id]) for _ in range(3)]
    await api.run_in(runs[0]["id"], {"running"})

    async def away(*_: Any) -> None:
        raise OSError("no ledger")

    with monkeypatch.context() as broken:
        broken.setattr(ledger, "cancel_all", away)
        assert "error" in await api.ask("delete", [job_id])
    await api.data("restore", [job_id])
    later = await api.data("run", [job_id])
    assert {(await api.run_in(run["id"]))["status"] for run in runs} == {"cancelled"}
    assert (await api.run_in(later["id"], {"running"}))["status"] == "running"
