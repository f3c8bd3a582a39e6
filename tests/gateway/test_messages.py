"""The channel ``gateway``: kept on disk, told once, pushed to those whom it concerns."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from carapace_cron.clock import ManualClock
from carapace_cron.gateway.messages import Messages
from carapace_cron.gateway.testing import House
from carapace_cron.model.actor import Actor, Scope
from carapace_cron.ports.channel import DeliveryFailed
from carapace_cron.ports.host import HostMessage

OpenHouse = Callable[..., Awaitable[House]]
NOON = datetime(2026, 12, 1, 12, tzinfo=UTC)


def message(
    text: str,
    *,
    user: str = "alice",
    tenant: str = "acme",
    key: str | None = None,
    scope: Scope = "jobs:read",
) -> HostMessage:
    return HostMessage("gateway", tenant, user, "Report", text, {"runId": "run_1"}, key or text, scope)


async def opened(file: Path, **options: int) -> Messages:
    messages = Messages(file, ManualClock(NOON), **options)
    await messages.open()
    return messages


def texts(
    messages: Messages, user: str | None = None, *, limit: int = 100, after: int | None = None
) -> list[str]:
    """What a user may read; None: an admin."""
    reader = Actor("acme", user or "bob", frozenset({"jobs:read" if user else "admin"}))
    return [kept.text for kept in messages.recent(reader, limit=limit, after=after)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "new" / "messages.jsonl"


async def test_it_keeps_messages_over_a_restart_newest_first(file: Path) -> None:
    messages = await opened(file)
    for text in ("one", "two\nlines", "drei ✓"):
        await messages.keep(message(text))
    await messages.close()
    again = await opened(file)
    assert texts(again) == ["drei ✓", "two\nlines", "one"]
    kept = await again.keep(message("four"))
    assert kept is not None
    assert kept.wire() == {
        "sequence": 4, "at": "2026-12-01T12:00:00Z", "tenant": "acme", "userId": "alice",
        "title": "Report", "text": "four", "data": {"runId": "run_1"}, "idempotencyKey": "four",
    }
    await again.close()


async def test_a_message_sent_again_is_kept_once(file: Path) -> None:
    messages = await opened(file)
    assert await messages.keep(message("one", key="k"))
    assert await messages.keep(message("one", key="k")) is None
    assert await messages.keep(message("one", key="k", user="bob"))
    await messages.close()
    again = await opened(file)
    assert await again.keep(message("one", key="k")) is None
    assert len(texts(again)) == 2
    await again.close()


async def test_a_message_sent_twice_at_once_is_kept_once_and_both_wait_for_it(file: Path) -> None:
    messages = await opened(file)
    kept = await asyncio.gather(*(messages.keep(message("one", key="k")) for _ in range(5)))
    assert [one is not None for one in kept] == [True, False, False, False, False]
    assert len(file.read_bytes().splitlines()) == 1
    await messages.close()


async def test_many_at_once_share_few_syncs(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs = 0
    real = os.fsync

    def counted(descriptor: int) -> None:
        nonlocal syncs
        syncs += 1
        real(descriptor)

    messages = await opened(file)
    monkeypatch.setattr(os, "fsync", counted)
    await asyncio.gather(*(messages.keep(message(f"m{n}")) for n in range(100)))
    assert syncs <= 3
    assert len(texts(messages)) == 100
    await messages.close()


async def test_a_torn_last_line_is_forgotten_and_written_over(file: Path) -> None:
    messages = await opened(file)
    await messages.keep(message("one"))
    await messages.close()
    with file.open("ab") as torn:
        torn.write(b'{"sequence": 2, "text": "tw')
    again = await opened(file)
    assert texts(again) == ["one"]
    await again.keep(message("two"))
    await again.close()
    assert [json.loads(line)["text"] for line in file.read_bytes().splitlines()] == ["one", "two"]


async def test_opening_it_changes_nothing(file: Path) -> None:
    """A second gateway that was pointed to the same folder opens it while the first writes a line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b'{"sequence": 1, "text": "on')
    second = await opened(file)
    await second.close()
    assert file.read_bytes() == b'{"sequence": 1, "text": "on'


@pytest.mark.parametrize("bad", [b"garbage", b"\xff\xfe", b"[]", b'{"sequence": 1}', b"", b"null"])
async def test_a_line_that_cannot_be_read_stops_no_other(file: Path, bad: bytes) -> None:
    messages = await opened(file)
    await messages.keep(message("one"))
    await messages.close()
    file.write_bytes(bad + b"\n" + file.read_bytes())
    again = await opened(file)
    assert texts(again) == ["one"]
    await again.close()


