"""A proxy on loopback between a client and an S3 server that makes the network as bad as a test wants.

Requests are passed on byte for byte, ``Host`` included, so signatures stay valid. Which fault befalls
which request is drawn from a seeded generator.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector, web
from yarl import URL

_CONDITIONS = {"if-match", "if-none-match"}
_OF_ONE_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect", "date", "server"}
_ERROR = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>fault</Message></Error>'


@dataclass(frozen=True)
class Faults:
    """The part of all requests that each fault befalls."""

    lost_answer: float = 0.0  # the request is done, then the connection breaks
    reset: float = 0.0  # the connection breaks before the request is done
    error_500: float = 0.0  # as `reset`, with an answer
    slow_down: float = 0.0  # 503 SlowDown
    done_500: float = 0.0  # the request is done, and answered with 500
    delay_seconds: float = 0.0  # each waits up to this before it is passed on
    strip_conditions: bool = False  # the server never sees If-Match and If-None-Match


NONE = Faults()
BAD_WEATHER = Faults(
    lost_answer=0.04, reset=0.03, error_500=0.03, slow_down=0.03, done_500=0.02, delay_seconds=0.01
)


class FaultProxy:
    """`url` is the endpoint to use; `faults` may be changed at any time; `befell` counts what happened."""

    def __init__(self, target: str, faults: Faults, seed: int) -> None:
        self.faults = faults
        self.befell: Counter[str] = Counter()
        self.url = ""
        self._target = target
        self._dice = random.Random(seed)
        self._client: ClientSession | None = None

    def reseed(self, seed: int) -> None:
        """Other dice from now on."""
        self._dice.seed(seed)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        await asyncio.sleep(self._dice.random() * self.faults.delay_seconds)
        fault = self._draw()
        self.befell[fault] += 1
        match fault:
            case "reset":
                return _broken(request)
            case "error_500":
                return _failure(500, "InternalError")
            case "slow_down":
                return _failure(503, "SlowDown")
        answer = await self._pass_on(request, body)
        match fault:
            case "lost_answer":
                return _broken(request)
            case "done_500":
                return _failure(500, "InternalError")
        return answer

    def _draw(self) -> str:
        point = self._dice.random()
        for fault in ("lost_answer", "reset", "error_500", "slow_down", "done_500"):
            point -= getattr(self.faults, fault)
            if point < 0:
                return fault
        return "none"

    async def _pass_on(self, request: web.Request, body: bytes) -> web.Response:
        assert self._client is not None
        dropped = {"connection", "expect"} | (_CONDITIONS if self.faults.strip_conditions else set())
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in dropped]
        url = URL(self._target + request.raw_path, encoded=True)
        async with self._client.request(request.method, url, headers=headers, data=body or None) as answer:
            content = await answer.read()
            kept = [one for one in answer.headers.items() if one[0].lower() not in _OF_ONE_HOP]
            return web.Response(status=answer.status, headers=kept, body=content)


@asynccontextmanager
async def fault_proxy(target: str, faults: Faults = NONE, *, seed: int = 1) -> AsyncIterator[FaultProxy]:
    """A running proxy in front of the server at `target` (``http://127.0.0.1:<port>``)."""
    proxy = FaultProxy(target, faults, seed)
    # No kept connections to the server: the client's own resending would blur what the proxy counts.
    session = ClientSession(
        connector=TCPConnector(force_close=True),
        timeout=ClientTimeout(total=30),
        cookie_jar=DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers={"User-Agent", "Accept", "Accept-Encoding", "Content-Type"},
    )
    application = web.Application(client_max_size=64 * 1024 * 1024)
    application.router.add_route("*", "/{path:.*}", proxy.handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
    async with session:
        proxy._client = session
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        proxy.url = f"http://{host}:{port}"
        try:
            yield proxy
        finally:
            await runner.cleanup()


def _broken(request: web.Request) -> web.Response:
    """End the connection without an answer; the response is never sent."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _failure(status: int, code: str) -> web.Response:
    return web.Response(status=status, text=_ERROR.format(code=code), content_type="application/xml")
