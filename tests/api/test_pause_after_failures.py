"""`pauseAfterFailures` from the door: the job pauses itself, says why, and goes on when it is resumed."""

from __future__ import annotations

from typing import Any

from carapace_cron.errors import Unavailable

from .conftest import Api, OpenApi

FAILING = {
    "cronExpression": "* * * * *",
    "command": "agent: fail",
    "retry": {"maxAttempts": 1},
    "pauseAfterFailures": 2,
}


async def shown(api: Api, job_id: str) -> dict[str, Any]:
    job = await api.data("get", [job_id])
    assert isinstance(job, dict)
    return job


async def test_a_job_pauses_itself_and_a_resume_lets_it_go_on(api: Api) -> None:
    job = await api.create(**FAILING)
    await api.clock.advance(61)
    assert (await shown(api, job["id"]))["enabled"] is True
    await api.clock.advance(4 * 60)
    paused = await shown(api, job["id"])
    assert (paused["enabled"], paused["failureCount"]) == (False, 2)
    assert paused["pausedReason"].startswith("paused after 2 failures in a row")
    assert "nextExecutionAt" not in paused
    told = (await api.data("deliveries", {}))["items"]
    assert [one["event"] for one in told].count("job.paused") == 1
    await api.data("resume", [job["id"]])
    await api.clock.advance(61)
    assert (await shown(api, job["id"]))["enabled"] is True, "the count begins anew"
    await api.clock.advance(3 * 60)
    again = await shown(api, job["id"])
    assert (again["enabled"], again["failureCount"]) == (False, 4)


async def test_a_pause_that_a_kill_prevented_comes_with_the_next_start(open_api: OpenApi) -> None:
    api = await open_api()
    job = await api.create(**FAILING)
    house = api.cron._house
    assert house is not None

    async def away(*_: Any) -> None:
        raise Unavailable("the process ends here")

    house.jobs.disable = away  # type: ignore[method-assign]
    await api.clock.advance(2 * 60 + 1)
    api = await open_api()
    await api.clock.advance(3 * 60)
    paused = await shown(api, job["id"])
    assert (paused["enabled"], paused["failureCount"]) == (False, 2)
    assert paused["pausedReason"].startswith("paused after 2 failures in a row")
    told = (await api.data("deliveries", {}))["items"]
    assert [one["event"] for one in told].count("job.paused") == 1
