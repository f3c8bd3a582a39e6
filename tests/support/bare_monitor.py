"""A monitor with nothing behind it: keeps each ping, and answers as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web


@dataclass(frozen=True)
class Heard:
    """One request."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def signal(self) -> str:
        return self.path.rpartition("/")[2]


@dataclass
class BareMonitor:
    """`statuses`: of the next answers; 200 after them. `lets_go` is cleared to keep answers back."""

    url: str = ""
    headers: dict[str, str] = field(default_factory=lambda: {"Ping-Body-Limit": "10000"})
    statuses: list[int] = field(default_factory=list)
    lets_go: asyncio.Event = field(default_factory=asyncio.Event)
    heard: list[Heard] = field(default_factory=list)
    heard_one: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def signals(self) -> list[str]:
        return [one.signal for one in self.heard]

    async def hears(self, signal: str) -> Heard:
        """Wait for that signal."""
        async with self.heard_one, asyncio.timeout(20):
            await self.heard_one.wait_for(lambda: signal in self.signals)
        return next(one for one in self.heard if one.signal == signal)

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        one = Heard(request.method, request.path, dict(request.query), dict(request.headers), body)
        async with self.heard_one:
            self.heard.append(one)
            self.heard_one.notify_all()
        status = self.statuses.pop(0) if self.statuses else 200
        await self.lets_go.wait()
        return web.Response(status=status, text="OK", headers=self.headers)


@asynccontextmanager
async def bare_monitor() -> AsyncIterator[BareMonitor]:
    """On a free port of loopback, for as long as the block runs."""
    monitor = BareMonitor()
    monitor.lets_go.set()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", monitor._answer)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    monitor.url = f"http://127.0.0.1:{runner.addresses[0][1]}/ping/a-key"
    try:
        yield monitor
    finally:
        await runner.cleanup()
