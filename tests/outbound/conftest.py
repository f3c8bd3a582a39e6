"""Real servers on the loopback, of which only those that a test allows may be called."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from carapace_cron.outbound.address import AllowList
from carapace_cron.outbound.client import Outbound

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Listener:
    """Counts who connects; answers with raw bytes, or never."""

    port: int = 0
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    closed: asyncio.Event = field(default_factory=asyncio.Event)


@asynccontextmanager
async def listening(
    answer: bytes | None, *, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[Listener]:
    """`answer` None: the connection stays open and silent. `closed` is set when the caller hangs up."""
    listener = Listener()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        listener.connections += 1
        try:
            listener.requests.append(await reader.readuntil(b"\r\n\r\n"))
            if answer is not None:
                writer.write(answer)
                await writer.drain()
            else:
                await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            listener.closed.set()
            writer.close()

    server = await asyncio.start_server(serve, host, port)
    listener.port = server.sockets[0].getsockname()[1]
    async with server:
        yield listener


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """The address of a server that answers every request by `handler`."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


def allowing(*origins: str) -> Outbound:
    """A door through which the given origins may be called."""
    return Outbound(AllowList.parse(",".join(origin.removeprefix("http://") for origin in origins)))


@pytest.fixture(name="allowing")
def allowing_fixture() -> Callable[..., Outbound]:
    return allowing


@pytest.fixture(name="listening")
def listening_fixture() -> Callable[..., AbstractAsyncContextManager[Listener]]:
    return listening


@pytest.fixture(name="serving")
def serving_fixture() -> Callable[..., AbstractAsyncContextManager[str]]:
    return serving
