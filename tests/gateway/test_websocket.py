"""The same requests over a WebSocket, and what the gateway pushes to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType, WSServerHandshakeError

from carapace_cron.errors import Unavailable
from carapace_cron.gateway.hookspecs import Params
from carapace_cron.gateway.limits import Limits
from carapace_cron.gateway.testing import House, Methods
from carapace_cron.hookspecs import hookimpl
from carapace_cron.model.actor import Actor

OpenHouse = Callable[..., Awaitable[House]]
WHOAMI = {"jsonrpc": "2.0", "method": "carapace.gateway.whoami", "id": 1}


async def heard(socket: aiohttp.ClientWebSocketResponse) -> Any:
    async with asyncio.timeout(5):
        return json.loads(await socket.receive_str())


async def hears_nothing(socket: aiohttp.ClientWebSocketResponse) -> bool:
    """Whether the next thing heard is the answer to what is asked now."""
    await socket.send_json(WHOAMI)
    return "result" in await heard(socket)


async def close_code(socket: aiohttp.ClientWebSocketResponse) -> int | None:
    async with asyncio.timeout(5):
        while (await socket.receive()).type not in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.ERROR):
            pass
    return socket.close_code


async def test_it_answers_requests_and_batches(house: House) -> None:
    socket = await house.socket("bob")
    await socket.send_json(WHOAMI)
    assert (await heard(socket))["result"]["userId"] == "bob"
    await socket.send_json([WHOAMI, 7])
    answers = await heard(socket)
    assert [("result" in answer) for answer in answers] == [True, False]
    await socket.send_str("{")
    assert (await heard(socket))["error"]["code"] == -32700


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": "Bearer mallory"}, 401),
        ({"Origin": "https://evil.example"}, 403),
        ({"Host": "evil.example"}, 403),
    ],
)
async def test_it_lets_in_whom_http_lets_in(house: House, headers: dict[str, str], status: int) -> None:
    with pytest.raises(WSServerHandshakeError) as refusal:
        await house.socket(headers=headers)
    assert refusal.value.status == status


async def test_each_hears_what_is_theirs_and_an_admin_the_whole_tenant(house: House) -> None:
    alice, bob, charlie = [await house.socket(name) for name in ("alice", "bob", "charlie")]
    event = {"jobId": "job_1", "success": True}
    house.gateway.emit("carapace.cron.job_completed", event, tenant="acme", user_id="alice")
    expected = {
        "jsonrpc": "2.0",
        "method": "carapace.cron.event",
        "params": {"type": "carapace.cron.job_completed", "jobId": "job_1", "success": True},
    }
    assert await heard(alice) == expected
    assert await heard(bob) == expected
    assert await hears_nothing(charlie)
    house.gateway.emit("carapace.cron.job_completed", event, tenant="acme", user_id="bob")
    assert await heard(bob) == expected
    assert await hears_nothing(alice)


async def test_an_event_that_is_not_json_is_logged_and_harms_nobody(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    socket = await house.socket()
    house.gateway.emit("carapace.cron.odd", {"value": {1, 2}}, tenant="acme", user_id="alice")
    assert "carapace.cron.odd" in caplog.text
    assert await hears_nothing(socket)


async def test_a_revoked_token_ends_with_the_next_request(house: House) -> None:
    socket = await house.socket()
    del house.people.known["alice"]
    await socket.send_json(WHOAMI)
    assert (await heard(socket))["error"]["code"] == -32001
    assert await close_code(socket) == 1008


async def test_a_revoked_token_hears_no_more_after_a_while(open_house: OpenHouse) -> None:
    house = await open_house(limits=Limits(socket_recheck_seconds=0.0))
    socket = await house.socket()
    del house.people.known["alice"]
    house.gateway.emit("carapace.cron.job_completed", {}, tenant="acme", user_id="alice")
    assert await close_code(socket) == 1008


@pytest.mark.parametrize("asks", [True, False])
async def test_while_tokens_cannot_be_checked_it_is_told_to_come_again(
    open_house: OpenHouse, asks: bool
) -> None:
    """A client that heard that its token is revoked would not come again."""

    class Away:
        @hookimpl
        def identify(self, token: str) -> Actor | None:
            if is_away:
                raise Unavailable("the database is away")
            return None

    is_away = False
    house = await open_house(plugins={"away": Away()}, limits=Limits(socket_recheck_seconds=0.0))
    socket = await house.socket()
    is_away = True
    if asks:
        await socket.send_json(WHOAMI)
        assert (await heard(socket))["error"]["code"] == -32004
    else:
        house.gateway.emit("carapace.cron.job_completed", {}, tenant="acme", user_id="alice")
    async with asyncio.timeout(5):
        closed = await socket.receive()
    assert (closed.type, closed.data) == (WSMsgType.CLOSE, 1013)
    assert closed.extra == "tokens cannot be checked now; try again later"


async def test_a_slow_request_holds_up_no_other(open_house: OpenHouse) -> None:
    release = asyncio.Event()

    async def slow(actor: Actor, params: Params) -> str:
        await release.wait()
        return "slow"

    house = await open_house(plugins={"slow": Methods({"slow": slow})})
    socket = await house.socket()
    await socket.send_json({"jsonrpc": "2.0", "method": "slow", "id": "s"})
    await socket.send_json(WHOAMI)
    assert (await heard(socket))["id"] == 1
    release.set()
    assert (await heard(socket))["id"] == "s"


async def test_eight_requests_run_together_some_wait_and_more_are_refused(open_house: OpenHouse) -> None:
    release = asyncio.Event()
    running = most = 0

    async def slow(actor: Actor, params: Params) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await release.wait()
        running -= 1

    house = await open_house(plugins={"slow": Methods({"slow": slow})}, limits=Limits(socket_waiting=4))
    socket = await house.socket()
    for number in range(13):
        await socket.send_json({"jsonrpc": "2.0", "method": "slow", "id": number})
    refused = await heard(socket)
    assert refused["error"]["data"] == "12 requests are under way; wait for answers"
    release.set()
    assert {(await heard(socket))["id"] for _ in range(12)} == set(range(12))
    assert most == 8


async def test_a_client_that_does_not_read_is_cut_off_and_harms_nobody(open_house: OpenHouse) -> None:
    house = await open_house(limits=Limits(socket_queue=4))
    asleep = await house.socket()
    awake = await house.socket()
    payload = {"text": "x" * 100_000}
    for _ in range(200):
        house.gateway.emit("carapace.cron.big", payload, tenant="acme", user_id="alice")
        assert (await heard(awake))["params"]["text"] == payload["text"]
        if len(house.gateway.audience) == 1:
            break
    assert len(house.gateway.audience) == 1
    assert await close_code(asleep) == 1006


@pytest.mark.parametrize(("text", "code"), [(" " * 300_000, 1009), (b"{}", 1003)])
async def test_too_much_or_not_text_closes_the_socket(house: House, text: str | bytes, code: int) -> None:
    socket = await house.socket()
    if isinstance(text, bytes):
        await socket.send_bytes(text)
    else:
        await socket.send_str(text)
    assert await close_code(socket) == code


async def test_it_says_goodbye_when_the_gateway_stops(open_house: OpenHouse) -> None:
    house = await open_house()
    socket = await house.socket()
    house.gateway.emit("carapace.cron.last", {}, tenant="acme", user_id="alice")
    stopping = asyncio.create_task(house.server.stop())
    assert (await heard(socket))["params"]["type"] == "carapace.cron.last"
    assert await close_code(socket) == 1001
    await stopping


async def test_a_client_that_never_says_goodbye_does_not_hold_up_the_stop(open_house: OpenHouse) -> None:
    house = await open_house()
    reader, writer = await asyncio.open_connection("127.0.0.1", house.server.port)
    writer.write(
        f"GET /rpc HTTP/1.1\r\nHost: 127.0.0.1:{house.server.port}\r\nAuthorization: Bearer alice\r\n"
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    assert (await reader.readline()).startswith(b"HTTP/1.1 101")
    async with asyncio.timeout(8):
        await house.server.stop()
    writer.close()


async def test_one_that_leaves_is_forgotten(house: House) -> None:
    socket = await house.socket()
    assert await hears_nothing(socket)
    assert len(house.gateway.audience) == 1
    await socket.close()
    await house.get("/healthz")
    assert len(house.gateway.audience) == 0


async def test_it_pings_so_that_a_dead_client_is_found(open_house: OpenHouse) -> None:
    house = await open_house(limits=Limits(socket_heartbeat_seconds=0.1))
    socket = await house.socket(autoping=False)
    message = await socket.receive(timeout=2)
    assert message.type is WSMsgType.PING
    async with asyncio.timeout(2):
        while len(house.gateway.audience):
            await asyncio.sleep(0.02)