async def test_it_keeps_so_many_a_user_and_so_many_in_all(file: Path) -> None:
    messages = await opened(file, keep=6, keep_per_user=4)
    for number in range(6):
        await messages.keep(message(f"a{number}"))
    assert texts(messages) == ["a5", "a4", "a3", "a2"]
    for number in range(4):
        await messages.keep(message(f"b{number}", user="bob"))
    assert texts(messages, "bob") == ["b3", "b2", "b1"]
    assert texts(messages, "alice") == ["a5", "a4", "a3"]
    await messages.close()


async def test_the_file_is_rewritten_before_it_grows_without_end(file: Path) -> None:
    messages = await opened(file, keep=5, keep_per_user=5)
    for number in range(40):
        await messages.keep(message(f"m{number}"))
        assert len(file.read_bytes().splitlines()) <= 11
    await messages.keep(message("after"))
    await messages.close()
    again = await opened(file, keep=5, keep_per_user=5)
    assert texts(again) == ["after", "m39", "m38", "m37", "m36"]
    await again.close()


async def test_it_reads_by_user_by_limit_and_after_a_sequence(file: Path) -> None:
    messages = await opened(file)
    for number, user in enumerate(["alice", "bob", "alice", "bob"]):
        await messages.keep(message(f"m{number}", user=user))
    await messages.keep(message("elsewhere", tenant="other"))
    assert texts(messages, "alice") == ["m2", "m0"]
    assert texts(messages) == ["m3", "m2", "m1", "m0"]
    assert texts(messages, limit=1) == ["m3"]
    assert texts(messages, after=2) == ["m3", "m2"]
    await messages.close()


async def test_a_disk_that_refuses_is_a_failed_delivery_and_the_next_one_works(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = await opened(file)
    await messages.keep(message("one"))
    real = os.fsync

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DeliveryFailed, match="No space left on device") as failure:
        await messages.keep(message("a long text that reaches the disk and is not acknowledged"))
    assert not failure.value.permanent
    monkeypatch.setattr(os, "fsync", real)
    await messages.keep(message("two"))
    await messages.close()
    again = await opened(file)
    assert texts(again) == ["two", "one"]
    await again.close()


@pytest.mark.parametrize("data", [{"x": float("nan")}, {"x": {1}}, {"x": "y" * 600_000}])
async def test_what_cannot_be_kept_will_never_be(file: Path, data: dict[str, Any]) -> None:
    messages = await opened(file)
    with pytest.raises(DeliveryFailed) as failure:
        await messages.keep(HostMessage("gateway", "acme", "alice", "t", "x", data, "k"))
    assert failure.value.permanent
    await messages.close()


async def test_half_a_surrogate_pair_does_not_stop_a_message(file: Path) -> None:
    messages = await opened(file)
    await messages.keep(message("\ud800 report"))
    await messages.close()
    again = await opened(file)
    assert texts(again) == ["\ufffd report"]
    await again.close()


async def test_one_who_stops_waiting_does_not_undo_it(file: Path) -> None:
    messages = await opened(file)
    waiting = asyncio.create_task(messages.keep(message("one")))
    await asyncio.sleep(0)
    waiting.cancel()
    await messages.close()
    again = await opened(file)
    assert texts(again) == ["one"]
    await again.close()


async def test_the_file_is_for_its_owner_alone(file: Path) -> None:
    messages = await opened(file)
    await messages.close()
    assert file.stat().st_mode & 0o777 == 0o600


async def test_a_posted_message_is_pushed_and_can_be_read_again(open_house: OpenHouse) -> None:
    house = await open_house()
    alice, charlie = await house.socket("alice"), await house.socket("charlie")
    await house.gateway.post(message("ready"))
    await house.gateway.post(message("ready"))
    pushed = await alice.receive_json(timeout=5)
    assert pushed["method"] == "carapace.gateway.message"
    assert pushed["params"]["text"] == "ready"
    listed = await house.call("carapace.gateway.messages")
    assert listed["result"]["items"] == [pushed["params"]]
    assert (await house.call("carapace.gateway.messages", who="charlie"))["result"]["items"] == []
    await charlie.send_json({"jsonrpc": "2.0", "method": "carapace.gateway.whoami", "id": 1})
    assert "result" in await charlie.receive_json(timeout=5)


