"""Connections that are opened and left, over real sockets. The limits are made small, so nobody waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from carapace_cron.gateway.hookspecs import Params
from carapace_cron.gateway.limits import Limits
from carapace_cron.gateway.testing import House, Methods
from carapace_cron.model.actor import Actor

OpenHouse = Callable[..., Awaitable[House]]
QUICK = Limits(body_seconds=0.3, linger_seconds=0.2, keepalive_seconds=0.3)
LONGEST = 2.0  # seconds; the phases above in a row, and a slow machine

HEAD = "POST /rpc HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer alice\r\n"
JSON = "Content-Type: application/json\r\n"


async def closed_after(house: House, sent: str) -> tuple[str, float]:
    """What the server says before it closes a connection on which only `sent` arrives, and when."""
    reader, writer = await asyncio.open_connection("127.0.0.1", house.server.port)
    begun = time.monotonic()
    writer.write(sent.format(port=house.server.port).encode())
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return answer.decode(), time.monotonic() - begun


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ("", None),
        ("PO", None),
        (HEAD, None),
        (HEAD + JSON, None),
        (HEAD + JSON + "Content-Length: 100\r\n\r\n", 408),
        (HEAD + JSON + 'Content-Length: 100\r\n\r\n{{"jsonrpc": ', 408),
        (HEAD + JSON + "Transfer-Encoding: chunked\r\n\r\n5\r\n[1,2,", 408),
        (HEAD + "Content-Type: text/plain\r\nContent-Length: 100\r\n\r\n", 415),
        ("GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 100\r\n\r\n", 408),
        ("GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\nGET /hea", 200),
        ("GET /rpc HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n", None),
    ],
)
async def test_a_half_open_request_is_closed(open_house: OpenHouse, sent: str, status: int | None) -> None:
    house = await open_house(limits=QUICK)
    answer, seconds = await closed_after(house, sent)
    assert answer.startswith(f"HTTP/1.1 {status} " if status else "") and bool(answer) is bool(status)
    assert seconds < LONGEST


@pytest.mark.parametrize("head", ["", HEAD + JSON + "Content-Length: 10000\r\n\r\n"])
async def test_bytes_that_trickle_in_do_not_keep_a_connection_open(open_house: OpenHouse, head: str) -> None:
    house = await open_house(limits=QUICK)
    reader, writer = await asyncio.open_connection("127.0.0.1", house.server.port)
    begun = time.monotonic()
    writer.write(head.format(port=house.server.port).encode())
    closed = asyncio.create_task(reader.read())
    while not closed.done() and time.monotonic() - begun < 5:
        writer.write(b"P")
        await asyncio.wait([closed], timeout=0.02)
    writer.close()
    assert time.monotonic() - begun < LONGEST
    await asyncio.gather(closed, return_exceptions=True)  # closed or reset, either will do


def test_the_default_limits_close_a_half_open_request_within_15_seconds() -> None:
    limits = Limits()
    assert limits.keepalive_seconds < 15
    assert limits.body_seconds + limits.linger_seconds < 15


async def test_a_request_that_works_for_long_is_not_cut(open_house: OpenHouse) -> None:
    async def long(actor: Actor, params: Params) -> str:
        await asyncio.sleep(2 * QUICK.keepalive_seconds)
        return "done"

    house = await open_house(limits=QUICK, plugins={"long": Methods({"long": long})})
    assert (await house.call("long"))["result"] == "done"


async def test_others_are_served_while_many_connections_hang(open_house: OpenHouse) -> None:
    house = await open_house()
    hanging = [await asyncio.open_connection("127.0.0.1", house.server.port) for _ in range(100)]
    for _, writer in hanging:
        writer.write(b"POST /rpc HTTP/1.1\r\n")
    assert (await house.get("/healthz")).status == 200
    for _, writer in hanging:
        writer.close()
