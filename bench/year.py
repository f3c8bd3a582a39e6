"""A year of the whole extension in some minutes: memory, disk and lateness, month by month. They stay flat.

    python bench/year.py                # twelve months, about two and a half minutes
    python bench/year.py --months 3

Real: everything from the services down to the ledger's file, with its retention, its notices and a flush of
the disk for each commit. Not real: the host, whose agent answers at once, and the clock. The hours in which
nothing is due are leapt over; from a second before something is until some seconds after it, time passes
step by step, and stands still while anything works. So lateness in virtual time is what the loops' own
waiting adds, and "CPU ms a run" is what a busier gateway would be late by.

Every three hours five jobs are due, one of which fails at first and is tried again; three of 24 daily ones;
and one that was just made, runs once and deletes itself. In the end every job must have run as often as the
year had such hours or days.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import itertools
import logging
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
from host import BenchHost

from carapace_cron.house import House
from carapace_cron.model.actor import Actor
from carapace_cron.ports.host import AgentCall, AgentReply
from carapace_cron.settings import CronSettings

START = datetime(2026, 1, 1, tzinfo=UTC)
STEP_HOURS = 3
STEP = timedelta(hours=STEP_HOURS)
LEAD_SECONDS = 1.0  # before something is due, time begins to pass step by step
TRAIL_SECONDS = 8.0  # and does so for as long after it: the retry comes 5 s after its failure
TURNS = 30  # of the loop without anything to do, until all are taken to wait
# Their offsets are multiples of three hours, all year long.
ZONES = ("UTC", "Africa/Nairobi", "America/Sao_Paulo", "Asia/Dhaka", "Asia/Tokyo")
DAILY = 24
ACTOR = Actor("bench", "bench", frozenset({"jobs:write"}))


class YearClock:
    """Time that passes only when it is told to, and leaps."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._tickets = itertools.count()
        self.is_busy = lambda: False

    def now(self) -> datetime:
        return START + timedelta(seconds=self._seconds)

    def monotonic(self) -> float:
        return self._seconds

    async def wait(self, event: asyncio.Event, seconds: float) -> bool:
        if event.is_set() or seconds <= 0:
            return event.is_set()
        alarm = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._seconds + seconds, next(self._tickets), alarm))
        waiter = asyncio.ensure_future(event.wait())
        try:
            await asyncio.wait((waiter, alarm), return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiter.cancel()
            alarm.cancel()
        return event.is_set()

    async def leap_to(self, instant: datetime) -> None:
        """Everybody who slept wakes once, there."""
        self._seconds = max((instant - START).total_seconds(), self._seconds)
        self._wake_sleepers()
        await self.settle()

    async def pass_to(self, instant: datetime) -> None:
        """Everybody who sleeps wakes at their own moment."""
        end = (instant - START).total_seconds()
        while self._sleepers and self._sleepers[0][0] <= end:
            self._seconds = max(self._sleepers[0][0], self._seconds)
            self._wake_sleepers()
            await self.settle()
        self._seconds = end

    def _wake_sleepers(self) -> None:
        while self._sleepers and self._sleepers[0][0] <= self._seconds:
            alarm = heapq.heappop(self._sleepers)[-1]
            if not alarm.done():
                alarm.set_result(None)

    async def settle(self) -> None:
        """Until all tasks wait again."""
        turns = 0
        while turns < TURNS:
            turns += 1
            if self.is_busy():
                turns = 0
                await asyncio.sleep(0.0001)
            await asyncio.sleep(0)


class Year:
    """The house, its jobs, and what was seen of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = YearClock()
        self.late: list[float] = []  # seconds of virtual time
        self.ran = Counter[str]()  # the first argument of the command → how often

    async def open(self) -> None:
        self.house = House(BenchHost(self.folder, self.answer), CronSettings(), self.clock)
        await self.house.open()
        self.clock.is_busy = lambda: self.house._database.in_flight > 0
        for number, zone in enumerate(ZONES):
            command = f"agent: report often{number}" + " --fail" * (number == 0)
            await self.create(f"0 */{STEP_HOURS} * * *", command, timezone=zone)
        for number in range(DAILY):
            schedule, zone = f"0 {number * STEP_HOURS % 24} * * *", ZONES[number % len(ZONES)]
            await self.create(schedule, f"agent: report daily{number}", timezone=zone)

    def answer(self, call: AgentCall) -> AgentReply:
        if call.metadata["attempt"] == 1:
            due_at = datetime.fromisoformat(call.metadata["scheduledFor"])
            self.late.append((self.clock.now() - due_at).total_seconds())
            if "--fail" in call.arguments:
                return AgentReply("", "failure", "not at the first try")
        self.ran[call.arguments[0]] += 1
        return AgentReply("all is well")

    async def create(self, schedule: str, command: str, **settings: Any) -> None:
        draft = {"name": "bench", "command": command, "channelId": "gateway", "notify": "change", **settings}
        await self.house.jobs.create(ACTOR, {**draft, "schedule": schedule})

    async def pass_step(self, due_at: datetime) -> None:
        await self.clock.leap_to(due_at - timedelta(seconds=LEAD_SECONDS))
        await self.create(f"at {due_at.isoformat()}", "agent: report once", deleteAfterRun=True)
        await self.clock.pass_to(due_at + timedelta(seconds=TRAIL_SECONDS))

    async def close(self) -> None:
        closing = asyncio.create_task(self.house.close())
        while not closing.done():
            await self.clock.pass_to(self.clock.now() + timedelta(seconds=1))
            await asyncio.sleep(0.001)
        await closing

    def check(self, days: int) -> None:
        """Each job ran as often as it was due."""
        steps = days * 24 // STEP_HOURS
        expected = {"once": steps} | {f"often{number}": steps for number in range(len(ZONES))}
        expected |= {f"daily{number}": days for number in range(DAILY)}
        if self.ran != expected:
            sys.exit(f"what ran is not what was due:\n{self.ran}\n{expected}")

    def rows(self) -> int:
        with sqlite3.connect(self.house._database.path) as ledger:
            count: int = ledger.execute("SELECT count(*) FROM runs").fetchone()[0]
        return count

    def megabytes(self) -> float:
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file()) / 2**20


COLUMNS = ("month", "runs", "late max s", "CPU ms a run", "RSS MB", "disk MB", "runs kept", "took s")


async def one_month(year: Year, month: int, start: datetime, end: datetime) -> dict[str, float]:
    cpu, began, due_at = time.process_time(), time.perf_counter(), start
    while due_at < end:
        due_at += STEP
        await year.pass_step(due_at)
    late = year.late
    figures = (
        month,
        len(late),
        max(late),
        (time.process_time() - cpu) / len(late) * 1e3,
        psutil.Process().memory_info().rss / 2**20,
        year.megabytes(),
        year.rows(),
        time.perf_counter() - began,
    )
    late.clear()
    return dict(zip(COLUMNS, figures, strict=True))


async def live(months: int, folder: Path) -> list[dict[str, float]]:
    year, found, start = Year(folder), [], START
    await year.open()
    print("| " + " | ".join(COLUMNS) + " |")
    print("|---" * len(COLUMNS) + "|")
    for month in range(1, months + 1):
        end = datetime(START.year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
        figures = await one_month(year, month, start, end)
        found.append(figures)
        print("| " + " | ".join(plain(value) for value in figures.values()) + " |", flush=True)
        start = end
    await year.close()
    year.check((start - START).days)
    return found


def plain(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--months", type=int, default=12)
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(live(given.months, Path(folder)))
    if len(found) > 2:  # the first month fills the 30 days that the ledger keeps
        second, last = found[1], found[-1]
        for name in ("RSS MB", "disk MB", "CPU ms a run"):
            print(f"{name}, last month: {last[name] / second[name]:.2f} times the second's")


if __name__ == "__main__":
    main()
