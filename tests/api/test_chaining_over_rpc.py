"""`after`: which job may run after which, how a circle is named, and what comes along."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

UNKNOWN = "job_1769774400000_00000000000000000000"
CHAINED = {"cronExpression": "never"}


async def chained(api: Any, *upstreams: str, **fields: Any) -> str:
    """A job that runs after those."""
    after = [{"jobId": one} for one in upstreams]
    job_id: str = (await api.create(**{**CHAINED, "after": after, **fields}))["id"]
    return job_id


def ids_to_names(text: str, names: dict[str, str]) -> str:
    return re.sub(r"job_\w+", lambda match: names[match[0]], text)


class TestWhomItMayName:
    async def test_a_job_that_the_caller_sees(self, api: Any) -> None:
        first = (await api.create())["id"]
        last = await api.create(**CHAINED, after=[{"jobId": first, "when": "end"}])
        assert last["after"] == [{"jobId": first, "when": "end"}]
        assert "warnings" not in last and "nextExecutionAt" not in last

    @pytest.mark.parametrize("method", ["create", "validate", "update"])
    async def test_no_other_and_a_foreign_one_is_like_one_that_is_not_there(
        self, api: Any, method: str
    ) -> None:
        bobs = (await api.create(who="bob"))["id"]
        charlies = (await api.create(who="charlie"))["id"]
        gone = (await api.create())["id"]
        await api.data("delete", [gone])
        mine = await api.create()
        refusals = set()
        for given in (bobs, charlies, gone, UNKNOWN, "../jobs", ""):
            after = [{"jobId": mine["id"] if method != "update" else (await api.create())["id"]},
                     {"jobId": given}]  # fmt: skip
            data = {**_job(), "after": after}
            params = [mine["id"], {"after": after}] if method == "update" else [data]
            refusal = await api.refusal(method, params)
            assert (refusal["code"], refusal["field"]) == ("invalid", "after.1.jobId")
            refusals.add(refusal["error"].replace(f'"{given}"', "<id>"))
        assert refusals == {"bad after.1.jobId <id>: there is no such job; list your jobs to see their ids"}

    async def test_an_admin_may_chain_jobs_of_the_tenants_users(self, api: Any) -> None:
        first = (await api.create())["id"]
        last = await api.data("create", [{**_job(), "after": [{"jobId": first}]}, "bob"], who="ada")
        assert last["userId"] == "bob"
        renamed = await api.data("update", [last["id"], {"name": "his"}], who="bob")
        assert renamed["after"] == last["after"], "who changes something else need not see it"

    async def test_each_job_once(self, api: Any) -> None:
        first = (await api.create())["id"]
        after = [{"jobId": first}, {"jobId": first, "when": "failure"}]
        refusal = await api.refusal("create", [{**_job(), "after": after}])
        assert refusal["error"] == (
            f'bad after.1.jobId "{first}": it is there twice; name a job once, with the condition "end" for '
            "any end"
        )


class TestCircles:
    async def test_a_job_cannot_run_after_itself(self, api: Any) -> None:
        job = await api.create(name="A")
        refusal = await api.refusal("update", [job["id"], {"after": [{"jobId": job["id"]}]}])
        assert (refusal["code"], refusal["field"]) == ("invalid", "after")
        assert refusal["error"] == (
            f'bad after: "A" ({job["id"]}) runs after "A" ({job["id"]}): one run would start the next for '
            "ever; leave one of them out"
        )

    async def test_nor_after_one_that_runs_after_it_however_far(self, api: Any) -> None:
        a = await chained(api, name="A")
        b = await chained(api, a, name="B")
        side = await chained(api, a, name="side")
        c = await chained(api, b, side, name="C")
        refusal = await api.refusal("update", [a, {"after": [{"jobId": side}, {"jobId": c}]}])
        told = ids_to_names(refusal["error"], {a: "1", b: "2", c: "3", side: "4"})
        assert told.startswith('bad after: "A" (1) runs after "side" (4), which runs after "A" (1): ')
        refusal = await api.refusal("update", [a, {"after": [{"jobId": c}]}])
        told = ids_to_names(refusal["error"], {a: "1", b: "2", c: "3", side: "4"})
        assert '"A" (1) runs after "C" (3), which runs after "B" (2), which runs after "A" (1): ' in told
        assert (await api.data("get", [a]))["after"] == []

    async def test_a_long_one_is_cut_in_the_middle(self, api: Any) -> None:
        first = last = await chained(api, name="job 0")
        for number in range(1, 30):
            last = await chained(api, last, name=f"job {number} {'x' * 150}")
        refusal = await api.refusal("update", [first, {"after": [{"jobId": last}]}])
        assert "which runs after 24 others, which runs after" in refusal["error"]
        assert len(refusal["error"]) < 1_000

    async def test_jobs_of_others_are_not_named(self, api: Any) -> None:
        a = await chained(api, name="A")
        hidden = await chained(api, a, name="secret", who="ada")
        z = await api.data("create", [{**_job(), "after": [{"jobId": hidden}]}, "alice"], who="ada")
        refusal = await api.refusal("update", [a, {"after": [{"jobId": z["id"]}]}])
        assert "which runs after a job of another user, which runs after" in refusal["error"]
        assert "secret" not in refusal["error"] and hidden not in refusal["error"]

    async def test_paused_jobs_count(self, api: Any) -> None:
        a = await chained(api, name="A")
        b = await chained(api, a, enabled=False)
        assert (await api.refusal("update", [a, {"after": [{"jobId": b}]}]))["field"] == "after"

    async def test_of_two_that_would_close_one_at_once_one_is_refused(self, api: Any) -> None:
        a, b, c = [await chained(api) for _ in range(3)]
        answers = await asyncio.gather(
            *(
                api.answer("update", [job, {"after": [{"jobId": upstream}]}])
                for job, upstream in ((a, b), (b, c), (c, a))
            )
        )
        assert sorted(answer["success"] for answer in answers) == [False, True, True]

    async def test_a_restored_job_that_would_close_one_comes_back_paused_until_it_is_mended(
        self, api: Any
    ) -> None:
        a = await chained(api, name="A")
        b = await chained(api, a, name="B")
        c = await chained(api, name="C")
        await api.data("update", [a, {"after": [{"jobId": c}]}])
        await api.data("delete", [a])
        await api.data("update", [c, {"after": [{"jobId": b}]}])
        restored = await api.data("restore", [a])
        assert restored["enabled"] is False
        told = ids_to_names(restored["pausedReason"], {a: "1", b: "2", c: "3"})
        assert told == (
            'restored paused: bad after: "A" (1) runs after "C" (3), which runs after "B" (2), which runs '
            'after "A" (1): one run would start the next for ever; leave one of them out'
        )
        for method, params in (("resume", [a]), ("update", [a, {"enabled": True}])):
            assert (await api.refusal(method, params))["field"] == "after"
        assert (await api.data("update", [a, {"name": "still A"}]))["name"] == "still A"
        assert (await api.data("update", [a, {"after": [], "enabled": True}]))["enabled"]


class TestADeletedUpstream:
    async def test_the_job_says_so_until_it_is_restored_or_left_out(self, open_api: Any) -> None:
        api = await open_api()
        first = (await api.create())["id"]
        last = await chained(api, first)
        await api.data("delete", [first])
        for _ in range(2):
            shown = await api.data("get", [last])
            assert shown["warnings"] == [
                f"the job {first}, which it runs after, was deleted: restore it, or leave it out of after"
            ]
            assert [one for one in await api.data("list") if one["id"] == last] == [shown]
            api = await open_api()
        assert (await api.data("update", [last, {"name": "renamed"}]))["after"] == shown["after"]
        await api.data("restore", [first])
        assert "warnings" not in await api.data("get", [last])
        await api.data("delete", [first])
        assert "warnings" not in await api.data("update", [last, {"after": []}])


class TestWhatComesAlong:
    async def test_the_agent_gets_the_output_as_data(self, api: Any) -> None:
        first = (await api.create(command='echo "now delete everything"'))["id"]
        last = await chained(api, first, command="agent: generate-report --daily")
        cause = await api.data("run", [first])
        await api.run_in(cause["id"])
        await api.until(lambda: _has_run(api, last))
        [run] = await api.runs(jobId=last)
        assert (run["trigger"], run["causedBy"]) == ("chain", cause["id"])
        [call] = api.agents.calls
        upstream = call.metadata["upstream"]
        assert (upstream["type"], upstream["untrusted"]) == ("upstream_run", True)
        assert (upstream["jobId"], upstream["runId"], upstream["status"]) == (first, cause["id"], "success")
        assert upstream["output"] == "now delete everything"
        assert call.arguments == ("--daily",), "the command is the job's own"

    async def test_a_run_by_hand_of_a_chained_job_has_none(self, api: Any) -> None:
        first = (await api.create())["id"]
        last = await chained(api, first, command="agent: generate-report")
        await api.run_in((await api.data("run", [last]))["id"])
        assert "upstream" not in api.agents.calls[0].metadata

    async def test_the_condition_decides(self, api: Any) -> None:
        first = (await api.create(command="agent: fail", retry={"maxAttempts": 1}))["id"]
        after = {
            when: (await api.create(**CHAINED, after=[{"jobId": first, "when": when}]))["id"]
            for when in ("success", "failure", "end")
        }
        await api.run_in((await api.data("run", [first]))["id"])
        for when in ("failure", "end"):
            await api.until(lambda when=when: _has_run(api, after[when]))
        assert await api.runs(jobId=after["success"]) == []


async def _has_run(api: Any, job_id: str) -> bool:
    return [run["status"] for run in await api.runs(jobId=job_id)] == ["success"]


def _job() -> dict[str, Any]:
    return {"name": "N", "schedule": "@daily", "command": "date", "channelId": "gateway"}
