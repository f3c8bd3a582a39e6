"""Jobs with a calendar, behind the real door: what it excludes is not run, recorded or announced."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

DAY = timedelta(days=1).total_seconds()
QUARTERS = "*/15 * * * *"  # it is a Friday, 2026-01-30 12:00 UTC

WEEKEND = [{"days": ["sat", "sun"]}]
LUNCH = [{"from": "2026-01-30T12:15:00Z", "until": "2026-01-30T13:00:00Z"}]


async def instants(api: Any, job_id: str) -> list[str]:
    """The instants of a job that have a record, oldest first."""
    return sorted(run["scheduledFor"] for run in await api.runs(jobId=job_id))


async def test_an_excluded_instant_is_neither_run_nor_recorded(api: Any) -> None:
    job = await api.create(cronExpression=QUARTERS, blackouts=LUNCH)
    assert job["nextExecutionAt"] == "2026-01-30T13:00:00Z"
    for _ in range(5):
        await api.clock.advance(900)
    assert await instants(api, job["id"]) == ["2026-01-30T13:00:00Z", "2026-01-30T13:15:00Z"]


async def test_what_the_calendar_left_out_does_not_come_back_when_the_calendar_goes(api: Any) -> None:
    job = await api.create(cronExpression=QUARTERS, blackouts=LUNCH, catchUp="all", catchUpWindowSeconds=DAY)
    await api.clock.advance(1860)
    changed = await api.data("update", [job["id"], {"blackouts": None}])
    assert changed["blackouts"] == [] and changed["nextExecutionAt"] == "2026-01-30T12:45:00Z"
    await api.clock.advance(900)
    assert await instants(api, job["id"]) == ["2026-01-30T12:45:00Z"]


async def test_a_calendar_that_comes_holds_for_the_next_instant(api: Any) -> None:
    job = await api.create(cronExpression="0 9 * * *")
    changed = await api.data("update", [job["id"], {"blackouts": WEEKEND, "excludeDates": ["2026-02-02"]}])
    assert changed["scheduleDescription"] == (
        "At 09:00 (UTC), except on 2026-02-02, and on Saturday and Sunday"
    )
    assert changed["nextExecutionAt"] == "2026-02-03T09:00:00Z"
    assert [one["at"][:10] for one in changed["nextExecutions"]] == ["2026-02-03", "2026-02-04", "2026-02-05"]
    assert (await api.data("get", [job["id"]]))["nextExecutionAt"] == "2026-02-03T09:00:00Z"


async def test_a_restart_catches_up_only_on_what_the_calendar_leaves(open_api: Any) -> None:
    api = await open_api()
    fields = {"cronExpression": "0 */6 * * *", "blackouts": WEEKEND, "catchUp": "all"}
    job = await api.create(**fields, catchUpWindowSeconds=4 * DAY)
    await open_api.stop()
    api.clock.step(timedelta(days=3))
    api = await open_api()
    left = ("01-30T18:00", "02-02T00:00", "02-02T06:00", "02-02T12:00")
    expected = [f"2026-{at}:00Z" for at in left]
    await api.until(lambda: _has(api, job["id"], expected))


async def _has(api: Any, job_id: str, expected: list[str]) -> bool:
    await api.clock.advance(1)
    found = await instants(api, job_id)
    assert set(found) <= set(expected)
    return found == expected


async def test_a_job_is_over_when_the_calendar_excludes_what_is_left(api: Any) -> None:
    fields = {"endAt": "2026-01-31T12:00:00Z", "blackouts": WEEKEND}
    refusal = await api.refusal("create", {"data": {**_job("0 9 * * *"), **fields}})
    assert refusal["field"] == "endAt"


async def test_each_part_of_a_country_has_holidays_of_its_own(api: Any) -> None:
    fields = {"timezone": "America/New_York", "startAt": "2026-11-25T00:00:00Z"}
    job = await api.create(**fields, cronExpression="0 9 * * *", holidays={"country": "US"})
    assert _days(job) == ["Wed 2026-11-25", "Fri 2026-11-27", "Sat 2026-11-28"]  # Thursday is Thanksgiving
    changed = await api.data("update", [job["id"], {"holidays": {"subdivision": "CA"}}])
    assert changed["holidays"] == {"country": "US", "subdivision": "CA", "categories": ["public"]}
    assert _days(changed) == ["Wed 2026-11-25", "Sat 2026-11-28", "Sun 2026-11-29"]
    assert "holidays" not in await api.data("update", [job["id"], {"holidays": None}])


async def test_a_preview_takes_a_calendar(api: Any) -> None:
    asked = {"schedule": "0 9 * * *", "timezone": "Europe/Berlin", "count": 2,
             "holidays": {"country": "de", "subdivision": "Bayern"}, "blackouts": WEEKEND,
             "excludeDates": ["2026-02-02"]}  # fmt: skip
    shown = await api.data("preview", asked)
    assert [one["local"] for one in shown["nextExecutions"]] == [
        "Tue 2026-02-03 09:00 CET", "Wed 2026-02-04 09:00 CET",
    ]  # fmt: skip
    assert shown["description"].endswith(
        ", except on public holidays of DE-BY, on 2026-02-02, and on Saturday and Sunday"
    )
    assert shown["warnings"] == []


async def test_a_preview_warns_of_what_create_would_refuse(api: Any) -> None:
    for schedule, calendar in (
        ("every 30s", {}),
        ("at 2020-01-01T00:00:00Z", {}),
        ("0 9 * * SAT", {"blackouts": WEEKEND}),
        ("0 9 25 12 *", {"holidays": {"country": "DE"}}),
    ):
        shown = await api.data("preview", {"schedule": schedule, **calendar})
        refusal = await api.refusal("create", {"data": {**_job(schedule), **calendar}})
        assert shown["warnings"] == [refusal["error"]]
    all_day = {"blackouts": [{"from": "00:00", "until": "24:00"}]}
    both = await api.data("preview", {"schedule": "*/10 * * * * *", **all_day})
    assert len(both["warnings"]) == 2


async def test_a_preview_refuses_a_calendar_that_it_cannot_read(api: Any) -> None:
    for calendar, field in (
        ({"excludeDates": ["tomorrow"]}, "excludeDates.0"),
        ({"excludeDates": [5]}, "excludeDates.0"),
        ({"holidays": {"country": "XX"}}, "holidays.country"),
        ({"holidays": {"country": "US", "region": "CA"}}, "holidays.region"),
        ({"blackouts": [{"from": "22:00"}]}, "blackouts.0"),
        ({"blackouts": {"from": "22:00", "until": "06:00"}}, "blackouts"),
    ):
        assert (await api.refusal("preview", {"schedule": "@daily", **calendar}))["field"] == field


def _days(job: dict[str, Any]) -> list[str]:
    return [one["local"][:14] for one in job["nextExecutions"]]


def _job(schedule: str) -> dict[str, Any]:
    return {"name": "N", "schedule": schedule, "command": "date", "channelId": "gateway"}
