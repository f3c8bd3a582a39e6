"""The requests of the original extension, literally, and its answers field by field."""

from __future__ import annotations

from typing import Any

from carapace_cron.ids import is_job_id

DAILY_REPORT = {
    "name": "Daily Report",
    "description": "Generate daily reports at 9 AM",
    "cronExpression": "0 9 * * *",
    "command": "https://api.example.com/daily-report",
    "channelId": "gateway",
    "timezone": "America/New_York",
}


async def create(api: Any) -> Any:
    return await api.data("create", [DAILY_REPORT, "alice"])


async def test_it_creates_a_job_from_positional_parameters(api: Any) -> None:
    job = await create(api)
    assert is_job_id(job["id"])
    expected = {
        **DAILY_REPORT,
        "userId": "alice",
        "enabled": True,
        "createdAt": "2026-01-30T12:00:00Z",
        "updatedAt": "2026-01-30T12:00:00Z",
        "executionCount": 0,
        "failureCount": 0,
        "nextExecutionAt": "2026-01-30T14:00:00Z",
    }
    assert {name: job[name] for name in expected} == expected


async def test_it_tells_on_create_what_the_schedule_means(api: Any) -> None:
    job = await create(api)
    assert job["scheduleDescription"] == "At 09:00 (America/New_York)"
    assert job["nextExecutions"] == [
        {"at": "2026-01-30T14:00:00Z", "local": "Fri 2026-01-30 09:00 EST"},
        {"at": "2026-01-31T14:00:00Z", "local": "Sat 2026-01-31 09:00 EST"},
        {"at": "2026-02-01T14:00:00Z", "local": "Sun 2026-02-01 09:00 EST"},
    ]


async def test_it_lists_the_jobs_of_a_user(api: Any) -> None:
    job = await create(api)
    answer = await api.answer("list", ["alice"])
    assert answer["success"] is True and answer["nextCursor"] is None
    [listed] = answer["data"]
    shown_once = {"scheduleDescription", "nextExecutions"}  # at create and update
    assert listed == {name: value for name, value in job.items() if name not in shown_once}


async def test_it_gets_updates_pauses_resumes_and_deletes_by_position(api: Any) -> None:
    job_id = (await create(api))["id"]
    assert (await api.data("get", [job_id]))["name"] == "Daily Report"
    updates = {"name": "Updated Daily Report", "cronExpression": "0 10 * * *", "timezone": "UTC"}
    updated = await api.data("update", [job_id, updates])
    assert {name: updated[name] for name in updates} == updates
    assert updated["nextExecutionAt"] == "2026-01-31T10:00:00Z"
    assert (await api.data("pause", [job_id]))["enabled"] is False
    assert (await api.data("resume", [job_id]))["enabled"] is True
    assert await api.answer("delete", [job_id]) == {"success": True}
    assert (await api.refusal("get", [job_id]))["code"] == "not_found"


async def test_it_tells_the_status_of_a_user(api: Any) -> None:
    for name in ("one", "two"):
        await api.create(name=name)
    paused = await api.create(name="three")
    await api.data("pause", [paused["id"]])
    await api.create(name="not hers", who="bob")
    status = await api.data("status", ["alice"])
    counts = {"totalJobs": 3, "enabledJobs": 2, "scheduledJobs": 2, "activeExecutions": 0}
    assert {name: status[name] for name in counts} == counts


async def test_it_takes_the_same_by_name(api: Any) -> None:
    job = await api.data("create", {"data": DAILY_REPORT, "userId": "alice"})
    job_id = job["id"]
    assert [one["id"] for one in await api.data("list", {"userId": "alice"})] == [job_id]
    assert (await api.data("get", {"jobId": job_id}))["id"] == job_id
    assert (await api.data("update", {"jobId": job_id, "updates": {"name": "N"}}))["name"] == "N"
    assert (await api.data("pause", {"jobId": job_id}))["enabled"] is False
    assert (await api.data("resume", {"jobId": job_id}))["enabled"] is True
    assert (await api.data("status", {"userId": "alice"}))["totalJobs"] == 1
    assert await api.answer("delete", {"jobId": job_id}) == {"success": True}


async def test_it_shows_after_runs_what_the_original_showed(api: Any) -> None:
    job = await api.create(cronExpression="* * * * *")
    for _ in range(2):
        await api.clock.advance(60)
        await api.until(lambda: _counted(api, job["id"]))
    shown = await api.data("get", [job["id"]])
    assert shown["executionCount"] == 2 and shown["failureCount"] == 0
    assert shown["lastExecutedAt"] == "2026-01-30T12:02:00Z" and shown["lastStatus"] == "success"
    assert shown["nextExecutionAt"] == "2026-01-30T12:03:00Z"
    assert shown["updatedAt"] == "2026-01-30T12:00:00Z", "a run is no change of the definition"


async def _counted(api: Any, job_id: str) -> bool:
    minutes = (api.clock.now().minute)
    return bool((await api.data("get", [job_id]))["executionCount"] == minutes)
