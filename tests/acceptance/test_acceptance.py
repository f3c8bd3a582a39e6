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
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.checker import (
    Evidence,
    JobMade,
    each_second,
    instants_without_one_record,
    judge,
    once_at,
    read_ledger,
    unlike_the_answers,
)
from support.closing import all_runs, evidence, finish
from support.gateway_process import Ears, GatewayProcess, until, watched
from support.outside import Outside, outside
from support.s3_servers import aws_environment, seaweedfs
from support.workload import ADMIN_TOKEN, SIGNING_SECRET, Kind, create, create_one, every_kind, settings_for

KILLS = 6


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
        horizon = await finish(gateway, jobs.values())
        answers = await all_runs(gateway)
        await gateway.terminate()

        seen = evidence(gateway, world)
        assert judge(list(jobs.values()), seen, horizon) == []
        assert unlike_the_answers(answers, seen) == []
        assert_program_ran_once_an_attempt(jobs["program"], seen, tally)
        assert_enough_happened(jobs, seen, lives=KILLS + 1)


async def test_it_keeps_its_promises_on_s3_through_a_stop_and_two_kills(
    tmp_path: Path, world: Outside, client: aiohttp.ClientSession
) -> None:
    tally = tmp_path / "tally.txt"
    with seaweedfs(tmp_path) as endpoint:
        bucket = {"JOB_STORE": "s3://acceptance/house", "S3_ENDPOINT_URL": endpoint}
        gateway, other = (
            GatewayProcess(
                tmp_path / name, client, name=name, token=ADMIN_TOKEN, environment=aws_environment(),
                settings={**settings_for(tmp_path / name, world), **bucket},
            )
            for name in ("first", "other")
        )
        async with watched(gateway, other), hearing() as ears:
            await gateway.start()
            assert set(gateway.statuses[:-1]) <= {None, 503}
            await ears.connect(gateway)
            jobs = await create(gateway, every_kind(world, tally))
            await assert_refused(other, "would run each job twice")
            await asyncio.sleep(4)

            await gateway.terminate()
            await asyncio.sleep(1)
            await gateway.start()
            await ears.connect(gateway)
            await asyncio.sleep(4)

            while_dead = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=3)
            kind = Kind(
                f"at {while_dead:%Y-%m-%dT%H:%M:%SZ}",
                once_at(while_dead),
                f"{world.url}/quick",
                path="/quick",
            )
            jobs["while dead"] = await create_one(gateway, "while dead", kind)
            await gateway.kill()
            await asyncio.sleep((while_dead - datetime.now(UTC)).total_seconds() + 1)
            await gateway.start()
            await ears.connect(gateway)
            await asyncio.sleep(4)

            await gateway.kill()
            await gateway.start()
            await ears.connect(gateway)
            await asyncio.sleep(4)

            horizon = await finish(gateway, jobs.values())
            answers = await all_runs(gateway)
            kept = (await gateway.ask("carapace.gateway.messages", limit=200))["items"]
            await gateway.terminate()

            seen = evidence(gateway, world)
            assert judge(list(jobs.values()), seen, horizon) == []
            assert unlike_the_answers(answers, seen) == []
            assert_program_ran_once_an_attempt(jobs["program"], seen, tally)
            assert_enough_happened(jobs, seen, lives=4)
            assert statuses_of(jobs["while dead"], seen) == {"success": 1}
            assert_heard(ears, kept, jobs["echo"], seen)
            await assert_a_new_data_directory_adopts_the_bucket(gateway, other)


async def test_a_second_gateway_in_the_same_data_directory_is_refused(
    tmp_path: Path, world: Outside, client: aiohttp.ClientSession
) -> None:
    settings = settings_for(tmp_path, world)
    first, second = (
        GatewayProcess(tmp_path, client, name=name, token=ADMIN_TOKEN, settings=settings)
        for name in ("first", "second")
    )
    async with watched(first, second):
        await first.start()
        await assert_refused(second, "is in use by another gateway")
        assert await first.health() == 200
        await first.terminate()
        await second.start()


