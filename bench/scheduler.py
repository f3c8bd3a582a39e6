"""Scheduler, job store and ledger together, durable on SQLite, beside APScheduler 3.11 in the same run.

For 1,000, 10,000 and 100,000 jobs, each in a process of its own: add one job (p50, p99), start with all of
them, idle CPU and memory, and 1,000 jobs due in the same second for an agent that answers at once (lateness
from the due instant to the agent, the claim being on disk by then) while a page of 50 jobs is listed every
5 ms.

    python bench/scheduler.py                 # all of it, about six minutes
    python bench/scheduler.py --jobs 1000     # one size
    python bench/scheduler.py --json out.json

APScheduler's claim is not durable in memory; with SQLAlchemy on SQLite it commits once for each job.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

SIZES = (1_000, 10_000, 100_000)
BURST = 1_000
ADDS = 200
IDLE_SECONDS = 20
LEAD_SECONDS = 5
PEER_LIMIT = {"apscheduler-sqlite": 10_000}  # a commit for each of 100,000 jobs takes minutes to add alone


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else float("nan")


def quiet_schedule(number: int) -> str:
    """One of some 240 schedules that are not due while this runs."""
    return f"{number % 60} {number % 4} 29 2 *"


def rss_mb() -> float:
    return psutil.Process().memory_info().rss / 2**20


async def idle_cpu_percent() -> float:
    process = psutil.Process()
    before = process.cpu_times()
    await asyncio.sleep(IDLE_SECONDS)
    after = process.cpu_times()
    return (after.user + after.system - before.user - before.system) / IDLE_SECONDS * 100


def at_second(instant: datetime) -> str:
    return f"{instant.second} {instant.minute} {instant.hour} {instant.day} {instant.month} *"


# Ours


async def measure_ours(jobs: int, folder: Path) -> dict[str, float]:
    from host import BenchHost

    from carapace_cron.clock import SystemClock
    from carapace_cron.house import House
    from carapace_cron.model.actor import Actor
    from carapace_cron.ports.host import AgentCall, AgentReply
    from carapace_cron.settings import CronSettings

    late: list[float] = []

    def answer(call: AgentCall) -> AgentReply:
        late.append(time.time() - datetime.fromisoformat(call.metadata["scheduledFor"]).timestamp())
        return AgentReply("done")

    settings = CronSettings(max_concurrent_runs=2 * BURST, min_interval_seconds=1, max_jobs_per_tenant=10**9)
    house = House(BenchHost(folder, answer), settings, SystemClock())
    began = time.perf_counter()
    await house.open()
    started = time.perf_counter() - began
    gc.collect()  # as the command serve does once all is loaded
    gc.freeze()
    await asyncio.sleep(0.5)
    idle = await idle_cpu_percent()
    memory = rss_mb()

    actor = Actor("bench", "bench", frozenset({"jobs:write"}))
    adds = []
    for number in range(ADDS):
        began = time.perf_counter()
        await house.jobs.create(actor, draft(quiet_schedule(number)))
        adds.append(time.perf_counter() - began)

    due_at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=LEAD_SECONDS + BURST // 100)
    for _ in range(BURST):
        await house.jobs.create(actor, draft(at_second(due_at)))
    pages = await list_until(house.jobs, actor, due_at, lambda: len(late) >= BURST)
    await asyncio.sleep(0.5)
    await house.close()
    return {
        "add_p50_ms": statistics.median(adds) * 1e3,
        "add_p99_ms": percentile(adds, 0.99) * 1e3,
        "start_s": started,
        "idle_cpu_percent": idle,
        "rss_mb": memory,
        "list_p99_ms": percentile(pages, 0.99) * 1e3,
        **lateness(late),
    }


def draft(schedule: str) -> dict[str, Any]:
    job = {"name": "bench", "command": "agent: report", "channelId": "gateway", "notify": "never"}
    return {**job, "schedule": schedule}


def lateness(began: list[float]) -> dict[str, float]:
    return {
        "burst_ran": len(began),
        "late_p50_s": percentile(began, 0.5),
        "late_p99_s": percentile(began, 0.99),
        "late_max_s": max(began, default=float("nan")),
    }


async def list_until(service: Any, actor: Any, due_at: datetime, done: Callable[[], bool]) -> list[float]:
    """How long a page of 50 takes from when it was asked for, its turn on the loop included."""
    await asyncio.sleep(max(due_at.timestamp() - time.time() - 0.2, 0))
    pages = []
    deadline = time.monotonic() + 60
    while not done() and time.monotonic() < deadline:
        asked = time.perf_counter() + 0.005
        await asyncio.sleep(0.005)
        service.list(actor, limit=50)
        pages.append(time.perf_counter() - asked)
    return pages


def fill(folder: Path, count: int) -> None:
    """Write `count` jobs as the store keeps them, without going through it one by one."""
    from host import BenchHost

    from carapace_cron.clock import SystemClock
    from carapace_cron.data_dir import DataDir
    from carapace_cron.database import Database
    from carapace_cron.engines import sqlite_engine
    from carapace_cron.house import House
    from carapace_cron.ids import new_job_id
    from carapace_cron.job_document import key_of, written
    from carapace_cron.ledger.migrations.upgrade import upgrade
    from carapace_cron.model.job import Job
    from carapace_cron.objects.database import DatabaseObjects
    from carapace_cron.ports.host import AgentReply
    from carapace_cron.settings import CronSettings

    now = datetime.now(UTC)

    def job(number: int) -> Job:
        return Job(
            id=new_job_id(now),
            tenant="filled",
            user_id=f"user{number % 100}",
            name=f"job {number}",
            schedule=quiet_schedule(number),
            command="agent: report",
            channel_id="gateway",
            created_at=now,
            updated_at=now,
            scheduled_since=now,
        )

    async def write() -> None:
        database = Database(sqlite_engine(DataDir(folder).database), upgrade)
        await database.open()
        objects = DatabaseObjects(database, SystemClock())
        for start in range(0, count, 1_000):
            made = [written(job(number), over=None) for number in range(start, min(start + 1_000, count))]
            await asyncio.gather(*(objects.put(key_of(one.id), body, if_absent=True) for one, body in made))
        await database.close()
        house = House(BenchHost(folder, lambda call: AgentReply("")), CronSettings(), SystemClock())
        await house.open()  # the ledger of a gateway that has run knows its jobs
        await house.close()

    asyncio.run(write())


def fill_elsewhere(folder: Path, count: int) -> None:
    """In a process of its own, so that what filling takes is not counted as ours."""
    command = [sys.executable, __file__, "--fill", str(folder), "--jobs", str(count)]
    subprocess.run(command, check=True)


# The peers


async def measure_apscheduler(jobs: int, folder: Path, *, durable: bool) -> dict[str, float]:
    from apscheduler.jobstores.memory import MemoryJobStore
    from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
    from apscheduler.schedulers.asyncio import AsyncIOScheduler
    from apscheduler.triggers.cron import CronTrigger

    def make() -> AsyncIOScheduler:
        store = SQLAlchemyJobStore(f"sqlite:///{folder}/peer.sqlite") if durable else MemoryJobStore()
        return AsyncIOScheduler(jobstores={"default": store}, timezone=UTC)

    def quiet(number: int) -> CronTrigger:
        return CronTrigger(minute=number % 60, hour=number % 4, day=29, month=2, timezone=UTC)

    scheduler = make()
    scheduler.start()
    for number in range(jobs):
        scheduler.add_job(peer_job, quiet(number), args=[0.0], misfire_grace_time=None)
    adds = []
    for number in range(ADDS):
        began = time.perf_counter()
        scheduler.add_job(peer_job, quiet(number), args=[0.0], misfire_grace_time=None)
        adds.append(time.perf_counter() - began)
    started = float("nan")
    if durable:
        scheduler.shutdown()
        began = time.perf_counter()
        scheduler = make()
        scheduler.start()
        await asyncio.sleep(0)
        started = time.perf_counter() - began
    await asyncio.sleep(0.5)
    idle = await idle_cpu_percent()
    memory = rss_mb()
    lead = timedelta(seconds=LEAD_SECONDS + BURST * (0.02 if durable else 0.002))
    due_at = (datetime.now(UTC) + lead).replace(microsecond=0)
    for _ in range(BURST):
        trigger = CronTrigger(
            second=due_at.second, minute=due_at.minute, hour=due_at.hour, day=due_at.day, timezone=UTC
        )
        scheduler.add_job(peer_job, trigger, args=[due_at.timestamp()], misfire_grace_time=None)
    deadline = time.monotonic() + 120
    while len(PEER_BEGAN) < BURST and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    scheduler.shutdown(wait=False)
    return {
        "add_p50_ms": statistics.median(adds) * 1e3,
        "add_p99_ms": percentile(adds, 0.99) * 1e3,
        "start_s": started,
        "idle_cpu_percent": idle,
        "rss_mb": memory,
        "list_p99_ms": float("nan"),
        **lateness(PEER_BEGAN),
    }


PEER_BEGAN: list[float] = []


async def peer_job(due_at: float) -> None:
    PEER_BEGAN.append(time.time() - due_at)


# The table

COLUMNS = (
    ("add_p50_ms", "add p50 ms"),
    ("add_p99_ms", "add p99 ms"),
    ("start_s", "start s"),
    ("idle_cpu_percent", "idle CPU %"),
    ("rss_mb", "RSS MB"),
    ("list_p99_ms", "list p99 ms"),
    ("burst_ran", "ran"),
    ("late_p50_s", "late p50 s"),
    ("late_p99_s", "late p99 s"),
    ("late_max_s", "late max s"),
)
WHO = ("carapace", "apscheduler-memory", "apscheduler-sqlite")


def child(who: str, jobs: int) -> None:
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        if who == "carapace":
            fill_elsewhere(Path(folder), jobs)
            figures = asyncio.run(measure_ours(jobs, Path(folder)))
        else:
            durable = who.endswith("sqlite")
            figures = asyncio.run(measure_apscheduler(jobs, Path(folder), durable=durable))
    print(json.dumps(figures))


def run_child(who: str, jobs: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", who, "--jobs", str(jobs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{who} with {jobs} jobs failed:\n{done.stderr}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, help="one size instead of 1,000, 10,000 and 100,000")
    parser.add_argument("--only", choices=WHO, help="one of the three instead of all")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--fill", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--child", choices=WHO, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.fill:
        fill(given.fill, given.jobs)
        return
    if given.child:
        child(given.child, given.jobs)
        return
    rows = []
    print("| who | jobs | " + " | ".join(title for _, title in COLUMNS) + " |")
    print("|---" * (len(COLUMNS) + 2) + "|")
    for jobs in (given.jobs,) if given.jobs else SIZES:
        for who in (given.only,) if given.only else WHO:
            if jobs > PEER_LIMIT.get(who, jobs):
                continue
            figures = run_child(who, jobs)
            rows.append({"who": who, "jobs": jobs, **figures})
            cells = ("–" if figures[name] != figures[name] else f"{figures[name]:.3g}" for name, _ in COLUMNS)
            print(f"| {who} | {jobs:,} | " + " | ".join(cells) + " |", flush=True)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
