"""Run, cancel and read runs; what ends a job; what those who watch hear; what a restart brings back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

RUN_FIELDS = {
    "id", "jobId", "scheduledFor", "startedAt", "finishedAt", "status", "trigger", "attempt", "output",
    "error", "durationMs", "metadata",
}  # fmt: skip


async def started(api: Any, **fields: Any) -> tuple[Any, Any]:
    """A job, and a run of it that was asked for."""
    job = await api.create(**fields)
    return job, await api.data("run", [job["id"]])


class TestRunningNow:
    """carapace.cron.run"""

    async def test_it_runs_and_shows_every_field(self, api: Any) -> None:
        job, run = await started(api, command='echo "Job executed"')
        assert run["status"] == "queued" and run["trigger"] == "manual" and run["jobId"] == job["id"]
        ended = await api.run_in(run["id"])
        assert set(ended) >= RUN_FIELDS
        assert {name: ended[name] for name in RUN_FIELDS - {"id", "scheduledFor"}} == {
            "jobId": job["id"],
            "startedAt": "2026-01-30T12:00:00Z",
            "finishedAt": "2026-01-30T12:00:00Z",
            "status": "success",
            "trigger": "manual",
            "attempt": 1,
            "output": "Job executed",
            "error": None,
            "durationMs": 0,
            "metadata": {},
        }

    async def test_the_schedule_goes_on_beside_it(self, api: Any) -> None:
        job, run = await started(api)
        await api.run_in(run["id"])
        shown = await api.data("get", [job["id"]])
        assert shown["nextExecutionAt"] == "2026-01-31T09:00:00Z" and shown["executionCount"] == 1

    async def test_a_paused_job_can_be_run(self, api: Any) -> None:
        _, run = await started(api, enabled=False)
        assert (await api.run_in(run["id"]))["status"] == "success"

    async def test_the_same_key_is_the_same_run(self, api: Any) -> None:
        job = await api.create()
        first = await api.data("run", {"jobId": job["id"], "idempotencyKey": "k"})
        await api.run_in(first["id"])
        again = await api.data("run", {"jobId": job["id"], "idempotencyKey": "k"})
        assert again["id"] == first["id"] and again["status"] == "success"
        other = await api.create()
        assert (await api.data("run", [other["id"], "k"]))["id"] != first["id"], "keys belong to the job"
        assert len(await api.runs(jobId=job["id"])) == 1

    async def test_without_a_key_each_call_is_a_run(self, api: Any) -> None:
        job, run = await started(api)
        await api.run_in(run["id"])
        second = await api.data("run", [job["id"]])
        await api.run_in(second["id"])
        assert len(await api.runs()) == 2

    async def test_it_is_a_conflict_while_one_works_and_overlap_is_skip(self, api: Any) -> None:
        job, run = await started(api, command="agent: hang")
        refusal = await api.refusal("run", [job["id"]])
        assert refusal["code"] == "conflict"
        assert refusal["error"] == (
            f"run {run['id']} of this job has not ended and the job's overlap is skip; "
            "wait for it, or cancel it"
        )

    @pytest.mark.parametrize("key", ["", "x" * 201])
    async def test_a_key_has_bounds(self, api: Any, key: str) -> None:
        job = await api.create()
        refusal = await api.refusal("run", {"jobId": job["id"], "idempotencyKey": key})
        assert refusal["error"] == "bad idempotencyKey: expected 1–200 characters"

    async def test_an_agent_says_how_it_went(self, api: Any) -> None:
        _, run = await started(api, command="agent: generate-report --daily")
        assert (await api.run_in(run["id"]))["output"] == "report --daily"
        [call] = api.agents.calls
        assert call.arguments == ("--daily",) and call.user_id == "alice" and call.tenant == "acme"
        _, run = await started(api, command="agent: fail", retry={"maxAttempts": 1})
        failed = await api.run_in(run["id"])
        assert (failed["status"], failed["output"]) == ("failure", "half of it")
        assert failed["error"] == "the source was empty"

    async def test_a_failure_is_tried_again_as_the_job_says(self, api: Any) -> None:
        job, run = await started(api, command="agent: fail", retry={"maxAttempts": 3, "initialSeconds": 5})
        for _ in range(16):
            await api.clock.advance(1)
        ended = await api.run_in(run["id"])
        assert ended["attempt"] == 3 and len(api.agents.calls) == 3
        assert ended["finishedAt"] >= "2026-01-30T12:00:15Z", "5 and 10 seconds between"
        shown = await api.data("get", [job["id"]])
        assert (shown["failureCount"], shown["executionCount"]) == (1, 1)
        assert shown["lastStatus"] == "failure" and shown["lastError"] == "the source was empty"
        assert (await api.data("status"))["failingJobs"] == 1


class TestCancelling:
    """carapace.cron.cancel"""

    async def test_what_works_is_stopped(self, api: Any) -> None:
        _, run = await started(api, command="agent: hang")
        await api.run_in(run["id"], {"running"})
        assert (await api.data("status"))["activeExecutions"] == 1
        assert (await api.data("cancel", [run["id"]]))["id"] == run["id"]
        ended = await api.run_in(run["id"])
        assert ended["status"] == "cancelled" and ended["error"] == "cancelled by alice"
        assert api.agents.stopped == [run["id"]] and api.agents.working == 0
        assert ended["metadata"] == {"stopped": {"agent": "stopped"}}
        assert (await api.data("cancel", {"runId": run["id"]}))["status"] == "cancelled", "twice is fine"
        assert (await api.data("status"))["activeExecutions"] == 0

    async def test_what_takes_too_long_is_stopped_just_so(self, api: Any) -> None:
        short = {"timeoutSeconds": 0.2, "retry": {"maxAttempts": 1}}
        _, run = await started(api, command="agent: hang", **short)
        ended = await api.run_in(run["id"])
        assert (ended["status"], ended["metadata"]) == ("timeout", {"stopped": {"agent": "stopped"}})
        assert api.agents.stopped == [run["id"]] and api.agents.working == 0

    async def test_what_waits_never_starts(self, api: Any) -> None:
        job, first = await started(api, command="agent: hang", overlap="queue")
        waiting = await api.data("run", [job["id"]])
        assert (await api.data("status"))["queuedRuns"] == 1
        cancelled = await api.data("cancel", [waiting["id"]])
        assert cancelled["status"] == "cancelled" and cancelled["reason"] == "cancelled by alice"
        api.agents.let_go.set()
        assert (await api.run_in(first["id"]))["status"] == "success"
        assert len(api.agents.calls) == 1

    async def test_what_has_ended_is_a_conflict(self, api: Any) -> None:
        _, run = await started(api)
        await api.run_in(run["id"])
        refusal = await api.refusal("cancel", [run["id"]])
        assert refusal == {
            "success": False,
            "error": f"run {run['id']} has ended already, as success: nothing is left to cancel",
            "code": "conflict",
            "field": "runId",
        }


class TestReading:
    """carapace.cron.runs"""

    async def test_120_runs_page_without_gap_or_repeat_newest_first(self, api: Any) -> None:
        job = await api.create(overlap="allow")
        made = {
            run["id"]
            for run in await asyncio.gather(*(api.data("run", [job["id"]]) for _ in range(120)))
        }
        seen: list[Any] = []
        cursor = None
        while True:
            page = await api.data("runs", {"jobId": job["id"], "limit": 25, "cursor": cursor})
            seen += page["items"]
            if seen and len(seen) == 50:
                await api.data("run", [job["id"]])  # a new one must not move the pages behind
            cursor = page["nextCursor"]
            if cursor is None:
                break
        assert [run["id"] for run in seen if run["id"] in made] == [run["id"] for run in seen]
        assert {run["id"] for run in seen} == made and len(seen) == 120
        instants = [run["scheduledFor"] for run in seen]
        assert instants == sorted(instants, reverse=True)
        assert (await api.runs(limit=1))[0]["id"] not in made

    async def test_it_filters(self, api: Any) -> None:
        good, good_run = await started(api)
        _, bad_run = await started(api, command="agent: fail", retry={"maxAttempts": 1})
        for run in (good_run, bad_run):
            await api.run_in(run["id"])
        await api.clock.advance(10)
        _, later = await started(api)
        await api.run_in(later["id"])

        async def found(**asked: Any) -> list[str]:
            return [run["id"] for run in await api.runs(**asked)]

        assert await found(jobId=good["id"]) == [good_run["id"]]
        assert await found(status="failure") == [bad_run["id"]]
        assert set(await found(status=["success", "failure"])) == {good_run["id"], bad_run["id"], later["id"]}
        assert await found(status="skipped") == []
        assert await found(since="2026-01-30T12:00:05Z") == [later["id"]]
        assert set(await found(until="2026-01-30T13:00:05+01:00")) == {good_run["id"], bad_run["id"]}
        assert await found(limit=1) == [later["id"]]

    @pytest.mark.parametrize(
        ("asked", "field", "sentence"),
        [
            ({"limit": 0}, "limit", "bad limit 0: expected 1–500"),
            ({"limit": 501}, "limit", "bad limit 501: expected 1–500"),
            ({"status": "done"}, "status",
             'bad status "done": expected one of queued, running, success, degraded, failure, timeout, '
             "cancelled, skipped, missed"),
            ({"status": []}, "status", "bad status: expected a state or a list of 1–16 states, found 0"),
            ({"since": "yesterday"}, "since",
             'bad since "yesterday": expected an instant such as 2026-12-01T09:00:00Z'),
            ({"until": "2026-01-30T12:00:00"}, "until",
             'bad until "2026-01-30T12:00:00": expected an instant such as 2026-12-01T09:00:00Z'),
            ({"since": "2026-02-01T00:00:00Z", "until": "2026-02-01T00:00:00Z"}, "until",
             "bad until 2026-02-01T00:00:00Z: expected an instant after since"),
            ({"cursor": "abc"}, "cursor", "bad cursor: give the nextCursor of the page before"),
        ],
    )  # fmt: skip
    async def test_what_it_does_not_understand_it_says(
        self, api: Any, asked: Any, field: str, sentence: str
    ) -> None:
        refusal = await api.refusal("runs", asked)
        assert (refusal["field"], refusal["error"]) == (field, sentence)

    async def test_an_admin_reads_the_whole_tenants(self, api: Any) -> None:
        _, run = await started(api)
        await api.run_in(run["id"])
        assert [one["id"] for one in await api.runs(who="ada")] == [run["id"]]


class TestTheEndOfAJob:
    """Deleted, run so often, run once: what becomes of it."""

    async def test_a_delete_stops_what_runs_and_nothing_brings_the_job_back(self, open_api: Any) -> None:
        api = await open_api()
        job, run = await started(api, command="agent: hang", cronExpression="* * * * *", overlap="queue")
        waiting = await api.data("run", [job["id"]])
        await api.run_in(run["id"], {"running"})
        assert await api.answer("delete", [job["id"]]) == {"success": True}
        ended = await api.run_in(run["id"])
        assert ended["status"] == "cancelled" and ended["error"] == "the job was deleted by alice"
        assert api.agents.stopped == [run["id"]]
        assert (await api.run_in(waiting["id"]))["status"] == "cancelled"
        await api.clock.advance(120)  # its next instants, and upkeep's checkpoints
        for _ in range(2):
            assert (await api.refusal("get", [job["id"]]))["code"] == "not_found"
            assert await api.data("list") == []
            assert {one["id"] for one in await api.runs(jobId=job["id"])} == {run["id"], waiting["id"]}
            api = await open_api()  # nor does a restart

    async def test_deleting_twice_is_fine_and_deleting_anothers_is_not(self, api: Any) -> None:
        job = await api.create()
        for _ in range(2):
            assert await api.answer("delete", [job["id"]]) == {"success": True}
        assert (await api.refusal("delete", [job["id"]], who="bob"))["code"] == "not_found"

    async def test_delete_after_run_deletes_after_the_first_scheduled_run(self, api: Any) -> None:
        job, manual = await started(api, cronExpression="* * * * *", deleteAfterRun=True)
        await api.run_in(manual["id"])
        assert (await api.data("get", [job["id"]]))["executionCount"] == 1, "a run by hand does not count"
        await api.clock.advance(60)
        await api.until(lambda: _is_gone(api, job["id"]))
        assert [run["trigger"] for run in await api.runs(jobId=job["id"])] == ["schedule", "manual"]

    async def test_max_runs_disables_with_the_reason(self, api: Any) -> None:
        job = await api.create(cronExpression="* * * * *", maxRuns=2)
        for _ in range(4):
            await api.clock.advance(60)
        shown = await api.data("get", [job["id"]])
        assert shown["enabled"] is False and "nextExecutionAt" not in shown
        assert shown["pausedReason"] == "completed: maxRuns 2 is reached"
        assert len(await api.runs(jobId=job["id"])) == 2
        refusal = await api.refusal("resume", [job["id"]])
        assert (refusal["code"], refusal["field"]) == ("conflict", "maxRuns")
        assert refusal["error"] == "the job has had 2 runs and maxRuns is 2: raise maxRuns by an update"
        assert await api.refusal("update", [job["id"], {"enabled": True}]) == refusal
        raised = await api.data("update", [job["id"], {"maxRuns": 3, "enabled": True}])
        assert raised["nextExecutionAt"] == "2026-01-30T12:05:00Z"

    async def test_a_job_whose_time_is_over_is_not_resumed(self, api: Any) -> None:
        job = await api.create(cronExpression="* * * * *", endAt="2026-01-30T12:01:30Z")
        for _ in range(3):
            await api.clock.advance(60)
        shown = await api.data("get", [job["id"]])
        assert shown["pausedReason"] == "completed: no instant is left before endAt"
        refusal = await api.refusal("resume", [job["id"]])
        expected = "bad endAt 2026-01-30T12:01:30Z: no instant of the schedule lies before it"
        assert refusal["error"] == expected

    async def test_a_single_instant_runs_once(self, api: Any) -> None:
        job = await api.create(cronExpression="at 2026-01-30T12:01:00Z")
        assert [one["at"] for one in job["nextExecutions"]] == ["2026-01-30T12:01:00Z"]
        await api.clock.advance(180)
        [run] = await api.runs(jobId=job["id"])
        assert run["scheduledFor"] == "2026-01-30T12:01:00Z" and run["status"] == "success"
        shown = await api.data("get", [job["id"]])
        assert shown["enabled"] is False
        assert shown["pausedReason"] == "completed: the schedule has no instant left"


async def _is_gone(api: Any, job_id: str) -> bool:
    return not (await api.answer("get", [job_id]))["success"]


class TestThoseWhoWatch:
    """The event over WebSocket, and the message in the gateway's channel."""

    async def heard(self, socket: Any, method: str) -> Any:
        while True:
            message = await socket.receive_json(timeout=5)
            if message["method"] == method:
                return message["params"]

    @pytest.mark.parametrize(
        ("command", "success", "error"),
        [("echo done", True, None), ("agent: fail", False, "the source was empty")],
    )
    async def test_the_end_of_a_run_is_an_event(
        self, api: Any, command: str, success: bool, error: str | None
    ) -> None:
        socket = await api.house.socket("alice")
        job, run = await started(api, command=command, retry={"maxAttempts": 1})
        event = await self.heard(socket, "carapace.cron.event")
        assert event == {
            "type": "carapace.cron.job_completed",
            "userId": "alice",
            "jobName": "Report",
            "jobId": job["id"],
            "success": success,
            "error": error,
            "channelId": "gateway",
            "runId": run["id"],
            "status": "success" if success else "failure",
            "scheduledFor": (await api.run_in(run["id"]))["scheduledFor"],
        }
        await socket.close()

    async def test_the_result_is_in_the_channel(self, api: Any) -> None:
        socket = await api.house.socket("alice")
        job, run = await started(api, command='echo "Job executed"')
        message = await self.heard(socket, "carapace.gateway.message")
        assert message["title"] == "Report: success"
        text = f"Cron job {job['id']} executed successfully in 0ms.\n\nOutput:\nJob executed"
        assert message["text"] == text and message["idempotencyKey"] == f"{run['id']}.ended"
        kept = (await api.ask("carapace.gateway.messages"))["result"]["items"]
        assert kept == [message]
        await socket.close()

    async def test_others_of_the_team_hear_nothing(self, api: Any) -> None:
        socket = await api.house.socket("bob")
        _, run = await started(api)
        await api.run_in(run["id"])
        await socket.send_json({"jsonrpc": "2.0", "id": 9, "method": "carapace.cron.list"})
        assert (await socket.receive_json(timeout=5))["id"] == 9
        await socket.close()

    async def test_requests_are_answered_over_the_websocket_too(self, api: Any) -> None:
        socket = await api.house.socket("alice")
        data = {"name": "N", "schedule": "@daily", "command": "date", "channelId": "gateway"}
        request = {"jsonrpc": "2.0", "id": "a", "method": "carapace.cron.create", "params": {"data": data}}
        await socket.send_json(request)
        answer = await socket.receive_json(timeout=5)
        assert answer["id"] == "a" and answer["result"]["data"]["name"] == "N"
        await socket.close()


