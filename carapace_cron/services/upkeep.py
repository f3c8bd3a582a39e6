"""What follows from runs that ended and jobs that are finished, and what is tidied now and then.

Everything here can be done late, or again after a restart: the ledger and the job store hold what it
needs. So a failure is logged and tried again, and a stop loses nothing but freshness.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

from carapace_cron.clock import Clock
from carapace_cron.errors import CarapaceError, NotFound
from carapace_cron.job_store import JobStore
from carapace_cron.ledger.ending import AttemptEnd
from carapace_cron.ledger.runs import Runs
from carapace_cron.model.job import Job
from carapace_cron.model.record import instant_text
from carapace_cron.services.board import Board, Standing
from carapace_cron.services.jobs import Jobs

log = logging.getLogger(__name__)

JOB_COMPLETED = "carapace.cron.job_completed"
ROUND_SECONDS = 5.0
CHECKPOINT_SECONDS = 300.0  # a job whose status stays the same is written at most this often
PRUNE_SECONDS = 3600.0
TOMBSTONE_DAYS = 30  # a deleted job can be brought back for so long
CHECKPOINTS_AT_ONCE = 8
SNAPSHOT_CHANGES = 100  # fewer are fetched one by one at the next start in no time

Emit = Callable[[str, Mapping[str, Any], str, str], None]
"""(event, payload, tenant, user id): tell those who watch."""


class Upkeep:
    """`note_end` and `note_finished` are called by the loops and only remember; `run` does the work."""

    def __init__(
        self,
        jobs: Jobs,
        store: JobStore,
        runs: Runs,
        board: Board,
        clock: Clock,
        *,
        emit: Emit,
        next_at: Callable[[str], Any],
        keep_runs: timedelta,
    ) -> None:
        self._jobs = jobs
        self._store = store
        self._runs = runs
        self._board = board
        self._clock = clock
        self._emit = emit
        self._next_at = next_at
        self._keep_runs = keep_runs
        self._finished: dict[str, str] = {}
        self._to_delete: set[str] = set()
        self._dirty: dict[str, str | None] = {}  # job id → the status that its stored document shows
        self._checkpointed_at: dict[str, float] = {}
        self._pruned_at = clock.monotonic()
        self._wake = asyncio.Event()
        self._stopping = False

    def note_end(self, end: AttemptEnd, status: str) -> None:
        """An attempt's end was recorded; `status` is the run's, "queued" when it is tried again."""
        if status == "queued" or end.notice is None:
            return
        job = self._store.get(end.job_id)
        if job is not None:  # else it was deleted while it ran
            self._note_standing(job, end, status)
        notice = end.notice
        payload = {
            "userId": notice.user_id,
            "jobName": notice.job_name,
            "jobId": notice.job_id,
            "success": notice.success,
            "error": notice.error,
            "channelId": notice.channel_id,
            "runId": notice.run_id,
            "status": status,
            "scheduledFor": instant_text(notice.scheduled_for),
        }
        self._emit(JOB_COMPLETED, payload, notice.tenant, notice.user_id)

    def _note_standing(self, job: Job, end: AttemptEnd, status: str) -> None:
        self._dirty.setdefault(job.id, self._board.of(job.id).last_status)
        self._board.note(end, status)
        if job.delete_after_run and end.trigger != "manual":
            self._to_delete.add(job.id)
            self._wake.set()

    def note_finished(self, job_id: str, reason: str) -> None:
        """The scheduler found that a job has no instant left."""
        self._finished[job_id] = reason
        self._wake.set()

    async def run(self) -> None:
        await self._survive(self._snapshot)  # a bucket that was read object by object is quicker next time
        while not self._stopping:
            self._wake.clear()
            await self._survive(self._settle_finished)
            await self._survive(self._delete_done)
            await self._survive(self._checkpoint_changed)
            if self._clock.monotonic() - self._pruned_at >= PRUNE_SECONDS:
                self._pruned_at = self._clock.monotonic()
                await self._survive(self._prune)
            await self._clock.wait(self._wake, ROUND_SECONDS)

    async def stop(self) -> None:
        """Write down what is not written yet, within reason; `run` returns."""
        self._stopping = True
        self._wake.set()
        await self._survive(self._settle_finished)
        await self._survive(self._checkpoint_all)
        await self._survive(self._snapshot)

    async def _settle_finished(self) -> None:
        while self._finished:
            job_id, reason = next(iter(self._finished.items()))
            await self._jobs.disable(job_id, reason)
            del self._finished[job_id]

    async def _delete_done(self) -> None:
        while self._to_delete:
            job_id = next(iter(self._to_delete))
            with suppress(NotFound):  # somebody was quicker
                await self._jobs.remove(job_id, "the job is deleted after its run, as deleteAfterRun asks")
            self._to_delete.discard(job_id)

    async def _checkpoint_changed(self) -> None:
        now = self._clock.monotonic()
        for job_id, shown in list(self._dirty.items()):
            changed = self._board.of(job_id).last_status != shown
            if changed or now - self._checkpointed_at.get(job_id, 0.0) >= CHECKPOINT_SECONDS:
                await self._checkpoint(job_id)

    async def _checkpoint_all(self) -> None:
        gate = asyncio.Semaphore(CHECKPOINTS_AT_ONCE)

        async def one(job_id: str) -> None:
            async with gate:
                await self._checkpoint(job_id)

        await asyncio.gather(*(one(job_id) for job_id in list(self._dirty)))

    async def _checkpoint(self, job_id: str) -> None:
        standing = self._board.of(job_id)
        next_at = self._next_at(job_id)
        await self._store.checkpoint(job_id, **_checkpoint_of(standing), next_execution_at=next_at)
        self._checkpointed_at[job_id] = self._clock.monotonic()
        if self._board.of(job_id) == standing:
            self._dirty.pop(job_id, None)
        else:
            self._dirty[job_id] = standing.last_status

    async def _prune(self) -> None:
        now = self._clock.now()
        removed = await self._runs.prune(now - self._keep_runs)
        await self._store.purge(now - timedelta(days=TOMBSTONE_DAYS))
        await self._snapshot()
        if removed:
            log.info("removed %d old runs", removed, extra={"action": "prune"})

    async def _snapshot(self) -> None:
        await self._store.write_snapshot(at_least=SNAPSHOT_CHANGES)

    async def _survive(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except CarapaceError as error:
            log.warning("%s waits: %s", work.__name__.strip("_"), error, extra={"action": "upkeep"})
        except Exception:
            log.exception("%s failed; it is tried again", work.__name__, extra={"action": "upkeep"})


def _checkpoint_of(standing: Standing) -> dict[str, Any]:
    return {
        "execution_count": standing.execution_count,
        "failure_count": standing.failure_count,
        "last_executed_at": standing.last_executed_at,
        "last_status": standing.last_status,
        "last_error": standing.last_error,
    }
