"""The wall clock under a running gateway is set: an hour back, an hour ahead, a day ahead."""

from __future__ import annotations

import asyncio
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from crash.story import Report, Story, story
from support.checker import SECOND, Due, Evidence, JobMade, instant_of
from support.closing import evidence
from support.gateway_process import OURS, until
from support.outside import Outside
from support.workload import Kind, create_one

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LIVE_SECONDS = 4.0
LEAPT_SECONDS = 8.0  # some dozens of runs are caught up, ten a second
SEEN_SECONDS = 30.0
COVERS = "missed, like every instant from then until "


class SteppedClock:
    """The wall clock of one process, by libfaketime; how time passes stays as it is."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "offset"
        self.offset = timedelta(0)
        self.step(timedelta(0))
        self.environment = {
            "LD_PRELOAD": str(_library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",  # second, until it looks at the file again
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def step(self, by: timedelta) -> None:
        self.offset += by
        new = self._file.with_suffix(".new")
        new.write_text(f"{self.offset.total_seconds():+.0f}")
        new.replace(self._file)

    def now(self) -> datetime:
        """What the process sees."""
        return datetime.now(UTC) + self.offset

    def check(self) -> None:
        """Raises RuntimeError where the library cannot do what a test needs of it."""
        told = "import time; print(time.time())"
        environment = {**os.environ, **self.environment}
        self.step(DAY)
        seen = subprocess.run([sys.executable, "-c", told], env=environment, capture_output=True, text=True)
        off = abs(float(seen.stdout or 0) - self.now().timestamp())
        self.step(-DAY)
        if off > 60:
            what = f"{_library()} does not set clocks on {platform.machine()}: {seen.stderr[-500:]}"
            raise RuntimeError(f"{what}; build it there (make -C {_library().parent})")


def _library() -> Path:
    package = find_spec("libfaketime")
    assert package is not None and package.origin is not None, "install the extra dev"
    return Path(package.origin).parent / "vendor/libfaketime/src/libfaketime.so.1"


@dataclass(frozen=True)
class Leap:
    """The wall clock went from one instant to the other in no time."""

    before: datetime
    after: datetime


async def clock_set(folder: Path, seed: int) -> Report:
    """An hour back, and ahead again; then another hour ahead, and a day."""
    clock = SteppedClock(folder)
    clock.check()
    title = "clock set back and ahead"
    async with story(
        title, folder, seed, environment=clock.environment, program=OURS, kinds=_kinds
    ) as told:
        await asyncio.sleep(LIVE_SECONDS)
        await _step(told, clock, -HOUR)
        new = await create_one(told.gateway, "made an hour back", _each_second(told.world))
        told.jobs["made an hour back"] = new
        await _until_it_runs(told, new)
        await _step(told, clock, HOUR)
        await asyncio.sleep(LEAPT_SECONDS)
        leaps = []
        for ahead in (HOUR, DAY):
            leaps.append(await _step(told, clock, ahead))
            await asyncio.sleep(LEAPT_SECONDS)
        _leave_out_what_others_stand_for(told)
        report = await told.end()
        seen = evidence(told.gateway, told.world)
        report.broken += [fault for leap in leaps for fault in ill_caught_up(told.jobs, seen, leap)]
        return report


async def _step(told: Story, clock: SteppedClock, by: timedelta) -> Leap:
    """Until the gateway's own loop sees it."""
    before = clock.now()
    clock.step(by)
    told.befell[f"step of {by.total_seconds() / 3600:+g} h"] += 1

    async def is_seen() -> bool:
        last_pass = (await told.gateway.call("carapace.cron.status"))["lastPassAt"]
        return abs(datetime.fromisoformat(last_pass) - clock.now()) < 5 * SECOND

    await until(is_seen, "a pass by the clock as it is now", SEEN_SECONDS)
    return Leap(before, clock.now())


async def _until_it_runs(told: Story, job: JobMade) -> None:
    """The loop goes on by the clock as it is now."""

    async def has_run() -> bool:
        page = await told.gateway.call("carapace.cron.runs", jobId=job.id, status="success")
        return len(page["items"]) >= 3

    await until(has_run, "a job runs that was made after the clock was set back", 10)


