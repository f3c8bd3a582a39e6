"""What became of notices, apart from what became of runs and monitors: read it, and send again what did not
arrive."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

from carapace_cron.clock import Clock
from carapace_cron.errors import Conflict, NotFound
from carapace_cron.ledger.deliveries import Deliveries
from carapace_cron.ledger.events import Event
from carapace_cron.model.actor import Actor
from carapace_cron.model.notice import Delivery, DeliveryState, MonitorNotice
from carapace_cron.services.access import may_see, require, require_one_of
from carapace_cron.services.paging import check_page

MAX_PAGE = 500


class DeliveryDesk:
    """Deliveries of the caller's jobs and monitors; an admin's view is the whole of their tenant. Of the two
    a caller sees what their scopes let them read.

    `wake` tells the courier that something waits.
    """

    def __init__(self, deliveries: Deliveries, clock: Clock, *, wake: Callable[[], None]) -> None:
        self._deliveries = deliveries
        self._clock = clock
        self._wake = wake

    async def page(
        self,
        actor: Actor,
        *,
        state: DeliveryState | None,
        channel_id: str | None,
        limit: int,
        cursor: int | None,
    ) -> dict[str, Any]:
        """Newest first: ``{items, nextCursor}``; nextCursor null on the last page."""
        require_one_of(actor, "jobs:read", "monitors:read")
        check_page(limit, cursor, most=MAX_PAGE)
        found = await self._deliveries.page(
            tenant=actor.tenant,
            user_id=None if actor.is_admin else actor.user,
            state=state,
            channel_id=channel_id,
            of_runs=actor.may("jobs:read"),
            of_monitors=actor.may("monitors:read"),
            before=cursor,
            limit=limit + 1,
        )
        shown = found[:limit]
        following = shown[-1].sequence if len(found) > limit else None
        return {"items": [_view(delivery) for delivery in shown], "nextCursor": following}

    async def resend(self, actor: Actor, delivery_id: int) -> dict[str, Any]:
        """Let an undeliverable notice wait again; it is tried as long as a new one."""
        require_one_of(actor, "jobs:write", "monitors")
        delivery = await self._find(actor, delivery_id)
        require(actor, "monitors" if isinstance(delivery.notice, MonitorNotice) else "jobs:write")
        now = self._clock.now()
        if not await self._deliveries.resend(delivery.sequence, now, _event(actor, delivery, now)):
            raise Conflict(
                f"delivery {delivery_id} is {delivery.state}: only an undeliverable one is sent again",
                field="deliveryId",
            )
        self._wake()
        return _view(await self._find(actor, delivery_id))

    async def _find(self, actor: Actor, delivery_id: int) -> Delivery:
        in_range = 0 < delivery_id < 2**63
        delivery = await self._deliveries.get(delivery_id) if in_range else None
        if delivery is None or not _may_see(actor, delivery):
            message = f"no delivery {str(delivery_id)[:40]}: list your deliveries to see their ids"
            raise NotFound(message, field="deliveryId")
        return delivery


def _may_see(actor: Actor, delivery: Delivery) -> bool:
    notice = delivery.notice
    scope = "monitors:read" if isinstance(notice, MonitorNotice) else "jobs:read"
    return actor.may(scope) and may_see(actor, notice.tenant, notice.user_id)


def _event(actor: Actor, delivery: Delivery, now: datetime) -> Event:
    notice = delivery.notice
    made = Event(
        at=now,
        tenant=notice.tenant,
        user_id=notice.user_id,
        actor=actor.user,
        action="delivery.resent",
        subject=str(delivery.sequence),
        after={"channelId": notice.channel_id},
    )
    if isinstance(notice, MonitorNotice):  # an event of its own: its readers have another scope
        about = {"channelId": notice.channel_id, "deliveryId": delivery.sequence}
        return replace(made, action="monitor.resent", subject=notice.monitor_id, after=about)
    return replace(made, job_id=notice.job_id, after={"channelId": notice.channel_id, "runId": notice.run_id})


def _view(delivery: Delivery) -> dict[str, Any]:
    """A delivery on the wire: of what it tells, where it goes, how far it has come; not the text."""
    fields = delivery.model_dump(mode="json", by_alias=True, exclude={"sequence", "notice", "courier"})
    if delivery.state != "waiting":
        fields["nextTryAt"] = None
    notice = delivery.notice
    about = {"id": delivery.sequence, "channelId": notice.channel_id, "event": notice.event}
    if isinstance(notice, MonitorNotice):
        of_monitor = {"monitorId": notice.monitor_id, "incidentId": notice.incident_id}
        return {**about, **of_monitor, "monitorStatus": notice.status, **fields}
    return {**about, "jobId": notice.job_id, "runId": notice.run_id, "runStatus": notice.status, **fields}
