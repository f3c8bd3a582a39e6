"""Which channels there are, how they are, and whether a test message arrives."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from carapace_cron.model.actor import Actor

OF_ACME = {"kind": "webhook", "url": "http://127.0.0.1:1/acme/T0KEN", "tenant": "acme"}
OF_OTHERS = {"kind": "webhook", "url": "http://127.0.0.1:1/other", "tenant": "other"}
WELL = {"state": "well", "failuresInRow": 0, "failingSince": None, "nextTryAt": None, "lastError": None}


async def test_each_tenant_sees_its_own_channels(open_api: Any) -> None:
    api = await open_api(channels={"ops": OF_ACME, "theirs": OF_OTHERS})
    for who, ids in (("alice", ["gateway", "ops"]), ("charlie", ["gateway", "theirs"])):
        items = (await api.data("channels.list", who=who))["items"]
        assert [item["id"] for item in items] == ids
    assert items[1] == {"id": "theirs", "kind": "webhook", **WELL}


async def test_a_test_message_arrives_at_once_and_says_what_it_is(open_api: Any) -> None:
    got: list[dict[str, Any]] = []

    async def take(request: web.Request) -> web.Response:
        got.append(await request.json())
        return web.Response()

    application = web.Application()
    application.router.add_post("/hook", take)
    async with TestServer(application) as server:
        api = await open_api(channels={"ops": {"kind": "webhook", "url": str(server.make_url("/hook"))}})
        answer = await api.data("channels.test", ["ops"])
        assert (answer["delivered"], answer["error"], answer["permanent"]) == (True, None, False)
    [notice] = got
    assert (notice["event"], notice["title"], notice["tenant"]) == ("channel.test", "Test message", "acme")
    assert (await api.data("deliveries"))["items"] == []  # it never was in the outbox


async def test_a_channel_that_does_not_take_it_is_an_answer_with_the_reason(open_api: Any) -> None:
    api = await open_api(channels={"ops": OF_ACME})
    answer = await api.data("channels.test", ["ops"])
    assert answer["delivered"] is False and answer["permanent"] is False
    assert "could not be reached" in answer["error"] and "T0KEN" not in answer["error"]


REFUSING = {
    "busy": {"kind": "webhook", "url": "<busy>"},
    "metadata": {"kind": "webhook", "url": "http://169.254.169.254/latest"},
    "nowhere": {"kind": "webhook", "url": "http://127.0.0.1:1/hook"},
}


@pytest.mark.parametrize("channel_id", REFUSING)
async def test_a_channel_whose_test_failed_is_failing_until_it_takes_something(
    open_api: Any, channel_id: str
) -> None:
    status = 500

    async def answer_so(_: web.Request) -> web.Response:
        return web.Response(status=status)

    application = web.Application()
    application.router.add_post("/hook", answer_so)
    async with TestServer(application) as server:
        settings = dict(REFUSING[channel_id])
        settings["url"] = settings["url"].replace("<busy>", str(server.make_url("/hook")))
        api = await open_api(channels={"ops": settings})
        tested = await api.data("channels.test", ["ops"])
        assert (tested["delivered"], tested["state"], tested["failuresInRow"]) == (False, "failing", 1)
        assert tested["lastError"] == tested["error"] and tested["failingSince"] == "2026-01-30T12:00:00Z"
        shown = (await api.data("channels.list"))["items"][1]
        assert shown.items() <= tested.items()
        if channel_id == "busy":
            status = 200
            await api.clock.advance(10)
            assert WELL.items() <= (await api.data("channels.test", ["ops"])).items()


async def test_tests_that_fail_put_no_channel_to_rest(open_api: Any) -> None:
    api = await open_api(channels={"ops": OF_ACME})
    for _ in range(7):
        tested = await api.data("channels.test", ["ops"])
        await api.clock.advance(10)
    assert (tested["state"], tested["failuresInRow"], tested["nextTryAt"]) == ("failing", 7, None)


async def test_a_foreign_channel_and_one_that_nobody_has_get_the_same_answer(open_api: Any) -> None:
    api = await open_api(channels={"ops": OF_ACME, "theirs": OF_OTHERS})
    foreign = await api.refusal("channels.test", ["theirs"])
    unknown = await api.refusal("channels.test", ["nobodys"])
    assert (foreign["code"], foreign["field"]) == ("invalid", "channelId")
    assert foreign["error"].partition(" (did")[0].replace("theirs", "nobodys") == unknown["error"]


async def test_a_channel_is_tested_now_and_then(open_api: Any) -> None:
    api = await open_api()
    await api.data("channels.test", ["gateway"])
    assert (await api.refusal("channels.test", ["gateway"], who="bob"))["code"] == "quota_exceeded"
    await api.clock.advance(10)
    assert (await api.data("channels.test", ["gateway"], who="bob"))["delivered"]


@pytest.mark.parametrize(("scope", "may"), [("monitors", True), ("monitors:read", False), ("ping", False)])
async def test_those_who_have_monitors_may_test_too(api: Any, scope: str, may: bool) -> None:
    api.house.people.known["eve"] = Actor("acme", "eve", frozenset({scope}))
    answer = await api.answer("channels.test", ["gateway"], who="eve")
    assert answer["success"] is may
    assert (await api.answer("channels.list", who="eve"))["success"] is (scope != "ping")


async def test_a_channel_in_trouble_shows_it_and_the_operator_is_warned(open_api: Any) -> None:
    api = await open_api(channels={"ops": OF_ACME})
    api.house.people.known["operator"] = Actor("default", "operator", frozenset({"admin"}))
    job = await api.create(channelId="ops")
    await api.data("run", [job["id"]])
    states = []
    for _ in range(60):
        await api.clock.advance(30)
        channel = (await api.data("channels.list"))["items"][1]
        if channel["state"] not in states:
            states.append(channel["state"])
        if channel["state"] == "resting":
            break
    assert states[-2:] == ["failing", "resting"]
    assert channel["failuresInRow"] == 5 and channel["nextTryAt"] > channel["failingSince"]
    assert "could not be reached" in channel["lastError"] and "T0KEN" not in channel["lastError"]
    warnings = (await api.data("status", who="operator"))["warnings"]
    assert any(one.startswith("the channel ops fails again and again: ") for one in warnings)