async def assert_refused(gateway: GatewayProcess, words: str) -> None:
    """It ends with status 1, and its last line is a sentence that says why and what would do."""
    status, printed = await gateway.run_to_its_end()
    assert status == 1
    assert words in printed.splitlines()[-1]


async def assert_a_new_data_directory_adopts_the_bucket(old: GatewayProcess, new: GatewayProcess) -> None:
    """The jobs are there with all that was asked of them, and go on from where they were."""
    settings = {"catchUp": "all", "overlap": "queue"}
    kind = Kind("* * * * * *", each_second(1), "date", "gateway", settings=settings)
    await old.start()
    job = await create_one(old, "adopted", kind)
    await until_succeeded(old, job, 2)
    left = await old.call("carapace.cron.list")
    await old.terminate()

    new.configure(ADOPT_BUCKET="1")
    await new.start()
    found = await new.call("carapace.cron.list")
    assert [one["id"] for one in found] == [one["id"] for one in left]
    for name in ("name", "cronExpression", "command", "channelId", "enabled", "retry", "revision"):
        assert [one[name] for one in found] == [one[name] for one in left]
    await until_succeeded(new, job, 2)
    horizon = await finish(new, [job])
    await new.terminate()
    runs = [run for one in (old, new) for run in read_ledger(one.ledger).runs if run["job_id"] == job.id]
    assert instants_without_one_record([job], Evidence(runs, [], []), horizon) == []


async def until_succeeded(gateway: GatewayProcess, job: JobMade, count: int) -> None:
    async def has_run() -> bool:
        page = await gateway.call("carapace.cron.runs", jobId=job.id, status="success")
        return len(page["items"]) >= count

    await until(has_run, f"{job.id} has {count} successes", 8)


@asynccontextmanager
async def hearing() -> AsyncIterator[Ears]:
    ears = Ears()
    try:
        yield ears
    finally:
        await ears.close()


def assert_heard(ears: Ears, kept: list[dict[str, Any]], echo: JobMade, seen: Evidence) -> None:
    """The gateway's own channel holds each result once; what it pushed is in it; events tell the truth."""
    status = {run["id"]: run["status"] for run in seen.runs}
    ended = [run["id"] for run in seen.runs if run["job_id"] == echo.id and run["status"] == "success"]
    told = [one["data"]["runId"] for one in kept if one["data"]["event"] == "run.completed"]
    assert sorted(told) == sorted(ended)
    pushed = ears.params_of("carapace.gateway.message")
    assert [one["sequence"] for one in pushed] == sorted({one["sequence"] for one in pushed})
    assert {one["idempotencyKey"] for one in pushed} <= {one["idempotencyKey"] for one in kept}
    events = ears.params_of("carapace.cron.event")
    assert [one for one in events if status[one["runId"]] != one["status"]] == []
    assert len({one["runId"] for one in events}) == len(events)
    assert len(pushed) >= 10 and len(events) >= 50


def assert_program_ran_once_an_attempt(job: JobMade, seen: Evidence, tally: Path) -> None:
    runs = {run["id"] for run in seen.runs if run["job_id"] == job.id}
    states = Counter(one["state"] for one in seen.attempts if one["run_id"] in runs)
    starts = len(tally.read_text().splitlines())
    assert states["success"] <= starts <= states.total()


def statuses_of(job: JobMade, seen: Evidence) -> Counter[str]:
    return Counter(run["status"] for run in seen.runs if run["job_id"] == job.id)


def assert_enough_happened(jobs: Mapping[str, JobMade], seen: Evidence, *, lives: int) -> None:
    """None of the above means anything of a gateway that did nothing."""
    statuses = Counter(run["status"] for run in seen.runs)
    of_job = {name: statuses_of(job, seen) for name, job in jobs.items()}
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
