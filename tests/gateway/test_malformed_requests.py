"""Bytes that are no request, and requests that break off: answered in our form, and no secret in the log."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from carapace_cron.gateway.hookspecs import Route
from carapace_cron.gateway.testing import House
from carapace_cron.hookspecs import hookimpl
from carapace_cron.ids import token_hash
from carapace_cron.model.actor import Actor

OpenHouse = Callable[..., Awaitable[House]]

HOST = "Host: 127.0.0.1\r\n"
TO_RPC = f"POST /rpc HTTP/1.1\r\n{HOST}Authorization: Bearer alice\r\nContent-Type: application/json\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n\r\n"

MALFORMED = [
    f"GET /ping/hunter2/night ly HTTP/1.1\r\n{HOST}\r\n",
    f"GET /ping/hunter2/{'y' * 9_000} HTTP/1.1\r\n{HOST}\r\n",
    f"GET http://[hunter2 HTTP/1.1\r\n{HOST}\r\n",
    f"GET / HTTP/1.1\r\n{HOST}Authorization: Bearer cct_hunter2\x01\r\n\r\n",
    f"GET / HTTP/1.1\r\n{HOST}X-Api-Key: {'hunter2' * 2_000}\r\n\r\n",
    f"POST / HTTP/1.1\r\n{HOST}Content-Length: hunter2\r\n\r\n",
    f"{TO_RPC}{CHUNKED}hunter2\r\n",
    "hunter2\r\n\r\n",
]


@asynccontextmanager
async def connection(house: House) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", house.server.port)
    try:
        async with asyncio.timeout(10):
            yield reader, writer
    finally:
        writer.close()


async def until_nobody_is_connected(house: House) -> None:
    """All that a connection writes into the log is there then."""
    runner = house.server._runner
    assert runner is not None and runner.server is not None
    async with asyncio.timeout(10):
        while runner.server.connections:
            await asyncio.sleep(0)



@pytest.mark.parametrize("sent", MALFORMED)
async def test_bytes_that_are_no_request_cost_one_line_without_them(
    house: House, caplog: pytest.LogCaptureFixture, sent: str
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.clear()
    async with connection(house) as (reader, writer):
        writer.write(sent.encode("latin-1"))
        head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    await until_nobody_is_connected(house)
    assert head.splitlines()[0] == "HTTP/1.0 400 Bad Request"
    assert "Server: carapace" in head and "aiohttp" not in head and "nosniff" in head
    answer = json.loads(body)
    assert (answer["success"], answer["code"]) == (False, "bad_request")
    assert answer["error"].startswith("this is no valid HTTP/1.1 request")
    [line] = [one for one in caplog.records if one.name != "asyncio"]
    assert line.levelno == logging.INFO and line.exc_info is None
    assert line.getMessage().startswith("UNKNOWN (no request) 400 ")
    assert "hunter2" not in head + body + caplog.text


async def test_a_token_that_is_no_utf_8_is_an_unknown_one(
    open_house: OpenHouse, caplog: pytest.LogCaptureFixture
) -> None:
    class Hashing:
        @hookimpl
        def identify(self, token: str) -> Actor | None:
            token_hash(token)
            return None

    house = await open_house(plugins={"hashing": Hashing()})
    for header in ("Authorization: Bearer \xff", "X-Api-Key: \xff"):
        sent = TO_RPC.replace("Authorization: Bearer alice", header) + "Connection: close\r\n"
        async with connection(house) as (reader, writer):
            writer.write(f"{sent}Content-Length: 2\r\n\r\n{{}}".encode("latin-1"))
            head = (await reader.read()).decode().partition("\r\n\r\n")[0]
        assert head.splitlines()[0] == "HTTP/1.1 401 Unauthorized"
    assert not [one for one in caplog.records if one.exc_info]


@pytest.mark.parametrize("sent", ["Content-Length: 100\r\n\r\n{", f"{CHUNKED}5\r\n{{"])
async def test_a_client_that_breaks_off_costs_one_line(
    house: House, caplog: pytest.LogCaptureFixture, sent: str
) -> None:
    caplog.set_level(logging.INFO)
    caplog.clear()
    async with connection(house) as (_, writer):
        writer.write((TO_RPC + sent).encode())
        await writer.drain()
    await until_nobody_is_connected(house)
    [line] = caplog.records
    assert (line.levelno, line.exc_info) == (logging.INFO, None)
    assert line.getMessage() == "POST /rpc: the client went away before its answer"


async def test_a_connection_of_the_handlers_own_that_breaks_is_our_failure(
    open_house: OpenHouse, caplog: pytest.LogCaptureFixture
) -> None:
    """Its client is still there, and waits for an answer."""

    async def fails(request: web.Request) -> web.StreamResponse:
        raise ConnectionRefusedError("no backend")

    class Fails:
        @hookimpl
        def register_routes(self) -> list[Route]:
            return [Route("GET", "/fails", fails, None)]

    house = await open_house(plugins={"fails": Fails()})
    async with await house.get("/fails") as response:
        assert response.status == 500
        assert "the gateway's log has the reason as" in (await response.json())["error"]
    assert "no backend" in caplog.text
