"""The whole program as its users have it: real processes, a real S3 server, real kills.

A gateway runs jobs of every kind each second or two. It is stopped and killed in the middle, and started
again. In the end `support/checker.py` judges: each due instant has exactly one record, nothing ran twice,
every result has arrived.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.checker import (
    Evidence,
    JobMade,
    count_in_ledger,
    judge,
    read_ledger,
    unlike_the_answers,
)
from support.gateway_process import GatewayProcess, until, watched
from support.outside import Outside, outside
from support.workload import ADMIN_TOKEN, SIGNING_SECRET, create, every_kind, settings_for

KILLS = 6
DRAIN_SECONDS = 30.0


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Outside]:
    async with outside(tmp_path / "outside", SIGNING_SECRET) as servers:
        yield servers


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    # Each request on a connection of its own: a kept one may belong to a gateway that is dead by now.
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=10)) as session:
        yield session


async def test_it_keeps_its_promises_through_six_kills_at_random_moments(
    tmp_path: Path, world: Outside, client: aiohttp.ClientSession
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    dice = random.Random(seed)
    tally = tmp_path / "tally.txt"
    settings = settings_for(tmp_path / "gateway", world)
    gateway = GatewayProcess(tmp_path / "gateway", client, token=ADMIN_TOKEN, settings=settings)
    async with watched(gateway):
        await gateway.start()
        jobs = await create(gateway, every_kind(world, tally))
        for _ in range(KILLS):
            await asyncio.sleep(dice.uniform(0.8, 3.6))
            await gateway.kill()
            await asyncio.sleep(dice.uniform(0.0, 1.2))
            await gateway.start()
        await asyncio.sleep(2)
        horizon = await finish(gateway, jobs)
        answers = await all_runs(gateway)
        await gateway.terminate()

        seen = evidence(gateway, world)
        assert judge(list(jobs.values()), seen, horizon) == []
        assert unlike_the_answers(answers, seen) == []
        assert_program_ran_once_an_attempt(jobs["program"], seen, tally)
        assert_enough_happened(jobs, seen, lives=KILLS + 1)


async def finish(gateway: GatewayProcess, jobs: Mapping[str, JobMade]) -> datetime:
    """Let nothing more come due and all that is due end and arrive; the moment up to which all was due."""
    horizon = await last_whole_pass(gateway)
    for job in jobs.values():
        await gateway.ask("carapace.cron.pause", jobId=job.id)  # one that is deleted already is fine

    async def is_quiet() -> bool:
        status = await gateway.call("carapace.cron.status")
        waiting = "SELECT count(*) FROM deliveries WHERE state = 'waiting'"
        return (
            status["activeExecutions"] + status["queuedRuns"] == 0
            and count_in_ledger(database(gateway), waiting) == 0
        )

    await until(is_quiet, "all runs end and all notices arrive", DRAIN_SECONDS)
    return horizon


async def last_whole_pass(gateway: GatewayProcess) -> datetime:
    """When a pass of the scheduler began that is over by now."""
    first = (await gateway.call("carapace.cron.status"))["lastPassAt"]

    async def is_later() -> bool:
        return bool((await gateway.call("carapace.cron.status"))["lastPassAt"] > first)

    await until(is_later, "the scheduler makes another pass", 5)
    return datetime.fromisoformat(first)


async def all_runs(gateway: GatewayProcess) -> list[dict[str, Any]]:
    """Every page of ``carapace.cron.runs``."""
    items: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = await gateway.call("carapace.cron.runs", limit=37, cursor=cursor)
        items += page["items"]
        assert len({one["id"] for one in items}) == len(items), "a page repeats what was on one before"
        cursor = page["nextCursor"]
        if cursor is None:
            return items


def evidence(gateway: GatewayProcess, world: Outside) -> Evidence:
    seen = read_ledger(database(gateway))
    seen.requests, seen.arrivals = world.requests.lines(), world.arrivals.lines()
    return seen


def database(gateway: GatewayProcess) -> Path:
    return gateway.data_dir / "carapace.sqlite"


def assert_program_ran_once_an_attempt(job: JobMade, seen: Evidence, tally: Path) -> None:
    runs = {run["id"] for run in seen.runs if run["job_id"] == job.id}
    states = Counter(one["state"] for one in seen.attempts if one["run_id"] in runs)
    starts = len(tally.read_text().splitlines())
    assert states["success"] <= starts <= states.total()


def assert_enough_happened(jobs: Mapping[str, JobMade], seen: Evidence, *, lives: int) -> None:
    """None of the above means anything of a gateway that did nothing."""
    statuses = Counter(run["status"] for run in seen.runs)
    of_job = {
        name: Counter(run["status"] for run in seen.runs if run["job_id"] == job.id)
        for name, job in jobs.items()
    }
    print(statuses, of_job, Counter(one["state"] for one in seen.attempts))
    for name in ("get", "post", "agent", "echo", "program", "flaky", "slow", "silent"):
        assert of_job[name]["success"] >= 3, name
    assert of_job["soon"] == {"success": 1}
    assert of_job["broken"]["failure"] >= 3
    assert of_job["stuck"]["timeout"] >= 3
    assert of_job["cancelled"]["cancelled"] >= 3
    assert of_job["slow"]["skipped"] >= 3
    assert statuses["missed"] >= 1
    assert sum(one["state"] == "lost" for one in seen.attempts) >= 1
    assert len({one["owner"] for one in seen.attempts}) == lives
    assert len({one["key"] for one in seen.arrivals if one["channel"] == "hook"}) >= 20
    assert sum(one["channel"] == "pager" for one in seen.arrivals) >= 10
