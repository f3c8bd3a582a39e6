"""carapace.cron.events: who changed what, from what, to what; each change once, and no secret."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from carapace_cron.ledger.events import ACTIONS


async def trail(api: Any, *, who: str = "alice", **asked: Any) -> list[dict[str, Any]]:
    """Oldest first."""
    items: list[dict[str, Any]] = (await api.data("events", asked, who=who))["items"]
    return items[::-1]


async def actions(api: Any, **asked: Any) -> list[str]:
    return [event["action"] for event in await trail(api, **asked)]


async def test_each_change_of_a_job_is_one_event_with_both_sides(api: Any) -> None:
    job = await api.create()
    await api.data("update", [job["id"], {"name": "Renamed", "timezone": "Europe/Berlin"}])
    await api.data("update", [job["id"], {"name": "Renamed"}])  # no change
    await api.data("pause", [job["id"], "moving"], who="ada")
    await api.data("resume", [job["id"]])
    await api.data("resume", [job["id"]])  # no change
    await api.data("delete", [job["id"]])
    await api.data("delete", [job["id"]])  # no change
    await api.data("restore", [job["id"]])
    created, updated, paused, resumed, deleted, restored = await trail(api)
    assert created["after"] == {
        "name": "Report", "schedule": "0 9 * * *", "command": "echo done", "channelId": "gateway",
        "enabled": True, "userId": "alice",
    }  # fmt: skip
    assert {**created, "after": None} == {
        "id": created["id"], "at": "2026-01-30T12:00:00Z", "actor": "alice", "action": "job.created",
        "subject": job["id"], "userId": "alice", "jobId": job["id"], "before": None, "after": None,
    }  # fmt: skip
    assert (updated["action"], updated["before"], updated["after"]) == (
        "job.updated", {"name": "Report"}, {"name": "Renamed", "timezone": "Europe/Berlin"},
    )  # fmt: skip
    assert (paused["action"], paused["actor"], paused["after"]) == (
        "job.paused", "ada", {"enabled": False, "pausedReason": "moving"},
    )  # fmt: skip
    assert (resumed["action"], resumed["after"]) == ("job.resumed", {"enabled": True})
    assert (deleted["action"], deleted["after"]) == ("job.deleted", None)
    assert deleted["before"]["command"] == "echo done"
    assert (restored["action"], restored["before"], restored["after"]) == ("job.restored", None, None)
    assert sorted(event["id"] for event in await trail(api)) == [event["id"] for event in await trail(api)]


async def test_what_the_gateway_does_by_itself_is_its_own(api: Any) -> None:
    once = await api.create(cronExpression="at 2026-01-30T12:01:00Z")
    failing = {"command": "agent: fail", "retry": {"maxAttempts": 1}, "pauseAfterFailures": 1}
    bad = await api.create(cronExpression="* * * * *", **failing)
    gone = await api.create(cronExpression="* * * * *", deleteAfterRun=True)
    waking = await api.create(cronExpression="0 13 * * *")
    await api.data("pause", {"jobId": waking["id"], "until": "2026-01-30T12:01:00Z"})
    await api.clock.advance(70)
    seen = {
        (event["jobId"], event["action"]) for event in await trail(api) if event["actor"] == "the gateway"
    }
    assert seen == {
        (once["id"], "job.paused"),
        (bad["id"], "job.paused"),
        (gone["id"], "job.deleted"),
        (waking["id"], "job.resumed"),
    }


async def test_runs_by_hand_are_in_it_once_a_key_and_scheduled_ones_are_not(api: Any) -> None:
    job = await api.create(cronExpression="* * * * *", command="agent: hang", overlap="queue")
    first = await api.data("run", [job["id"], "k"])
    again = await api.data("run", [job["id"], "k"])
    assert again["id"] == first["id"]
    second = await api.data("run", [job["id"]])
    await api.clock.advance(61)
    events = await trail(api, action="run.started")
    assert [(one["subject"], one["jobId"], one["after"]) for one in events] == [
        (first["id"], job["id"], {"idempotencyKey": "k"}),
        (second["id"], job["id"], None),
    ]


async def test_a_cancelled_run_is_in_it_once_with_the_state_that_it_was_in(api: Any) -> None:
    job = await api.create(command="agent: hang", overlap="queue")
    working, waiting = [await api.data("run", [job["id"]]) for _ in range(2)]
    await api.run_in(working["id"], {"running"})
    for run in (waiting, waiting, working, working):
        await api.data("cancel", [run["id"]])
    await api.run_in(working["id"])
    await api.data("cancel", [working["id"]])
    events = await trail(api, action="run.cancelled")
    assert [(one["subject"], one["before"]) for one in events] == [
        (waiting["id"], {"status": "queued"}),
        (working["id"], {"status": "running"}),
    ]
    done = await api.create()
    ended = await api.run_in((await api.data("run", [done["id"]]))["id"])
    await api.refusal("cancel", [ended["id"]])
    assert len(await trail(api, action="run.cancelled")) == 2


async def test_a_backfill_is_in_it_if_it_made_runs(api: Any) -> None:
    job = await api.create(cronExpression="@hourly")
    window = {"jobId": job["id"], "since": "2026-01-30T10:00:00Z"}
    await api.data("backfill", window)
    for _ in range(2):
        await api.data("backfill", {**window, "dryRun": False})
    [event] = await trail(api, action="job.backfilled")
    assert (event["actor"], event["subject"], event["after"]) == (
        "alice", job["id"],
        {"since": "2026-01-30T10:00:00Z", "until": "2026-01-30T12:00:00Z", "runs": 2},
    )  # fmt: skip


async def test_tokens_are_in_it_without_their_secrets(api: Any) -> None:
    made = await api.data("tokens.create", ["acme", "eve", ["jobs:read"]], who="ada")
    operators = await api.data("tokens.create", ["acme", "ada", ["ping"]], who=api.cron.new_admin_token)
    await api.data("tokens.revoke", [made["id"]], who="ada")
    events = await trail(api, who="ada")
    assert [(one["action"], one["actor"], one["subject"], one["userId"]) for one in events] == [
        ("token.created", "ada", made["id"], "eve"),
        ("token.created", "default/admin", operators["id"], "ada"),
        ("token.revoked", "ada", made["id"], "eve"),
    ]
    assert events[0]["after"] == events[2]["before"] == {"user": "eve", "scopes": ["jobs:read"]}
    assert made["token"] not in str(events) and operators["token"] not in str(events)


async def test_neither_bodies_nor_values_of_a_query_are_in_it(api: Any) -> None:
    url = "https://example.com/hook?key=canary&canary"
    job = await api.create(command=url, http={"method": "POST", "body": "canary"})
    await api.data("update", [job["id"], {"http": {"body": "another canary"}}])
    created, updated = await trail(api)
    assert "canary" not in str((created, updated))
    assert created["after"]["command"] == "https://example.com/hook?key=[redacted]&[redacted]"
    assert updated["before"]["http"]["body"] == updated["after"]["http"]["body"] == "[redacted]"


async def test_values_of_headers_are_not_in_it_unless_they_can_be_no_secret(api: Any) -> None:
    secret = {"Authorization": "Bearer canary", "X-Vendor-Key": "canary", "Cookie": "s=canary"}
    http = {"headers": {**secret, "Accept": "text/plain"}}
    job = await api.create(command="https://example.com/", http=http)
    await api.data("update", [job["id"], {"http": {"headers": {"Cookie": "s=another canary"}}}])
    await api.data("delete", [job["id"]])
    assert job["http"]["headers"]["Cookie"] == "s=canary", "the job itself shows them to its owner"
    events = await trail(api)
    assert "canary" not in str(events)
    created, updated, deleted = events
    shown = {**dict.fromkeys(secret, "[redacted]"), "Accept": "text/plain"}
    assert created["after"]["http"]["headers"] == deleted["before"]["http"]["headers"] == shown
    assert updated["before"]["http"]["headers"] == updated["after"]["http"]["headers"] == shown


class TestReading:
    async def test_one_sees_what_is_ones_own_and_an_admin_the_tenants(self, api: Any) -> None:
        hers = await api.create()
        his = await api.create(who="bob")
        await api.create(who="charlie")
        await api.data("pause", [his["id"]], who="ada")
        assert [event["jobId"] for event in await trail(api)] == [hers["id"]]
        assert [event["actor"] for event in await trail(api, who="bob")] == ["bob", "ada"]
        assert [event["jobId"] for event in await trail(api, who="ada")] == [hers["id"], his["id"], his["id"]]
        assert [event["actor"] for event in await trail(api, who="charlie")] == ["charlie"]
        assert await trail(api, who="bob", jobId=hers["id"]) == []

    async def test_it_filters_by_job_and_action(self, api: Any) -> None:
        first, second = await api.create(), await api.create()
        await api.data("pause", [first["id"]])
        assert await actions(api, jobId=first["id"]) == ["job.created", "job.paused"]
        assert await actions(api, action="job.paused") == ["job.paused"]
        both = await actions(api, action=["job.paused", "job.created"])
        assert both == ["job.created", "job.created", "job.paused"]
        assert await actions(api, jobId=second["id"], action="job.paused") == []

    async def test_pages_have_no_gap_and_no_repeat(self, api: Any) -> None:
        for _ in range(7):
            await api.create()
        seen: list[int] = []
        cursor = None
        while True:
            page = await api.data("events", {"limit": 3, "cursor": cursor})
            seen += [event["id"] for event in page["items"]]
            cursor = page["nextCursor"]
            if cursor is None:
                break
            await api.create()  # what is new does not move the pages behind
        assert len(seen) == 7 and seen == sorted(set(seen), reverse=True)

    @pytest.mark.parametrize(
        ("asked", "field", "sentence"),
        [
            ({"limit": 0}, "limit", "bad limit 0: expected 1–500"),
            ({"limit": 501}, "limit", "bad limit 501: expected 1–500"),
            ({"cursor": 0}, "cursor", "bad cursor: give the nextCursor of the page before"),
            ({"action": "paused"}, "action",
             f'bad action "paused": expected one of {", ".join(ACTIONS)}'),
            ({"action": []}, "action",
             f"bad action: expected an action or a list of 1–{len(ACTIONS)} actions, found 0"),
        ],
    )  # fmt: skip
    async def test_what_it_does_not_understand_it_says(
        self, api: Any, asked: Any, field: str, sentence: str
    ) -> None:
        refusal = await api.refusal("events", asked)
        assert (refusal["field"], refusal["error"]) == (field, sentence)


async def test_it_outlives_the_job_and_goes_when_it_is_as_old_as_the_operator_keeps_it(open_api: Any) -> None:
    api = await open_api(keep_events_days=60)
    job = await api.create()
    await api.data("delete", [job["id"]])
    api.clock.step(timedelta(days=40))
    await api.clock.advance(3601)
    assert await actions(api, jobId=job["id"]) == ["job.created", "job.deleted"]
    await api.create()
    api.clock.step(timedelta(days=21))
    await api.clock.advance(3601)
    assert await actions(api) == ["job.created"] and await trail(api, jobId=job["id"]) == []


async def test_a_change_that_is_refused_leaves_no_event(api: Any) -> None:
    job = await api.create()
    await api.refusal("update", [job["id"], {"name": ""}])
    await api.refusal("update", {"jobId": job["id"], "updates": {"name": "M"}, "ifRevision": 7})
    assert await actions(api) == ["job.created"]
