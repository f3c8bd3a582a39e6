"""Monitors over REST: the answers of RPC, whose monitors they are, and what is let in at the door."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import aiohttp
import pytest

from carapace_cron.api.rest import STATUSES
from carapace_cron.errors import Refused, Unavailable
from carapace_cron.gateway.limits import Limits
from carapace_cron.ids import unique_key
from carapace_cron.model.actor import Actor

ROOT = "/api/v1/monitors"
UNKNOWN = "00000000-0000-4000-8000-000000000000"


class Rest:
    """Somebody who speaks HTTP only."""

    def __init__(self, api: Any) -> None:
        self.api = api

    async def send(
        self,
        verb: str,
        path: str = "",
        given: Any = None,
        *,
        who: str | None = "watcher",
        headers: Mapping[str, str] | None = None,
    ) -> tuple[aiohttp.ClientResponse, Any]:
        """`given`: bytes as they are, anything else as JSON."""
        sent = {"Content-Type": "application/json"} if given is not None else {}
        sent |= {} if who is None else {"Authorization": f"Bearer {who}"}
        body = given if given is None or isinstance(given, bytes) else json.dumps(given)
        response = await self.api.house.client.request(
            verb, f"{self.api.house.server.url}{ROOT}{path}", data=body, headers=sent | dict(headers or {})
        )
        return response, json.loads(await response.text())

    async def data(self, verb: str, path: str = "", given: Any = None, **options: Any) -> Any:
        response, answer = await self.send(verb, path, given, **options)
        assert response.ok and answer["success"] is True, answer
        return answer.get("data")

    async def made(self, **fields: Any) -> str:
        """The id of a new monitor; no two are made in the same second."""
        await self.api.clock.advance(1)
        monitor = await self.data("POST", "", {"name": "Backup", **fields})
        return str(monitor["id"])

    async def refusal(self, verb: str, path: str = "", given: Any = None, **options: Any) -> tuple[int, Any]:
        """(status, code)"""
        response, answer = await self.send(verb, path, given, **options)
        assert answer["success"] is False and isinstance(answer["error"], str)
        return response.status, answer["code"]


@pytest.fixture
async def rest(api: Any) -> Rest:
    return Rest(api)


async def test_it_answers_what_rpc_answers(rest: Rest) -> None:
    response, made = await rest.send("POST", "", {"name": "Backup", "tags": ["prod"]})
    location = response.headers["Location"]
    assert (response.status, location) == (201, f"{ROOT}/{made['data']['id']}")
    one = made["data"]["id"]
    await rest.api.house.client.post(f"{rest.api.house.server.url}/ping/{one}/fail", data="disk full")
    ask = rest.api.answer
    for path, method, params in (
        ("", "list", {}),
        ("?tags=prod&tags=db", "list", {"tags": ["prod", "db"]}),
        ("?tags=prod&limit=1", "list", {"tags": ["prod"], "limit": 1}),
        (f"/{one}", "get", {"monitorId": one}),
        (f"/{one}/pings?limit=1", "pings", {"monitorId": one, "limit": 1}),
        (f"/{one}/pings?cursor=1", "pings", {"monitorId": one, "cursor": 1}),
        (f"/{one}/pings/1/body", "pingBody", {"monitorId": one, "n": 1}),
        (f"/{one}/flips", "flips", {"monitorId": one}),
        (f"/{one}/flips?until=2026-01-01T00:00:00Z", "flips",
         {"monitorId": one, "until": "2026-01-01T00:00:00Z"}),
        (f"/{UNKNOWN}", "get", {"monitorId": UNKNOWN}),
        ("?limit=1001", "list", {"limit": 1001}),
    ):  # fmt: skip
        answered = (await rest.send("GET", path))[1]
        assert answered == await ask(f"monitors.{method}", params, who="watcher"), path
    assert len(await rest.data("GET", f"/{one}/flips")) == 1


async def test_pages_follow_each_other(rest: Rest) -> None:
    ids = [await rest.made(slug=f"backup-{number}") for number in range(3)]
    _, first = await rest.send("GET", "?limit=2")
    _, second = await rest.send("GET", f"?limit=2&cursor={first['nextCursor']}")
    assert [one["id"] for one in first["data"] + second["data"]] == ids
    assert second["nextCursor"] is None


async def test_a_life_of_a_monitor(rest: Rest) -> None:
    one = await rest.made(channels=["gateway"])
    changed = await rest.data("PATCH", f"/{one}?ifRevision=1", {"name": "Nightly", "slug": "nightly"})
    assert (changed["name"], changed["revision"]) == ("Nightly", 2)
    patch = {"Content-Type": "application/merge-patch+json"}
    assert (await rest.data("PATCH", f"/{one}", {"slug": None}, headers=patch))["slug"] == ""
    assert (await rest.data("POST", f"/{one}/pause"))["status"] == "paused"
    assert (await rest.data("POST", f"/{one}/resume", {}))["status"] == "new"
    until = "2026-01-31T08:00:00Z"
    assert (await rest.data("POST", f"/{one}/snooze", {"until": until}))["snoozedUntil"] == until
    assert "snoozedUntil" not in await rest.data("POST", f"/{one}/snooze", {"until": None})
    assert len((await rest.data("POST", f"/{one}/sign"))["secret"]) > 20
    assert await rest.data("POST", f"/{one}/sign", {"required": False}) == {"signed": False}
    await rest.api.house.client.post(f"{rest.api.house.server.url}/ping/{one}/fail")
    assert (await rest.data("POST", f"/{one}/acknowledge"))["incident"]["acknowledgedBy"] == "alice"
    assert await rest.data("DELETE", f"/{one}") is None
    assert await rest.refusal("GET", f"/{one}") == (404, "not_found")
    told = await rest.api.data("events", {"limit": 50}, who="watcher")
    actions = [event["action"] for event in reversed(told["items"]) if event["subject"] == one]
    assert actions == [
        "monitor.created", "monitor.updated", "monitor.updated", "monitor.paused", "monitor.resumed",
        "monitor.snoozed", "monitor.snoozed", "monitor.updated", "monitor.updated", "monitor.acknowledged",
        "monitor.deleted",
    ]  # fmt: skip


# Whose


async def test_tenants_and_users_are_kept_apart(rest: Rest) -> None:
    rest.api.house.people.known["bobs"] = Actor("acme", "bob", frozenset({"monitors"}))
    one = await rest.made()
    for who in ("charlie", "bobs"):
        assert await rest.data("GET", who=who) == []
        for verb, path, given in (
            ("GET", "", None), ("PATCH", "", {"name": "mine"}), ("DELETE", "", None), ("GET", "/pings", None),
            ("GET", "/pings/1/body", None), ("GET", "/flips", None), ("POST", "/pause", None),
            ("POST", "/resume", None), ("POST", "/acknowledge", None), ("POST", "/snooze", None),
            ("POST", "/sign", None),
        ):  # fmt: skip
            assert await rest.refusal(verb, f"/{one}{path}", given, who=who) == (404, "not_found")
    assert await rest.refusal("POST", "?userId=alice", {"name": "hers"}, who="bobs") == (403, "forbidden")
    await rest.api.clock.advance(1)
    hers = await rest.data("POST", "?userId=alice", {"name": "hers"}, who="ada")
    assert [found["id"] for found in await rest.data("GET")] == [one, hers["id"]]
    assert [found["id"] for found in await rest.data("GET", "?userId=alice", who="ada")] == [one, hers["id"]]
    assert (await rest.data("GET", f"/{one}"))["revision"] == 1


async def test_a_token_that_reads_only_reads(rest: Rest) -> None:
    one = await rest.made()
    assert (await rest.data("GET", f"/{one}", who="onlooker"))["id"] == unique_key(one)
    for verb, path in (("POST", ""), ("PATCH", f"/{one}"), ("DELETE", f"/{one}"), ("POST", f"/{one}/pause")):
        assert await rest.refusal(verb, path, {"name": "x"}, who="onlooker") == (403, "forbidden")
    for who in ("alice", "pinger"):  # scopes of jobs and of pings
        assert await rest.refusal("GET", f"/{one}", who=who) == (403, "forbidden")


async def test_more_monitors_than_allowed_are_refused(open_api: Any) -> None:
    rest = Rest(await open_api(max_monitors_per_tenant=1))
    await rest.made()
    assert await rest.refusal("POST", "", {"name": "one more"}) == (403, "quota_exceeded")


# The door


async def test_without_a_known_token_nothing_is_told(rest: Rest) -> None:
    for who in (None, "nobody"):
        response, answer = await rest.send("GET", f"/{UNKNOWN}", who=who)
        assert (response.status, answer["code"]) == (401, "unauthorized")
        assert response.headers["WWW-Authenticate"] == "Bearer"
    in_address = await rest.refusal("GET", "?token=watcher", who=None)
    assert in_address == (401, "unauthorized")
    assert await rest.refusal("GET", who=None, headers={"Cookie": "token=watcher"}) == (401, "unauthorized")
    assert await rest.data("GET", who=None, headers={"X-Api-Key": "watcher"}) == []


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Host": "evil.example"}])
async def test_a_page_from_elsewhere_is_refused(rest: Rest, headers: dict[str, str]) -> None:
    assert await rest.refusal("POST", "", {"name": "x"}, headers=headers) == (403, "forbidden")
    preflight = await rest.api.house.client.options(
        f"{rest.api.house.server.url}{ROOT}", headers={"Origin": rest.api.house.server.url}
    )
    assert preflight.status == 405
    assert not any(name.lower().startswith("access-control") for name in preflight.headers)
    assert await rest.data("GET") == []


@pytest.mark.parametrize("called", ["text/plain", "application/x-www-form-urlencoded", "multipart/x", ""])
async def test_a_body_that_is_not_called_json_is_refused(rest: Rest, called: str) -> None:
    headers = {"Content-Type": called}
    unsupported = (415, "unsupported_media_type")
    assert await rest.refusal("POST", "", b'{"name": "x"}', headers=headers) == unsupported
    one = await rest.made()
    assert await rest.refusal("POST", f"/{one}/pause", b"{}", headers=headers) == unsupported
    merge = {"Content-Type": "application/merge-patch+json"}  # it says what a PATCH is, and nothing of a POST
    assert await rest.refusal("POST", f"/{one}/pause", b"{}", headers=merge) == unsupported
    assert await rest.refusal("POST", "", b"{}", headers={"Content-Encoding": "gzip"}) == unsupported


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"", b"null", b"[]", b'"name"', b'{"name": NaN}', b'{"name": "a", "name": "b"}', b"\xff{}",
        b'{"name": "\\ud800"}', b'{"periodSeconds": 1e999}', b"[" * 100_000, b'{"name": "x"} {}',
        b'{"tenant": "other"}', b'{"jobId": "job_1"}', b'{"actor": "ada"}', b'{"__class__": {}}',
    ],
)  # fmt: skip
async def test_a_body_that_is_no_monitor_makes_none(rest: Rest, body: bytes) -> None:
    assert await rest.refusal("POST", "", body) == (400, "invalid")
    assert await rest.data("GET") == []


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("?limit=1&limit=2", "limit"), ("?limit=", "limit"), ("?limit=1.0", "limit"), ("?limit=-1", "limit"),
        ("?limit=\u0663", "limit"), (f"?limit={'9' * 5_000}", "limit"), ("?cursor=x", "cursor"),
        ("?userId=alice&userId=bob", "userId"), ("?monitorId=x", "monitorId"), ("?actor=ada", "actor"),
        (f"?{'x' * 5_000}=1", "x" * 40), (f"/{UNKNOWN}/flips?since=today", "since"),
        (f"/{UNKNOWN}/pings?cursor=x", "cursor"), (f"/{UNKNOWN}/pings/x/body", "n"),
        (f"/{UNKNOWN}/pings/{'9' * 5_000}/body", "n"), (f"/{UNKNOWN}?limit=1", "limit"),
    ],
)  # fmt: skip
async def test_an_address_that_is_off_is_named(rest: Rest, path: str, field: str) -> None:
    response, answer = await rest.send("GET", path)
    assert (response.status, answer["code"], answer["field"]) == (400, "invalid", field)
    assert len(answer["error"]) < 200


async def test_members_of_a_body_are_the_parameters_and_no_others(rest: Rest) -> None:
    one, other = await rest.made(), await rest.made()
    for path, given, field in (
        ("snooze", {"monitorId": other}, "monitorId"), ("pause", {"monitorId": other}, "monitorId"),
        ("snooze", {"actor": "ada"}, "actor"), ("snooze", [], None), ("snooze", None, None),
        ("snooze", {"until": 5}, "until"), ("sign", {"required": "no"}, "required"),
    ):  # fmt: skip
        body = json.dumps(given).encode()
        response, answer = await rest.send("POST", f"/{one}/{path}", body)
        assert (response.status, answer["code"], answer.get("field")) == (400, "invalid", field), path
    assert {found["status"] for found in await rest.data("GET")} == {"new"}


async def test_a_body_that_is_too_large_is_refused(rest: Rest) -> None:
    body = b'{"description": "' + b"x" * Limits().body_bytes + b'"}'
    assert await rest.refusal("POST", "", body) == (413, "too_large")


@pytest.mark.parametrize("path", ["/x", "/%00", "/..%2f..", "/%F0%9F%92%A9", f"/{'x' * 4_000}"])
async def test_what_is_no_id_is_nobodys(rest: Rest, path: str) -> None:
    for verb in ("GET", "DELETE"):
        assert await rest.refusal(verb, path) == (404, "not_found")


# When it cannot be done


async def test_a_ledger_that_is_away_is_said_with_when_to_come_again(
    rest: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*arguments: Any, **named: Any) -> Any:
        raise Unavailable("no room")

    watch = rest.api.cron._house.watch
    for method in ("of_user", "add"):
        monkeypatch.setattr(watch.watchlist, method, away)
    for verb, given in (("GET", None), ("POST", {"name": "x"})):
        response, answer = await rest.send(verb, "", given)
        assert (response.status, answer["code"]) == (503, "unavailable")
        assert response.headers["Retry-After"] == "5" and "no room" not in answer["error"]


async def test_so_is_one_that_cannot_say_whose_a_token_is(rest: Rest) -> None:
    class Away(dict[str, Actor]):
        def get(self, *arguments: Any) -> Any:
            raise Unavailable("no room")

    rest.api.house.people.known = Away()
    response, answer = await rest.send("GET")
    assert (response.status, answer["code"]) == (503, "unavailable")
    assert response.headers["Retry-After"] == "5"


async def test_a_defect_tells_nothing_of_the_inside(
    rest: Rest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*arguments: Any) -> Any:
        raise RuntimeError("secret")

    monkeypatch.setattr(rest.api.cron._house.watch.watchlist, "of_user", broken)
    response, answer = await rest.send("GET")
    assert (response.status, answer["code"]) == (500, "internal")
    assert "secret" not in answer["error"] and "secret" in caplog.text


def test_every_kind_of_refusal_has_its_status() -> None:
    assert STATUSES.keys() == {kind.code for kind in (*Refused.__subclasses__(), Unavailable)}
