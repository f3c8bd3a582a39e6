"""Monitors over RPC: what is refused and in which words, quotas, dependencies; and what a watch tells."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from carapace_cron.errors import Refused
from carapace_cron.ids import unique_key
from carapace_cron.model.actor import Actor
from carapace_cron.model.monitor import MonitorPolicy

DOCS = Path(__file__).parents[2] / "docs" / "reference"
UNKNOWN = "00000000-0000-4000-8000-000000000000"
PINGER = Actor("acme", "alice", frozenset({"ping"}))


class Watched:
    """Alice's monitors through the gateway's doors."""

    def __init__(self, api: Any) -> None:
        self.api = api
        self.desk = api.cron._house.monitors

    async def create(self, **fields: Any) -> dict[str, Any]:
        data = {"name": "Backup", "channels": ["gateway"], **fields}
        made = await self.api.data("monitors.create", [data], who="watcher")
        assert isinstance(made, dict)
        return made

    async def get(self, monitor_id: str) -> dict[str, Any]:
        got = await self.api.data("monitors.get", [monitor_id], who="watcher")
        assert isinstance(got, dict)
        return got

    async def refusal(self, method: str, params: Any, who: str = "watcher") -> tuple[str, str, str | None]:
        """(code, sentence, field)"""
        answer = await self.api.refusal(f"monitors.{method}", params, who=who)
        return answer["code"], answer["error"], answer.get("field")

    async def ping(self, monitor_id: str, suffix: str = "", body: str = "") -> None:
        url = f"{self.api.house.server.url}/ping/{monitor_id}{suffix}"
        async with self.api.house.client.post(url, data=body) as response:
            assert response.status == 200

    async def messages(self, count: int) -> list[dict[str, Any]]:
        """What people heard in the channel `gateway`, oldest first, once there are so many."""

        async def all_there() -> bool:
            await self.api.clock.advance(0)
            return len(await self._messages()) >= count

        await self.api.until(all_there)
        return await self._messages()

    async def _messages(self) -> list[dict[str, Any]]:
        answer = await self.api.ask("carapace.gateway.messages", who="watcher")
        return list(reversed(answer["result"]["items"]))


@pytest.fixture
async def watched(api: Any) -> Watched:
    return Watched(api)


class TestRefusals:
    @pytest.mark.parametrize(
        ("fields", "field", "sentence"),
        [
            ({"slug": "Backup!"}, "slug", 'bad slug "Backup!": expected lower-case letters, digits, - and _'),
            ({"periodSeconds": 59}, "periodSeconds", "bad periodSeconds 59: expected at least 60"),
            ({"graceSeconds": "60"}, "graceSeconds", 'bad graceSeconds "60": expected a number'),
            ({"periodSeconds": 60, "schedule": "@daily"}, "data", None),
            ({"schedule": "61 * * * *"}, "schedule",
             'bad minute "61" in "61 * * * *": expected 0–59'),
            ({"schedule": "at 2020-01-01T00:00:00Z"}, "schedule", None),
            ({"timezone": "Mars/Olympus"}, "timezone", None),
            ({"channels": ["nowhere"]}, "channels", 'unknown channel "nowhere": expected one of gateway'),
            ({"reminders": [{"everySeconds": 300, "channels": ["nowhere"]}]}, "reminders",
             'unknown channel "nowhere": expected one of gateway'),
            ({"notify": ["dead"]}, "notify.0", None),
            ({"tags": ["two words"]}, "tags.0",
             'bad tags.0 "two words": expected one word without blanks or control characters'),
            ({"name": "a\nb"}, "name", 'bad name "a\\nb": expected one line without control characters'),
            ({"failureRate": {"failures": 5, "of": 4}}, "failureRate", None),
            ({"dependsOn": [UNKNOWN]}, "dependsOn",
             f'bad dependsOn "{UNKNOWN}": expected the id of another monitor of the same user'),
            ({"maintenance": [{"from": "22:00"}]}, "maintenance.0", None),
            ({"grace": 60}, "grace", 'unknown field "grace": did you mean "graceSeconds"?'),
            ({"status": "up"}, "status", None),
            ({"id": UNKNOWN}, "id", 'field "id" cannot be set: leave it out'),
        ],
    )  # fmt: skip
    async def test_a_field_that_will_not_do_is_named(
        self, watched: Watched, fields: dict[str, Any], field: str, sentence: str | None
    ) -> None:
        code, said, named = await watched.refusal("create", [{"name": "N", **fields}])
        assert (code, named) == ("invalid", field)
        assert sentence is None or said == sentence
        made = await watched.create()
        code, said, named = await watched.refusal("update", [made["id"], fields])
        assert (code, named) == ("invalid", field)
        assert await watched.get(made["id"]) == made
        assert len(await watched.api.data("monitors.list", who="watcher")) == 1

    async def test_a_foreign_an_unknown_and_a_malformed_id_get_the_same_answer(
        self, watched: Watched
    ) -> None:
        made = await watched.create()
        methods = {
            "get": [], "update": [{"name": "mine"}], "pause": [], "resume": [], "acknowledge": [],
            "snooze": [], "pings": [], "pingBody": [1], "flips": [], "delete": [],
        }  # fmt: skip
        for method, rest in methods.items():
            for given in (made["id"], UNKNOWN, "", "x", made["id"].upper(), f"{made['id']}\n", "x" * 5_000):
                code, said, field = await watched.refusal(method, [given, *rest], who="charlie")
                assert (code, field) == ("not_found", "monitorId"), (method, given)
                assert re.fullmatch(r'no monitor ".*": list your monitors to see their ids', said, re.DOTALL)
        assert await watched.get(made["id"]) == made
        assert await watched.api.data("monitors.list", who="charlie") == []

    async def test_an_admin_sees_and_acts_for_all_of_the_tenant(self, watched: Watched) -> None:
        hers = await watched.api.data("monitors.create", [{"name": "N"}, "alice"], who="ada")
        assert hers["userId"] == "alice" and await watched.get(hers["id"]) == hers
        assert (await watched.api.data("monitors.pause", [hers["id"]], who="ada"))["status"] == "paused"
        [listed] = await watched.api.data("monitors.list", ["alice"], who="ada")
        assert listed["id"] == hers["id"]
        code, _, field = await watched.refusal("list", ["bob"])
        assert (code, field) == ("forbidden", "userId")

    async def test_what_changed_meanwhile_is_not_overwritten(self, watched: Watched) -> None:
        made = await watched.create()
        await watched.api.data("monitors.update", [made["id"], {"name": "B"}, 1], who="watcher")
        code, said, field = await watched.refusal("update", [made["id"], {"name": "C"}, 1])
        assert (code, said, field) == (
            "conflict", "the monitor is at revision 2, not 1: read it again", "ifRevision",
        )  # fmt: skip

    async def test_a_resume_and_an_acknowledgement_of_nothing_are_conflicts(self, watched: Watched) -> None:
        made = await watched.create()
        for method in ("resume", "acknowledge"):
            code, said, _ = await watched.refusal(method, [made["id"]])
            assert code == "conflict" and said.startswith("the monitor is new")

    @pytest.mark.parametrize("until", ["2026-01-30T12:00:00Z", "2027-02-01T00:00:00Z", "tomorrow"])
    async def test_a_snooze_ends_in_the_time_to_come(self, watched: Watched, until: str) -> None:
        made = await watched.create()
        code, _, field = await watched.refusal("snooze", [made["id"], until])
        assert (code, field) == ("invalid", "until")


class TestSlugsAndQuotas:
    async def test_fifty_first_pings_at_once_make_one_monitor(self, watched: Watched) -> None:
        asked = [watched.desk.ping_target(PINGER, "nightly", create=True, asked={}) for _ in range(50)]
        targets = await asyncio.gather(*asked)
        assert len({target.monitor_id for target in targets}) == 1
        assert sum(target.created for target in targets) == 1
        [made] = await watched.api.data("monitors.list", who="watcher")
        assert (made["slug"], made["name"]) == ("nightly", "nightly")

    async def test_a_first_ping_says_what_the_monitor_is_like(self, watched: Watched) -> None:
        asked = {
            "name": "Nightly", "tags": "prod,db", "schedule": "0 3 * * *", "tz": "Europe/Berlin",
            "grace": "30m", "max_run": "7200", "channels": "gateway", "notify": "down,late", "remind": "1h",
            "failures": "2", "rid": "ignored",
        }  # fmt: skip
        await watched.desk.ping_target(PINGER, "nightly", create=True, asked=asked)
        [made] = await watched.api.data("monitors.list", who="watcher")
        assert {name: made[name] for name in (
            "name", "tags", "schedule", "timezone", "graceSeconds", "maxRunSeconds", "channels", "notify",
            "reminders", "failuresBeforeAlert",
        )} == {
            "name": "Nightly", "tags": ["prod", "db"], "schedule": "0 3 * * *", "timezone": "Europe/Berlin",
            "graceSeconds": 1800.0, "maxRunSeconds": 7200.0, "channels": ["gateway"],
            "notify": ["down", "late"], "reminders": [{"everySeconds": 3600.0, "channels": []}],
            "failuresBeforeAlert": 2,
        }  # fmt: skip
        await watched.desk.ping_target(PINGER, "nightly", create=True, asked={"name": "Other"})
        assert (await watched.get(made["id"]))["name"] == "Nightly", "it is there already"

    @pytest.mark.parametrize(
        ("asked", "field"),
        [
            ({"grace": "soon"}, "grace"),
            ({"period": "5s"}, "period"),
            ({"schedule": "61 * * * *"}, "schedule"),
            ({"failures": "x"}, "failures"),
            ({"channels": "nowhere"}, "channels"),
        ],
    )
    async def test_a_first_ping_that_asks_for_nonsense_makes_nothing(
        self, watched: Watched, asked: dict[str, str], field: str
    ) -> None:
        with pytest.raises(Refused) as caught:
            await watched.desk.ping_target(PINGER, "nightly", create=True, asked=asked)
        assert caught.value.field == field
        assert await watched.api.data("monitors.list", who="watcher") == []

    async def test_a_slug_is_one_monitors_of_a_user(self, watched: Watched) -> None:
        await watched.create(slug="nightly")
        other = await watched.create(slug="")
        assert (await watched.refusal("update", [other["id"], {"slug": "nightly"}]))[0] == "conflict"
        hers = await watched.api.data("monitors.create", [{"slug": "nightly"}], who="ada")
        assert hers["userId"] == "ada"

    async def test_a_tenant_has_so_many_and_no_more(self, open_api: Any) -> None:
        watched = Watched(await open_api(max_monitors_per_tenant=3))
        made = await asyncio.gather(
            *(watched.api.answer("monitors.create", [{"name": "N"}], who="watcher") for _ in range(10))
        )
        assert sorted(one.get("code", "made") for one in made) == ["made"] * 3 + ["quota_exceeded"] * 7
        assert (await watched.api.answer("monitors.create", [{}], who="charlie"))["success"]
        [first, *_] = await watched.api.data("monitors.list", who="watcher")
        await watched.api.data("monitors.delete", [first["id"]], who="watcher")
        await watched.create()


class TestDependencies:
    async def test_a_circle_is_refused_however_long(self, watched: Watched) -> None:
        first = await watched.create()
        second = await watched.create(dependsOn=[first["id"]])
        third = await watched.create(dependsOn=[second["id"]])
        for given in (first["id"], second["id"], third["id"]):
            code, said, field = await watched.refusal("update", [first["id"], {"dependsOn": [given]}])
            assert (code, field) == ("invalid", "dependsOn") and said.endswith("expected no circle")

    async def test_another_users_monitor_is_none_to_depend_on(self, watched: Watched) -> None:
        adas = await watched.api.data("monitors.create", [{"name": "N"}], who="ada")
        code, _, field = await watched.refusal("create", [{"dependsOn": [adas["id"]]}])
        assert (code, field) == ("invalid", "dependsOn")

    async def test_a_deleted_one_is_depended_on_no_more(self, watched: Watched) -> None:
        parent = await watched.create()
        child = await watched.create(dependsOn=[parent["id"]])
        await watched.ping(parent["id"], "/fail")
        await watched.ping(child["id"], "/fail")
        assert len(await watched.messages(1)) == 1
        await watched.api.data("monitors.delete", [parent["id"]], who="watcher")
        assert (await watched.get(child["id"]))["dependsOn"] == []
        told = [one["data"]["monitorId"] for one in await watched.messages(2)]
        assert told == [unique_key(parent["id"]), unique_key(child["id"])]

    async def test_children_are_told_when_their_parent_is_well_again_and_they_are_not(
        self, watched: Watched
    ) -> None:
        parent = await watched.create(name="Database")
        child = await watched.create(name="Report", dependsOn=[parent["id"]])
        for one in (parent, child):
            await watched.ping(one["id"], "/fail")
        await watched.ping(parent["id"])
        heard = await watched.messages(3)
        assert [one["title"] for one in heard] == ["Database: down", "Database: up", "Report: down"]


class TestTheWatch:
    """The whole way: a ping or its absence, the watchman, the outbox, the channel."""

    async def test_silence_is_told_once_and_its_end_once(self, watched: Watched) -> None:
        made = await watched.create(periodSeconds=3600, graceSeconds=600)
        await watched.ping(made["id"])
        await watched.api.clock.advance(3 * 3600)
        [down] = await watched.messages(1)
        assert down["title"] == "Backup: down"
        assert down["text"] == (
            "No ping came in time. It was due at 2026-01-30T13:00:00Z. "
            "Its grace was over at 2026-01-30T13:10:00Z."
        )
        assert down["data"]["at"] == "2026-01-30T13:10:00Z" and down["data"]["incidentId"]
        await watched.ping(made["id"], body="all well")
        _, up = await watched.messages(2)
        assert (up["title"], up["data"]["incidentId"]) == ("Backup: up", down["data"]["incidentId"])
        assert up["data"]["output"] == {"type": "ping_body", "untrusted": True, "text": "all well"}
        flips = await watched.api.data("monitors.flips", [made["id"]], who="onlooker")
        assert [(one["at"], one["before"], one["after"], one["reason"]) for one in flips] == [
            ("2026-01-30T15:00:00Z", "down", "up", "ping"),
            ("2026-01-30T13:10:00Z", "up", "down", "timeout"),
            ("2026-01-30T12:00:00Z", "new", "up", "ping"),
        ]

    async def test_what_passed_while_no_gateway_ran_is_dated_when_it_happened(self, open_api: Any) -> None:
        watched = Watched(await open_api())
        made = await watched.create(periodSeconds=3600, graceSeconds=600)
        await watched.ping(made["id"])
        await open_api.stop()
        open_api._clock.step(timedelta(days=1))
        watched = Watched(await open_api())
        [down] = await watched.messages(1)
        assert down["data"]["at"] == "2026-01-30T13:10:00Z"
        [flip, _] = await watched.api.data("monitors.flips", [made["id"]], who="onlooker")
        assert flip["at"] == "2026-01-30T13:10:00Z"

    async def test_deliveries_of_monitors_are_for_those_who_may_see_monitors(self, watched: Watched) -> None:
        made = await watched.create()
        await watched.ping(made["id"], "/fail")
        await watched.messages(1)
        [delivery] = (await watched.api.data("deliveries", who="onlooker"))["items"]
        assert delivery["event"] == "monitor.down" and delivery["monitorId"] == unique_key(made["id"])
        assert (await watched.api.data("deliveries", who="reader"))["items"] == []
        outcomes = {"onlooker": "forbidden", "alice": "not_found", "watcher": "conflict"}
        for who, code in outcomes.items():
            refusal = await watched.api.refusal("deliveries.resend", [delivery["id"]], who=who)
            assert refusal["code"] == code, who

    async def test_nobody_who_only_reads_is_told_what_would_let_them_ping(
        self, watched: Watched, api: Any
    ) -> None:
        """An id is the right to ping. The unique key in its place names the monitor in every call."""
        parent = (await watched.create(name="", slug=""))["id"]
        child = (await watched.create(periodSeconds=60, dependsOn=[parent]))["id"]
        await watched.api.data("monitors.update", [child, {"dependsOn": []}], who="watcher")
        await watched.api.data("monitors.update", [child, {"dependsOn": [parent]}], who="watcher")
        for one in (child, parent):
            await watched.ping(one, "/fail")
        await watched.messages(2)
        shown: list[Any] = [(await watched.api.ask("carapace.gateway.messages", who="onlooker"))["result"]]
        for method in ("monitors.list", "deliveries", "events"):
            shown.append(await watched.api.answer(method, {"limit": 1}, who="onlooker"))
            shown.append(await watched.api.data(method, who="onlooker"))
        for one in (unique_key(parent), unique_key(child)):
            for method in ("get", "pings", "flips"):
                shown.append(await watched.api.data(f"monitors.{method}", [one], who="onlooker"))
            paused = await watched.api.data("monitors.pause", [one], who="watcher")
            assert paused["id"] in (parent, child), "who may change it may ping it"
        assert (await watched.api.data("monitors.get", [unique_key(child)], who="onlooker"))["dependsOn"] == [
            unique_key(parent)
        ]
        text = json.dumps(shown)
        assert text.count(unique_key(parent)) > 5 and text.count(unique_key(child)) > 5
        assert parent not in text and child not in text

    async def test_the_status_counts_them_for_those_who_may_see_them(self, watched: Watched) -> None:
        made = await watched.create()
        await watched.create()
        await watched.ping(made["id"], "/fail")
        token = await watched.api.data(
            "tokens.create", ["acme", "alice", ["jobs:read", "monitors:read"]], who="ada"
        )
        report = await watched.api.data("status", who=token["token"])
        assert (report["totalMonitors"], report["downMonitors"]) == (2, 1)
        assert report["lastWatchAt"] == "2026-01-30T12:00:00Z"
        assert "totalMonitors" not in await watched.api.data("status", who="reader")

    async def test_pages_show_each_monitor_once(self, watched: Watched) -> None:
        ids = []
        for number in range(5):
            ids.append((await watched.create(tags=["even"] if number % 2 == 0 else []))["id"])
            await watched.api.clock.advance(1)
        first = await watched.api.answer("monitors.list", {"limit": 2}, who="onlooker")
        second = await watched.api.answer(
            "monitors.list", {"limit": 3, "cursor": first["nextCursor"]}, who="onlooker"
        )
        assert [one["id"] for one in first["data"] + second["data"]] == [unique_key(one) for one in ids]
        assert second["nextCursor"] is None
        even = await watched.api.data("monitors.list", {"tags": ["even"]}, who="onlooker")
        assert [one["id"] for one in even] == [unique_key(one) for one in ids[::2]]
        assert (await watched.refusal("list", {"cursor": UNKNOWN}))[2] == "cursor"

    async def test_each_change_is_in_the_trail(self, watched: Watched) -> None:
        made = await watched.create()
        for method, params in (
            ("update", [{"name": "B"}]), ("snooze", ["2026-01-31T00:00:00Z"]), ("pause", []), ("resume", []),
            ("delete", []),
        ):  # fmt: skip
            await watched.api.data(f"monitors.{method}", [made["id"], *params], who="watcher")
        events = (await watched.api.data("events", who="ada"))["items"]
        assert [one["action"] for one in events] == [
            "monitor.deleted", "monitor.resumed", "monitor.paused", "monitor.snoozed", "monitor.updated",
            "monitor.created",
        ]  # fmt: skip
        assert all(one["subject"] == made["id"] and one["actor"] == "alice" for one in events)
        assert (events[4]["before"], events[4]["after"]) == ({"name": "Backup"}, {"name": "B"})

    async def test_a_change_has_one_instant(self, watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
        """However often a clock is looked at meanwhile."""
        clock, ticks = watched.api.clock, count()
        at = clock.now()
        with monkeypatch.context() as patch:
            patch.setattr(clock, "now", lambda: at + timedelta(milliseconds=next(ticks)))
            made = await watched.create()
            changed = await watched.api.data("monitors.update", [made["id"], {"name": "B"}], who="watcher")
        updated, created = (await watched.api.data("events", who="ada"))["items"]
        assert (created["at"], updated["at"]) == (made["createdAt"], changed["updatedAt"])


def test_every_field_is_on_its_page_with_its_default() -> None:
    page, _, _ = (DOCS / "monitors.md").read_text().partition("## The monitor of a job")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \| .*\|$", page, re.MULTILINE))
    for one in MonitorPolicy.model_fields.values():
        default = one.get_default(call_default_factory=True)
        said = rows[str(one.alias)].strip("`")
        assert (None if said == "none" else json.loads(said)) == _json(default), one.alias


def _json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1.5, 2**63, 1e308, "", " ", "x" * 20_000, "a\x00\x1b[31m\n\u202e", "\ud83e", [],
    [None], ["a"] * 5_000, {}, {"a": [1]}, [[[[[[[[]]]]]]]],
)  # fmt: skip


def monitors_with(value: Any) -> Iterator[dict[str, Any]]:
    for one in MonitorPolicy.model_fields.values():
        yield {str(one.alias): value}
    yield {"reminders": [{"everySeconds": value}]}
    yield {"failureRate": {"failures": value, "of": value}}
    yield {"quiet": [{"from": value, "until": value}]}


async def test_every_field_with_every_kind_of_value_gets_an_answer(watched: Watched) -> None:
    """Sound, or refused in a sentence; never an accident."""
    made = await watched.create()
    for value in VALUES:
        for fields in monitors_with(value):
            for method, params in (("create", [fields]), ("update", [made["id"], fields])):
                answer = await watched.api.ask(f"monitors.{method}", params, who="watcher")
                if "error" in answer:
                    assert answer["error"]["code"] in (-32602, -32700), (fields, answer)
                    continue
                envelope = answer["result"]
                assert envelope["success"] or envelope["code"] == "invalid", (fields, envelope)
