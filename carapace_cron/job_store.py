"""The jobs of this gateway: kept as objects, read from memory, changed by compare-and-swap.

Each job is one object, ``cron/jobs/{id}.json``, and the object is the truth: a change counts once the store
took it, and the store takes it only if nobody changed the object since it was read. So two gateways over
one bucket cannot overwrite each other, and a caller that has its answer can rely on it. Reading never
waits for the store. ``docs/why/keeping-jobs.md`` tells why it is so.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict, TypeVar, Unpack
from weakref import WeakValueDictionary

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from carapace_cron import errors
from carapace_cron.clock import Clock
from carapace_cron.ids import is_job_id
from carapace_cron.job_document import PREFIX, fate, id_in, key_of, read, written
from carapace_cron.job_index import Entry, JobIndex, entry_of
from carapace_cron.model.job import Job
from carapace_cron.objects.snapshots import read_snapshots, write_snapshots
from carapace_cron.ports.object_store import ObjectStore, Stored, StoredObject, Unknown, WriteOutcome

PARSED = 512  # jobs kept parsed: what is in use just now; about 2 MB
FETCHES = 16  # objects fetched at once: the S3 client is busy with that many, more only wait
TRIES = 60  # of one change; each round of a contest lets one writer through, so it outlasts as many writers
FIRST_WAIT_SECONDS = 0.02
DOUBT_SECONDS = 120.0  # by then an unanswered write has been done, or never will be
LONGEST_WAIT_SECONDS = 0.3  # on average half of it: a contest is given up after some ten seconds

log = logging.getLogger(__name__)
T = TypeVar("T")

Change = Callable[[Job], Job]
"""A pure function: it may be applied more than once, each time to a newer job."""

Listener = Callable[[str, Job | None], None]
"""(job id, the job as it is now, or None when it is gone)"""


Confirm = Callable[[Job, bool], Awaitable[None]]
"""(the job as the store has it now, a tombstone too; whether that is news)"""


class Checkpoint(TypedDict, total=False):
    """What a checkpoint writes into the document: how the job has fared so far."""

    execution_count: int
    failure_count: int
    last_executed_at: datetime | None
    last_status: str | None
    last_error: str | None
    next_execution_at: datetime | None


@dataclass(frozen=True, slots=True)
class SetAside:
    """An object that is no job of ours to read: left as it is, and out of everything else."""

    key: str
    etag: str
    reason: str


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What `JobStore.load` found. The jobs that it counts are in force."""

    jobs: int
    tombstones: int
    set_aside: int
    from_snapshot: int  # objects that needed no request of their own
    fetched: int  # objects that did


@dataclass(frozen=True, slots=True)
class RefreshReport:
    """What other processes did since: ids of objects that are new or changed, and of those that went."""

    changed: tuple[str, ...]
    removed: tuple[str, ...]


class _Lost(Exception):
    """The object changed since it was read: another writer was quicker, try again."""


