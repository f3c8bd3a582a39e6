"""Jobs that go, and jobs that come back: delete, list what was deleted, restore.

A deleted job's object stays as a tombstone for `TOMBSTONE_DAYS`, and the ledger keeps what became of its
runs. So whatever a job had, it has again when it is restored, but for the instants that fell in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from datetime import timedelta
from typing import Any
from weakref import WeakValueDictionary

from carapace_cron.clock import Clock
from carapace_cron.errors import Conflict, NotFound, Refused, Unavailable
from carapace_cron.ids import is_job_id
from carapace_cron.job_store import JobStore
from carapace_cron.ledger.history import Progress
from carapace_cron.ledger.runs import Runs
from carapace_cron.model.actor import GATEWAY, Actor
from carapace_cron.model.job import Job
from carapace_cron.model.record import instant_text
from carapace_cron.schedule.errors import shown
from carapace_cron.services.access import may_see, require, user_of
from carapace_cron.services.board import Board, standing_of
from carapace_cron.services.jobs import MAX_PAGE, JobPage, Jobs, check_page
from carapace_cron.services.views import job_view

TOMBSTONE_DAYS = 30  # a deleted job can be brought back for so long


class Removals:
    """`on_restored` hears of each job that is back, with what the ledger has of it."""

    def __init__(
        self,
        jobs: Jobs,
        store: JobStore,
        runs: Runs,
        board: Board,
        clock: Clock,
        *,
        on_restored: Callable[[Job, Progress | None], None],
    ) -> None:
        self._jobs = jobs
        self._store = store
        self._runs = runs
        self._board = board
        self._clock = clock
        self._on_restored = on_restored
        self._half_removed: dict[str, str] = {}  # job id → why: its object is buried, its runs may live on
        # By job id: what a deletion cancels must not be a run of the job as it was restored.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def delete(self, actor: Actor, job_id: str) -> None:
        """The job is gone, what waits is cancelled and what runs is stopped; its runs can still be read.

        Deleting it again is fine, and completes a deletion that failed half way.
        """
        require(actor, "jobs:write")
        await self._store.look(job_id)  # another gateway may have restored it
        job = self._find_buried(actor, job_id) or self._jobs.find(actor, job_id)
        await self.remove(job.id, f"the job was deleted by {actor.user}", by=actor.user)

    async def remove(
        self,
        job_id: str,
        reason: str,
        only_if: Callable[[Job], bool] = lambda job: True,
        *,
        by: str = GATEWAY,
    ) -> None:
        """Delete without asking who asks: for the gateway's own upkeep.

        `only_if` is asked of the newest definition; if it says no, nothing happens. What is left when the
        ledger is away, `complete` does.
        """
        async with self._locks.setdefault(job_id, asyncio.Lock()):
            try:
                job = await self._store.delete(job_id, self._clock.now(), by=by, only_if=only_if)
            except NotFound:
                if self._store.buried(job_id) is None:
                    raise
            except Unavailable:
                if self._store.buried(job_id) is not None:  # it is deleted, though not yet in force
                    self._half_removed[job_id] = reason
                raise
            else:
                if job.deleted_at is None:
                    return
            self._half_removed[job_id] = reason
            await self._complete(job_id)

    async def complete(self) -> None:
        """Cancel the runs of jobs that were deleted while the ledger was away."""
        for job_id in list(self._half_removed):
            async with self._locks.setdefault(job_id, asyncio.Lock()):
                await self._store.look(job_id)  # another gateway may have restored it
                if self._store.get(job_id) is None:
                    await self._complete(job_id)
                else:
                    self._half_removed.pop(job_id, None)

    async def list(
        self, actor: Actor, user_id: str | None = None, *, limit: int = MAX_PAGE, cursor: str | None = None
    ) -> JobPage:
        """The jobs of a user that can be restored, with when and by whom they were deleted."""
        require(actor, "jobs:read")
        user = user_of(actor, user_id)
        check_page(limit, cursor)
        jobs = self._store.buried_page(actor.tenant, user, limit=limit + 1, after=cursor)
        progress = await self._runs.progress_of([job.id for job in jobs[:limit]])
        items = [_buried_view(job, progress.get(job.id)) for job in jobs[:limit]]
        return JobPage(items, jobs[limit - 1].id if len(jobs) > limit else None)

    async def restore(self, actor: Actor, job_id: str) -> dict[str, Any]:
        """Bring a deleted job back as it was; one that is there already is left as it is.

        It is due from now on. One that could not be created as it was comes back paused, and says why.
        """
        require(actor, "jobs:write")
        async with self._locks.setdefault(job_id, asyncio.Lock()):
            await self._store.look(job_id)  # another gateway may have deleted it
            try:
                return self._jobs.get(actor, job_id)
            except NotFound:
                buried = self._find_buried(actor, job_id)
            if buried is None:
                expected = "list your jobs with deleted to see which can be restored"
                raise NotFound(f'no deleted job "{shown(job_id)}": {expected}', field="jobId")
            await self._restore(actor, buried)
            return self._jobs.get(actor, job_id)

    async def _restore(self, actor: Actor, buried: Job) -> None:
        await self._complete(buried.id)  # what still runs belongs to the job that was deleted
        progress = (await self._runs.progress_of([buried.id])).get(buried.id)
        try:
            with self._jobs.quota.room_for_one(buried.tenant):
                async with self._key_lock(buried), self._jobs.chains.changing(buried.tenant, buried):
                    fault = await self._fault(actor, buried)
                    await self._store.restore(
                        buried.id, lambda job: self._revived(job, fault, by=actor.user)
                    )
        except Conflict:
            if self._store.get(buried.id) is None:  # else another gateway was quicker
                raise
        finally:
            if (back := self._store.get(buried.id)) is not None:
                self._take_back(back, progress)

    def _revived(self, job: Job, fault: str | None, *, by: str) -> Job:
        now = self._clock.now()
        changes: dict[str, Any] = {"updated_at": now, "updated_by": by, "scheduled_since": now}
        changes |= {"restored_at": now}
        key = (job.tenant, job.user_id, job.idempotency_key or "")
        if self._store.find_by_idempotency_key(*key) is not None:
            changes |= {"idempotency_key": None}  # it names the job that its user made with it since
        if fault is not None and (job.enabled or job.paused_until is not None):
            changes |= {"enabled": False, "paused_until": None, "paused_reason": f"restored paused: {fault}"}
        revived: Job = job.evolve(**changes)
        return revived

    async def _fault(self, actor: Actor, job: Job) -> str | None:
        """Why a job may not go on as it was; None = it may."""
        if job.delete_after_run:
            return "it would be deleted again after its next run, as deleteAfterRun asks"
        try:
            await self._jobs.check_enabled(actor, job)
        except Refused as refusal:
            return str(refusal)
        return None

    def _key_lock(self, job: Job) -> AbstractAsyncContextManager[None]:
        if job.idempotency_key is None:
            return nullcontext()
        return self._jobs.key_lock(job.tenant, job.user_id, job.idempotency_key)

    def _take_back(self, job: Job, progress: Progress | None) -> None:
        if progress is not None:
            self._board.load({job.id: progress})
            progress = replace(progress, revision=job.revision)
        self._on_restored(job, progress)

    async def _complete(self, job_id: str) -> None:
        reason = self._half_removed.get(job_id)
        if reason is not None:
            await self._runs.cancel_all(job_id, reason, self._clock.now())
            self._half_removed.pop(job_id, None)

    def _find_buried(self, actor: Actor, job_id: str) -> Job | None:
        job = self._store.buried(job_id) if is_job_id(job_id) else None
        return job if job is not None and may_see(actor, job.tenant, job.user_id) else None


def _buried_view(job: Job, progress: Progress | None) -> dict[str, Any]:
    assert job.deleted_at is not None
    until = job.deleted_at + timedelta(days=TOMBSTONE_DAYS)
    return {
        **job_view(job, standing_of(progress), None),
        "deletedAt": instant_text(job.deleted_at),
        "deletedBy": job.updated_by,
        "restorableUntil": instant_text(until),
    }
