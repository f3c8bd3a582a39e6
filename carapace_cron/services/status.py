"""How it stands: the counts of the original extension, and what tells a person whether all is well."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from carapace_cron.job_index import Entry
from carapace_cron.job_store import JobStore
from carapace_cron.ledger.runs import Runs
from carapace_cron.ledger.tokens import OPERATOR_TENANT
from carapace_cron.ledger.watchlist import Watchlist
from carapace_cron.model.actor import Actor
from carapace_cron.model.record import instant_text
from carapace_cron.monitors.watchman import Watchman
from carapace_cron.schedule.zone import tzdata_version
from carapace_cron.scheduler import Scheduler
from carapace_cron.services.access import require, user_of
from carapace_cron.services.board import Board

JOBS_PER_TURN = 500


class StatusReport:
    """`warnings` gives the operator's: what the gateway found and cannot mend by itself."""

    def __init__(
        self,
        store: JobStore,
        runs: Runs,
        scheduler: Scheduler,
        board: Board,
        watchlist: Watchlist,
        watchman: Watchman,
        warnings: Callable[[], Sequence[str]],
    ) -> None:
        self._store = store
        self._runs = runs
        self._scheduler = scheduler
        self._board = board
        self._watchlist = watchlist
        self._watchman = watchman
        self._warnings = warnings

    async def of(self, actor: Actor, user_id: str | None = None) -> dict[str, Any]:
        """Counts of a user's jobs and live runs; for the operator's admins also what they should look at.

        Theirs alone: a warning names the objects of all tenants.
        """
        require(actor, "jobs:read")
        user = user_of(actor, user_id)
        jobs = list(self._store.entries_of(actor.tenant, user))
        alive = await self._runs.count_alive(actor.tenant, user)
        due = await self._due(jobs)
        report = {
            "totalJobs": len(jobs),
            "enabledJobs": sum(job.enabled for job in jobs),
            "scheduledJobs": len(due),
            "activeExecutions": alive.get("running", 0),
            "queuedRuns": alive.get("queued", 0),
            "failingJobs": sum(self._board.of(job.id).last_status in ("failure", "timeout") for job in jobs),
            "nextExecutionAt": instant_text(min(due)) if due else None,
            "schedulerLagSeconds": round(self._scheduler.overdue_seconds(), 3),
            "lastPassAt": _text(self._scheduler.last_pass_at),
            "lastWatchAt": _text(self._watchman.last_look_at),
            "tzdataVersion": tzdata_version(),
        }
        if actor.may("monitors:read"):
            monitors = await self._watchlist.count_by_status(actor.tenant, user)
            report |= {"totalMonitors": sum(monitors.values()), "downMonitors": monitors.get("down", 0)}
        operates = actor.is_admin and actor.tenant == OPERATOR_TENANT
        return {**report, "warnings": list(self._warnings())} if operates else report

    async def _due(self, jobs: Sequence[Entry]) -> list[datetime]:
        """The next instant of each job that has one. Others get their turn between: 10,000 rules of RRULE
        take a fifth of a second, cron expressions a tenth of that."""
        due = []
        for number, job in enumerate(jobs):
            if number % JOBS_PER_TURN == JOBS_PER_TURN - 1:
                await asyncio.sleep(0)
            if (at := self._scheduler.next_at(job.id)) is not None:
                due.append(at)
        return due


def _text(instant: datetime | None) -> str | None:
    return None if instant is None else instant_text(instant)
