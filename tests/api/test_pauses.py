"""Pauses that end by themselves: nothing before their end, and everything from it on."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from carapace_cron.errors import Unavailable

MINUTELY = {"cronExpression": "* * * * *", "catchUp": "all"}
UNTIL = "2026-01-30T12:05:00Z"  # five minutes from the start of each test


async def paused(api: Any, until: str = UNTIL, **fields: Any) -> str:
    job_id: str = (await api.create(**{**MINUTELY, **fields}))["id"]
    await api.data("pause", {"jobId": job_id, "until": until})
    return job_id


async def instants(api: Any, job_id: str) -> list[str]:
    """Of all records of the job, oldest first, as minutes past twelve; what did not succeed says so."""
    runs = await api.runs(jobId=job_id)
    assert all(run["scheduledFor"].startswith("2026-01-30T12:") for run in runs)
    return [
        run["scheduledFor"][14:16] + ("" if run["status"] == "success" else f" {run['status']}")
        for run in runs[::-1]
    ]


async def test_it_shows_its_end_and_the_next_instant_behind_it(api: Any) -> None:
    job_id = (await api.create(cronExpression="*/2 * * * *"))["id"]
    shown = await api.data("pause", {"jobId": job_id, "reason": "the source moves", "until": UNTIL})
    assert (shown["enabled"], shown["pausedReason"], shown["pausedUntil"]) == (
        False, "the source moves", UNTIL,
    )  # fmt: skip
    assert shown["nextExecutionAt"] == "2026-01-30T12:06:00Z"
    assert [shown] == await api.data("list")
    status = await api.data("status")
    assert (status["enabledJobs"], status["nextExecutionAt"]) == (0, "2026-01-30T12:06:00Z")
    updated = await api.data("update", [job_id, {"name": "another"}])
    assert updated["nextExecutions"][0]["at"] == updated["nextExecutionAt"] == "2026-01-30T12:06:00Z"


async def test_an_instant_exactly_at_its_end_runs_and_none_before(api: Any) -> None:
    job_id = await paused(api)
    await api.clock.advance(299)
    assert await instants(api, job_id) == []
    await api.clock.advance(62)
    assert await instants(api, job_id) == ["05", "06"]
    shown = await api.data("get", [job_id])
    assert shown["enabled"] and not {"pausedReason", "pausedUntil"} & set(shown)
    assert (shown["revision"], shown["updatedBy"]) == (3, "the gateway")


async def test_an_instant_a_fraction_before_its_end_does_not_run(api: Any) -> None:
    job_id = await paused(api, "2026-01-30T12:05:00.250Z")
    assert (await api.data("get", [job_id]))["nextExecutionAt"] == "2026-01-30T12:06:00Z"
    await api.clock.advance(361)
    assert await instants(api, job_id) == ["06"]


async def test_it_survives_a_restart(open_api: Any) -> None:
    job_id = await paused(await open_api())
    api = await open_api()
    assert (await api.data("get", [job_id]))["pausedUntil"] == UNTIL
    await api.clock.advance(301)
    assert await instants(api, job_id) == ["05"]


async def test_what_came_due_after_its_end_while_no_gateway_ran_is_caught_up_and_nothing_else(
    open_api: Any,
) -> None:
    api = await open_api()
    job_id = await paused(api)
    await open_api.stop()
    api.clock.step(timedelta(minutes=7, seconds=30))
    api = await open_api()
    await api.clock.advance(5)
    await api.until(lambda: _has_ended(api, 3))
    assert await instants(api, job_id) == ["05", "06", "07"]
    assert {run["trigger"] for run in await api.runs()} == {"catchUp"}
    assert (await api.data("get", [job_id]))["enabled"]


async def _has_ended(api: Any, count: int) -> bool:
    return sum(run["finishedAt"] is not None for run in await api.runs()) == count


async def test_its_end_needs_no_upkeep_for_the_instants_to_run(api: Any, monkeypatch: Any) -> None:
    async def away(job_id: str) -> None:
        raise Unavailable("the store is away")

    job_id = await paused(api)
    with monkeypatch.context() as broken:
        broken.setattr(api.cron._house.jobs, "end_pause", away)
        await api.clock.advance(361)
        assert await instants(api, job_id) == ["05", "06"]
        assert not (await api.data("get", [job_id]))["enabled"]
    await api.clock.advance(60)
    assert await instants(api, job_id) == ["05", "06", "07"]
    assert (await api.data("get", [job_id]))["enabled"]


async def test_a_schedule_that_was_changed_after_its_end_has_no_instant_before_the_change(
    api: Any, monkeypatch: Any
) -> None:
    async def away(job_id: str) -> None:
        raise Unavailable("the store is away")

    job_id = await paused(api, cronExpression="30 12 * * *")
    with monkeypatch.context() as broken:
        broken.setattr(api.cron._house.jobs, "end_pause", away)
        await api.clock.advance(303)
        await api.data("update", [job_id, {"cronExpression": "5,7 12 * * *"}])
    await api.clock.advance(120)
    assert await instants(api, job_id) == ["07"]


async def test_a_change_during_it_does_not_end_it(api: Any) -> None:
    job_id = await paused(api, cronExpression="0 13 * * *")
    changed = await api.data("update", [job_id, {"cronExpression": "* * * * *"}])
    assert (changed["pausedUntil"], changed["nextExecutionAt"]) == (UNTIL, UNTIL)
    await api.clock.advance(301)
    assert await instants(api, job_id) == ["05"]


@pytest.mark.parametrize(
    "resume", [("resume", lambda job: [job]), ("update", lambda job: [job, {"enabled": True}])]
)
async def test_a_resume_ends_it_at_once(api: Any, resume: Any) -> None:
    job_id = await paused(api)
    await api.clock.advance(61)
    method, params = resume
    resumed = await api.data(method, params(job_id))
    assert "pausedUntil" not in resumed and resumed["nextExecutionAt"] == "2026-01-30T12:02:00Z"
    await api.clock.advance(300)
    assert await instants(api, job_id) == ["02", "03", "04", "05", "06"]


async def test_pausing_again_sets_another_end_or_none_and_keeps_the_reason(api: Any) -> None:
    job_id = (await api.create(**MINUTELY))["id"]
    await api.data("pause", [job_id, "moving", UNTIL])
    longer = await api.data("pause", {"jobId": job_id, "until": "2026-01-30T12:07:00Z"})
    assert (longer["pausedReason"], longer["pausedUntil"]) == ("moving", "2026-01-30T12:07:00Z")
    await api.clock.advance(361)
    assert await instants(api, job_id) == []
    for_good = await api.data("pause", [job_id])
    assert "pausedUntil" not in for_good and "nextExecutionAt" not in for_good
    assert for_good["pausedReason"] == "moving"
    await api.clock.advance(300)
    assert await instants(api, job_id) == []


async def test_a_job_without_an_instant_behind_it_is_over_when_it_ends(api: Any) -> None:
    job_id = await paused(api, cronExpression="at 2026-01-30T12:03:00Z")
    shown = await api.data("get", [job_id])
    assert shown["pausedUntil"] == UNTIL and "nextExecutionAt" not in shown
    await api.clock.advance(310)
    shown = await api.data("get", [job_id])
    assert (shown["enabled"], shown["pausedReason"]) == (False, "completed: the schedule has no instant left")
    assert await instants(api, job_id) == []


@pytest.mark.parametrize(
    ("until", "sentence"),
    [
        ("2026-01-30T12:00:00Z",
         "bad until 2026-01-30T12:00:00Z: expected an instant after now, 2026-01-30T12:00:00Z"),
        ("2026-01-30T12:30:00+01:00",
         "bad until 2026-01-30T11:30:00Z: expected an instant after now, 2026-01-30T12:00:00Z"),
        ("tomorrow", 'bad until "tomorrow": expected an instant such as 2026-12-01T09:00:00Z'),
        ("2026-01-31T12:00:00",
         'bad until "2026-01-31T12:00:00": expected an instant such as 2026-12-01T09:00:00Z'),
    ],
)  # fmt: skip
async def test_its_end_is_an_instant_to_come(api: Any, until: str, sentence: str) -> None:
    job = await api.create()
    refusal = await api.refusal("pause", {"jobId": job["id"], "until": until})
    assert (refusal["error"], refusal["field"]) == (sentence, "until")
    assert (await api.data("get", [job["id"]]))["enabled"]