def each_epoch(seconds: int) -> Due:
    """Each instant whose seconds since 1970 the step divides: whole minutes and hours of UTC."""

    def due(created: datetime, until: datetime) -> Iterator[datetime]:
        number = int(created.timestamp()) // seconds + 1
        while (at := datetime.fromtimestamp(number * seconds, UTC)) <= until:
            yield at
            number += 1

    return due


def _each_second(world: Outside) -> Kind:
    return Kind("* * * * * *", each_epoch(1), f"{world.url}/quick", "pager", "/quick")


def _kinds(world: Outside) -> dict[str, Kind]:
    quick = _each_second(world)
    five_minutes = {"catchUp": "all", "catchUpWindowSeconds": 300, "overlap": "queue"}
    six_hours = {"catchUp": "all", "catchUpWindowSeconds": 6 * 3600, "overlap": "queue"}
    return {
        "each second": quick,
        "never late": replace(
            quick, schedule="*/5 * * * * *", due=each_epoch(5), settings={"catchUp": "none"}
        ),
        "five minutes' worth": Kind(
            "*/10 * * * * *", each_epoch(10), "echo ten seconds", "gateway", settings=five_minutes
        ),
        "each minute": Kind("* * * * *", each_epoch(60), "echo minute", "gateway"),
        "each five minutes": replace(quick, schedule="*/5 * * * *", due=each_epoch(300)),
        "each hour": Kind("0 * * * *", each_epoch(3600), "echo hour", "gateway", settings=six_hours),
    }


def _leave_out_what_others_stand_for(told: Story) -> None:
    """Of very many misses the oldest share one record, which says how far it reaches: the rest of them
    has none of its own. What is caught up is judged by `ill_caught_up`, which knows of windows."""
    for name, job in told.jobs.items():
        told.jobs[name] = replace(job, due=_without(job.due, job.id, told), catch_up="latest")


def _without(due: Due, job_id: str, told: Story) -> Due:
    def some(created: datetime, until: datetime) -> Iterator[datetime]:
        rows = [row for row in evidence(told.gateway, told.world).runs if row["job_id"] == job_id]
        spans = [span for row in rows if (span := _span(row)) is not None]
        for at in due(created, until):
            if not any(first < at < end for first, end in spans):
                yield at

    return some


def _span(row: Mapping[str, Any]) -> tuple[datetime, datetime] | None:
    """From when until when a record stands for all instants; None: for its own only."""
    reason = row["reason"] or ""
    if not reason.startswith(COVERS):
        return None
    end = reason.removeprefix(COVERS).partition(": ")[0]
    return instant_of(row["scheduled_for"]), datetime.fromisoformat(end)


def ill_caught_up(jobs: Mapping[str, JobMade], seen: Evidence, leap: Leap) -> Iterator[str]:
    """How many of the instants that a leap jumped over were run, against what the jobs' catch-up asks.

    Those of the last seconds before and after it are left out: they are ordinary ones.
    """
    since, until = leap.before + 2 * SECOND, leap.after - 11 * SECOND
    most = {
        "never late": (0, 0),
        "each second": (0, 0),  # the newest of them is on time
        "five minutes' worth": (28, 30),
        "each five minutes": (0, 1),
        "each minute": (0, 1),
        "each hour": (1, 6) if leap.after - leap.before > 6 * HOUR else (0, 1),
    }
    for name, (least, greatest) in most.items():
        rows = [row for row in seen.runs if row["job_id"] == jobs[name].id]
        over = [row for row in rows if since < instant_of(row["scheduled_for"]) <= until]
        ran = [instant_of(row["scheduled_for"]) for row in over if row["attempt"]]
        if not least <= len(ran) <= greatest:
            yield f'{len(ran)} instants of "{name}" ran that a leap to {leap.after} jumped over'
        if ran and min(ran) < leap.after - 6 * HOUR - 5 * SECOND:
            yield f'"{name}" ran for {min(ran)}, which a leap to {leap.after} had put out of its window'
