"""The job store over objects in memory, where every fault can be put in by hand."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from carapace_cron import errors
from carapace_cron.clock import ManualClock
from carapace_cron.ids import new_job_id
from carapace_cron.job_document import key_of
from carapace_cron.job_store import JobStore
from carapace_cron.model.job import Job
from carapace_cron.objects.database import DatabaseObjects
from carapace_cron.objects.memory import MemoryObjects
from carapace_cron.ports.object_store import Conflict, Listed, StoredObject, Unknown, WriteOutcome

MakeJob = Callable[..., Job]


class WatchedObjects(MemoryObjects):
    """Counts what is asked of it, and can be told to fail."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []
        self.written: list[str] = []
        self.down = False
        self.unsure = False
        self.unsure_once = False
        self.after_put: list[tuple[WriteOutcome, Callable[[], Awaitable[None]]]] = []
        self.refused: set[str] = set()
        self.hold: asyncio.Event | None = None

    async def get(self, key: str) -> StoredObject | None:
        self.read.append(key)
        if self.down:
            raise errors.Unavailable("the store is down")
        if key in self.refused:
            raise errors.ConfigurationError("these credentials may not read it")
        return await super().get(key)

    async def put(
        self, key: str, body: bytes, *, if_match: str | None = None, if_absent: bool = False
    ) -> WriteOutcome:
        self.written.append(key)
        if self.hold is not None:
            await self.hold.wait()
        if self.unsure or self.unsure_once:
            self.unsure_once = False
            return Unknown("no answer")
        outcome = await super().put(key, body, if_match=if_match, if_absent=if_absent)
        if self.after_put:
            outcome, interfere = self.after_put.pop()
            await interfere()
        return outcome

    async def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[Listed]:
        if self.down:
            raise errors.Unavailable("the store is down")
        async for listed in super().list(prefix, after=after):
            yield listed

    async def place(self, key: str, body: bytes) -> None:
        """Put it there as a person or another program would, whatever was there before."""
        current = await MemoryObjects.get(self, key)
        etag = current.etag if current else None
        await super().put(key, body, if_match=etag, if_absent=etag is None)


@pytest.fixture
def objects() -> WatchedObjects:
    return WatchedObjects()


@pytest.fixture
def store(objects: WatchedObjects, clock: ManualClock) -> JobStore:
    return JobStore(objects, clock)


async def opened(objects: MemoryObjects | DatabaseObjects, clock: ManualClock) -> JobStore:
    """As another gateway, or this one after a restart, sees the same objects."""
    store = JobStore(objects, clock)
    await store.load()
    return store


def increment(job: Job) -> Job:
    after: Job = job.evolve(execution_count=job.execution_count + 1)
    return after


def document(job: Job, **changes: Any) -> bytes:
    return json.dumps(job.wire() | changes).encode()


async def test_it_keeps_a_job_under_its_own_key(
    store: JobStore, objects: WatchedObjects, make_job: MakeJob
) -> None:
    job = await store.create(make_job(name="Morgenbericht für Zoë"))
    assert objects.written == [f"cron/jobs/{job.id}.json"]
    assert store.get(job.id) == job


async def test_it_finds_everything_again_after_a_restart(
    store: JobStore, objects: WatchedObjects, clock: ManualClock, make_job: MakeJob
) -> None:
    jobs = [await store.create(make_job(http={"method": "POST", "body": "{}"})) for _ in range(3)]
    again = await opened(objects, clock)
    assert sorted(again.all(), key=lambda job: job.id) == jobs


async def test_it_changes_the_newest_job_and_raises_its_revision(
    store: JobStore, clock: ManualClock, make_job: MakeJob
) -> None:
    job = await store.create(make_job())
    await clock.advance(60)
    after = await store.update(job.id, lambda job: job.evolve(enabled=False, paused_reason="holidays"))
    assert (after.enabled, after.revision, after.updated_at) == (False, 2, clock.now())
    assert store.get(job.id) == after


async def test_a_change_that_answers_the_very_job_makes_no_new_revision(
    store: JobStore, make_job: MakeJob
) -> None:
    job = await store.create(make_job())
    told: list[str] = []
    store.subscribe(lambda job_id, _: told.append(job_id))
    updated = await store.update(job.id, lambda job: job)
    left = await store.delete(job.id, job.created_at, only_if=lambda job: job.revision > 1)
    assert [job.evolve(write_id="", earlier_write_ids=()) for job in (updated, left)] == [
        job.evolve(write_id="", earlier_write_ids=())
    ] * 2
    assert (store.get(job.id), told) == (left, [])


