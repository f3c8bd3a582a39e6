"""Durable runs per second, end to end: due, recorded, claimed, done and recorded, on SQLite with a flush of
the disk for each commit; beside APScheduler 3.11 with its SQLAlchemy store on SQLite, in the same run.

    python bench/runs.py                 # 10,000 jobs due in the same second; 2,000 for the peer
    python bench/runs.py --jobs 3000

The runner does nothing. "runs/s" counts from the due second to the last recorded end.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

PEER_JOBS = 2_000
SLOTS = 500
LEAD_SECONDS = 3


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


async def measure_ours(count: int, folder: Path) -> dict[str, float]:
    from carapace_cron.clock import SystemClock
    from carapace_cron.database import Database
    from carapace_cron.executor import Executor
    from carapace_cron.ids import new_job_id
    from carapace_cron.ledger.migrations.upgrade import upgrade
    from carapace_cron.ledger.runs import Runs
    from carapace_cron.model.job import Job
    from carapace_cron.model.run import Outcome
    from carapace_cron.ports.runner import Work
    from carapace_cron.schedule import parse
    from carapace_cron.scheduler import Scheduler

    class NoOp:
        kind = "noop"

        def __init__(self) -> None:
            self.late: list[float] = []

        def for_command(self, command: str) -> NoOp:
            return self

        def check(self, *_: Any) -> None:
            pass

        async def run(self, work: Work) -> Outcome:
            self.late.append(time.time() - work.scheduled_for.timestamp())
            return Outcome("success")

    clock, runner = SystemClock(), NoOp()
    database = Database(folder / "bench.sqlite", upgrade)
    await database.open()
    ledger = Runs(database)
    documents: dict[str, bytes] = {}
    ended: list[float] = []
    scheduler = Scheduler(
        ledger,
        clock,
        document=documents.__getitem__,
        schedule_of=lambda job: parse(job.schedule, job.timezone),
        on_finished=lambda *_: None,
    )
    executor = Executor(
        ledger, runner, clock, owner="bench", slots=SLOTS, on_ended=lambda *_: ended.append(time.time())
    )
    now = datetime.now(UTC)
    due_at = now.replace(microsecond=0) + timedelta(seconds=LEAD_SECONDS + count // 20_000)
    for number in range(count):
        job = Job(
            id=new_job_id(now),
            tenant=f"tenant{number % 10}",
            user_id="bench",
            name="bench",
            schedule=f"{due_at.second} {due_at.minute} {due_at.hour} {due_at.day} {due_at.month} *",
            command="noop",
            channel_id="gateway",
            notify="never",
            created_at=now,
            updated_at=now,
            scheduled_since=now,
        )
        documents[job.id] = job.model_dump_json(by_alias=True, exclude_none=True).encode()
        scheduler.put(job)
    gc.collect()  # as the command serve does once all is loaded
    gc.freeze()
    loops = [asyncio.create_task(scheduler.run()), asyncio.create_task(executor.run())]
    deadline = time.time() + 120
    while len(ended) < count and time.time() < deadline:
        await asyncio.sleep(0.02)
    scheduler.stop()
    await executor.stop(5)
    await asyncio.gather(*loops)
    await database.close()
    took = max(ended) - due_at.timestamp()
    return {"runs": len(ended), "runs_per_s": len(ended) / took, **late(runner.late)}


def late(values: list[float]) -> dict[str, float]:
    shares = {"late_p50_s": 0.5, "late_p99_s": 0.99, "late_max_s": 1.0}
    return {name: percentile(values, share) for name, share in shares.items()}


PEER_LATE: list[float] = []


async def peer_job(due_at: float) -> None:
    PEER_LATE.append(time.time() - due_at)


async def measure_peer(count: int, folder: Path) -> dict[str, float]:
    from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
    from apscheduler.schedulers.asyncio import AsyncIOScheduler

    store = SQLAlchemyJobStore(f"sqlite:///{folder}/peer.sqlite")
    scheduler = AsyncIOScheduler(jobstores={"default": store}, timezone=UTC)
    scheduler.start()
    due_at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=LEAD_SECONDS + count * 0.01)
    for _ in range(count):
        scheduler.add_job(
            peer_job,
            "cron",
            second=due_at.second,
            minute=due_at.minute,
            hour=due_at.hour,
            day=due_at.day,
            args=[due_at.timestamp()],
            misfire_grace_time=None,
            max_instances=count,
        )
    while len(PEER_LATE) < count:
        await asyncio.sleep(0.05)
    took = time.time() - due_at.timestamp()
    scheduler.shutdown(wait=False)
    return {"runs": len(PEER_LATE), "runs_per_s": len(PEER_LATE) / took, **late(PEER_LATE)}


def run_child(who: str, jobs: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", who, "--jobs", str(jobs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{who} failed:\n{done.stderr}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--child", choices=("carapace", "apscheduler-sqlite"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        logging.disable(logging.CRITICAL)
        measure = measure_ours if given.child == "carapace" else measure_peer
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(asyncio.run(measure(given.jobs, Path(folder)))))
        return
    print("| who | runs | runs/s | late p50 s | late p99 s | late max s |\n|---|---|---|---|---|---|")
    rates = []
    for who, jobs in (("carapace", given.jobs), ("apscheduler-sqlite", min(given.jobs, PEER_JOBS))):
        figures = run_child(who, jobs)
        rates.append(figures["runs_per_s"])
        cells = " | ".join(f"{figures[name]:.3g}" for name in ("late_p50_s", "late_p99_s", "late_max_s"))
        print(f"| {who} | {jobs:,} | {figures['runs_per_s']:,.0f} | {cells} |", flush=True)
    print(f"\n{rates[0] / rates[1]:.1f} times the peer's rate")


if __name__ == "__main__":
    main()
