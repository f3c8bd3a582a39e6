"""Create, read, change, pause, resume, delete: what each answers, and when the job is due afterwards."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any, cast

import pytest


async def next_at(api: Any, job_id: str) -> str | None:
    """What get, list and status say: the same."""
    shown = await api.data("get", [job_id])
    [listed] = await api.data("list")
    assert listed == shown
    status = await api.data("status")
    assert status["nextExecutionAt"] == shown.get("nextExecutionAt")
    at: str | None = shown.get("nextExecutionAt")
    return at


async def test_the_next_instant_is_true_after_every_change(api: Any) -> None:
    job_id = (await api.create(cronExpression="0 13 * * *"))["id"]
    assert await next_at(api, job_id) == "2026-01-30T13:00:00Z"
    await api.data("update", [job_id, {"cronExpression": "0 14 * * *"}])
    assert await next_at(api, job_id) == "2026-01-30T14:00:00Z"
    await api.data("update", [job_id, {"timezone": "Europe/Berlin"}])
    assert await next_at(api, job_id) == "2026-01-30T13:00:00Z"
    await api.data("update", [job_id, {"startAt": "2026-02-02T00:00:00Z"}])
    assert await next_at(api, job_id) == "2026-02-02T13:00:00Z"
    await api.data("update", [job_id, {"startAt": None, "name": "the same schedule"}])
    assert await next_at(api, job_id) == "2026-01-30T13:00:00Z"
    await api.data("pause", [job_id])
    assert await next_at(api, job_id) is None
    await api.data("update", [job_id, {"timezone": "UTC"}])
    assert await next_at(api, job_id) is None, "a change does not resume it"
    await api.data("resume", [job_id])
    assert await next_at(api, job_id) == "2026-01-30T14:00:00Z"
    await api.data("update", [job_id, {"enabled": False}])
    assert await next_at(api, job_id) is None
    await api.data("update", [job_id, {"enabled": True}])
    assert await next_at(api, job_id) == "2026-01-30T14:00:00Z"
    await api.data("delete", [job_id])
    assert (await api.data("status"))["nextExecutionAt"] is None
    assert await api.data("list") == []


async def test_what_fell_into_a_pause_is_neither_run_nor_missed(api: Any) -> None:
    job_id = (await api.create(cronExpression="* * * * *"))["id"]
    await api.data("pause", [job_id])
    await api.clock.advance(150)
    await api.data("resume", [job_id])
    await api.clock.advance(60)
    await api.until(lambda: _has_runs(api, 1))
    [run] = await api.runs()
    assert run["scheduledFor"] == "2026-01-30T12:03:00Z" and run["trigger"] == "schedule"


async def _has_runs(api: Any, count: int) -> bool:
    return sum(run["status"] == "success" for run in await api.runs()) >= count


async def test_a_pause_says_who_and_why(api: Any) -> None:
    job_id = (await api.create())["id"]
    assert (await api.data("pause", [job_id]))["pausedReason"] == "paused by alice"
    resumed = await api.data("resume", [job_id])
    assert "pausedReason" not in resumed and resumed["nextExecutions"]
    paused = await api.data("pause", {"jobId": job_id, "reason": "  holidays  "})
    assert paused["pausedReason"] == "holidays"
    assert await api.data("pause", [job_id]) == paused, "paused as it is already"
    again = await api.data("pause", {"jobId": job_id, "reason": "another"})
    assert (again["pausedReason"], again["revision"]) == ("another", paused["revision"] + 1)
    made = await api.create(enabled=False)
    assert made["pausedReason"] == "created paused by alice" and made["nextExecutions"] == []
    refusal = await api.refusal("pause", {"jobId": job_id, "reason": "a\nb"})
    assert refusal["error"] == "bad reason: expected one printable line of at most 500 characters"


async def test_resuming_a_job_that_runs_changes_nothing(api: Any) -> None:
    job = await api.create()
    assert (await api.data("resume", [job["id"]]))["revision"] == job["revision"]


async def test_a_parameter_that_may_be_left_out_may_be_null(api: Any) -> None:
    job = await api.create()
    assert len(await api.data("list", {"userId": None, "limit": None, "cursor": None})) == 1
    assert (await api.data("runs", [job["id"], None, None, None, None, None])) == {
        "items": [], "nextCursor": None,
    }  # fmt: skip
    preview = await api.data("preview", ["@daily", None, None])
    assert preview["timezone"] == "UTC" and len(preview["nextExecutions"]) == 5
    assert (await api.refusal("get", [None]))["error"] == "bad jobId null: expected a text"


class TestUpdate:
    """JSON Merge Patch, RFC 7396: what is given changes, null goes back to the default, the rest stays."""

    async def test_it_merges_and_resets(self, api: Any) -> None:
        job = await api.create(
            description="d", tags=["a"], retry={"maxAttempts": 2, "factor": 3}, timeoutSeconds=10
        )
        updates = {"description": None, "tags": ["b"], "retry": {"factor": None, "jitter": 0.5}}
        updated = await api.data("update", [job["id"], updates])
        assert "description" not in updated and updated["tags"] == ["b"]
        assert updated["timeoutSeconds"] == 10
        assert updated["retry"] == {
            "maxAttempts": 2, "initialSeconds": 5, "factor": 2, "maxSeconds": 3600, "jitter": 0.5, "on": [],
        }  # fmt: skip
        assert updated["revision"] == job["revision"] + 1
        assert (await api.data("update", [job["id"], {"retry": None}]))["retry"]["maxAttempts"] == 4

    async def test_it_can_change_every_field_of_the_original(self, api: Any) -> None:
        job = await api.create()
        updates = {
            "name": "N", "description": "D", "cronExpression": "0 10 * * *", "command": "date",
            "timezone": "Asia/Tokyo", "channelId": "gateway",
        }  # fmt: skip
        updated = await api.data("update", {"jobId": job["id"], "updates": updates})
        assert {name: updated[name] for name in updates} == updates
        assert updated["nextExecutions"][0]["local"] == "Sat 2026-01-31 10:00 JST"
        assert updated["id"] == job["id"] and updated["createdAt"] == job["createdAt"]

    async def test_it_is_refused_when_the_job_has_changed_since(self, api: Any) -> None:
        job = await api.create()
        seen = {"jobId": job["id"], "ifRevision": job["revision"]}
        assert (await api.data("update", {**seen, "updates": {"name": "first"}}))["revision"] == 2
        refusal = await api.refusal("update", {**seen, "updates": {"name": "second"}})
        assert refusal == {
            "success": False,
            "error": "the job is at revision 2, not 1: read it again",
            "code": "conflict",
            "field": "ifRevision",
        }
        assert (await api.data("get", [job["id"]]))["name"] == "first"

    @pytest.mark.parametrize(
        ("updates", "sentence"),
        [
            ({}, "bad updates: expected at least one field to change"),
            ([], "bad updates: expected an object with the fields to change"),
            (
                {"idempotencyKey": "k"},
                "bad idempotencyKey: it belongs to the call that made the job; leave it out",
            ),
        ],
    )
    async def test_it_wants_an_object_with_something_in_it(
        self, api: Any, updates: Any, sentence: str
    ) -> None:
        job = await api.create()
        assert (await api.refusal("update", [job["id"], updates]))["error"] == sentence

    async def test_two_at_once_lose_nothing(self, api: Any) -> None:
        job_id = (await api.create(command="https://example.com/"))["id"]
        await asyncio.gather(
            *(api.data("update", [job_id, {"http": {"headers": {f"X-{n}": str(n)}}}]) for n in range(10)),
            *(api.data("update", [job_id, {"maxRuns": 7}]) for _ in range(5)),
        )
        job = await api.data("get", [job_id])
        assert job["http"]["headers"] == {f"X-{n}": str(n) for n in range(10)}
        assert job["maxRuns"] == 7 and job["revision"] == 12, "the same again is no change"

    async def test_of_two_with_the_same_revision_one_wins(self, api: Any) -> None:
        job_id = (await api.create())["id"]
        answers = await asyncio.gather(
            *(
                api.answer("update", {"jobId": job_id, "updates": {"name": str(n)}, "ifRevision": 1})
                for n in range(5)
            )
        )
        assert sorted(answer.get("code", "ok") for answer in answers) == ["conflict"] * 4 + ["ok"]

    async def test_a_job_that_is_over_can_still_be_renamed_but_not_resumed(self, api: Any) -> None:
        job_id = (await api.create(cronExpression="in 1m"))["id"]
        await api.clock.advance(60)
        await api.until(lambda: _has_runs(api, 1))
        await api.clock.advance(5)
        assert (await api.data("update", [job_id, {"name": "was once"}]))["name"] == "was once"
        refusal = await api.refusal("resume", [job_id])
        assert refusal["field"] == "schedule" and "expected a later instant" in refusal["error"]
        revived = await api.data("update", [job_id, {"cronExpression": "in 1h", "enabled": True}])
        assert "nextExecutionAt" in revived


class TestCreatingOnce:
    """The idempotency key: the same key from the same user is the same job."""

    async def test_the_same_key_twice_is_one_job(self, api: Any) -> None:
        first = await api.create(idempotencyKey="k")
        assert await api.create(idempotencyKey="k") == first
        assert len(await api.data("list")) == 1

    async def test_the_same_key_at_the_same_time_is_one_job(self, api: Any) -> None:
        made = await asyncio.gather(*(api.create(idempotencyKey="k") for _ in range(10)))
        assert len({job["id"] for job in made}) == 1

    async def test_the_key_survives_an_update_and_is_free_after_a_delete(self, api: Any) -> None:
        first = await api.create(idempotencyKey="k")
        await api.data("update", [first["id"], {"name": "changed"}])
        assert (await api.create(idempotencyKey="k"))["name"] == "changed"
        await api.data("delete", [first["id"]])
        assert (await api.create(idempotencyKey="k"))["id"] != first["id"]


class TestQuotas:
    """What the operator allows."""

    async def test_a_tenant_has_at_most_so_many_jobs(self, open_api: Any) -> None:
        api = await open_api(max_jobs_per_tenant=3)
        answers = await asyncio.gather(*(api.answer("create", [_job()]) for _ in range(8)))
        refused = [answer for answer in answers if not answer["success"]]
        assert len(await api.data("list")) == 3 and len(refused) == 5
        assert refused[0]["code"] == "quota_exceeded"
        assert refused[0]["error"] == "the tenant has 3 jobs, the most it may have: delete some first"
        assert (await api.refusal("create", [_job()], who="bob"))["code"] == "quota_exceeded"
        await api.create(who="charlie")  # of another tenant
        await api.data("delete", [(await api.data("list"))[0]["id"]])
        await api.create()

    async def test_the_shortest_interval_is_the_operators_choice(self, open_api: Any) -> None:
        api = await open_api(min_interval_seconds=2)
        await api.create(cronExpression="*/2 * * * * *")
        refusal = await api.refusal("create", [{**_job(), "schedule": "* * * * * *"}])
        assert refusal["error"] == 'bad schedule "* * * * * *": is due every 1 s; expected at least 2 s'


def _job() -> dict[str, Any]:
    return {"name": "N", "schedule": "@daily", "command": "date", "channelId": "gateway"}


class TestLists:
    """Pages of jobs, in the order of their creation."""

    async def test_pages_have_no_gap_and_no_repeat(self, api: Any) -> None:
        made = [(await api.create(name=f"job {n}"))["id"] for n in range(7)]
        seen: list[str] = []
        cursor = None
        while True:
            answer = await api.answer("list", {"limit": 3, "cursor": cursor})
            seen += [job["id"] for job in answer["data"]]
            cursor = answer["nextCursor"]
            if cursor is None:
                break
        assert sorted(seen) == sorted(made) and len(seen) == 7

    @pytest.mark.parametrize(("limit", "shown"), [(0, "0"), (1001, "1001"), (-1, "-1")])
    async def test_a_limit_has_bounds(self, api: Any, limit: int, shown: str) -> None:
        assert (await api.refusal("list", {"limit": limit}))["error"] == f"bad limit {shown}: expected 1–1000"

    async def test_a_cursor_is_one_that_was_given(self, api: Any) -> None:
        refusal = await api.refusal("list", {"cursor": "2"})
        assert refusal["error"] == "bad cursor: give the nextCursor of the page before"


class TestBeforeCreating:
    """validate and preview keep nothing."""

    async def test_validate_says_what_create_would_do(self, api: Any) -> None:
        checked = await api.data("validate", {"data": {**_job(), "schedule": "in 20m"}})
        assert checked["valid"] is True and checked["description"]
        assert [one["at"] for one in checked["nextExecutions"]] == ["2026-01-30T12:20:00Z"]
        assert await api.data("list") == []

    async def test_validate_keeps_within_the_jobs_window(self, api: Any) -> None:
        data = {**_job(), "startAt": "2026-02-01T00:00:00Z", "endAt": "2026-02-02T12:00:00Z"}
        checked = await api.data("validate", [data])
        due = ["2026-02-01T00:00:00Z", "2026-02-02T00:00:00Z"]
        assert [one["at"] for one in checked["nextExecutions"]] == due
        assert [one["at"] for one in (await api.data("create", [data]))["nextExecutions"]] == due

    async def test_no_more_instants_are_shown_than_runs_are_left(self, api: Any) -> None:
        data = {**_job(), "schedule": "* * * * *", "maxRuns": 2}
        due = ["2026-01-30T12:01:00Z", "2026-01-30T12:02:00Z"]
        made = await api.data("create", [data])
        for answer in (await api.data("validate", [data]), made):
            assert [one["at"] for one in answer["nextExecutions"]] == due
        await api.clock.advance(61)
        await api.data("pause", [made["id"]])
        for answer in (
            await api.data("resume", [made["id"]]),
            await api.data("update", [made["id"], {"description": "half done"}]),
        ):
            assert [one["at"] for one in answer["nextExecutions"]] == due[1:]

    async def test_preview_notes_what_a_clock_change_does(self, api: Any) -> None:
        api.clock.step(_days_to("2026-03-07T12:00:00+00:00", api))
        preview = await api.data("preview", ["30 2 * * *", "America/New_York", 2])
        assert preview["description"] == "At 02:30 (America/New_York)"
        first, second = preview["nextExecutions"]
        assert first["at"] == "2026-03-08T07:00:00Z" and first["local"] == "Sun 2026-03-08 03:00 EDT"
        assert "02:30" in first["note"]
        assert second == {"at": "2026-03-09T06:30:00Z", "local": "Mon 2026-03-09 02:30 EDT"}
        job = await api.create(cronExpression="30 2 * * *", timezone="America/New_York")
        assert job["nextExecutions"][0] == first

    async def test_preview_counts_five_in_utc_unless_told(self, api: Any) -> None:
        preview = await api.data("preview", {"schedule": "@hourly"})
        assert preview["timezone"] == "UTC" and len(preview["nextExecutions"]) == 5

    @pytest.mark.parametrize("count", [1, 100])
    async def test_preview_counts_within_bounds(self, api: Any, count: int) -> None:
        preview = await api.data("preview", {"schedule": "@hourly", "timezone": "UTC", "count": count})
        assert len(preview["nextExecutions"]) == count

    @pytest.mark.parametrize(
        ("params", "field", "sentence"),
        [
            ({"schedule": "@hourly", "count": 0}, "count", "bad count 0: expected 1–100"),
            ({"schedule": "@hourly", "count": 101}, "count", "bad count 101: expected 1–100"),
            ({"schedule": "@hourly", "count": "5"}, "count", 'bad count "5": expected a whole number'),
            ({"schedule": "61 * * * *"}, "schedule", 'bad minute "61" in "61 * * * *": expected 0–59'),
            ({"schedule": "@hourly", "timezone": "Mars/Base"}, "timezone", 'bad timezone "Mars/Base": '),
        ],
    )
    async def test_preview_refuses_in_a_sentence(
        self, api: Any, params: Any, field: str, sentence: str
    ) -> None:
        refusal = await api.refusal("preview", params)
        assert refusal["field"] == field and refusal["error"].startswith(sentence)


def _days_to(text: str, api: Any) -> timedelta:
    return datetime.fromisoformat(text) - cast(datetime, api.clock.now())