class JobStore:
    """`load` first. All jobs of all tenants: whoever asks for a caller compares the owner.

    Writing methods raise `NotFound` for a job that is gone, `Unavailable` when the store is, and
    `Conflict` when others kept changing the same job all the while.
    """

    def __init__(self, objects: ObjectStore, clock: Clock) -> None:
        self._objects = objects
        self._clock = clock
        self._index = JobIndex()
        self._set_aside: dict[str, SetAside] = {}
        self._parsed: OrderedDict[str, Job] = OrderedDict()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._listeners: list[Listener] = []
        self._confirm: Confirm = _confirmed
        self._writing: set[asyncio.Task[Any]] = set()
        self._changed = 0  # objects that differ from the snapshot
        self._doubtful: dict[str, float] = {}  # job id → when (monotonic) a write of it was left unanswered

    # Reading: memory only.

    def get(self, job_id: str) -> Job | None:
        """The job; None when there is none or it was deleted."""
        entry = self._index.live(job_id)
        return None if entry is None else self._job(entry)

    def document(self, job_id: str) -> bytes:
        """The job as it is stored, unparsed. Raises `NotFound`."""
        entry = self._index.live(job_id)
        if entry is None:
            raise _gone(job_id)
        return entry.body

    def buried(self, job_id: str) -> Job | None:
        """The job as it was deleted, until `purge` removes the last of it; None when it was not."""
        entry = self._index.get(job_id)
        return None if entry is None or entry.deleted_at is None else self._job(entry)

    def holds(self, job_id: str) -> bool:
        """Whether there is such a job, even one whose object is set aside."""
        return self._index.live(job_id) is not None or key_of(job_id) in self._set_aside

    def all(self) -> Iterator[Job]:
        """Every job, in no order; each is parsed as it comes and not kept."""
        for entry in self._index:
            if entry.deleted_at is None:
                yield self._parsed.get(entry.id) or read(key_of(entry.id), entry.body)

    def jobs_of(self, tenant: str, user_id: str | None = None) -> Iterator[Job]:
        """The jobs of a user, or of a whole tenant, in the order of their creation."""
        return (self._job(entry) for entry in self.entries_of(tenant, user_id))

    def entries_of(self, tenant: str, user_id: str | None = None) -> Iterator[Entry]:
        """As `jobs_of`, without parsing: id, owner, enabled, revision. For counting over many."""
        ids = self._index.ids(tenant, user_id)
        return (entry for job_id in ids if (entry := self._index.live(job_id)) is not None)

    def list_page(
        self, tenant: str, user_id: str | None = None, *, limit: int, after: str | None = None
    ) -> Sequence[Job]:
        """At most `limit` of `jobs_of`, from behind the job id `after` (which may be gone by now)."""
        ids = self._index.page(tenant, user_id, after=after or "", limit=limit)
        return [job for job_id in ids if (job := self.get(job_id)) is not None]

    def buried_page(
        self, tenant: str, user_id: str | None = None, *, limit: int, after: str | None = None
    ) -> Sequence[Job]:
        """As `list_page`, of the jobs that were deleted and can still be restored, as they were deleted."""
        ids = self._index.page(tenant, user_id, after=after or "", limit=limit, buried=True)
        return [job for job_id in ids if (job := self.buried(job_id)) is not None]

    def count(self, tenant: str, user_id: str | None = None) -> int:
        return self._index.count(tenant, user_id)

    def find_by_idempotency_key(self, tenant: str, user_id: str, key: str) -> Job | None:
        """The job that was created with this key, unless it was deleted since."""
        job_id = self._index.by_idempotency_key(tenant, user_id, key)
        return None if job_id is None else self.get(job_id)

    def upstreams_of(self, job_id: str) -> Sequence[str]:
        """Ids of the jobs that a job runs after; empty for one that does not, or is not there."""
        entry = self._index.live(job_id)
        return () if entry is None else entry.after

    def revisions(self) -> Iterator[tuple[str, int]]:
        """The id and revision of every job, also of those that were deleted and can be restored; unparsed."""
        return ((entry.id, entry.revision) for entry in self._index)

    def set_aside(self) -> Sequence[SetAside]:
        """The objects under ``cron/jobs/`` that could not be read, by key."""
        return sorted(self._set_aside.values(), key=lambda one: one.key)

    def subscribe(self, listener: Listener) -> None:
        """Call `listener` synchronously after each change of a definition, ours or another process's, with
        the job; None = it is deleted, or its tombstone is gone, too.

        Checkpoints are no change of a definition. A listener that raises is logged and does not undo
        the change.
        """
        self._listeners.append(listener)

    def confirm_with(self, confirm: Confirm) -> None:
        """Await `confirm` after each change of a definition, ours or another process's, in their order; of
        ours, before the caller has its answer. What it raises is the caller's answer."""
        self._confirm = confirm

    # Writing: one conditional write each, then memory, the listeners, and who confirms.

    async def create(self, job: Job) -> Job:
        """Keep a new job; answers with the job as it is stored. Raises `Conflict` when the id is taken."""
        return await self._finish(self._create(job))

    async def update(self, job_id: str, change: Change) -> Job:
        """Apply `change` to the newest job and keep the result, as the next revision, updated now.

        When another process changed the object meanwhile it is read again and `change` is applied to
        that. What `change` raises ends the update with nothing written. If its answer is the very job that
        it was given, that is written again, as no new revision: so no write that is still on its way, because
        its answer got lost, can come after it.
        """

        def redefine(job: Job) -> Job:
            changed = change(job)
            if changed is job:
                return job
            after: Job = changed.evolve(revision=job.revision + 1, updated_at=self._clock.now())
            return after

        return await self._finish(self._update(job_id, redefine, tell=True))

    async def delete(
        self,
        job_id: str,
        at: datetime,
        *,
        by: str | None = None,
        only_if: Callable[[Job], bool] = lambda job: True,
    ) -> Job:
        """Bury the job: it is out of everything, its object stays as a tombstone until `purge`.

        `only_if` is asked of the newest job. If it says no, nothing changes and the answer has no
        `deletedAt`.
        """

        def bury(job: Job) -> Job:
            if not only_if(job):
                return job
            tombstone: Job = job.evolve(
                deleted_at=at, revision=job.revision + 1, updated_at=at, updated_by=by
            )
            return tombstone

        return await self._finish(self._update(job_id, bury, tell=True))

    async def restore(self, job_id: str, change: Change) -> Job:
        """Bring a deleted job back, as `change` makes it of what was buried. Raises `NotFound` for one that
        was not deleted, or was removed since."""
        return await self._finish(self._restore(job_id, change))

    async def checkpoint(self, job_id: str, **fields: Unpack[Checkpoint]) -> None:
        """Write down how the job has fared; nothing when it is gone or the document says so already."""
        try:
            await self._finish(self._update(job_id, lambda job: _with(job, fields), tell=False))
        except errors.NotFound:
            return

    async def purge(self, before: datetime) -> Sequence[str]:
        """Remove the tombstones of jobs that were deleted before that instant; the ids of those that went."""
        old = [one for one in self._index if one.deleted_at is not None and one.deleted_at < before]
        removed: list[str] = []
        for entry in old:
            # Only a restore writes over a tombstone; whichever of the two is first, the other's condition
            # fails.
            if isinstance(await self._objects.delete(key_of(entry.id), if_match=entry.etag), Stored):
                self._forget(entry.id)
                self._tell(entry.id, None)
                removed.append(entry.id)
        return removed

    async def finish_writes(self) -> None:
        """Until the writes have ended whose callers went away. Part of stopping."""
        while self._writing:
            await asyncio.wait(self._writing)

    # Bringing memory up to the store.

    async def load(self) -> LoadReport:
        """Read all jobs into memory, once, before anything else.

        An object that cannot be understood is set aside, named in the log, and stops nothing. Raises
        `Unavailable` when the store cannot be listed or read: jobs that cannot be seen are not gone.
        """
        to_fetch = await self._load_listed()
        from_snapshot = await self._load_snapshots(to_fetch) if to_fetch else 0
        await _each(to_fetch, self._fetch)
        self._changed = len(to_fetch)
        live = sum(entry.deleted_at is None for entry in self._index)
        tombstones = len(self._index) - live
        return LoadReport(live, tombstones, len(self._set_aside), from_snapshot, len(to_fetch))

    async def look(self, job_id: str) -> None:
        """Bring memory up to the store for one job, which another process may have changed a moment ago."""
        if is_job_id(job_id):
            async with self._lock(job_id):
                await self._reread(key_of(job_id))

    async def clear_doubts(self) -> None:
        """Look again at jobs of which a write may have been done or not: it may still arrive for a while."""
        for job_id, since in list(self._doubtful.items()):
            await self.look(job_id)
            if self._clock.monotonic() - since > DOUBT_SECONDS:
                self._doubtful.pop(job_id, None)

    async def refresh(self) -> RefreshReport:
        """Find out what other processes changed: one listing, then a read of each difference."""
        listed = {one.key: one.etag async for one in self._objects.list(PREFIX)}
        known = {key_of(entry.id): entry.etag for entry in self._index}
        known |= {one.key: one.etag for one in self._set_aside.values()}
        # Our own writes go on meanwhile, so a difference is only a reason to look again, under the lock.
        suspects = sorted(key for key in listed.keys() | known.keys() if listed.get(key) != known.get(key))
        changed: list[str] = []
        removed: list[str] = []

        async def look(key: str) -> None:
            job_id = id_in(key)
            async with self._lock(job_id):
                before = self._etag(key)
                await self._reread(key)
            if (after := self._etag(key)) != before:
                (changed if after else removed).append(job_id)

        await _each(suspects, look)
        return RefreshReport(tuple(sorted(changed)), tuple(sorted(removed)))

    async def write_snapshot(self, *, at_least: int = 1) -> bool:
        """Write what a quick start reads, if at least so many objects changed since it was written last.

        Does nothing over a store whose listing gives the bodies: there it could save no request.
        """
        if self._changed < max(at_least, 1) or await self._lists_bodies():
            return False
        counted = self._changed
        entries = sorted(self._index, key=lambda entry: entry.id)
        snapshot = [StoredObject(key_of(entry.id), entry.body, entry.etag) for entry in entries]
        written_whole = await write_snapshots(self._objects, snapshot)
        self._changed -= counted if written_whole else 0
        return written_whole

    # How it is done.

    async def _finish(self, work: Coroutine[Any, Any, T]) -> T:
        """A write that began is finished, and memory and listeners hear of it, even if the caller goes."""
        task = asyncio.create_task(work)
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_log_failure)
            raise

    async def _create(self, job: Job) -> Job:
        async with self._lock(job.id):
            stamped, body = written(job, over=None)
            outcome = await self._objects.put(key_of(job.id), body, if_absent=True)
            if await self._done(stamped, body, outcome, tell=True):
                return stamped
        raise errors.Conflict(f"there is a job {job.id!r} already: give the new one another id")

    async def _update(self, job_id: str, change: Change, *, tell: bool) -> Job:
        async with self._lock(job_id):
            if self._index.live(job_id) is None:
                raise _gone(job_id)
            contest = AsyncRetrying(
                retry=retry_if_exception_type(_Lost),
                wait=_patience,
                stop=stop_after_attempt(TRIES),
                sleep=self._sleep,
                reraise=True,
            )
            try:
                return await contest(self._swap, job_id, change, tell=tell)
            except _Lost:
                message = f"job {job_id!r} is being changed by others all the time: try again"
                raise errors.Conflict(message) from None

    async def _restore(self, job_id: str, change: Change) -> Job:
        async with self._lock(job_id):
            entry = self._index.get(job_id)
            if entry is None or entry.deleted_at is None:
                raise _gone(job_id)
            buried = self._job(entry)
            alive = change(buried).evolve(deleted_at=None, revision=buried.revision + 1)
            stamped, body = written(alive, over=buried)
            outcome = await self._objects.put(key_of(job_id), body, if_match=entry.etag)
            if await self._done(stamped, body, outcome, tell=True):
                return stamped
        raise errors.Conflict(f"job {job_id!r} is just being changed by others: try again")

    async def _swap(self, job_id: str, change: Change, *, tell: bool) -> Job:
        """One try: the object is replaced if it is still the one that memory holds."""
        entry = self._index.live(job_id)
        if entry is None:
            raise _gone(job_id)
        before = self._job(entry)
        after = change(before)
        is_news = after != before
        if not is_news and not tell:
            return before
        if after.id != job_id:
            raise ValueError(f"the change made job {job_id!r} into {after.id!r}: an id never changes")
        stamped, body = written(after, over=before)
        outcome = await self._objects.put(key_of(job_id), body, if_match=entry.etag)
        if not await self._done(stamped, body, outcome, tell=tell and is_news):
            raise _Lost
        if not is_news:
            await self._confirm(before, False)
        return stamped

    async def _done(self, write: Job, body: bytes, outcome: WriteOutcome, *, tell: bool) -> bool:
        """Whether the write was done; memory and listeners know the newest job either way.

        A "no" is not believed at once: HTTP clients send a PUT again whose answer was lost, and the second
        is refused because of the first; by then another may have written over it. The document's history
        tells. Raises `Unavailable` when even that cannot.
        """
        if isinstance(outcome, Stored):
            self._keep(write, body, outcome.etag)
            if tell:
                self._tell(write.id, None if write.deleted_at else write)
                await self._confirm(write, True)
            return True
        if isinstance(outcome, Unknown):
            self._doubtful[write.id] = self._clock.monotonic()
        await self._reread(key_of(write.id))
        entry = self._index.get(write.id)
        done = fate(write, None if entry is None else self._job(entry))
        if done is None and isinstance(outcome, Unknown):
            raise _unsure(write.id, outcome.reason)
        self._doubtful.pop(write.id, None)
        return bool(done)

    async def _reread(self, key: str) -> None:
        """Bring memory to what the store holds under `key`, and tell if the definition is another."""
        before = self._index.get(id_in(key))
        await self._fetch(key)
        after = self._index.get(id_in(key))
        if (before and before.revision) != (after and after.revision):
            self._tell(id_in(key), None if after is None or after.deleted_at else self._job(after))
            if after is not None:
                await self._confirm(self._job(after), True)

    async def _fetch(self, key: str) -> None:
        try:
            current = await self._objects.get(key)
        except errors.ConfigurationError as refusal:  # this one object may not be read; the others may
            self._put_aside(StoredObject(key, b"", ""), str(refusal))
            return
        if current is None:
            self._forget(id_in(key))
            self._set_aside.pop(key, None)
        elif current.etag != self._etag(key):
            self._take(current)

    async def _load_listed(self) -> dict[str, str]:
        """Take what the listing gives at once; the ETags of the rest by key."""
        to_fetch: dict[str, str] = {}
        async for one in self._objects.list(PREFIX):
            if one.body is None:
                to_fetch[one.key] = one.etag
            else:
                self._take(StoredObject(one.key, one.body, one.etag))
        return to_fetch

    async def _load_snapshots(self, to_fetch: dict[str, str]) -> int:
        """Take out of `to_fetch` what a snapshot holds as the listing has it; how many those were."""
        before = len(to_fetch)
        async for shard in read_snapshots(self._objects):
            for one in shard:
                if to_fetch.get(one.key) == one.etag:
                    self._take(one)
                    del to_fetch[one.key]
        return before - len(to_fetch)

    async def _lists_bodies(self) -> bool:
        first = await anext(aiter(self._objects.list(PREFIX)), None)
        return first is None or first.body is not None

    def _take(self, current: StoredObject) -> None:
        try:
            job = read(current.key, current.body)
        except errors.InvalidValue as fault:
            self._put_aside(current, str(fault))
        else:
            self._keep(job, current.body, current.etag, parsed=False)
            self._set_aside.pop(current.key, None)

    def _put_aside(self, current: StoredObject, reason: str) -> None:
        self._forget(id_in(current.key))
        before = self._set_aside.get(current.key)
        self._set_aside[current.key] = SetAside(current.key, current.etag, reason)
        if before is None or before.etag != current.etag:
            message = "job object %s is set aside and left as it is: %s"
            log.warning(message, current.key, reason, extra={"action": "job_set_aside", "key": current.key})

    def _keep(self, job: Job, body: bytes, etag: str, *, parsed: bool = True) -> None:
        self._index.put(entry_of(job, body, etag))
        self._changed += 1
        self._parsed.pop(job.id, None)
        if parsed:
            self._remember(job)

    def _forget(self, job_id: str) -> None:
        self._parsed.pop(job_id, None)
        if self._index.remove(job_id) is not None:
            self._changed += 1

    def _job(self, entry: Entry) -> Job:
        job = self._parsed.get(entry.id)
        if job is None:
            job = read(key_of(entry.id), entry.body)
            self._remember(job)
        else:
            self._parsed.move_to_end(entry.id)
        return job

    def _remember(self, job: Job) -> None:
        self._parsed[job.id] = job
        if len(self._parsed) > PARSED:
            self._parsed.popitem(last=False)

    def _etag(self, key: str) -> str | None:
        entry = self._index.get(id_in(key))
        aside = self._set_aside.get(key)
        return entry.etag if entry else aside.etag if aside else None

    def _tell(self, job_id: str, job: Job | None) -> None:
        for listener in self._listeners:
            try:
                listener(job_id, job)
            except Exception:
                log.exception("a listener failed on job %s", job_id, extra={"action": "listener_failed"})

    def _lock(self, job_id: str) -> asyncio.Lock:
        # One writer of a job at a time in this process, so that they do not fight; the store stays the
        # judge between processes. A lock lives as long as somebody holds or awaits it.
        lock = self._locks.get(job_id)
        if lock is None:
            lock = self._locks[job_id] = asyncio.Lock()
        return lock

    async def _sleep(self, seconds: float) -> None:
        if seconds > 0:
            await self._clock.wait(asyncio.Event(), seconds)


