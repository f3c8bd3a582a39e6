"""Two gateways on one bucket, each with its own memory of it."""

from __future__ import annotations

import pytest

from carapace_cron.clock import ManualClock
from carapace_cron.errors import NotFound
from carapace_cron.job_store import JobStore
from carapace_cron.model.job import Job
from carapace_cron.objects.memory import MemoryObjects

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
