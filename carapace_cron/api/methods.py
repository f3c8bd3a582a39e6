"""The JSON-RPC methods ``carapace.cron.*``: each names its parameters and calls one use case.

The names of the functions' parameters are those of the wire, in their positional order.
"""

from __future__ import annotations

from typing import Any, Protocol

from carapace_cron.api.envelope import Answer, Function, Page, enveloped
from carapace_cron.api.monitor_methods import Services as MonitorServices
from carapace_cron.api.monitor_methods import monitor_methods
from carapace_cron.model.actor import Actor
from carapace_cron.model.notice import DeliveryState
from carapace_cron.services.backfilling import BackfillDesk
from carapace_cron.services.channels import ChannelDesk
from carapace_cron.services.deliveries import DeliveryDesk
from carapace_cron.services.events import EventDesk
from carapace_cron.services.jobs import MAX_PAGE, Jobs
from carapace_cron.services.removals import Removals
from carapace_cron.services.runs import DEFAULT_PAGE, RunHistory, RunsAsked
from carapace_cron.services.status import StatusReport
from carapace_cron.services.tokens import TokenDesk


class Services(MonitorServices, Protocol):
    """The use cases, once the house stands."""

    @property
    def jobs(self) -> Jobs: ...

    @property
    def removals(self) -> Removals: ...

    @property
    def runs(self) -> RunHistory: ...

    @property
    def backfills(self) -> BackfillDesk: ...

    @property
    def events(self) -> EventDesk: ...

    @property
    def deliveries(self) -> DeliveryDesk: ...

    @property
    def channels(self) -> ChannelDesk: ...

    @property
    def status(self) -> StatusReport: ...

    @property
    def tokens(self) -> TokenDesk: ...


def cron_methods(services: Services) -> dict[str, Function]:
    """Name → async function ``(actor, …)`` that answers in the envelope."""
    methods = Methods(services)
    return monitor_methods(services) | {
        "carapace.cron.list": enveloped(methods.list_jobs),
        "carapace.cron.create": enveloped(methods.create_job),
        "carapace.cron.get": enveloped(methods.get_job),
        "carapace.cron.update": enveloped(methods.update_job),
        "carapace.cron.pause": enveloped(methods.pause_job),
        "carapace.cron.resume": enveloped(methods.resume_job),
        "carapace.cron.delete": enveloped(methods.delete_job),
        "carapace.cron.restore": enveloped(methods.restore_job),
        "carapace.cron.status": enveloped(methods.read_status),
        "carapace.cron.run": enveloped(methods.run_now),
        "carapace.cron.cancel": enveloped(methods.cancel_run),
        "carapace.cron.runs": enveloped(methods.list_runs),
        "carapace.cron.backfill": enveloped(methods.backfill_job),
        "carapace.cron.events": enveloped(methods.list_events),
        "carapace.cron.deliveries": enveloped(methods.list_deliveries),
        "carapace.cron.deliveries.resend": enveloped(methods.resend_delivery),
        "carapace.cron.channels.list": enveloped(methods.list_channels),
        "carapace.cron.channels.test": enveloped(methods.test_channel),
        "carapace.cron.validate": enveloped(methods.validate_job),
        "carapace.cron.preview": enveloped(methods.preview_schedule),
        "carapace.cron.tokens.create": enveloped(methods.create_token),
        "carapace.cron.tokens.list": enveloped(methods.list_tokens),
        "carapace.cron.tokens.revoke": enveloped(methods.revoke_token),
    }


