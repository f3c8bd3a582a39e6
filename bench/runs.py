"""Durable runs end to end: due, recorded, claimed, done by a runner that does nothing, and recorded again; on
SQLite with a flush of the disk for each commit. Beside APScheduler 3.11 with its SQLAlchemy store on SQLite,
which flushes for each job, in the same run.

    python bench/runs.py                     # all of it, about eleven minutes
    python bench/runs.py burst               # the rate alone: 10,000 jobs due in the same second
    python bench/runs.py burst --jobs 3000
    python bench/runs.py idle minute beside  # some of them

Lateness is from the due instant until the runner begins, by when our claim is on the disk; "runs/s" counts
from the due instant until the last end is recorded. "CPU µs a run" is of the whole process, all threads: it
can be compared where other work goes on beside. Afterwards the ledger is read back: a run without its record,
or a record without its run, ends the bench. Every measurement has a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from carapace_cron.model.job import Job

SLOTS = 500
WATCHED = "b"  # the tenant whose lateness is shown
NEIGHBOUR = "a"
MINUTE = 60
ADDED_AT_ONCE = 500
PATIENCE_SECONDS = 120.0
DATABASE = "bench.sqlite"


# What is due: (seconds after the start, tenant), one for each job


Due = tuple[int, str]


def burst(jobs: int) -> Iterator[Due]:
    """All in the same second."""
    return ((0, WATCHED) for _ in range(jobs))


def idle(_: int) -> Iterator[Due]:
    """Five a second for a minute: what a run waits for when nothing else is under way."""
    return ((number % MINUTE, WATCHED) for number in range(5 * MINUTE))


def minute(jobs: int) -> Iterator[Due]:
    """As many as the burst, spread over the seconds of one minute."""
    return ((number % MINUTE, WATCHED) for number in range(jobs))


def beside(_: int) -> Iterator[Due]:
    """The idle load, beside a tenant with 1,000 jobs a minute, spread over its seconds."""
    yield from ((number % MINUTE, NEIGHBOUR) for number in range(1_000))
    yield from idle(0)


def behind(_: int) -> Iterator[Due]:
    """Five jobs due in the same second as another tenant's 1,000, which were added first; thirty times."""
    for second in range(0, MINUTE, 2):
        yield from ((second, NEIGHBOUR) for _ in range(1_000))
        yield from ((second, WATCHED) for _ in range(5))


@dataclass(frozen=True)
class Workload:
    due: Callable[[int], Iterator[Due]]
    peer_jobs: int | None  # of the burst's number, as many as the peer can hold; None = it is left out
    shows_rate: bool = False


WORKLOADS = {
    "burst": Workload(burst, peer_jobs=2_000, shows_rate=True),
    "idle": Workload(idle, peer_jobs=0),
    "minute": Workload(minute, peer_jobs=10_000),
    "beside": Workload(beside, peer_jobs=0),
    "behind": Workload(behind, peer_jobs=None),
}


# Who does it


@dataclass
class Measured:
    """What is noted while it goes on. Instants are seconds since 1970."""

    late: list[float] = field(default_factory=list)  # of the tenant that is watched
    ran: int = 0
    last_end: float = 0.0

    def began(self, tenant: str, due_at: float) -> None:
        self.ran += 1
        if tenant == WATCHED:
            self.late.append(time.time() - due_at)

    def ended(self) -> None:
        self.last_end = time.time()


class Contender(Protocol):
    seconds_per_add: float  # generous; until then all must be added

    async def open(self, folder: Path, measured: Measured) -> None: ...

    async def add(self, due: list[tuple[datetime, str]]) -> None: ...

    async def close(self, folder: Path) -> None:
        """Stop, and see that each job has its record."""
        ...


