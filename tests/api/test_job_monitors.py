"""A job's switch `monitor`: a watch over our own job that hears of its runs, and of their absence."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from carapace_cron.ids import job_monitor_id

HOUR = 3600


class Watch:
    """A job of Alice's that runs each hour, and its monitor."""

    def __init__(self, api: Any, job: dict[str, Any]) -> None:
        self.api = api
        self.job = job

    @classmethod
    async def over(cls, api: Any, **fields: Any) -> Watch:
        given = {"cronExpression": "0 * * * *", "command": "agent: generate-report", "notify": "never"}
        return cls(api, await api.create(**{**given, "monitor": True, **fields}))

    @property
    def id(self) -> str:
        return job_monitor_id(self.job["id"])

    async def monitor(self) -> dict[str, Any]:
        got = await self.api.data("monitors.get", [self.id], who="watcher")
        assert isinstance(got, dict)
        return got

    async def status(self) -> str:
        return str((await self.monitor())["status"])

    async def pings(self) -> list[tuple[str, str]]:
        """(kind, text), oldest first."""
        found = []
        for one in reversed((await self.api.data("monitors.pings", [self.id], who="watcher"))["items"]):
            asked = [self.id, one["n"]]
            body = await self.api.data("monitors.pingBody", asked, who="watcher") if one["bodyBytes"] else {}
            found.append((one["kind"], body.get("text", "")))
        return found

    async def flips(self) -> list[tuple[str, str, str]]:
        """(time of day, status, why), oldest first."""
        found = await self.api.data("monitors.flips", [self.id], who="watcher")
        return [(one["at"][11:16], one["after"], one["reason"]) for one in reversed(found)]

    async def until(self, status: str) -> None:
        async def is_so() -> bool:
            await self.api.clock.advance(0)
            return await self.status() == status

        await self.api.until(is_so)

    async def hours(self, count: int) -> None:
        """Let the hours pass, each with what it brings."""
        for _ in range(count):
            await self.api.clock.advance(HOUR)
            await self.api.clock.advance(1)

    async def titles(self) -> list[str]:
        answer = await self.api.ask("carapace.gateway.messages", who="watcher")
        return [one["title"] for one in reversed(answer["result"]["items"])]


class TestFollowing:
    async def test_it_is_made_with_the_job_and_says_what_the_job_says(self, api: Any) -> None:
        watch = await Watch.over(
            api, name="Report", timezone="Europe/Berlin", jitterSeconds=60, tags=["a"],
            blackouts=[{"days": ["sun"]}], retry={"maxAttempts": 2, "initialSeconds": 10}, timeoutSeconds=100,
        )  # fmt: skip
        assert watch.job["monitorId"] == watch.id
        made = await watch.monitor()
        assert {name: made[name] for name in (
            "jobId", "name", "schedule", "timezone", "tags", "channels", "graceSeconds", "maxRunSeconds",
            "status",
        )} == {
            "jobId": watch.job["id"], "name": "Report", "schedule": "0 * * * *", "timezone": "Europe/Berlin",
            "tags": ["a"], "channels": ["gateway"], "graceSeconds": 360.0, "maxRunSeconds": 510.0,
            "status": "new",
        }  # fmt: skip
        assert made["expectedAt"] == "2026-01-30T13:00:00Z"
        assert made["deadlineAt"] == "2026-01-30T13:06:00Z"

    async def test_the_switch_can_say_more(self, api: Any) -> None:
        wishes = {"graceSeconds": 120, "maxRunSeconds": 900, "notify": ["down"], "failuresBeforeAlert": 2}
        watch = await Watch.over(api, monitor=wishes)
        made = await watch.monitor()
        assert {name: made[name] for name in wishes} == wishes
        refusal = await api.refusal("create", [{**_job(), "monitor": {"channels": ["nowhere"]}}])
        assert refusal["field"] == "monitor" and refusal["error"].startswith('unknown channel "nowhere"')
        refusal = await api.refusal("create", [{**_job(), "monitor": {"schedule": "@daily"}}])
        assert refusal["field"] == "monitor.schedule"

    async def test_it_follows_each_change_of_the_job(self, api: Any) -> None:
        watch = await Watch.over(api)
        job_id = watch.job["id"]
        await api.data("update", [job_id, {"cronExpression": "30 * * * *", "name": "New"}])
        made = await watch.monitor()
        assert (made["name"], made["expectedAt"]) == ("New", "2026-01-30T12:30:00Z")
        await api.data("pause", [job_id])
        assert await watch.status() == "paused" and "deadlineAt" not in await watch.monitor()
        await api.data("resume", [job_id])
        assert (await watch.monitor())["expectedAt"] == "2026-01-30T12:30:00Z"
        await api.data("update", [job_id, {"monitor": False}])
        assert (await api.refusal("monitors.get", [watch.id], who="watcher"))["code"] == "not_found"
        await api.data("update", [job_id, {"monitor": True}])
        assert await watch.status() == "new"
        await api.data("delete", [job_id])
        assert (await api.refusal("monitors.get", [watch.id], who="watcher"))["code"] == "not_found"
        await api.data("restore", [job_id])
        assert await watch.status() == "new"

    async def test_it_is_changed_by_its_job_alone_but_can_be_snoozed(self, api: Any) -> None:
        watch = await Watch.over(api)
        changes: list[tuple[Any, ...]] = [("update", {"name": "X"}), ("pause",), ("resume",), ("delete",)]
        for method, *rest in (*changes, ("sign",), ("sign", False)):
            refusal = await api.refusal(f"monitors.{method}", [watch.id, *rest], who="watcher")
            assert refusal["code"] == "conflict"
            follows = f"this monitor follows the job {watch.job['id']}"
            assert refusal["error"] == f"{follows}: change the job instead"
        await api.data("monitors.snooze", [watch.id, "2026-01-31T00:00:00Z"], who="watcher")
        await api.data("update", [watch.job["id"], {"name": "Y"}])
        assert (await watch.monitor())["snoozedUntil"] == "2026-01-31T00:00:00Z"

    async def test_nobody_else_pings_it(self, api: Any) -> None:
        watch = await Watch.over(api)
        async with api.house.client.get(f"{api.house.server.url}/ping/{watch.id}/fail") as response:
            assert (response.status, await response.text()) == (404, "not found")
        assert await watch.status() == "new" and await watch.pings() == []

    async def test_it_takes_nothing_from_the_quota_of_monitors(self, open_api: Any) -> None:
        api = await open_api(max_monitors_per_tenant=1)
        await Watch.over(api)
        await api.data("monitors.create", [{}], who="watcher")
        await Watch.over(api)


