"""The JSON-RPC methods ``carapace.cron.monitors.*``: each names its parameters and calls one use case.

The names of the functions' parameters are those of the wire, in their positional order.
"""

from __future__ import annotations

from typing import Any, Protocol

from carapace_cron.api.envelope import Answer, Function, Page, enveloped
from carapace_cron.ledger.monitors import Watched
from carapace_cron.model.actor import Actor
from carapace_cron.services.job_drafts import instant
from carapace_cron.services.monitor_views import flip_view, monitor_view, ping_view
from carapace_cron.services.monitors import MAX_PAGE, MonitorDesk

DEFAULT_PINGS = 50


class Services(Protocol):
    """The use cases, once the house stands."""

    @property
    def monitors(self) -> MonitorDesk: ...


def monitor_methods(services: Services) -> dict[str, Function]:
    """Name → async function ``(actor, …)`` that answers in the envelope."""
    methods = MonitorMethods(services)
    return {
        "carapace.cron.monitors.create": enveloped(methods.create),
        "carapace.cron.monitors.list": enveloped(methods.list_monitors),
        "carapace.cron.monitors.get": enveloped(methods.get),
        "carapace.cron.monitors.update": enveloped(methods.update),
        "carapace.cron.monitors.pause": enveloped(methods.pause),
        "carapace.cron.monitors.resume": enveloped(methods.resume),
        "carapace.cron.monitors.acknowledge": enveloped(methods.acknowledge),
        "carapace.cron.monitors.snooze": enveloped(methods.snooze),
        "carapace.cron.monitors.sign": enveloped(methods.sign),
        "carapace.cron.monitors.pings": enveloped(methods.pings),
        "carapace.cron.monitors.pingBody": enveloped(methods.ping_body),
        "carapace.cron.monitors.flips": enveloped(methods.flips),
        "carapace.cron.monitors.delete": enveloped(methods.delete),
    }


class MonitorMethods:
    """One function, one RPC method; ``docs/reference/rpc.md`` has each with an example."""

    def __init__(self, services: Services) -> None:
        self._services = services

    @property
    def _desk(self) -> MonitorDesk:
        return self._services.monitors

    def _view(self, actor: Actor, one: Watched) -> Answer:
        return monitor_view(actor, one, self._desk.now())

    async def create(self, actor: Actor, data: Any, userId: str | None = None) -> Answer:
        return self._view(actor, (await self._desk.create(actor, data, userId)).watched)

    async def list_monitors(
        self,
        actor: Actor,
        userId: str | None = None,
        tags: list[str] | None = None,
        limit: int = MAX_PAGE,
        cursor: str | None = None,
    ) -> Page:
        page = await self._desk.page(actor, userId, tags=tags or (), limit=limit, cursor=cursor)
        return Page([self._view(actor, one) for one in page.items], page.next_cursor)

    async def get(self, actor: Actor, monitorId: str) -> Answer:
        return self._view(actor, await self._desk.get(actor, monitorId))

    async def update(
        self, actor: Actor, monitorId: str, updates: Any, ifRevision: int | None = None
    ) -> Answer:
        return self._view(actor, await self._desk.update(actor, monitorId, updates, if_revision=ifRevision))

    async def pause(self, actor: Actor, monitorId: str) -> Answer:
        return self._view(actor, await self._desk.pause(actor, monitorId))

    async def resume(self, actor: Actor, monitorId: str) -> Answer:
        return self._view(actor, await self._desk.resume(actor, monitorId))

    async def acknowledge(self, actor: Actor, monitorId: str) -> Answer:
        return self._view(actor, await self._desk.acknowledge(actor, monitorId))

    async def snooze(self, actor: Actor, monitorId: str, until: str | None = None) -> Answer:
        return self._view(actor, await self._desk.snooze(actor, monitorId, instant(until, "until")))

    async def sign(self, actor: Actor, monitorId: str, required: bool = True) -> Answer:
        secret = await self._desk.sign(actor, monitorId, required)
        return {"signed": required} if secret is None else {"signed": required, "secret": secret}

    async def pings(
        self, actor: Actor, monitorId: str, limit: int = DEFAULT_PINGS, cursor: int | None = None
    ) -> Answer:
        page = await self._desk.pings(actor, monitorId, limit=limit, cursor=cursor)
        return {"items": [ping_view(one) for one in page.items], "nextCursor": page.next_cursor}

    async def ping_body(self, actor: Actor, monitorId: str, n: int) -> Answer:
        body = await self._desk.ping_body(actor, monitorId, n)
        return {"type": "ping_body", "untrusted": True, "text": body.decode("utf-8", "replace")}

    async def flips(
        self, actor: Actor, monitorId: str, since: str | None = None, until: str | None = None
    ) -> list[Answer]:
        found = await self._desk.flips(
            actor, monitorId, since=instant(since, "since"), until=instant(until, "until")
        )
        return [flip_view(one) for one in found]

    async def delete(self, actor: Actor, monitorId: str) -> None:
        await self._desk.delete(actor, monitorId)