class TestARestart:
    """Stopped and started on the same files."""

    async def test_jobs_counts_instants_runs_and_messages_are_back(self, open_api: Any) -> None:
        api = await open_api()
        job, run = await started(api, cronExpression="0 13 * * *", timezone="Europe/Berlin")
        failing, failed = await started(api, command="agent: fail", retry={"maxAttempts": 1})
        paused = await api.create(name="paused")
        await api.data("pause", {"jobId": paused["id"], "reason": "holidays"})
        for one in (run, failed):
            await api.run_in(one["id"])
        await api.until(lambda: _has_messages(api, 2))
        before = await self.everything(api)
        assert before["jobs"][job["id"]]["executionCount"] == 1
        assert before["jobs"][failing["id"]]["failureCount"] == 1
        api = await open_api()
        assert await self.everything(api) == before
        await api.clock.advance(5)
        again = await api.data("run", [job["id"]])
        await api.run_in(again["id"])
        assert (await api.data("get", [job["id"]]))["executionCount"] == 2
        assert (await api.data("get", [failing["id"]]))["lastError"] == "the source was empty"

    async def everything(self, api: Any) -> dict[str, Any]:
        status = await api.data("status")
        return {
            "jobs": {job["id"]: job for job in await api.data("list")},
            "runs": await api.runs(),
            "messages": (await api.ask("carapace.gateway.messages"))["result"],
            "counts": [status[name] for name in ("totalJobs", "enabledJobs", "scheduledJobs", "failingJobs")],
            "next": status["nextExecutionAt"],
        }

    async def test_what_worked_at_the_stop_is_tried_again(self, open_api: Any, caplog: Any) -> None:
        api = await open_api()
        _, run = await started(api, command="agent: hang")
        await api.run_in(run["id"], {"running"})
        with caplog.at_level("INFO"):
            api = await open_api()
        assert "1 job loaded, 0 objects set aside" in caplog.messages
        await api.clock.advance(6)
        assert (await api.run_in(run["id"], {"running"}))["attempt"] == 2
        api.agents.let_go.set()
        assert (await api.run_in(run["id"]))["status"] == "success"

    async def test_what_came_due_meanwhile_is_caught_up_as_the_job_says(self, open_api: Any) -> None:
        api = await open_api()
        latest = await api.create(cronExpression="* * * * *", name="latest")
        none = await api.create(cronExpression="* * * * *", name="none", catchUp="none")
        clock = api.clock
        await open_api.stop()
        await clock.advance(200)
        api = await open_api()
        await clock.advance(1)
        await api.until(lambda: _has_ended(api, 6))
        by_job = {
            job["name"]: [(run["status"], run["trigger"]) for run in await api.runs(jobId=job["id"])]
            for job in (latest, none)
        }
        missed = ("missed", "schedule")
        assert by_job["latest"] == [("success", "catchUp"), missed, missed]
        assert by_job["none"] == [missed, missed, missed]
        assert "catchUp is none" in (await api.runs(jobId=none["id"]))[0]["reason"]


async def _has_messages(api: Any, count: int) -> bool:
    return len((await api.ask("carapace.gateway.messages"))["result"]["items"]) >= count


async def _has_ended(api: Any, count: int) -> bool:
    return sum(run["finishedAt"] is not None for run in await api.runs()) >= count