async def test_what_is_still_on_its_way_cannot_come_after_a_change_that_changed_nothing(
    store: JobStore, objects: WatchedObjects, clock: ManualClock, make_job: MakeJob
) -> None:
    job = await store.create(make_job())
    late = document(job.evolve(enabled=False, revision=2))
    etag = store._etag(key_of(job.id))
    assert (await store.update(job.id, lambda job: job)).enabled
    assert isinstance(await objects.put(key_of(job.id), late, if_match=etag), Conflict)
    [kept] = (await opened(objects, clock)).all()
    assert kept.enabled


async def test_it_gives_every_write_a_new_write_id(store: JobStore, make_job: MakeJob) -> None:
    job = await store.create(make_job())
    ids = {job.write_id}
    ids |= {(await store.update(job.id, lambda job: job.evolve(name="same"))).write_id for _ in range(3)}
    assert len(ids) == 4


async def test_it_applies_a_change_again_when_another_gateway_was_quicker(
    store: JobStore, objects: WatchedObjects, clock: ManualClock, make_job: MakeJob
) -> None:
    job = await store.create(make_job())
    other = await opened(objects, clock)
    await other.update(job.id, lambda job: job.evolve(name="renamed by the other"))
    after = await store.update(job.id, lambda job: job.evolve(enabled=False))
    assert (after.name, after.enabled, after.revision) == ("renamed by the other", False, 3)


async def test_it_lets_writers_of_one_process_take_turns(
    store: JobStore, objects: WatchedObjects, make_job: MakeJob
) -> None:
    job = await store.create(make_job())

    async def increment() -> None:
        await store.update(job.id, lambda job: job.evolve(execution_count=job.execution_count + 1))

    await asyncio.gather(*(increment() for _ in range(20)))
    kept = store.get(job.id)
    assert kept is not None
    assert kept.execution_count == 20
    assert len(objects.written) == 21  # not one was refused


async def test_it_refuses_an_id_that_is_taken(store: JobStore, make_job: MakeJob) -> None:
    job = await store.create(make_job())
    with pytest.raises(errors.Conflict, match="there is a job"):
        await store.create(job)


async def test_it_refuses_an_id_that_could_leave_its_place(store: JobStore, make_job: MakeJob) -> None:
    with pytest.raises(errors.InvalidValue, match="bad job id"):
        await store.create(make_job(id="../../secrets"))


async def test_it_refuses_to_write_what_it_could_not_read(store: JobStore, make_job: MakeJob) -> None:
    job = await store.create(make_job())
    with pytest.raises(errors.InvalidValue, match="timeoutSeconds"):
        await store.update(job.id, lambda job: job.evolve(timeout_seconds=-1.0))
    with pytest.raises(errors.InvalidValue, match="at most 524288"):
        await store.update(job.id, lambda job: job.evolve(command="x" * 600_000))
    assert store.get(job.id) == job


async def test_it_refuses_a_change_of_the_id(store: JobStore, make_job: MakeJob) -> None:
    job, other = await store.create(make_job()), await store.create(make_job())
    with pytest.raises(ValueError, match="an id never changes"):
        await store.update(job.id, lambda job: job.evolve(id=other.id))


async def test_it_says_when_a_write_may_have_been_done(
    store: JobStore, objects: WatchedObjects, make_job: MakeJob
) -> None:
    job = await store.create(make_job())
    objects.unsure = True
    with pytest.raises(errors.Unavailable, match="may or may not have been saved"):
        await store.update(job.id, lambda job: job.evolve(enabled=False))
    with pytest.raises(errors.Unavailable, match="may or may not have been saved"):
        await store.create(make_job())


