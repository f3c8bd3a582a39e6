"""Two gateways on one bucket, each with its own memory of it."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import pytest

from carapace_cron.clock import ManualClock
from carapace_cron.errors import NotFound, Unavailable
from carapace_cron.job_store import JobStore
from carapace_cron.model.job import Job
from carapace_cron.objects.memory import MemoryObjects
from carapace_cron.ports.object_store import Unknown, WriteOutcome

from .conftest import MakeJob


def enabled(job: Job) -> Job:
    return job if job.enabled else job.evolve(enabled=True)


def paused(job: Job) -> Job:
    return job.evolve(enabled=False) if job.enabled else job


async def two_stores(memory: MemoryObjects, clock: ManualClock) -> tuple[JobStore, JobStore]:
    first, second = JobStore(memory, clock), JobStore(memory, clock)
    await first.load()
    await second.load()
    return first, second


async def test_a_change_that_seems_done_already_is_made_where_another_gateway_undid_it(
    memory: MemoryObjects, clock: ManualClock, make_job: MakeJob
) -> None:
    """Paused at the one, resumed at the other, which has not heard of the pause."""
    first, second = await two_stores(memory, clock)
    job = await first.create(make_job())
    await second.refresh()
    await first.update(job.id, paused)
    assert (await second.update(job.id, enabled)).enabled
    await first.refresh()
    kept = first.get(job.id)
    assert kept is not None and kept.enabled


async def test_a_change_that_seems_done_already_is_refused_where_another_gateway_deleted_the_job(
    memory: MemoryObjects, clock: ManualClock, make_job: MakeJob
) -> None:
    first, second = await two_stores(memory, clock)
    job = await first.create(make_job())
    await second.refresh()
    await first.delete(job.id, clock.now(), by="alice")
    with pytest.raises(NotFound):
        await second.update(job.id, enabled)


async def test_a_job_that_another_gateway_deleted_is_found_to_be_gone(
    memory: MemoryObjects, clock: ManualClock, make_job: MakeJob
) -> None:
    first, second = await two_stores(memory, clock)
    job = await first.create(make_job())
    await second.refresh()
    await first.delete(job.id, clock.now(), by="alice")
    await second.look(job.id)
    assert second.get(job.id) is None and second.buried(job.id) is not None


class SlowObjects(MemoryObjects):
    """Where a write arrives after its writer has given up waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way: list[Coroutine[Any, Any, WriteOutcome]] = []

    async def put(
        self, key: str, body: bytes, *, if_match: str | None = None, if_absent: bool = False
    ) -> WriteOutcome:
        self.under_way.append(super().put(key, body, if_match=if_match, if_absent=if_absent))
        return Unknown("no answer")


async def test_a_write_that_arrives_after_it_was_given_up_is_heard_of(
    clock: ManualClock, make_job: MakeJob
) -> None:
    objects = SlowObjects()
    store = JobStore(objects, clock)
    await store.load()
    job = make_job()
    with pytest.raises(Unavailable):
        await store.create(job)
    await store.clear_doubts()
    assert store.get(job.id) is None
    await objects.under_way.pop()
    await store.clear_doubts()
    assert store.get(job.id) is not None