class TestRuns:
    async def test_it_hears_each_run_begin_and_end(self, api: Any) -> None:
        watch = await Watch.over(api)
        await watch.hours(1)
        await watch.until("up")
        assert await watch.pings() == [("start", ""), ("success", "")]
        items = (await api.data("monitors.pings", [watch.id], who="watcher"))["items"]
        [run] = await api.runs()
        assert {one["rid"] for one in items} == {run["id"]}
        assert (await watch.monitor())["expectedAt"] == "2026-01-30T14:00:00Z"
        assert await watch.titles() == []

    async def test_failures_are_one_incident_with_one_end(self, api: Any) -> None:
        watch = await Watch.over(api, command="agent: fail", retry={"maxAttempts": 1})
        await watch.hours(3)
        await watch.until("down")
        await api.data("update", [watch.job["id"], {"command": "agent: generate-report"}])
        await watch.hours(1)
        await watch.until("up")
        await api.until(lambda: _told(watch, 2))
        assert await watch.titles() == ["Report: down", "Report: up"]
        assert ("fail", "the source was empty") in await watch.pings()

    async def test_a_run_that_is_cancelled_tells_nothing(self, api: Any) -> None:
        watch = await Watch.over(api, command="agent: hang")
        await watch.hours(1)
        [run] = await api.runs()
        assert (await watch.monitor())["started"]
        await api.data("cancel", [run["id"]])
        await api.run_in(run["id"])
        made = await watch.monitor()
        assert (made["status"], made["started"], made["failuresInRow"]) == ("new", False, 0)
        assert await watch.pings() == [("start", ""), ("log", "cancelled by alice")]
        assert made["expectedAt"] == "2026-01-30T14:00:00Z"

    async def test_instants_that_are_skipped_or_wait_are_no_silence(self, api: Any) -> None:
        watch = await Watch.over(api, command="agent: hang", timeoutSeconds=86_400)
        await watch.hours(3)
        assert await watch.status() == "new" and (await watch.monitor())["started"]
        skips = [text for kind, text in await watch.pings() if kind == "log"]
        assert len(skips) == 2 and all(text.startswith("skipped: the run for") for text in skips)
        api.agents.let_go.set()
        await watch.until("up")
        assert (await watch.monitor())["expectedAt"] == "2026-01-30T16:00:00Z"

    async def test_a_run_that_somebody_asked_for_stands_for_no_instant(self, api: Any) -> None:
        """It began and ended well just after the hour in which the scheduler stood still."""
        watch = await Watch.over(api)
        await _stand_still(api)
        await api.clock.advance(HOUR + 60)
        run = await api.data("run", [watch.job["id"]])
        await api.run_in(run["id"])
        made = await watch.monitor()
        assert (made["status"], made["deadlineAt"]) == ("late", "2026-01-30T13:05:00Z")
        await api.clock.advance(300)
        assert await watch.flips() == [("13:01", "up", "ping"), ("13:05", "down", "timeout")]