async def test_an_admin_reads_all_messages_of_the_tenant(house: House) -> None:
    await house.gateway.post(message("for alice"))
    await house.gateway.post(message("for bob", user="bob"))
    mine = (await house.call("carapace.gateway.messages", who="alice"))["result"]["items"]
    all_of_them = (await house.call("carapace.gateway.messages", {"limit": 5}, who="bob"))["result"]["items"]
    assert [one["text"] for one in mine] == ["for alice"]
    assert [one["text"] for one in all_of_them] == ["for bob", "for alice"]
    newer = await house.call("carapace.gateway.messages", {"after": 1}, who="bob")
    assert [one["text"] for one in newer["result"]["items"]] == ["for bob"]


async def test_who_polls_with_after_skips_no_message(house: House) -> None:
    for n in range(1, 9):
        await house.gateway.post(message(f"{n}", user="bob" if n == 4 else "alice"))
    seen: list[list[str]] = []
    after = 0
    while True:
        params = {"after": after, "limit": 3}
        items = (await house.call("carapace.gateway.messages", params, who="alice"))["result"]["items"]
        if not items:
            break
        seen.append([one["text"] for one in items])
        after = items[0]["sequence"]
    assert seen == [["3", "2", "1"], ["7", "6", "5"], ["8"]]
    newest = await house.call("carapace.gateway.messages", {"limit": 3, "after": None}, who="alice")
    assert [one["text"] for one in newest["result"]["items"]] == ["8", "7", "6"]


async def test_a_token_for_pings_reads_and_hears_nothing(house: House) -> None:
    house.people.known["pinger"] = Actor("acme", "alice", frozenset({"ping"}))
    answer = await house.call("carapace.gateway.messages", who="pinger")
    assert answer["error"]["code"] == -32003
    socket = await house.socket("pinger")
    await house.gateway.post(message("ready"))
    await socket.send_json({"jsonrpc": "2.0", "method": "carapace.gateway.whoami", "id": 1})
    assert "result" in await socket.receive_json(timeout=5)


@pytest.mark.parametrize(("scope", "text"), [("jobs:read", "a run"), ("monitors:read", "a monitor")])
async def test_a_token_reads_and_hears_what_its_scope_is_for(house: House, scope: str, text: str) -> None:
    house.people.known["reader"] = Actor("acme", "alice", frozenset({scope}))
    socket = await house.socket("reader")
    await house.gateway.post(message("a run"))
    await house.gateway.post(message("a monitor", scope="monitors:read"))
    house.gateway.emit("carapace.cron.job_completed", {"error": "of a run"}, tenant="acme", user_id="alice")
    listed = await house.call("carapace.gateway.messages", {"limit": 1}, who="reader")
    assert [one["text"] for one in listed["result"]["items"]] == [text]
    await socket.send_json({"jsonrpc": "2.0", "method": "carapace.gateway.whoami", "id": 1})
    told = [await socket.receive_json(timeout=5) for _ in range(3 if scope == "jobs:read" else 2)]
    assert told[0]["params"]["text"] == text
    assert [one.get("method") for one in told[1:]] == (
        ["carapace.cron.event", None] if scope == "jobs:read" else [None]
    )


async def test_a_message_that_says_no_scope_is_of_a_run(file: Path) -> None:
    """As the version before has kept them."""
    messages = await opened(file)
    await messages.keep(message("of a monitor", scope="monitors:read"))
    await messages.close()
    kept = json.loads(file.read_text())
    assert kept.pop("scope") == "monitors:read"
    for reader in ("jobs:read", "monitors:read"):
        again = await opened(file)
        seen = again.recent(Actor("acme", "alice", frozenset({reader})), limit=9)
        assert len(seen) == (reader == "monitors:read")
        await again.close()
    file.write_text(json.dumps(kept) + "\n")
    again = await opened(file)
    assert texts(again, "alice") == ["of a monitor"]
    await again.close()


@pytest.mark.parametrize(
    "params", [{"limit": 0}, {"limit": 201}, {"limit": True}, {"limit": "5"}, {"after": -1}]
)
async def test_bad_paging_is_a_sentence(house: House, params: dict[str, Any]) -> None:
    answer = await house.call("carapace.gateway.messages", params)
    assert answer["error"]["code"] == -32602
    assert answer["error"]["data"]["field"] in params


async def test_messages_survive_a_restart_of_the_gateway(open_house: OpenHouse) -> None:
    first = await open_house()
    await first.gateway.post(message("ready"))
    await first.server.stop()
    second = await open_house()
    listed = await second.call("carapace.gateway.messages")
    assert [one["text"] for one in listed["result"]["items"]] == ["ready"]


async def test_an_unknown_channel_is_named(house: House) -> None:
    lost = HostMessage("slack", "acme", "alice", "t", "x", {}, "k")
    with pytest.raises(DeliveryFailed, match='no channel "slack" here: expected one of gateway') as failure:
        await house.gateway.post(lost)
    assert failure.value.permanent