async def test_it_finishes_a_write_whose_caller_went_away(
    store: JobStore, objects: WatchedObjects, make_job: MakeJob
) -> None:
    job = await store.create(make_job())
    told: list[Job | None] = []
    store.subscribe(lambda _, job: told.append(job))
    objects.hold = asyncio.Event()
    caller = asyncio.create_task(store.update(job.id, lambda job: job.evolve(enabled=False)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    caller.cancel()
    objects.hold.set()
    await store.finish_writes()
    assert caller.cancelled() or caller.cancelling()
    assert told == [store.get(job.id)]
    assert told[0] is not None
    assert not told[0].enabled


class TestLostAnswers:
    """A write that was done, although the store said no or could not say: another wrote over it meanwhile."""

    @pytest.mark.parametrize("answer", [Conflict(None), Unknown("no answer")])
    async def test_it_counts_a_write_once_whose_answer_was_lost(
        self,
        store: JobStore,
        objects: WatchedObjects,
        clock: ManualClock,
        make_job: MakeJob,
        answer: WriteOutcome,
    ) -> None:
        job = await store.create(make_job())

        async def and_another_writes() -> None:
            await (await opened(objects, clock)).update(job.id, increment)

        objects.after_put = [(answer, and_another_writes)]
        await store.update(job.id, increment)
        after = store.get(job.id)
        assert after is not None
        assert (after.execution_count, after.revision) == (2, 3)

    async def test_it_knows_a_job_it_created_after_another_changed_it(
        self, store: JobStore, objects: WatchedObjects, clock: ManualClock, make_job: MakeJob
    ) -> None:
        job = make_job()

        async def and_another_writes() -> None:
            await (await opened(objects, clock)).update(job.id, increment)

        objects.after_put = [(Conflict(None), and_another_writes)]
        await store.create(job)
        after = store.get(job.id)
        assert after is not None
        assert after.execution_count == 1

    async def test_it_tries_again_when_an_unsure_write_was_overtaken(
        self, store: JobStore, objects: WatchedObjects, clock: ManualClock, make_job: MakeJob
    ) -> None:
        job = await store.create(make_job())
        await (await opened(objects, clock)).update(job.id, increment)
        objects.unsure_once = True
        await store.update(job.id, increment)
        after = store.get(job.id)
        assert after is not None
        assert after.execution_count == 2


class TestDeleting:
    async def test_it_buries_a_job_and_keeps_a_tombstone(
        self, store: JobStore, objects: WatchedObjects, clock: ManualClock, make_job: MakeJob
    ) -> None:
        job = await store.create(make_job(idempotency_key="once"))
        await store.delete(job.id, clock.now())
        assert store.get(job.id) is None
        assert store.count("acme") == 0
        assert list(store.all()) == []
        assert store.buried(job.id) is not None and not store.holds(job.id)
        assert store.find_by_idempotency_key("acme", "alice", "once") is None
        assert await objects.get(key_of(job.id)) is not None
        assert (await opened(objects, clock)).get(job.id) is None

    async def test_it_does_not_wake_a_job_that_another_gateway_deleted(
        self, store: JobStore, objects: WatchedObjects, clock: ManualClock, make_job: MakeJob
    ) -> None:
        job = await store.create(make_job())
        other = await opened(objects, clock)
        await other.delete(job.id, clock.now())
        with pytest.raises(errors.NotFound):
            await store.update(job.id, lambda job: job.evolve(enabled=True))
        await store.checkpoint(job.id, execution_count=7)
        with pytest.raises(errors.NotFound):
            await store.delete(job.id, clock.now())
        assert (await opened(objects, clock)).get(job.id) is None

    async def test_it_removes_old_tombstones_only(
        self, store: JobStore, objects: WatchedObjects, clock: ManualClock, make_job: MakeJob
    ) -> None:
        old, young, live = [await store.create(make_job()) for _ in range(3)]
        await store.delete(old.id, clock.now() - timedelta(days=31))
        await store.delete(young.id, clock.now())
        assert await store.purge(clock.now() - timedelta(days=30)) == [old.id]
        assert await objects.get(key_of(old.id)) is None
        assert await objects.get(key_of(young.id)) is not None
        assert [job.id for job in store.all()] == [live.id]


class TestCheckpoints:
    async def test_it_writes_progress_without_a_new_revision(
        self, store: JobStore, clock: ManualClock, make_job: MakeJob
    ) -> None:
        job = await store.create(make_job())
        await store.checkpoint(job.id, execution_count=3, last_status="success", last_executed_at=clock.now())
        after = store.get(job.id)
        assert after is not None
        assert (after.execution_count, after.last_status, after.revision) == (3, "success", 1)

    async def test_it_writes_nothing_when_nothing_is_new(
        self, store: JobStore, objects: WatchedObjects, make_job: MakeJob
    ) -> None:
        job = await store.create(make_job())
        await store.checkpoint(job.id, execution_count=0, last_status=None)
        assert len(objects.written) == 1

    async def test_it_refuses_to_checkpoint_a_definition(self, store: JobStore, make_job: MakeJob) -> None:
        job = await store.create(make_job())
        fields: dict[str, Any] = {"command": "rm -rf /"}
        with pytest.raises(ValueError, match="bad checkpoint"):
            await store.checkpoint(job.id, **fields)


class TestListing:
    async def test_it_pages_through_a_users_jobs_in_the_order_of_creation(
        self, store: JobStore, make_job: MakeJob
    ) -> None:
        alices = [await store.create(make_job()) for _ in range(5)]
        await store.create(make_job(user_id="bob"))
        await store.create(make_job(tenant="other", user_id="alice"))
        pages = []
        after = None
        while page := store.list_page("acme", "alice", limit=2, after=after):
            pages.append([job.name for job in page])
            after = page[-1].id
        names = [job.name for job in alices]
        assert pages == [names[:2], names[2:4], names[4:]]

    async def test_it_goes_on_behind_a_job_that_was_deleted_meanwhile(
        self, store: JobStore, clock: ManualClock, make_job: MakeJob
    ) -> None:
        jobs = [await store.create(make_job()) for _ in range(3)]
        await store.delete(jobs[0].id, clock.now())
        assert list(store.list_page("acme", "alice", limit=5, after=jobs[0].id)) == jobs[1:]

    async def test_it_counts_by_tenant_and_by_user(self, store: JobStore, make_job: MakeJob) -> None:
        await store.create(make_job())
        await store.create(make_job(user_id="bob", enabled=False))
        assert (store.count("acme"), store.count("acme", "bob"), store.count("nobody")) == (2, 1, 0)
        assert [entry.enabled for entry in store.entries_of("acme")] == [True, False]
        assert [job.user_id for job in store.jobs_of("acme")] == ["alice", "bob"]

    async def test_it_finds_a_job_by_its_makers_key_only(self, store: JobStore, make_job: MakeJob) -> None:
        job = await store.create(make_job(idempotency_key="once"))
        assert store.find_by_idempotency_key("acme", "alice", "once") == job
        assert store.find_by_idempotency_key("acme", "bob", "once") is None


class TestListeners:
    async def test_it_tells_of_each_definition_and_of_no_checkpoint(
        self, store: JobStore, clock: ManualClock, make_job: MakeJob
    ) -> None:
        told: list[Job | None] = []
        store.subscribe(lambda _, job: told.append(job))
        job = await store.create(make_job())
        changed = await store.update(job.id, lambda job: job.evolve(enabled=False))
        await store.checkpoint(job.id, execution_count=1)
        await store.delete(job.id, clock.now())
        await store.purge(clock.now() + timedelta(days=1))
        assert told == [job, changed, None, None]

    async def test_it_goes_on_when_a_listener_fails(
        self, store: JobStore, make_job: MakeJob, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(job_id: str, job: Job | None) -> None:
            raise RuntimeError(job_id)

        told: list[str] = []
        store.subscribe(fail)
        store.subscribe(lambda job_id, _: told.append(job_id))
        job = await store.create(make_job())
        assert told == [job.id]
        assert "a listener failed" in caplog.text


class TestLoading:
    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            (b"", "JSON"),
            (b"\xff\xfe", "JSON"),
            (b'{"id": "job_1764547200000_0123456789abcdefghij"}', "missing required field"),
            (b"[]", "object"),
            (b"{" + b" " * 600_000 + b"}", "at most 524288"),
        ],
    )
    async def test_it_sets_aside_what_it_cannot_read_and_leaves_it_as_it_is(
        self,
        store: JobStore,
        objects: WatchedObjects,
        clock: ManualClock,
        make_job: MakeJob,
        caplog: pytest.LogCaptureFixture,
        body: bytes,
        reason: str,
    ) -> None:
        good = await store.create(make_job())
        key = key_of(new_job_id(clock.now()))
        await objects.place(key, body)
        again = JobStore(objects, clock)
        report = await again.load()
        assert (report.jobs, report.set_aside) == (1, 1)
        assert [job.id for job in again.all()] == [good.id]
        assert [one.key for one in again.set_aside()] == [key]
        assert reason in again.set_aside()[0].reason
        assert f"{key} is set aside" in caplog.text
        assert [record.__dict__["action"] for record in caplog.records] == ["job_set_aside"]
        kept = await objects.get(key)
        assert kept is not None
        assert kept.body == body

    async def test_it_sets_aside_a_job_of_a_newer_version_and_never_writes_over_it(
        self, objects: WatchedObjects, clock: ManualClock, make_job: MakeJob
    ) -> None:
        job = make_job()
        await objects.place(key_of(job.id), document(job, invented2031=True))
        store = await opened(objects, clock)
        assert "unknown field 'invented2031'" in store.set_aside()[0].reason
        with pytest.raises(errors.NotFound):
            await store.update(job.id, lambda job: job)
        with pytest.raises(errors.Conflict):
            await store.create(job)

    async def test_it_sets_aside_a_document_under_a_foreign_key(
        self, store: JobStore, objects: WatchedObjects, clock: ManualClock, make_job: MakeJob
    ) -> None:
        job = await store.create(make_job())
        for key in (key_of(new_job_id(clock.now())), f"cron/jobs/{job.id}", "cron/jobs/copy of job.json"):
            await objects.place(key, document(job))
        again = await opened(objects, clock)
        assert len(again.set_aside()) == 3
        assert again.get(job.id) is not None
        await again.refresh()
        assert again.get(job.id) is not None

    async def test_it_sets_aside_an_object_that_it_may_not_read_until_it_may(
        self, store: JobStore, objects: WatchedObjects, clock: ManualClock, make_job: MakeJob
    ) -> None:
        secret, _ = await store.create(make_job()), await store.create(make_job())
        objects.refused.add(key_of(secret.id))
        again = await opened(objects, clock)
        assert again.count("acme") == 1
        assert again.set_aside()[0].reason == "these credentials may not read it"
        objects.refused.clear()
        assert (await again.refresh()).changed == (secret.id,)
        assert again.get(secret.id) == secret
        assert again.set_aside() == []

    async def test_it_never_takes_a_store_that_is_down_for_an_empty_one(
        self, store: JobStore, objects: WatchedObjects, clock: ManualClock, make_job: MakeJob
    ) -> None:
        await store.create(make_job())
        objects.down = True
        with pytest.raises(errors.Unavailable):
            await JobStore(objects, clock).load()
        with pytest.raises(errors.Unavailable):
            await store.refresh()
        assert store.count("acme") == 1

    async def test_it_reads_no_object_by_itself_where_the_listing_gives_bodies(
        self, sqlite: DatabaseObjects, clock: ManualClock, make_job: MakeJob
    ) -> None:
        store = await opened(sqlite, clock)
        for _ in range(3):
            await store.create(make_job())
        report = await (again := JobStore(sqlite, clock)).load()
        assert (report.jobs, report.fetched) == (3, 0)
        assert await store.write_snapshot() is False
        assert again.count("acme") == 3


class TestRefreshing:
    async def test_it_learns_what_another_gateway_did(
        self, store: JobStore, objects: WatchedObjects, clock: ManualClock, make_job: MakeJob
    ) -> None:
        kept, changed, deleted, purged = [await store.create(make_job()) for _ in range(4)]
        other = await opened(objects, clock)
        added = await other.create(make_job())
        renamed = await other.update(changed.id, lambda job: job.evolve(name="renamed"))
        await other.delete(deleted.id, clock.now())
        await other.delete(purged.id, clock.now() - timedelta(days=99))
        await other.purge(clock.now() - timedelta(days=30))

        told: dict[str, Job | None] = {}
        store.subscribe(told.__setitem__)
        objects.read.clear()
        report = await store.refresh()
        assert report.changed == tuple(sorted([changed.id, deleted.id, added.id]))
        assert report.removed == (purged.id,)
        assert told == {added.id: added, changed.id: renamed, deleted.id: None, purged.id: None}
        assert key_of(kept.id) not in objects.read
        assert {job.id for job in store.all()} == {kept.id, changed.id, added.id}

    async def test_it_learns_a_checkpoint_without_a_word_to_listeners(
        self, store: JobStore, objects: WatchedObjects, clock: ManualClock, make_job: MakeJob
    ) -> None:
        job = await store.create(make_job())
        await (await opened(objects, clock)).checkpoint(job.id, execution_count=5)
        told: list[str] = []
        store.subscribe(lambda job_id, _: told.append(job_id))
        assert (await store.refresh()).changed == (job.id,)
        after = store.get(job.id)
        assert after is not None
        assert after.execution_count == 5
        assert told == []

    async def test_it_stops_a_job_whose_document_became_unreadable(
        self, store: JobStore, objects: WatchedObjects, make_job: MakeJob
    ) -> None:
        job = await store.create(make_job())
        told: list[Job | None] = []
        store.subscribe(lambda _, job: told.append(job))
        await objects.place(key_of(job.id), b"half a docu")
        await store.refresh()
        assert (store.get(job.id), told, len(store.set_aside())) == (None, [None], 1)
        await objects.place(key_of(job.id), document(job))
        await store.refresh()
        assert (store.get(job.id), store.set_aside()) == (job, [])

    async def test_it_asks_for_nothing_when_nothing_changed(
        self, store: JobStore, objects: WatchedObjects, make_job: MakeJob
    ) -> None:
        await store.create(make_job())
        await store.refresh()
        assert objects.read == []


class TestSnapshots:
    async def test_it_starts_from_a_snapshot_and_reads_only_what_changed_since(
        self, store: JobStore, objects: WatchedObjects, clock: ManualClock, make_job: MakeJob
    ) -> None:
        jobs = [await store.create(make_job()) for _ in range(10)]
        assert await store.write_snapshot() is True
        changed = await store.update(jobs[3].id, lambda job: job.evolve(name="newer than the snapshot"))
        await store.delete(jobs[4].id, clock.now() - timedelta(days=99))
        await store.purge(clock.now())
        added = await store.create(make_job())

        objects.read.clear()
        again = JobStore(objects, clock)
        report = await again.load()
        assert (report.jobs, report.from_snapshot, report.fetched) == (10, 8, 2)
        fetched = {key for key in objects.read if "/jobs/" in key}
        assert fetched == {key_of(changed.id), key_of(added.id)}
        assert {job.id: job for job in again.all()} == {job.id: job for job in store.all()}

    @pytest.mark.parametrize(
        "damage",
        [
            lambda body: b"",
            lambda body: body[: len(body) // 2],
            lambda body: b"not gzip at all",
            lambda body: gzip.compress(b'["cron/jobs/x.json"]\n7\n{}'),
            lambda body: gzip.compress(b"\xff\xff"),
            lambda body: body[:-8] + b"\0" * 8,
        ],
    )
    async def test_it_loses_time_and_no_job_to_a_damaged_snapshot(
        self,
        store: JobStore,
        objects: WatchedObjects,
        clock: ManualClock,
        make_job: MakeJob,
        caplog: pytest.LogCaptureFixture,
        damage: Callable[[bytes], bytes],
    ) -> None:
        jobs = [await store.create(make_job()) for _ in range(3)]
        await store.write_snapshot()
        shard = await objects.get("cron/snapshots/0000.jsonl.gz")
        assert shard is not None
        await objects.place(shard.key, damage(shard.body))
        report = await (again := JobStore(objects, clock)).load()
        assert report.fetched == 3
        assert sorted(again.all(), key=lambda job: job.id) == jobs
        assert "cannot be read" in caplog.text

    async def test_it_writes_none_until_enough_changed(
        self, store: JobStore, objects: WatchedObjects, make_job: MakeJob
    ) -> None:
        assert await store.write_snapshot() is False
        await store.create(make_job())
        assert await store.write_snapshot(at_least=2) is False
        await store.create(make_job())
        assert await store.write_snapshot(at_least=2) is True
        assert await store.write_snapshot() is False

    async def test_it_splits_many_jobs_and_drops_the_shards_that_are_left_over(
        self,
        store: JobStore,
        objects: WatchedObjects,
        clock: ManualClock,
        make_job: MakeJob,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("carapace_cron.objects.snapshots.SHARD", 2)
        jobs = [await store.create(make_job()) for _ in range(5)]
        await store.write_snapshot()
        shards = [listed.key async for listed in objects.list("cron/snapshots/")]
        assert shards == [f"cron/snapshots/{number:04d}.jsonl.gz" for number in range(3)]
        for job in jobs[:3]:
            await store.delete(job.id, clock.now() - timedelta(days=1))
        await store.purge(clock.now())
        await store.write_snapshot()
        assert [listed.key async for listed in objects.list("cron/snapshots/")] == shards[:1]


async def test_it_gives_up_a_contest_that_never_ends(
    store: JobStore, objects: WatchedObjects, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await store.create(make_job())
    monkeypatch.setattr("carapace_cron.job_store._patience", lambda state: 0.0)

    def overtaken(before: Job) -> Job:
        other = document(before, name=f"other {len(objects.written)}", writeId=str(len(objects.written)))
        current = objects._objects[key_of(job.id)]
        objects._objects[current.key] = StoredObject(current.key, other, str(len(objects.written)))
        renamed: Job = before.evolve(name="mine")
        return renamed

    with pytest.raises(errors.Conflict, match="changed by others all the time"):
        await store.update(job.id, overtaken)