class TestSilence:
    """What no loop did is told by one that does not depend on them."""

    @pytest.mark.parametrize("loop", ["scheduler", "executor"])
    async def test_a_loop_that_stands_still_is_told_by_the_watchman(self, api: Any, loop: str) -> None:
        watch = await Watch.over(api)
        await watch.hours(1)
        await watch.until("up")
        await _stand_still(api, loop)
        await api.clock.advance(HOUR)
        assert await watch.status() == "late"
        await api.clock.advance(300)
        assert await watch.flips() == [("13:00", "up", "ping"), ("14:05", "down", "timeout")]
        await api.until(lambda: _told(watch, 1))
        answer = await api.ask("carapace.gateway.messages", who="watcher")
        assert answer["result"]["items"][0]["text"] == (
            "No run came in time. It was due at 2026-01-30T14:00:00Z. "
            "Its grace was over at 2026-01-30T14:05:00Z."
        )

    async def test_a_job_that_never_ran_is_told_too(self, api: Any) -> None:
        watch = await Watch.over(api)
        await _stand_still(api)
        await api.clock.advance(HOUR + 301)
        assert await watch.flips() == [("13:05", "down", "timeout")]

    async def test_what_a_calendar_takes_out_is_not_missed(self, api: Any) -> None:
        watch = await Watch.over(
            api, blackouts=[{"from": "2026-01-30T12:30:00Z", "until": "2026-01-30T15:30:00Z"}]
        )
        await _stand_still(api)
        await api.clock.advance(4 * HOUR)
        assert await watch.status() == "late"
        await api.clock.advance(301)
        assert await watch.flips() == [("16:05", "down", "timeout")]

    async def test_after_its_end_nothing_is_awaited(self, api: Any) -> None:
        watch = await Watch.over(api, endAt="2026-01-30T13:30:00Z")
        await watch.hours(1)
        await watch.until("up")
        await watch.hours(3)
        assert not (await api.data("get", [watch.job["id"]]))["enabled"]
        made = await watch.monitor()
        assert made["status"] == "up" and "deadlineAt" not in made

    async def test_after_its_last_run_nothing_is_awaited(self, api: Any) -> None:
        watch = await Watch.over(api, maxRuns=1)
        await watch.hours(1)
        await watch.until("up")
        await watch.hours(4)
        assert await watch.status() == "up" and len(await watch.flips()) == 1

    async def test_the_only_run_of_a_job_is_watched_to_its_end(self, api: Any) -> None:
        """The job is over, and switched off, as soon as that run is recorded."""
        watch = await Watch.over(api, command="agent: fail", maxRuns=1, retry={"maxAttempts": 1})
        await watch.hours(1)
        await watch.until("down")

    async def test_a_run_that_goes_on_does_not_end_the_pause(self, api: Any) -> None:
        watch = await Watch.over(api, command="agent: hang")
        await watch.hours(1)
        await api.data("pause", [watch.job["id"]])
        api.agents.let_go.set()
        await api.run_in((await api.runs())[0]["id"])
        assert await watch.status() == "paused"

    async def test_a_run_whose_gateway_died_is_told(self, api: Any) -> None:
        watch = await Watch.over(api, command="agent: hang", timeoutSeconds=60, retry={"maxAttempts": 1})
        await watch.hours(1)
        assert (await watch.monitor())["deadlineAt"] == "2026-01-30T13:06:00Z"

    async def test_instants_that_were_missed_are_failures_with_their_reason(self, open_api: Any) -> None:
        api = await open_api()
        watch = await Watch.over(api, catchUp="none")
        await open_api.stop()
        open_api._clock.step(timedelta(hours=3, minutes=10))
        api = watch.api = await open_api()
        await watch.until("down")
        await api.until(lambda: _pinged(watch))
        [(kind, text)] = await watch.pings()
        assert kind == "fail" and text.startswith("missed: ")
        assert (await watch.flips())[0] == ("13:05", "down", "timeout")


async def _told(watch: Watch, count: int) -> bool:
    await watch.api.clock.advance(0)
    return len(await watch.titles()) >= count


async def _pinged(watch: Watch) -> bool:
    await watch.api.clock.advance(0)
    return bool(await watch.pings())


def _job() -> dict[str, Any]:
    return {"name": "N", "schedule": "@daily", "command": "date", "channelId": "gateway"}


async def _stand_still(api: Any, loop: str = "scheduler") -> None:
    """One of the house's loops ends, and the others go on."""
    house = api.cron._house
    if loop == "scheduler":
        house._scheduler.stop()
    else:
        await house._executor.stop(0)
    await next(one for one in house._loops if one.get_name() == loop)


class TestTheWatchman:
    async def test_hears_of_what_comes_sooner_than_it_knew(self, api: Any) -> None:
        """A run that begins is to end before the next instant is due."""
        watch = await Watch.over(api, command="agent: hang", monitor={"maxRunSeconds": 60})
        await api.clock.advance(HOUR)
        await api.clock.advance(61)
        assert await watch.flips() == [("13:01", "down", "run")]