class Ours:
    seconds_per_add = 0.002

    async def open(self, folder: Path, measured: Measured) -> None:
        from carapace_cron.clock import SystemClock
        from carapace_cron.database import Database
        from carapace_cron.engines import sqlite_engine
        from carapace_cron.executor import Executor
        from carapace_cron.ledger.migrations.upgrade import upgrade
        from carapace_cron.ledger.runs import Runs
        from carapace_cron.schedule import parse
        from carapace_cron.scheduler import Scheduler

        clock = SystemClock()
        self.documents: dict[str, bytes] = {}
        self.database = Database(sqlite_engine(folder / DATABASE), upgrade)
        await self.database.open()
        ledger = Runs(self.database)
        self.scheduler = Scheduler(
            ledger,
            clock,
            document=self.documents.__getitem__,
            schedule_of=lambda job: parse(job.schedule, job.timezone),
            on_finished=lambda *_: None,
        )
        self.executor = Executor(
            ledger,
            NoOp(measured),
            clock,
            owner="bench",
            slots=SLOTS,
            on_ended=lambda *_: measured.ended(),
        )
        self.loops = [asyncio.create_task(self.scheduler.run()), asyncio.create_task(self.executor.run())]

    async def add(self, due: list[tuple[datetime, str]]) -> None:
        from carapace_cron.ledger.in_force import InForce

        jobs = [self.job(due_at, tenant) for due_at, tenant in due]
        self.documents.update(
            (job.id, job.model_dump_json(by_alias=True, exclude_none=True).encode()) for job in jobs
        )
        for start in range(0, len(jobs), ADDED_AT_ONCE):
            await InForce(self.database).put(jobs[start : start + ADDED_AT_ONCE], told=False)
        for job in jobs:
            self.scheduler.put(job)

    def job(self, due_at: datetime, tenant: str) -> Job:
        from carapace_cron.ids import new_job_id
        from carapace_cron.model.job import Job

        now = datetime.now(UTC)
        return Job(
            id=new_job_id(now),
            tenant=tenant,
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

    async def close(self, folder: Path) -> None:
        self.scheduler.stop()
        await self.executor.stop(5)
        await asyncio.gather(*self.loops)
        await self.database.close()
        with sqlite3.connect(folder / DATABASE) as ledger:
            query = "SELECT count(*) FROM runs JOIN attempts ON run_id = id WHERE state = 'success'"
            recorded = ledger.execute(query).fetchone()[0]
        if recorded != len(self.documents):
            sys.exit(f"{recorded} successes are in the ledger, of {len(self.documents)} jobs")


class NoOp:
    """A runner, and the registry that always finds it."""

    kind = "noop"

    def __init__(self, measured: Measured) -> None:
        self.measured = measured

    def for_command(self, command: str) -> NoOp:
        return self

    def check(self, *_: Any) -> None:
        pass

    async def run(self, work: Any) -> Any:
        from carapace_cron.model.run import Outcome

        self.measured.began(work.tenant, work.scheduled_for.timestamp())
        return Outcome("success")


class Peer:
    """APScheduler keeps no record of runs: each run costs it one update of the job, flushed to the disk."""

    seconds_per_add = 0.01

    async def open(self, folder: Path, measured: Measured) -> None:
        from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
        from apscheduler.schedulers.asyncio import AsyncIOScheduler

        store = SQLAlchemyJobStore(f"sqlite:///{folder}/{DATABASE}")
        PEER.append(measured)
        self.scheduler = AsyncIOScheduler(jobstores={"default": store}, timezone=UTC)
        self.scheduler.start()

    async def add(self, due: list[tuple[datetime, str]]) -> None:
        for due_at, tenant in due:
            self.scheduler.add_job(
                peer_job,
                "cron",
                second=due_at.second,
                minute=due_at.minute,
                hour=due_at.hour,
                day=due_at.day,
                args=[tenant, due_at.timestamp()],
                misfire_grace_time=None,
            )

    async def close(self, folder: Path) -> None:
        self.scheduler.shutdown(wait=False)


PEER: list[Measured] = []  # what the peer calls must be found by its name, so it has nothing of its own


async def peer_job(tenant: str, due_at: float) -> None:
    PEER[0].began(tenant, due_at)
    PEER[0].ended()


CONTENDERS: dict[str, type[Contender]] = {"carapace": Ours, "apscheduler-sqlite": Peer}


# One measurement


async def measure(contender: Contender, due: list[Due], folder: Path) -> dict[str, float]:
    measured = Measured()
    await contender.open(folder, measured)
    lead = timedelta(seconds=3 + len(due) * contender.seconds_per_add)
    start = (datetime.now(UTC) + lead).replace(microsecond=0)
    await contender.add([(start + timedelta(seconds=second), tenant) for second, tenant in due])
    gc.collect()  # as the command serve does once all is loaded
    gc.freeze()
    if datetime.now(UTC) > start:
        sys.exit("adding the jobs took so long that the first were due: let the machine rest, and try again")
    await asyncio.sleep(start.timestamp() - time.time() - 0.5)
    cpu = time.process_time()
    deadline = start.timestamp() + max(due)[0] + PATIENCE_SECONDS
    while measured.ran < len(due) and time.time() < deadline:
        await asyncio.sleep(0.02)
    await contender.close(folder)
    if measured.ran != len(due):
        sys.exit(f"{measured.ran} runs began, of {len(due)} jobs")
    late = sorted(measured.late)
    return {
        "runs": measured.ran,
        "runs_per_s": measured.ran / (measured.last_end - start.timestamp()),
        "cpu_us": (time.process_time() - cpu) / measured.ran * 1e6,
        "late_p50_ms": percentile(late, 0.5) * 1e3,
        "late_p99_ms": percentile(late, 0.99) * 1e3,
        "late_max_ms": late[-1] * 1e3,
    }


def percentile(ordered: list[float], share: float) -> float:
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def run_child(who: str, what: str, jobs: int) -> dict[str, float]:
    command = [sys.executable, __file__, what, "--child", who, "--jobs", str(jobs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{who}, {what}, failed:\n{done.stderr}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


# The table


def measure_all(names: list[str], jobs: int) -> dict[tuple[str, str], dict[str, float]]:
    print("| what | who | runs | runs/s | CPU µs a run | late p50 ms | late p99 ms | late max ms |")
    print("|---" * 8 + "|")
    found = {}
    for name in names:
        workload = WORKLOADS[name]
        for who in CONTENDERS:
            if who != "carapace" and workload.peer_jobs is None:
                continue
            count = jobs if who == "carapace" else min(jobs, workload.peer_jobs or jobs)
            figures = found[name, who] = run_child(who, name, count)
            rate = f"{figures['runs_per_s']:,.0f}" if workload.shows_rate else "–"
            shown = " | ".join(plain(figures[f"late_{share}_ms"]) for share in ("p50", "p99", "max"))
            cpu = plain(figures["cpu_us"])
            print(f"| {name} | {who} | {figures['runs']:,.0f} | {rate} | {cpu} | {shown} |", flush=True)
    return found


def plain(value: float) -> str:
    """Three digits at least, and no power of ten: 9.54, 22.1, 4,680."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def ratios(found: dict[tuple[str, str], dict[str, float]]) -> Iterator[str]:
    for who in CONTENDERS:
        alone, crowded = found.get(("idle", who)), found.get(("beside", who))
        if alone and crowded:
            times = crowded["late_p99_ms"] / alone["late_p99_ms"]
            yield f"{who}: beside a busy tenant, p99 is {times:.1f} times what it is alone"
    ours, peer = (found.get(("burst", who)) for who in CONTENDERS)
    if ours and peer:
        yield f"burst: {ours['runs_per_s'] / peer['runs_per_s']:.1f} times the peer's rate"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="*", help=f"some of: {', '.join(WORKLOADS)}; all if none is named")
    parser.add_argument("--jobs", type=int, default=10_000, help="of burst and minute (default: 10,000)")
    parser.add_argument("--child", choices=CONTENDERS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    names = given.what or list(WORKLOADS)
    if unknown := [name for name in names if name not in WORKLOADS]:
        parser.error(f'unknown "{unknown[0]}": expected some of {", ".join(WORKLOADS)}')
    if given.child:
        logging.disable(logging.CRITICAL)
        due = list(WORKLOADS[names[0]].due(given.jobs))
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(asyncio.run(measure(CONTENDERS[given.child](), due, Path(folder)))))
        return
    for line in ["", *ratios(measure_all(names, given.jobs))]:
        print(line)


if __name__ == "__main__":
    main()
