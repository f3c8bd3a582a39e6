"""A gateway ends between the job store's write and the ledger's: the next start completes the change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from carapace_cron.errors import Unavailable
from carapace_cron.ledger.events import Events

from .conftest import Api, OpenApi

EVERY_MINUTE = {"cronExpression": "* * * * *", "catchUp": "all"}
JOB = {"name": "Report", "command": "echo done", "channelId": "gateway", **EVERY_MINUTE}


def cut_off(api: Api, *, scheduler_too: bool = False) -> None:
    """From now on no definition comes into force, as if the process ended before each; and no instant."""

    async def away(*_: Any, **__: Any) -> Any:
        raise Unavailable("the process ends here")

    house = api.cron._house
    assert house is not None
    house._register._in_force.put = away  # type: ignore[method-assign]
    if scheduler_too:
        house._ledger.record_due = away  # type: ignore[method-assign]


async def interrupted(api: Api, method: str, params: Any) -> None:
    refusal = await api.refusal(method, params)
    assert refusal["code"] == "unavailable"


async def trail(api: Api) -> list[str]:
    """What the audit trail says was done, oldest first."""
    house = api.cron._house
    assert house is not None
    events = await Events(house._database).page(tenant="acme")
    return [event.action for event in reversed(events)]


async def test_a_job_that_was_just_made_is_in_force_and_in_the_trail(open_api: OpenApi) -> None:
    api = await open_api()
    await api.create(name="first of all")
    cut_off(api)
    await interrupted(api, "create", {"data": JOB})
    api = await open_api()
    await api.clock.advance(61)
    made = next(job for job in await api.data("list", {}) if job["cronExpression"] == "* * * * *")
    assert [run["jobId"] for run in await api.runs()] == [made["id"]]
    assert await trail(api) == ["job.created", "job.created"]


async def test_a_new_definition_takes_over_and_what_was_due_before_it_has_its_record(
    open_api: OpenApi,
) -> None:
    api = await open_api()
    job = await api.create(**EVERY_MINUTE)
    await api.clock.advance(61)
    cut_off(api, scheduler_too=True)
    await api.clock.advance(60)
    updates = {"cronExpression": "*/5 * * * *", "command": "echo new"}
    await interrupted(api, "update", {"jobId": job["id"], "updates": updates})
    api = await open_api()
    await api.clock.advance(3 * 60)
    runs = [(run["scheduledFor"][11:16], run["status"], run["revision"]) for run in await api.runs()]
    assert runs[::-1] == [("12:01", "success", 1), ("12:02", "missed", 1), ("12:05", "success", 2)]
    assert await trail(api) == ["job.created", "job.updated"]


@pytest.mark.parametrize(
    ("method", "params", "action"),
    [
        ("pause", lambda job: {"jobId": job, "reason": "holidays"}, "job.paused"),
        ("update", lambda job: {"jobId": job, "updates": {"enabled": False}}, "job.paused"),
        ("delete", lambda job: [job], "job.deleted"),
    ],
)
async def test_what_ends_a_jobs_instants_ends_them_though_it_was_cut_in_two(
    open_api: OpenApi, method: str, params: Callable[[str], Any], action: str
) -> None:
    api = await open_api()
    job = await api.create(**EVERY_MINUTE)
    await api.clock.advance(61)
    cut_off(api)
    await interrupted(api, method, params(job["id"]))
    api = await open_api()
    await api.clock.advance(3 * 60)
    assert len(await api.runs()) == 1
    assert await trail(api) == ["job.created", action]


async def test_a_resume_that_was_cut_in_two_counts_from_when_it_was_asked_for(open_api: OpenApi) -> None:
    api = await open_api()
    job = await api.create(**EVERY_MINUTE)
    await api.data("pause", [job["id"]])
    await api.clock.advance(150)
    cut_off(api, scheduler_too=True)
    await interrupted(api, "resume", [job["id"]])
    await api.clock.advance(60)
    api = await open_api()
    await api.clock.advance(5)
    assert [run["scheduledFor"][11:16] for run in await api.runs()] == ["12:03"]
    assert await trail(api) == ["job.created", "job.paused", "job.resumed"]


async def test_a_change_that_waited_for_the_ledger_is_in_force_without_a_restart(open_api: OpenApi) -> None:
    """The same call again, or the gateway by itself some seconds later."""
    api = await open_api()
    job = await api.create(**EVERY_MINUTE)
    house = api.cron._house
    assert house is not None
    real = house._register._in_force.put
    cut_off(api)
    await interrupted(api, "update", {"jobId": job["id"], "updates": {"command": "echo new"}})
    house._register._in_force.put = real  # type: ignore[method-assign]
    await api.data("update", {"jobId": job["id"], "updates": {"command": "echo new"}})
    await api.clock.advance(61)
    assert [(run["output"], run["revision"]) for run in await api.runs()] == [("new", 2)]
    assert await trail(api) == ["job.created", "job.updated"]
