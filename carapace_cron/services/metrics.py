"""The numbers of the gateway as a whole: what was counted, and what can be read this moment.

They are sums over all tenants, so they are the operator's: another tenant gets none of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from typing import Protocol

from carapace_cron.channels.courier import Courier
from carapace_cron.clock import Clock
from carapace_cron.database import Database
from carapace_cron.errors import Unavailable
from carapace_cron.executor import Executor
from carapace_cron.ledger.depth import Depth, depth
from carapace_cron.ledger.tokens import OPERATOR_TENANT
from carapace_cron.metrics import MONITOR_STATUSES, Labels, Metrics
from carapace_cron.model.actor import Actor
from carapace_cron.monitors.watchman import Watchman
from carapace_cron.schedule.zone import tzdata_version
from carapace_cron.scheduler import Scheduler
from carapace_cron.services.access import require_one_of

log = logging.getLogger(__name__)

Readings = Mapping[Labels, float]


class ChannelKinds(Protocol):
    """The kinds of channels that this gateway has. They do not change while it runs."""

    @property
    def kinds(self) -> Sequence[str]: ...

    def kind_of(self, channel_id: str) -> str: ...


@dataclass(frozen=True, slots=True)
class Loops:
    """Those that tell how they stand."""

    scheduler: Scheduler
    executor: Executor
    courier: Courier
    watchman: Watchman


@dataclass(frozen=True, slots=True)
class Report:
    """`gauges`: name → labels → number; what cannot be read now is left out."""

    counted: Metrics
    gauges: Mapping[str, Readings]


class MetricsReport:
    """`slots`: how many attempts may work at once. `why_not_ready`: None when all is well."""

    def __init__(
        self,
        metrics: Metrics,
        database: Database,
        clock: Clock,
        *,
        loops: Loops,
        channels: ChannelKinds,
        slots: int,
        why_not_ready: Callable[[], str | None],
    ) -> None:
        self._metrics = metrics
        self._database = database
        self._clock = clock
        self._loops = loops
        self._channels = channels
        self._slots = slots
        self._why_not_ready = why_not_ready

    async def read(self, actor: Actor) -> Report | None:
        """None for those of other tenants than the operator's. Raises `Forbidden`."""
        require_one_of(actor, "jobs:read", "monitors:read")
        if actor.tenant != OPERATOR_TENANT:
            return None
        return Report(self._metrics, {**self._here(), **await self._in_the_ledger()})

    def _here(self) -> dict[str, Readings]:
        """What this process knows by itself."""
        loops, now = self._loops, self._clock.now()
        failing = ((self._channels.kind_of(channel_id), 1) for channel_id in loops.courier.failing)
        values: dict[str, Readings] = {
            "carapace_cron_build_info": {(version("carapace-cron"), tzdata_version()): 1},
            "carapace_cron_ready": {(): int(self._why_not_ready() is None)},
            "carapace_cron_jobs_scheduled": {(): len(loops.scheduler)},
            "carapace_cron_scheduler_last_pass_age_seconds": _age(loops.scheduler.last_pass_at, now),
            "carapace_cron_scheduler_behind_seconds": {(): loops.scheduler.overdue_seconds()},
            "carapace_cron_slots": {(): self._slots},
            "carapace_cron_slots_taken": {(): loops.executor.active},
            "carapace_cron_channels_failing": self._by_kind(failing),
            "carapace_cron_watchman_last_look_age_seconds": _age(loops.watchman.last_look_at, now),
        }
        return values

    async def _in_the_ledger(self) -> dict[str, Readings]:
        try:
            found = await depth(self._database)
        except Unavailable as error:
            log.warning("some metrics cannot be read: %s", error, extra={"action": "metrics"})
            return {}
        now = self._clock.now()
        monitors: Readings = {(status,): found.monitors.get(status, 0) for status in MONITOR_STATUSES}
        return {**_queue(found, now), **self._outbox(found, now), "carapace_cron_monitors": monitors}

    def _outbox(self, found: Depth, now: datetime) -> dict[str, Readings]:
        waiting = ((self._channels.kind_of(one), number) for one, number in found.waiting.items())
        oldest = _seconds(found.oldest_notice, now)
        return {
            "carapace_cron_deliveries_waiting": self._by_kind(waiting),
            "carapace_cron_deliveries_oldest_seconds": {(): oldest},
        }

    def _by_kind(self, numbers: Iterable[tuple[str, int]]) -> Readings:
        """Sums; 0 for the kinds that have none."""
        found: dict[Labels, float] = dict.fromkeys(((kind,) for kind in self._channels.kinds), 0)
        for kind, number in numbers:
            found[(kind,)] = found.get((kind,), 0) + number
        return found


def _queue(found: Depth, now: datetime) -> dict[str, Readings]:
    states: Readings = {("queued",): found.queued, ("held",): found.held, ("running",): found.running}
    oldest = _seconds(found.oldest_due, now)
    return {"carapace_cron_queue_runs": states, "carapace_cron_queue_oldest_due_seconds": {(): oldest}}


def _age(instant: datetime | None, now: datetime) -> Readings:
    return {} if instant is None else {(): _seconds(instant, now)}


def _seconds(instant: datetime | None, now: datetime) -> float:
    """How long ago it was; 0 for what is yet to come, and for nothing."""
    return 0.0 if instant is None else max((now - instant).total_seconds(), 0.0)
