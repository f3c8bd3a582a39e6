"""What became of notices can be read, apart from the runs, and what did not arrive can be sent again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

RPC_PAGE = Path(__file__).parents[2] / "docs" / "reference" / "rpc.md"
NOWHERE = {"hook": {"kind": "webhook", "url": "http://127.0.0.1:1/hook"}}


async def _undeliverable(api: Any) -> dict[str, Any]:
    """A delivery that was given up: nothing listens at its channel for more than a day."""
    job = await api.create(channelId="hook", cronExpression="0 0 1 1 *")
    await api.data("run", [job["id"]])
    for _ in range(60):
        await api.clock.advance(3600)
        found = (await api.data("deliveries", {"state": "undeliverable"}))["items"]
        if found:
            return dict(found[0])
    raise AssertionError(await api.data("deliveries"))


async def _delivered(api: Any) -> dict[str, Any]:
    """The only delivery, once it has arrived: the courier's answer comes after the end of the run."""

    async def is_delivered() -> bool:
        return bool((await api.data("deliveries", {"state": "delivered"}))["items"])

    await api.until(is_delivered)
    (delivery,) = (await api.data("deliveries"))["items"]
    return dict(delivery)


async def test_an_undeliverable_notice_is_shown_with_its_reason_and_sent_again_on_request(
    open_api: Any,
) -> None:
    api = await open_api(channels=NOWHERE)
    given_up = await _undeliverable(api)
    assert (given_up["channelId"], given_up["runStatus"], given_up["state"]) == (
        "hook", "success", "undeliverable",
    )  # fmt: skip
    assert given_up["tries"] > 10 and given_up["error"] and given_up["finishedAt"]
    assert given_up["nextTryAt"] is None
    again = await api.data("deliveries.resend", [given_up["id"]])
    assert (again["state"], again["tries"], again["finishedAt"]) == ("waiting", 0, None)
    assert again["nextTryAt"]
    refusal = await api.refusal("deliveries.resend", [given_up["id"]])
    assert refusal["code"] == "conflict" and "waiting" in refusal["error"]
    [event] = (await api.data("events", {"action": "delivery.resent"}))["items"]
    assert (event["subject"], event["jobId"]) == (str(given_up["id"]), given_up["jobId"])
    assert event["after"] == {"channelId": "hook", "runId": given_up["runId"]}


async def test_a_delivery_is_its_owners_and_her_admins(open_api: Any) -> None:
    api = await open_api()
    job = await api.create()
    run = await api.data("run", [job["id"]])
    delivery = await _delivered(api)
    assert delivery["runId"] == run["id"] and delivery["channelId"] == "gateway"
    assert delivery["nextTryAt"] is None
    _, _, after = RPC_PAGE.read_text().partition("\n### carapace.cron.deliveries\n")
    told, _, _ = after.partition("\n### ")
    assert [name for name in delivery if f"`{name}`" not in told] == []
    unknown = await api.refusal("deliveries.resend", [10**6], who="charlie")
    foreign = await api.refusal("deliveries.resend", [delivery["id"]], who="charlie")
    assert unknown["error"].replace("1000000", str(delivery["id"])) == foreign["error"]
    assert (await api.data("deliveries", who="charlie"))["items"] == []


async def test_pages_of_deliveries_have_no_gap_and_no_repeat(open_api: Any) -> None:
    api = await open_api()
    job = await api.create(overlap="allow")
    for _ in range(7):
        await api.data("run", [job["id"]])
    await api.clock.advance(1)
    seen: list[int] = []
    cursor = None
    for _ in range(5):
        page = await api.data("deliveries", {"limit": 3, **({"cursor": cursor} if cursor else {})})
        seen += [one["id"] for one in page["items"]]
        cursor = page["nextCursor"]
        if cursor is None:
            break
    assert len(seen) == 7 and seen == sorted(set(seen), reverse=True)


@pytest.mark.parametrize("cursor", [0, -1])
async def test_a_cursor_that_no_page_has_given_is_refused(api: Any, cursor: int) -> None:
    asked = {"cursor": cursor}
    for method in ("deliveries", "events"):
        refusal = await api.refusal(method, asked)
        assert (refusal["code"], refusal["field"]) == ("invalid", "cursor")
        assert refusal["error"] == "bad cursor: give the nextCursor of the page before"
    monitor = await api.data("monitors.create", [{}], who="watcher")
    refusal = await api.refusal("monitors.pings", [monitor["id"], 1, cursor], who="watcher")
    assert refusal["field"] == "cursor"
