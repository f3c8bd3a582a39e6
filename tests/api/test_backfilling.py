"""carapace.cron.backfill: runs for instants of the past, shown first, made once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

HOURLY = {"cronExpression": "@hourly"}
SINCE = "2026-01-30T09:00:00Z"  # three instants before the start of each test


def told(answer: Any) -> list[tuple[str, str, str | None]]:
    """(hour, fate, status before) of each instant."""
    return [(one["at"][11:13], one["fate"], one["status"]) for one in answer["instants"]]


async def backfilled(api: Any, job_id: str, since: str = SINCE, until: str | None = None) -> Any:
    """The answer of a backfill whose runs have ended."""
    params = {"jobId": job_id, "since": since, "until": until, "dryRun": False}
    answer = await api.data("backfill", params)
    for one in answer["instants"]:
        await api.run_in(one["runId"])
    return answer


async def hours(api: Any, job_id: str) -> Sequence[tuple[str, str, str]]:
    """Of all records of the job, oldest first."""
    runs = await api.runs(jobId=job_id)
    return [(run["scheduledFor"][11:13], run["trigger"], run["status"]) for run in runs[::-1]]


async def test_a_dry_run_tells_what_would_happen_and_does_nothing(api: Any) -> None:
    job_id = (await api.create(**HOURLY))["id"]
    answer = await api.data("backfill", [job_id, SINCE])
    assert answer["dryRun"] is True and answer["until"] == "2026-01-30T12:00:00Z"
    assert answer["counts"] == {"run": 3, "runAgain": 0, "leave": 0}
    assert told(answer) == [("09", "run", None), ("10", "run", None), ("11", "run", None)]
    await api.clock.advance(1)
    assert await api.runs() == []


async def test_each_instant_runs_under_the_id_that_was_told_and_once_however_often_it_is_asked(
    api: Any,
) -> None:
    job_id = (await api.create(**HOURLY))["id"]
    planned = await api.data("backfill", [job_id, SINCE])
    done = await backfilled(api, job_id)
    assert done == {**planned, "dryRun": False}
    runs = (await api.runs(jobId=job_id))[::-1]
    assert [run["id"] for run in runs] == [one["runId"] for one in planned["instants"]]
    assert {(run["status"], run["trigger"], run["reason"]) for run in runs} == {
        ("success", "backfill", "asked for by alice")
    }
    assert [run["startedAt"] for run in runs] == sorted(run["startedAt"] for run in runs)
    again = await backfilled(api, job_id)
    assert told(again) == [(hour, "leave", "success") for hour in ("09", "10", "11")]
    assert (await api.data("get", [job_id]))["executionCount"] == 3


async def test_what_was_missed_runs_after_all_within_the_window_of_a_job_that_is_over(open_api: Any) -> None:
    api = await open_api()
    job_id = (await api.create(**HOURLY, catchUp="none", endAt="2026-01-30T13:30:00Z"))["id"]
    await open_api.stop()
    api.clock.step(timedelta(hours=3))
    api = await open_api()
    await api.clock.advance(6)
    assert await hours(api, job_id) == [("13", "schedule", "missed")]
    assert (await api.data("get", [job_id]))["pausedReason"] == "completed: no instant is left before endAt"
    done = await backfilled(api, job_id, "2026-01-30T11:30:00Z")
    assert told(done) == [("12", "run", None), ("13", "runAgain", "missed")]
    assert await hours(api, job_id) == [("12", "backfill", "success"), ("13", "backfill", "success")]
    [late] = [run for run in await api.runs() if run["scheduledFor"].startswith("2026-01-30T13")]
    assert late["reason"].startswith("asked for by alice; it was missed: ")


@pytest.mark.parametrize(
    ("since", "until", "hours"),
    [
        ("2026-01-30T09:00:00Z", "2026-01-30T11:00:00Z", ["09", "10"]),
        ("2026-01-30T09:00:00.000001Z", "2026-01-30T11:00:00.000001Z", ["10", "11"]),
        ("2026-01-30T12:00:00+03:00", "2026-01-30T12:59:59+03:00", ["09"]),
        ("2026-01-30T09:00:01Z", "2026-01-30T09:59:59Z", []),
    ],
)
async def test_the_window_begins_with_since_and_ends_before_until(
    api: Any, since: str, until: str, hours: list[str]
) -> None:
    job = await api.create(**HOURLY)
    answer = await api.data("backfill", [job["id"], since, until])
    assert [one["at"][11:13] for one in answer["instants"]] == hours
    real = await api.data("backfill", [job["id"], since, until, False])
    assert real["counts"]["run"] == len(hours)


@pytest.mark.parametrize(
    ("fields", "hours"),
    [
        ({"startAt": "2026-01-30T10:00:00Z"}, ["10", "11"]),
        ({"startAt": "2026-01-30T10:00:00.5Z"}, ["11"]),
        ({"blackouts": [{"from": "10:00", "until": "11:00"}]}, ["09", "11"]),
        ({"excludeDates": ["2026-01-30"]}, []),
        ({"enabled": False}, ["09", "10", "11"]),
        ({"timezone": "Asia/Kolkata", "cronExpression": "30 * * * *"}, ["09", "10", "11"]),
    ],
)
async def test_the_instants_are_those_of_the_job(api: Any, fields: Any, hours: list[str]) -> None:
    job = await api.create(**{**HOURLY, **fields})
    answer = await api.data("backfill", [job["id"], SINCE])
    assert [one["at"][11:13] for one in answer["instants"]] == hours


async def test_a_thousand_instants_are_shown_and_one_more_is_refused(api: Any) -> None:
    job_id = (await api.create(cronExpression="* * * * *"))["id"]
    answer = await api.data("backfill", [job_id, "2026-01-29T19:20:00Z"])
    assert answer["counts"]["run"] == 1_000
    refusal = await api.refusal("backfill", [job_id, "2026-01-29T19:19:00Z"])
    assert (refusal["field"], refusal["error"]) == (
        "since",
        "bad since 2026-01-29T19:19:00Z: more than 1000 instants lie between it and 2026-01-30T12:00:00Z; "
        "expected a shorter window",
    )


@pytest.mark.parametrize(
    ("params", "field", "sentence"),
    [
        ({"since": "2026-01-30T12:00:00Z"}, "since",
         "bad since 2026-01-30T12:00:00Z: expected an instant before 2026-01-30T12:00:00Z"),
        ({"since": SINCE, "until": SINCE}, "since", f"bad since {SINCE}: expected an instant before {SINCE}"),
        ({"since": SINCE, "until": "2026-01-30T12:00:01Z"}, "until",
         "bad until 2026-01-30T12:00:01Z: expected at most now, 2026-01-30T12:00:00Z; what is to come runs "
         "by its schedule"),
        ({"since": "yesterday"}, "since",
         'bad since "yesterday": expected an instant such as 2026-12-01T09:00:00Z'),
    ],
)  # fmt: skip
async def test_a_window_that_is_none_is_refused(api: Any, params: Any, field: str, sentence: str) -> None:
    job = await api.create(**HOURLY)
    refusal = await api.refusal("backfill", {"jobId": job["id"], **params})
    assert (refusal["code"], refusal["field"], refusal["error"]) == ("invalid", field, sentence)


async def test_a_job_that_never_comes_due_has_nothing_to_run_again(api: Any) -> None:
    job = await api.create(cronExpression="never")
    refusal = await api.refusal("backfill", [job["id"], SINCE])
    assert (refusal["code"], refusal["error"]) == (
        "conflict", 'the job\'s schedule is "never", so it has no instants: ask for a run of it instead',
    )  # fmt: skip
