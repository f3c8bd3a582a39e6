"""What follows from runs that ended and jobs that are finished, and what is tidied now and then.

Everything here can be done late, or again after a restart: the ledger and the job store hold what it
needs. So a failure is logged and tried again, and a stop loses nothing but freshness.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from carapace_cron.clock import Clock
from carapace_cron.errors import CarapaceError, NotFound
from carapace_cron.job_store import JobStore
from carapace_cron.ledger.ending import AttemptEnd, Expired, why_paused
from carapace_cron.ledger.events import Events
from carapace_cron.ledger.history import Progress
from carapace_cron.ledger.leftovers import Leftovers
from carapace_cron.ledger.runs import Runs
from carapace_cron.model.job import Job
from carapace_cron.model.record import instant_text
from carapace_cron.model.run import ASKED_FOR, Run
from carapace_cron.services.board import Board, Standing
from carapace_cron.services.jobs import Jobs
from carapace_cron.services.patience import Patience
from carapace_cron.services.register import Register
from carapace_cron.services.removals import TOMBSTONE_DAYS, Removals

log = logging.getLogger(__name__)

JOB_COMPLETED = "carapace.cron.job_completed"
ROUND_SECONDS = 5.0  # how long what others did stays unseen, and what failed waits for another try
CHECKPOINT_SECONDS = 300.0  # a job whose status stays the same is written at most this often
PRUNE_SECONDS = 3600.0
FIRST_PRUNE_SECONDS = 1200.0  # a start has enough to do; and many a gateway is not up for an hour
RECOUNTS_AT_ONCE = 500
SNAPSHOT_CHANGES = 100  # fewer are fetched one by one at the next start in no time

Emit = Callable[[str, Mapping[str, Any], str, str], None]
"""(event, payload, tenant, user id): tell those who watch."""


class Upkeep:
    """The `note_…` methods are called as things happen and only remember; `run` does the work.

    What they remember is a decision on the definition of that moment. A change of it voids the decision
    (`note_change`), and it is looked at once more within the write, so it overrules no caller.
    """

    def __init__(
        self,
        jobs: Jobs,
        removals: Removals,
        store: JobStore,
        runs: Runs,
        leftovers: Leftovers,
        events: Events,
        board: Board,
        clock: Clock,
        *,
        register: Register,
        emit: Emit,
        next_at: Callable[[str], datetime | None],
        keep_runs: timedelta,
        keep_events: timedelta,
        is_shared: bool,
    ) -> None:
        """`is_shared`: other gateways run the jobs, too."""
        self._jobs = jobs
        self._removals = removals
        self._store = store
        self._runs = runs
        self._leftovers = leftovers
        self._events = events
        self._board = board
        self._clock = clock
        self._register = register
        self._emit = emit
        self._next_at = next_at
        self._keep_runs = keep_runs
        self._keep_events = keep_events
        self._finished: dict[str, str] = {}
        self._paused_until: dict[str, datetime] = {}
        self._to_delete: set[str] = set()
        self._to_recount: set[str] = set()
        self._elsewhere: set[str] = set()
        self._to_tell: list[str] = []  # ids of runs that ended between two attempts
        self._dirty: dict[str, str | None] = {}  # job id → the status that its stored document shows
        self._checkpointed_at: dict[str, float] = {}
        self._is_shared = is_shared
        self._patience = Patience()
        self._prune_at = clock.monotonic() + FIRST_PRUNE_SECONDS
        self._wake = asyncio.Event()
        self._stopping = False

    def note_end(self, end: AttemptEnd, status: str) -> None:
        """An attempt's end was recorded; `status` is the run's, "queued" when it is tried again."""
        if status == "queued":
            return
        if end.notice is None:  # its definition cannot be read; the ledger counted it all the same
            self._to_recount.add(end.job_id)
            self._wake.set()
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

    def note_ended_between(self, run_id: str) -> None:
        """A run ended between two attempts, so no attempt's end tells of it."""
        self._to_tell.append(run_id)
        self._wake.set()

    def _tell(self, run: Run) -> None:
        job = self._store.get(run.job_id)
        if job is None:
            return
        payload = {
            "userId": run.user_id,
            "jobName": job.name,
            "jobId": job.id,
            "success": False,
            "error": run.reason,
            "channelId": job.channel_id,
            "runId": run.id,
            "status": run.status,
            "scheduledFor": instant_text(run.scheduled_for),
        }
        self._emit(JOB_COMPLETED, payload, run.tenant, run.user_id)

    def _note_standing(self, job: Job, end: AttemptEnd, status: str) -> None:
        self._dirty.setdefault(job.id, self._board.of(job.id).last_status)
        self._board.note(end, status)
        if self._is_shared:  # the job's runs at other gateways count, too
            self._to_recount.add(job.id)
            self._wake.set()
        if job.delete_after_run and end.trigger not in ASKED_FOR and _is_of_today(job, end.started_at):
            self._to_delete.add(job.id)
            self._wake.set()

    def note_expired(self, expired: Expired) -> None:
        """A run came to its deadline while nobody worked on it."""
        self._to_recount.add(expired.job_id)
        self._wake.set()

    def note_elsewhere(self, job_ids: Iterable[str]) -> None:
        """Other gateways have written these jobs: perhaps what became of their runs."""
        self._elsewhere.update(job_ids)

    def note_refused(self, end: AttemptEnd) -> None:
        """An attempt's end was not recorded: it may have been before, and what follows nobody has heard."""
        self._to_recount.add(end.job_id)
        self._wake.set()

    def note_loaded(self, job: Job, progress: Progress | None) -> None:
        """A job as the start found it: what a kill may have left to do."""
        self._note_pause(job)
        if progress is not None:
            self._note_failing(job, progress)

    def _note_failing(self, job: Job, progress: Progress) -> None:
        limit = job.pause_after_failures
        if limit is not None and job.enabled and progress.failures_in_row >= limit:
            self.note_finished(job.id, why_paused(progress.failures_in_row))

    def _note_pause(self, job: Job) -> None:
        if job.enabled or job.paused_until is None:
            self._paused_until.pop(job.id, None)
        else:
            self._paused_until[job.id] = job.paused_until
            self._wake.set()

    def note_finished(self, job_id: str, reason: str) -> None:
        """A job has no instant left, or failed too often: it is to be switched off."""
        self._finished[job_id] = reason
        self._wake.set()

    def note_change(self, job_id: str, job: Job | None) -> None:
        """A definition is another one now, or gone. To be called before the scheduler hears of it, which
        may find again that the job has no instant left."""
        self._finished.pop(job_id, None)
        if job is None:
            self._dirty.pop(job_id, None)
            self._checkpointed_at.pop(job_id, None)
            self._patience.forget(job_id)
            self._paused_until.pop(job_id, None)
            self._to_delete.discard(job_id)
            return
        self._note_pause(job)
        if not job.delete_after_run:
            self._to_delete.discard(job_id)

    async def pick_up(self, ran: Sequence[str]) -> None:
        """Complete what a kill left half done, before anything is scheduled. Raises `Unavailable`.

        `ran`: the jobs with `deleteAfterRun` of which a run came due before.
        """
        now = self._clock.now()
        for job_id in await self._leftovers.jobs_with_live_runs():
            if not self._store.holds(job_id):
                await self._store.look(job_id)  # another gateway may have made it since the jobs were loaded
            if not self._store.holds(job_id):
                await self._runs.cancel_all(job_id, "the job was deleted", now)
        await self._note_done(ran)
        await self._delete_done()

    async def run(self) -> None:
        await self._survive(self._snapshot)  # a bucket that was read object by object is quicker next time
        while not self._stopping:
            self._wake.clear()
            await self._survive(self._settle)
            await self._survive(self._checkpoint_changed)
            if self._clock.monotonic() >= self._prune_at:
                self._prune_at = self._clock.monotonic() + PRUNE_SECONDS
                await self._survive(self._prune)
            await self._clock.wait(self._wake, self._idle_seconds())
        await self._survive(self._settle)
        await self._patience.each("a last checkpoint", list(self._dirty), self._checkpoint)
        await self._survive(self._snapshot)

    def _idle_seconds(self) -> float:
        """Until the next round, or the end of a pause before it."""
        now = self._clock.now()
        ends = ((until - now).total_seconds() for until in self._paused_until.values() if until > now)
        return min(ROUND_SECONDS, min(ends, default=ROUND_SECONDS))

    def stop(self) -> None:
        """Let `run` write down what is not written yet, within reason, and return."""
        self._stopping = True
        self._wake.set()

    async def _settle(self) -> None:
        """What has to happen to jobs that are finished, done or deleted; each step survives by itself."""
        await self._survive(self._store.clear_doubts)
        await self._survive(self._register.catch_up)
        await self._survive(self._tell_ended_between)
        await self._survive(self._hear_of_neighbours)
        await self._survive(self._recount)
        await self._survive(self._removals.complete)
        over = [job_id for job_id, until in self._paused_until.items() if until <= self._clock.now()]
        await self._patience.each("the end of a pause", over, self._jobs.end_pause)
        await self._patience.each("the end of a job", list(self._finished), self._disable)
        await self._delete_done()

    async def _recount(self) -> None:
        """Take over from the ledger what the board was not told of."""
        job_ids = list(islice(self._to_recount, RECOUNTS_AT_ONCE))
        if not job_ids:
            return
        progress = await self._runs.progress_of(job_ids)
        known = {job_id: one for job_id, one in progress.items() if self._store.holds(job_id)}
        for job_id in known:
            self._dirty.setdefault(job_id, self._board.of(job_id).last_status)
        self._board.load(known)
        for job_id, one in known.items():
            if (job := self._store.get(job_id)) is not None and job.revision == one.revision:
                self._note_failing(job, one)
        await self._note_done(job_ids)
        self._to_recount.difference_update(job_ids)

    async def _tell_ended_between(self) -> None:
        while self._to_tell:
            run = await self._runs.get(self._to_tell[0])
            del self._to_tell[0]
            if run is not None:
                self._to_recount.add(run.job_id)
                self._tell(run)

    async def _hear_of_neighbours(self) -> None:
        """Take over what became of jobs that others ran; who ran them writes it down."""
        job_ids = list(islice(self._elsewhere, RECOUNTS_AT_ONCE))
        if job_ids:
            self._board.load(await self._runs.progress_of(job_ids))
            self._elsewhere.difference_update(job_ids)

    async def _note_done(self, job_ids: Sequence[str]) -> None:
        """Find out which of these jobs have had the run after which they are to be deleted."""
        found = (self._store.get(job_id) for job_id in job_ids)
        jobs = {job.id: job for job in found if job is not None and job.delete_after_run}
        for job_id, end in (await self._leftovers.last_ends(jobs)).items():
            # Either alone would forget one: the definition that the run did may be older than the wish, and
            # the job itself was changed after the end if only to switch it off.
            job = jobs[job_id]
            if _is_of_today(job, end.started_at) and (
                end.delete_after_run or end.finished_at >= job.updated_at
            ):
                self._to_delete.add(job_id)

    async def _disable(self, job_id: str) -> None:
        await self._jobs.disable(job_id, lambda: self._finished.get(job_id))
        job = self._store.get(job_id)
        if job is None or not job.enabled:  # else it was changed meanwhile, and may be finished anew
            self._finished.pop(job_id, None)

    async def _delete_done(self) -> None:
        await self._patience.each("a deletion after the run", list(self._to_delete), self._delete)

    async def _delete(self, job_id: str) -> None:
        reason = "the job is deleted after its run, as deleteAfterRun asks"
        with suppress(NotFound):  # somebody was quicker
            await self._removals.remove(job_id, reason, lambda job: job.delete_after_run)
        self._to_delete.discard(job_id)

    async def _checkpoint_changed(self) -> None:
        now = self._clock.monotonic()
        due = [
            job_id
            for job_id, shown in self._dirty.items()
            if self._board.of(job_id).last_status != shown
            or now - self._checkpointed_at.get(job_id, 0.0) >= CHECKPOINT_SECONDS
        ]
        await self._patience.each("a checkpoint", due, self._checkpoint)

    async def _checkpoint(self, job_id: str) -> None:
        standing = self._board.of(job_id)
        next_at = self._next_at(job_id)
        await self._store.checkpoint(job_id, **_checkpoint_of(standing), next_execution_at=next_at)
        if job_id not in self._dirty:  # it was deleted meanwhile
            return
        self._checkpointed_at[job_id] = self._clock.monotonic()
        if self._board.of(job_id) == standing:
            del self._dirty[job_id]
        else:
            self._dirty[job_id] = standing.last_status

    async def _prune(self) -> None:
        now = self._clock.now()
        await self._runs.release_far(now)
        removed = await self._runs.prune(now - self._keep_runs, now)
        await self._events.prune(now - self._keep_events)
        await self._leftovers.forget(await self._store.purge(now - timedelta(days=TOMBSTONE_DAYS)))
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


def _is_of_today(job: Job, began: datetime) -> bool:
    """Whether a run that began then was one of the job as it is, and not as it was before a restore."""
    return job.restored_at is None or began > job.restored_at


def _checkpoint_of(standing: Standing) -> dict[str, Any]:
    return {
        "execution_count": standing.execution_count,
        "failure_count": standing.failure_count,
        "last_executed_at": standing.last_executed_at,
        "last_status": standing.last_status,
        "last_error": standing.last_error,
    }