async def _confirmed(job: Job, is_news: bool) -> None:
    """For those to whom the store alone is enough."""


def _patience(state: Any) -> float:
    """No wait after the first loss (it was most often a single other writer), then full jitter."""
    return 0.0 if state.attempt_number == 1 else _jittered(state)


_jittered = wait_random_exponential(multiplier=FIRST_WAIT_SECONDS, max=LONGEST_WAIT_SECONDS)


def _with(job: Job, fields: Mapping[str, Any]) -> Job:
    if unknown := fields.keys() - Checkpoint.__annotations__.keys():
        expected = sorted(Checkpoint.__annotations__)
        raise ValueError(f"bad checkpoint of {sorted(unknown)}: expected {expected}")
    after: Job = job.evolve(**fields)
    return after


async def _each(keys: Iterable[str], work: Callable[[str], Coroutine[Any, Any, None]]) -> None:
    """`work` on each key, a bounded number at once. The first failure ends it and is raised."""
    listed = list(keys)
    if not listed:
        return
    waiting = iter(listed)

    async def worker() -> None:
        for key in waiting:
            await work(key)

    workers = [asyncio.create_task(worker()) for _ in range(FETCHES)]
    try:
        await asyncio.gather(*workers)
    finally:
        for one in workers:
            one.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


def _log_failure(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning("a write failed after its caller went away: %s", error, extra={"action": "late_write"})


def _gone(job_id: str) -> errors.NotFound:
    return errors.NotFound(f"no job {job_id[:60]!r}: it does not exist or was deleted")


def _unsure(job_id: str, reason: str) -> errors.Unavailable:
    message = f"job {job_id!r} may or may not have been saved ({reason}): read it, then try again"
    return errors.Unavailable(message)
