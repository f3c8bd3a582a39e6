"""How long the job store takes to start and to write, and how much memory its jobs take.

    python bench/job_store.py sqlite 10000
    S3_ENDPOINT_URL=http://127.0.0.1:8333 python bench/job_store.py s3://bench 10000

Prints one line a measurement. On S3 the store is left filled, so that a second run shows the starts alone.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from carapace_cron.clock import SystemClock
from carapace_cron.database import Database
from carapace_cron.engines import sqlite_engine
from carapace_cron.ids import new_job_id
from carapace_cron.job_store import JobStore
from carapace_cron.ledger.migrations.upgrade import upgrade
from carapace_cron.model.job import Job
from carapace_cron.objects.database import DatabaseObjects
from carapace_cron.ports.object_store import ObjectStore

AT_ONCE = 64
clock = SystemClock()


@asynccontextmanager
async def opened(address: str) -> AsyncIterator[ObjectStore]:
    if address.startswith("s3://"):
        from carapace_cron.objects.s3 import S3Objects

        objects = await S3Objects.open(address, endpoint_url=os.environ.get("S3_ENDPOINT_URL"))
        yield objects
        await objects.close()
        return
    with tempfile.TemporaryDirectory() as folder:
        database = Database(sqlite_engine(Path(folder) / "bench.db"), upgrade)
        await database.open()
        yield DatabaseObjects(database, clock)
        await database.close()


def job(number: int) -> Job:
    at = clock.now() + timedelta(milliseconds=number)
    return Job(
        id=new_job_id(at),
        tenant="acme",
        user_id=f"user{number % 50}",
        name=f"job {number}",
        schedule="*/5 * * * *",
        command="echo good morning",
        channel_id="gateway",
        created_at=at,
        updated_at=at,
        scheduled_since=at,
    )


async def fill(store: JobStore, count: int) -> None:
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await store.create(job(number))

    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))


async def start(objects: ObjectStore, label: str) -> JobStore:
    before = resident_mb()
    began = time.perf_counter()
    store = JobStore(objects, clock)
    report = await store.load()
    seconds = time.perf_counter() - began
    print(f"start, {label}: {seconds:.2f} s, +{resident_mb() - before:.0f} MB; {report}")
    return store


async def measure(address: str, count: int) -> None:
    async with opened(address) as objects:
        store = JobStore(objects, clock)
        await store.load()
        if not store.count("acme"):
            began = time.perf_counter()
            await fill(store, count)
            print(f"create {count} jobs, {AT_ONCE} at once: {time.perf_counter() - began:.1f} s")
        store = await start(objects, "as it stands")
        began = time.perf_counter()
        if await store.write_snapshot():
            print(f"write the snapshot: {time.perf_counter() - began:.2f} s")
            store = await start(objects, "from the snapshot")
        began = time.perf_counter()
        parsed = sum(1 for _ in store.all())
        print(f"parse {parsed} jobs: {time.perf_counter() - began:.2f} s")
        await add_one_by_one(store)


async def add_one_by_one(store: JobStore) -> None:
    times = []
    for number in range(200):
        began = time.perf_counter()
        await store.create(job(number))
        times.append((time.perf_counter() - began) * 1000)
    p99 = statistics.quantiles(times, n=100)[98]
    print(f"add one job: p50 {statistics.median(times):.2f} ms, p99 {p99:.2f} ms")


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    asyncio.run(measure(sys.argv[1], int(sys.argv[2])))