class Methods:
    """One function, one RPC method; ``docs/reference/rpc.md`` has each with an example."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def list_jobs(
        self,
        actor: Actor,
        userId: str | None = None,
        limit: int = MAX_PAGE,
        cursor: str | None = None,
        deleted: bool = False,
    ) -> Page:
        if deleted:
            page = await self._services.removals.list(actor, userId, limit=limit, cursor=cursor)
        else:
            page = self._services.jobs.list(actor, userId, limit=limit, cursor=cursor)
        return Page(page.items, page.next_cursor)

    async def create_job(self, actor: Actor, data: Any, userId: str | None = None) -> Answer:
        return await self._services.jobs.create(actor, data, userId)

    async def get_job(self, actor: Actor, jobId: str) -> Answer:
        return self._services.jobs.get(actor, jobId)

    async def update_job(
        self, actor: Actor, jobId: str, updates: Any, ifRevision: int | None = None
    ) -> Answer:
        return await self._services.jobs.update(actor, jobId, updates, if_revision=ifRevision)

    async def pause_job(
        self, actor: Actor, jobId: str, reason: str | None = None, until: str | None = None
    ) -> Answer:
        return await self._services.jobs.pause(actor, jobId, reason, until)

    async def resume_job(self, actor: Actor, jobId: str) -> Answer:
        return await self._services.jobs.resume(actor, jobId)

    async def delete_job(self, actor: Actor, jobId: str) -> None:
        await self._services.removals.delete(actor, jobId)

    async def restore_job(self, actor: Actor, jobId: str) -> Answer:
        return await self._services.removals.restore(actor, jobId)

    async def read_status(self, actor: Actor, userId: str | None = None) -> Answer:
        return await self._services.status.of(actor, userId)

    async def run_now(self, actor: Actor, jobId: str, idempotencyKey: str | None = None) -> Answer:
        return await self._services.runs.start(actor, jobId, idempotencyKey)

    async def cancel_run(self, actor: Actor, runId: str) -> Answer:
        return await self._services.runs.cancel(actor, runId)

    async def list_runs(
        self,
        actor: Actor,
        jobId: str | None = None,
        status: str | list[str] | None = None,
        since: str | None = None,
        until: str | None = None,
        limit: int = DEFAULT_PAGE,
        cursor: str | None = None,
    ) -> Answer:
        return await self._services.runs.page(actor, RunsAsked(jobId, status, since, until, limit, cursor))

    async def backfill_job(
        self, actor: Actor, jobId: str, since: str, until: str | None = None, dryRun: bool = True
    ) -> Answer:
        return await self._services.backfills.backfill(actor, jobId, since, until, dry_run=dryRun)

    async def list_events(
        self,
        actor: Actor,
        jobId: str | None = None,
        action: str | list[str] | None = None,
        limit: int = DEFAULT_PAGE,
        cursor: int | None = None,
    ) -> Answer:
        return await self._services.events.page(
            actor, job_id=jobId, action=action, limit=limit, cursor=cursor
        )

    async def list_deliveries(
        self,
        actor: Actor,
        state: DeliveryState | None = None,
        channelId: str | None = None,
        limit: int = DEFAULT_PAGE,
        cursor: int | None = None,
    ) -> Answer:
        return await self._services.deliveries.page(
            actor, state=state, channel_id=channelId, limit=limit, cursor=cursor
        )

    async def resend_delivery(self, actor: Actor, deliveryId: int) -> Answer:
        return await self._services.deliveries.resend(actor, deliveryId)

    async def list_channels(self, actor: Actor) -> Answer:
        return self._services.channels.list(actor)

    async def test_channel(self, actor: Actor, channelId: str) -> Answer:
        return await self._services.channels.test(actor, channelId)

    async def validate_job(self, actor: Actor, data: Any) -> Answer:
        return self._services.jobs.validate(actor, data)

    async def preview_schedule(
        self,
        actor: Actor,
        schedule: str,
        timezone: str = "UTC",
        count: int = 5,
        excludeDates: list[str] | None = None,
        holidays: dict[str, Any] | None = None,
        blackouts: list[dict[str, Any]] | None = None,
    ) -> Answer:
        calendar = {"excludeDates": excludeDates, "holidays": holidays, "blackouts": blackouts}
        return self._services.jobs.preview(actor, schedule, timezone, count, calendar)

    async def create_token(self, actor: Actor, tenant: str, user: str, scopes: list[str]) -> Answer:
        return await self._services.tokens.create(actor, tenant, user, scopes)

    async def list_tokens(self, actor: Actor) -> list[Answer]:
        return await self._services.tokens.list(actor)

    async def revoke_token(self, actor: Actor, id: str) -> None:
        await self._services.tokens.revoke(actor, id)
