"""SIGKILL of a gateway between the commit of a cause and the record that its notice arrived.

A webhook and PagerDuty stand outside, and keep what came. They take each notice once: the webhook by its
``Idempotency-Key``, PagerDuty by the dedup key of its incident.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer
from support.gateway_process import GatewayProcess, NotNow, until, watched
from support.workload import ADMIN_TOKEN

DIES_WITHIN_SECONDS = 20.0
TOLD_SECONDS = 20.0
OVERRUN_SECONDS = 1.2  # a run that may take a second is too late by then

BEFORE_THE_SEND = "outbox.first_of.after"
BEFORE_THE_RECORD = "outbox.delivered.before"  # the service has taken it


@dataclass
class Receivers:
    """What came to the webhook, by key; and PagerDuty's incidents."""

    notices: dict[str, Any] = field(default_factory=dict)
    came: Counter[str] = field(default_factory=Counter)  # to the webhook, by key
    open: dict[str, int] = field(default_factory=dict)  # dedup key → triggers
    resolved: list[str] = field(default_factory=list)  # dedup keys
    works: bool = True  # whether the job's own request is answered with 200
    changed: list[str] = field(default_factory=list)  # keys that came again with another body

    async def take_notice(self, request: web.Request) -> web.Response:
        key, body = request.headers["Idempotency-Key"], await request.json()
        self.came[key] += 1
        if self.notices.setdefault(key, body) != body:
            self.changed.append(key)
        return web.Response()

    async def take_event(self, request: web.Request) -> web.Response:
        event = await request.json()
        key = event["dedup_key"]
        if event["event_action"] == "trigger":
            self.open[key] = self.open.get(key, 0) + 1
        elif self.open.pop(key, None) is not None:
            self.resolved.append(key)
        return web.json_response({"status": "success", "dedup_key": key}, status=202)

    async def work(self, request: web.Request) -> web.Response:
        return web.Response(status=200 if self.works else 500)

    def told(self) -> list[str]:
        """What the webhook took, each notice once, in the order in which they came."""
        return [f"{one['event']} {one['status']}" for one in self.notices.values()]


@dataclass
class Kills:
    """One gateway over its lives, with a monitor that tells both channels and a job for each."""

    gateway: GatewayProcess
    receivers: Receivers
    client: aiohttp.ClientSession
    monitor: str = ""
    jobs: dict[str, str] = field(default_factory=dict)

    async def begin(self, work_url: str) -> None:
        await self.gateway.start()
        data = {"name": "Backup", "maxRunSeconds": 1, "periodSeconds": 86_400, "channels": ["hook", "pager"]}
        self.monitor = (await self.gateway.call("carapace.cron.monitors.create", data=data))["id"]
        for channel in ("hook", "pager"):
            draft = {"name": channel, "schedule": "0 0 1 1 *", "command": work_url, "channelId": channel}
            made = await self.gateway.call("carapace.cron.create", data=draft | {"retry": {"maxAttempts": 1}})
            self.jobs[channel] = made["id"]
        await self.gateway.kill()

    async def die_at(self, failpoint: str, cause: Callable[[], Awaitable[None]]) -> None:
        """A life in which `cause` leads to that point."""
        self.gateway.configure(FAILPOINT=failpoint)
        if await self.gateway.start_or_die():
            with suppress(aiohttp.ClientError, NotNow):  # it may be gone before it answers
                await cause()
        assert await self.gateway.ended(DIES_WITHIN_SECONDS) is not None, f"it never came to {failpoint}"
        self.gateway.configure(FAILPOINT="")

    async def heal(self) -> None:
        """The next life, until all that waits is told."""
        await self.gateway.start()
        await until(self._all_told, "all that waits is told", TOLD_SECONDS)

    async def recover(self) -> None:
        """All is well again, and that is told; then this life ends, too."""
        self.receivers.works = True
        await self.ping()
        for job in self.jobs:
            await self.run(job)
        await until(self._all_told, "the recovery is told", TOLD_SECONDS)
        await self.gateway.kill()

    async def ping(self, suffix: str = "") -> None:
        async with self.client.post(f"{self.gateway.url}/ping/{self.monitor}{suffix}") as answer:
            assert answer.status == 200

    async def run(self, job: str) -> None:
        await self.gateway.call("carapace.cron.run", jobId=self.jobs[job])

    async def _all_told(self) -> bool:
        # In the order in which a run goes through them, so that none is missed between two questions.
        queued = await self.gateway.call("carapace.cron.runs", status="queued", limit=1)
        working = await self.gateway.call("carapace.cron.runs", status="running", limit=1)
        waiting = await self.gateway.call("carapace.cron.deliveries", state="waiting", limit=1)
        return not (queued["items"] or working["items"] or waiting["items"])


@asynccontextmanager
async def kills(folder: Path) -> AsyncIterator[Kills]:
    """A gateway that stands still, its monitor and jobs made, and those outside."""
    receivers = Receivers()
    application = web.Application()
    application.router.add_post("/hook", receivers.take_notice)
    application.router.add_post("/pagerduty", receivers.take_event)
    application.router.add_get("/work", receivers.work)
    # Each request on a connection of its own: a kept one may belong to a gateway that is dead by now.
    connector = aiohttp.TCPConnector(force_close=True)
    timeout = aiohttp.ClientTimeout(total=10)
    async with (
        TestServer(application) as server,
        aiohttp.ClientSession(connector=connector, timeout=timeout) as client,
    ):
        (folder / "carapace.toml").write_text(_CONFIG.format(url=f"http://127.0.0.1:{server.port}"))
        settings = {"DATA_DIR": str(folder / "data"), "URL_ALLOW": f"127.0.0.1:{server.port}"}
        gateway = GatewayProcess(folder, client, token=ADMIN_TOKEN, settings=settings)
        async with watched(gateway):
            story = Kills(gateway, receivers, client)
            await story.begin(f"http://127.0.0.1:{server.port}/work")
            yield story


_CONFIG = """\
[channels.hook]
kind = "webhook"
url = "{url}/hook"

[channels.pager]
kind = "pagerduty"
url = "{url}/pagerduty"
routing_key = "0123456789abcdef0123456789abcdef"
"""
