"""The world outside the gateway: servers that jobs call and that channels tell, and their own records.

Each writes what it sees to a file, synced line by line, before it answers. The files are the outside
witness: they owe nothing to the gateway.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web

from carapace_cron.channels.webhook import verify

HANG_SECONDS = 60.0
REFUSE_EVERY = 15  # of the webhook's notices, this many-th is taken, and answered with 503 all the same
FICKLE_EVERY = 2  # of the fickle webhook's notices, this many-th is refused for good when it comes first

Work = Callable[[web.Request, str, int], Awaitable[web.Response]]


class Journal:
    """A file of JSON lines; a line is on the disk when `write` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("ab")

    def write(self, line: dict[str, Any]) -> None:
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_bytes().splitlines()]


@dataclass
class Outside:
    """Where things are, and what was seen. `requests`: what runs did; `arrivals`: what channels told."""

    port: int
    secret: str
    requests: Journal
    arrivals: Journal

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def started(self, path: str) -> int:
        """How many requests for that path have begun."""
        return sum(line["what"] == "begin" and line["path"] == path for line in self.requests.lines())


@asynccontextmanager
async def outside(folder: Path, secret: str) -> AsyncIterator[Outside]:
    """The servers, on a free port of loopback, for as long as the block runs."""
    folder.mkdir(parents=True, exist_ok=True)
    world = Outside(0, secret, Journal(folder / "requests.jsonl"), Journal(folder / "arrivals.jsonl"))
    # When the other side goes away the handler is cancelled: so the witness knows when an attempt was over.
    runner = web.AppRunner(
        _application(world), access_log=None, handler_cancellation=True, shutdown_timeout=1
    )
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    world.port = runner.addresses[0][1]
    try:
        yield world
    finally:
        await runner.cleanup()
        world.requests.close()
        world.arrivals.close()


def _application(world: Outside) -> web.Application:
    app = web.Application()
    for path, work in _WORKS.items():
        app.router.add_route("*", path, _witnessed(world, work))
    app.router.add_post("/webhook", _webhook(world))
    app.router.add_post("/fickle", _fickle(world))
    app.router.add_post("/plain", _plain(world))
    app.router.add_post("/apprise", _apprise(world))
    return app


def _witnessed(world: Outside, work: Work) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handler(request: web.Request) -> web.Response:
        run_id, attempt = await _who(request)
        asked = {"path": request.path, "query": request.query_string, "method": request.method}
        seen = {**asked, "run": run_id, "attempt": attempt}
        world.requests.write({"what": "begin", **seen, "at": _now()})
        try:
            return await work(request, run_id, attempt)
        finally:
            world.requests.write({"what": "end", **seen, "at": _now()})

    return handler


async def _who(request: web.Request) -> tuple[str, int]:
    """Which attempt of which run asks: in headers for URLs, in the body for agents."""
    if "X-Carapace-Run-Id" in request.headers:
        return request.headers["X-Carapace-Run-Id"], int(request.headers["X-Carapace-Attempt"])
    said = (await request.json())["metadata"]
    return said["runId"], said["attempt"]


async def _quick(request: web.Request, run_id: str, attempt: int) -> web.Response:
    return web.Response(text=run_id)


async def _created(request: web.Request, run_id: str, attempt: int) -> web.Response:
    fits = request.method == "POST" and await request.json() == {"count": 1}
    return web.Response(status=201 if fits else 400, text=run_id)


async def _slow(request: web.Request, run_id: str, attempt: int) -> web.Response:
    await asyncio.sleep(float(request.query["seconds"]))
    return web.Response(text=run_id)


async def _flaky(request: web.Request, run_id: str, attempt: int) -> web.Response:
    return web.Response(status=500 if attempt == 1 else 200, text=run_id)


async def _broken(request: web.Request, run_id: str, attempt: int) -> web.Response:
    return web.Response(status=500, text=run_id)


async def _hang(request: web.Request, run_id: str, attempt: int) -> web.Response:
    await asyncio.sleep(HANG_SECONDS)
    return web.Response(text=run_id)


async def _agent(request: web.Request, run_id: str, attempt: int) -> web.Response:
    call = await request.json()
    fits = (call["agent"], call["arguments"]) == ("reporter", ["--daily"])
    return web.json_response({"status": "success" if fits else "failure", "output": run_id})


_WORKS: dict[str, Work] = {
    "/quick": _quick,
    "/created": _created,
    "/slow": _slow,
    "/cancelled": _slow,
    "/flaky": _flaky,
    "/broken": _broken,
    "/hang": _hang,
    "/agent": _agent,
}


def _webhook(world: Outside) -> Callable[[web.Request], Awaitable[web.Response]]:
    refused: set[str] = set()
    taken = 0

    async def handler(request: web.Request) -> web.Response:
        nonlocal taken
        body = await request.read()
        key = request.headers["Idempotency-Key"]
        signed = verify(request.headers, body, world.secret, datetime.now(UTC))
        world.arrivals.write({"channel": "hook", "key": key, "signed": signed, "body": json.loads(body)})
        taken += 1
        if taken % REFUSE_EVERY == 0 and key not in refused:
            refused.add(key)
            return web.Response(status=503, headers={"Retry-After": "1"})
        return web.Response()

    return handler


def _fickle(world: Outside) -> Callable[[web.Request], Awaitable[web.Response]]:
    seen: set[str] = set()

    async def handler(request: web.Request) -> web.Response:
        key = request.headers["Idempotency-Key"]
        world.arrivals.write({"channel": "fickle", "key": key, "body": await request.json()})
        is_new = key not in seen
        seen.add(key)
        if is_new and len(seen) % FICKLE_EVERY == 0:
            return web.Response(status=400)  # for good, until somebody sends it again
        return web.Response()

    return handler


def _plain(world: Outside) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handler(request: web.Request) -> web.Response:
        key = request.headers["Idempotency-Key"]
        world.arrivals.write({"channel": "plain", "key": key, "body": await request.json()})
        return web.Response()

    return handler


def _apprise(world: Outside) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handler(request: web.Request) -> web.Response:
        world.arrivals.write({"channel": "pager", "body": await request.json()})
        return web.Response()

    return handler


def _now() -> float:
    return datetime.now(UTC).timestamp()
