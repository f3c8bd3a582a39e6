"""Two gateways on one PostgreSQL, as operators have them: processes, data directories of their own, faults.

Jobs of every kind are due each second or two and either gateway runs them, while one is killed, one stands
still, or the database goes away. The judge is the one of a single gateway: two of them are one.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from signal import SIGCONT, SIGQUIT, SIGSTOP
from typing import Any

import aiohttp
import pytest
from crash.hasty_gateway import HEARTBEAT_SECONDS, STOPPED_WRITER_SECONDS, TAKEOVER_SECONDS
from crash.story import HASTY
from support.checker import (
    EPOCH,
    Due,
    Evidence,
    JobMade,
    count_in_ledger,
    each_second,
    instant_of,
    judge,
    unlike_the_answers,
)
from support.closing import all_runs, evidence, finish
from support.gateway_process import OURS, GatewayProcess, NotNow, until, watched
from support.outside import Outside, outside
from support.postgresql import PostgresqlServer, postgresql_server
from support.s3_servers import aws_environment, seaweedfs
from support.workload import ADMIN_TOKEN, SIGNING_SECRET, Kind, create_one, every_kind, settings_for

HEARD_SECONDS = 10.0  # a gateway looks each 5 s what the other has changed, or whom it wants stopped
BETWEEN_SECONDS = 2.0
# The other sees a lease at a heartbeat, and that nobody renewed it at one after its time; each is a write.
STILL_SECONDS = TAKEOVER_SECONDS + 2 * HEARTBEAT_SECONDS + STOPPED_WRITER_SECONDS + 1
AWAY_SECONDS = 3.0
NEVER_DUE = "0 0 29 2 *"  # or seldom enough

Pair = tuple[GatewayProcess, GatewayProcess]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresqlServer]:
    """One for these tests, which stop it."""
    with postgresql_server() as started:
        yield started


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Outside]:
    async with outside(tmp_path / "outside", SIGNING_SECRET) as servers:
        yield servers


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=10)) as session:
        yield session


@pytest.fixture
def gateways(tmp_path: Path, world: Outside, client: aiohttp.ClientSession, server: PostgresqlServer) -> Pair:
    """Not started yet, on a database that is empty."""
    shared = {"LEDGER": server.new_database(), "JOB_STORE": "postgresql:"}
    return _pair(tmp_path, world, client, shared, OURS)


def _pair(
    folder: Path,
    world: Outside,
    client: aiohttp.ClientSession,
    shared: Mapping[str, str],
    program: tuple[str, ...],
) -> Pair:
    first, second = (
        GatewayProcess(
            folder / name, client, name=name, token=ADMIN_TOKEN, program=program,
            environment=aws_environment(), settings={**settings_for(folder / name, world), **shared},
        )
        for name in ("first", "second")
    )
    return first, second


async def test_two_gateways_on_one_database_are_one(
    tmp_path: Path, world: Outside, client: aiohttp.ClientSession, gateways: Pair
) -> None:
    first, second = gateways
    tally = tmp_path / "tally.txt"
    async with watched(*gateways):
        await asyncio.gather(first.start(), second.start())
        url = f"{world.url}/quick"
        each = Kind("* * * * * *", each_second(1), url, "plain", "/quick")
        told = {f"told {number}": each for number in range(4)}
        jobs = await _create(gateways, {**every_kind(world, tally), **told})
        async with asyncio.TaskGroup() as tasks:
            for work in (
                _changes_are_seen(first, second),
                _changes_are_seen(second, first),
                _pings_pair(gateways, client),
                _an_overdue_run_is_told_once(gateways, client),
                _a_run_is_cancelled_from_either(gateways, world),
            ):
                tasks.create_task(work)
            changed = await _change(gateways, {name: jobs[name] for name in list(told)[:3]})
        jobs |= {one.name: one.job for one in changed}
        horizon = await finish(first, jobs.values())
        answers = await asyncio.gather(all_runs(first), all_runs(second))
        await asyncio.gather(first.terminate(), second.terminate())

        seen = evidence(first, world)
        assert answers[0] == answers[1]
        assert unlike_the_answers(answers[0], seen) == []
        _assert_each_notice_came_once(seen)
        assert _faults(jobs, seen, horizon, changed) == []
        _assert_both_worked(seen, owners=2)
        assert {row["state"] for row in seen.attempts} == {"success", "failure", "timeout", "cancelled"}


async def test_one_takes_over_from_the_other_that_is_killed_or_stands_still(
    tmp_path: Path, world: Outside, client: aiohttp.ClientSession, server: PostgresqlServer
) -> None:
    shared = {"LEDGER": server.new_database(), "JOB_STORE": "postgresql:"}
    gateways = first, second = _pair(tmp_path, world, client, shared, HASTY)
    async with watched(*gateways):
        await asyncio.gather(first.start(), second.start())
        long = Kind(
            "* * * * * *", each_second(1), f"{world.url}/slow?seconds=3", path="/slow",
            settings={"overlap": "allow"},
        )
        every = every_kind(world, tmp_path / "tally.txt")
        some = {name: every[name] for name in ("get", "program", "flaky", "slow", "cancelled", "stuck")}
        jobs = await _create(gateways, {**some, "long": long})

        await _until_both_work_on(jobs["long"], first)
        killed_at = datetime.now(UTC)
        await first.kill()
        await asyncio.sleep(STILL_SECONDS)
        await first.start()

        await _until_both_work_on(jobs["long"], first)
        stopped_at = datetime.now(UTC)
        second.send_signal(SIGSTOP)
        await asyncio.sleep(STILL_SECONDS)
        second.send_signal(SIGCONT)
        await asyncio.sleep(BETWEEN_SECONDS)

        horizon = await finish(first, jobs.values())
        answers = await all_runs(second)
        await asyncio.gather(first.terminate(), second.terminate())

        seen = evidence(first, world)
        assert unlike_the_answers(answers, seen) == []
        assert _faults(jobs, seen, horizon) == []
        _assert_both_worked(seen, owners=3)
        for since in (killed_at, stopped_at):
            _assert_taken_over(seen, since)


async def test_both_go_on_by_themselves_when_the_database_has_crashed(
    tmp_path: Path, world: Outside, client: aiohttp.ClientSession, server: PostgresqlServer
) -> None:
    with seaweedfs(tmp_path) as endpoint:
        bucket = {"JOB_STORE": "s3://several/house", "S3_ENDPOINT_URL": endpoint}
        shared = {"LEDGER": server.new_database(), **bucket}
        gateways = first, second = _pair(tmp_path, world, client, shared, OURS)
        async with watched(*gateways):
            await asyncio.gather(first.start(), second.start())
            jobs = await _create(gateways, every_kind(world, tmp_path / "tally.txt"))
            calls = Calls(gateways, client, await _monitor(first))
            calling = asyncio.create_task(calls.give())
            await asyncio.sleep(BETWEEN_SECONDS)

            await asyncio.to_thread(server.stop, SIGQUIT)
            for gateway in gateways:
                await until(lambda one=gateway: _is_not_ready(one, client), "/readyz says so", HEARD_SECONDS)
            await asyncio.sleep(AWAY_SECONDS)
            await asyncio.to_thread(server.start)
            for gateway in gateways:
                await until(lambda one=gateway: _is_ready(one, client), "/readyz says 200", HEARD_SECONDS)
            await asyncio.sleep(BETWEEN_SECONDS)

            calling.cancel()
            await asyncio.wait((calling,))
            await calls.assert_kept()
            horizon = await finish(second, jobs.values())
            answers = await all_runs(first)
            await asyncio.gather(first.terminate(), second.terminate())

        seen = evidence(first, world)
        assert unlike_the_answers(answers, seen) == []
        assert _faults(jobs, seen, horizon) == []
        _assert_both_worked(seen, owners=2)


@dataclass(frozen=True)
class Changed:
    """A job as it is due now, and when a change of it was asked for and answered: between the two it may be
    due by either definition."""

    name: str
    job: JobMade
    asked: datetime
    answered: datetime

    def may_be_due(self, run: Mapping[str, Any]) -> bool:
        at = instant_of(run["scheduled_for"])
        return run["job_id"] == self.job.id and self.asked < at <= self.answered


async def _create(gateways: Pair, kinds: Mapping[str, Kind]) -> dict[str, JobMade]:
    """Jobs made by turns through either; both know them all when this returns."""
    jobs = {
        name: await create_one(gateway, name, kind)
        for (name, kind), gateway in zip(kinds.items(), itertools.cycle(gateways), strict=False)
    }
    lasting = {job.id for name, job in jobs.items() if name != "soon"}

    async def both_know() -> bool:
        return all([lasting <= {one["id"] for one in await _jobs(gateway)} for gateway in gateways])

    await until(both_know, "either gateway knows the jobs that were made through the other", HEARD_SECONDS)
    return jobs


async def _jobs(gateway: GatewayProcess) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await gateway.call("carapace.cron.list")
    return found


async def _change(gateways: Pair, jobs: Mapping[str, JobMade]) -> list[Changed]:
    """Jobs of each second, one paused, one updated, one deleted by turns through either gateway."""
    (paused, updated, deleted), (first, second) = jobs.items(), gateways
    await asyncio.sleep(BETWEEN_SECONDS)
    return [
        await _changed(paused, second.call("carapace.cron.pause", jobId=paused[1].id)),
        await _changed(
            updated,
            first.call("carapace.cron.update", jobId=updated[1].id, updates={"schedule": "*/2 * * * * *"}),
            after=each_second(2),
        ),
        await _changed(deleted, second.call("carapace.cron.delete", jobId=deleted[1].id)),
    ]


async def _changed(
    named: tuple[str, JobMade], call: Coroutine[Any, Any, Any], after: Due | None = None
) -> Changed:
    """Due as before until the call is given, as `after` (None: no more) when it was answered."""
    name, job = named
    asked = datetime.now(UTC)
    await call
    answered = datetime.now(UTC)

    def due(created: datetime, until: datetime) -> Iterator[datetime]:
        yield from job.due(created, min(asked, until))
        if after is not None:
            yield from after(answered, until)

    return Changed(name, replace(job, due=due), asked, answered)


async def _changes_are_seen(one: GatewayProcess, other: GatewayProcess) -> None:
    """What is done to a job through one is what the other shows, some seconds later."""
    job_id = (await one.call("carapace.cron.create", data=_idle("Changing")))["id"]
    await _until_shown(other, job_id, enabled=True)
    await other.call("carapace.cron.update", jobId=job_id, updates={"name": "Renamed"})
    await other.call("carapace.cron.pause", jobId=job_id)
    await _until_shown(one, job_id, name="Renamed", enabled=False)
    await one.call("carapace.cron.delete", jobId=job_id)

    async def is_gone() -> bool:
        return not (await other.ask("carapace.cron.get", jobId=job_id))["success"]

    await until(is_gone, f"{job_id} is gone", HEARD_SECONDS)


def _idle(name: str) -> dict[str, Any]:
    return {"name": name, "schedule": NEVER_DUE, "command": "date", "channelId": "gateway"}


async def _until_shown(gateway: GatewayProcess, job_id: str, **fields: Any) -> None:
    async def is_shown() -> bool:
        said = await gateway.ask("carapace.cron.get", jobId=job_id)
        return bool(said["success"]) and fields.items() <= said["data"].items()

    await until(is_shown, f"{gateway.folder.name} shows {job_id} with {fields}", HEARD_SECONDS)


async def _monitor(gateway: GatewayProcess, **fields: Any) -> str:
    data = {"name": "Watched", "channels": ["plain"], **fields}
    return str((await gateway.call("carapace.cron.monitors.create", data=data))["id"])


async def _ping(gateway: GatewayProcess, client: aiohttp.ClientSession, path: str) -> bool:
    async with client.post(f"{gateway.url}/ping/{path}") as answer:
        return answer.status == 200


async def _pings_pair(gateways: Pair, client: aiohttp.ClientSession) -> None:
    """A run that begins at one gateway and ends at the other is one run."""
    first, second = gateways
    monitor_id = await _monitor(first)
    rids = [str(uuid.uuid4()) for _ in range(6)]
    for number, rid in enumerate(rids):
        one, other = gateways[number % 2], gateways[1 - number % 2]
        assert await _ping(one, client, f"{monitor_id}/start?rid={rid}")
        assert await _ping(other, client, f"{monitor_id}?rid={rid}")
    kept = (await second.call("carapace.cron.monitors.pings", monitorId=monitor_id))["items"]
    assert [(one["n"], one["kind"], one["rid"]) for one in reversed(kept)] == [
        (2 * number + n, kind, rid)
        for number, rid in enumerate(rids)
        for n, kind in ((1, "start"), (2, "success"))
    ]
    assert all(one["durationMs"] is not None for one in kept if one["kind"] == "success")
    shown = [await one.call("carapace.cron.monitors.get", monitorId=monitor_id) for one in gateways]
    assert shown[0]["status"] == shown[1]["status"] == "up"


async def _an_overdue_run_is_told_once(gateways: Pair, client: aiohttp.ClientSession) -> None:
    """Both watchmen look at it; that it is told once is seen in the end."""
    for one, other in (gateways, gateways[::-1]):
        monitor_id = await _monitor(one, maxRunSeconds=1, periodSeconds=86_400)
        assert await _ping(one, client, f"{monitor_id}/start")
        assert await _ping(other, client, f"{monitor_id}/log")  # which lets the other watchman know it

        async def is_down(monitor_id: str = monitor_id) -> bool:
            found = await gateways[0].call("carapace.cron.monitors.flips", monitorId=monitor_id)
            return [flip["after"] for flip in found if flip["after"] == "down"] == ["down"]

        await until(is_down, "the run is late", HEARD_SECONDS)


async def _a_run_is_cancelled_from_either(gateways: Pair, world: Outside) -> None:
    """Whichever does it."""
    data = {**_idle("Endless"), "command": f"{world.url}/hang?endless", "overlap": "allow"}
    job_id = (await gateways[0].call("carapace.cron.create", data=data))["id"]
    await _until_shown(gateways[1], job_id)
    runs = [(await gateways[n % 2].call("carapace.cron.run", jobId=job_id))["id"] for n in range(6)]

    def open_runs() -> set[str]:
        lines = [line for line in world.requests.lines() if line["query"] == "endless"]
        ended = {line["run"] for line in lines if line["what"] == "end"}
        return {line["run"] for line in lines} - ended

    async def all_work() -> bool:
        return open_runs() == set(runs)

    async def all_ended() -> bool:
        return not open_runs()

    await until(all_work, "the runs that were asked for begin", HEARD_SECONDS)
    for number, run_id in enumerate(runs):
        await gateways[number % 2].call("carapace.cron.cancel", runId=run_id)
    await until(all_ended, "the runs that were cancelled end", HEARD_SECONDS)


class Calls:
    """Jobs made and pings sent, by turns through either gateway; what was acknowledged is remembered."""

    def __init__(self, gateways: Pair, client: aiohttp.ClientSession, monitor_id: str) -> None:
        self._gateways = gateways
        self._client = client
        self._monitor_id = monitor_id
        self._jobs: set[str] = set()
        self._pings: list[str] = []

    async def give(self) -> None:
        for number in itertools.count():
            gateway = self._gateways[number % 2]
            with suppress(NotNow, aiohttp.ClientError, TimeoutError):
                await self._make(gateway, f"number {number}")
            with suppress(aiohttp.ClientError, TimeoutError):
                await self._send(gateway, str(uuid.UUID(int=number)))
            await asyncio.sleep(0.05)

    async def assert_kept(self) -> None:
        for gateway in self._gateways:
            await until(lambda one=gateway: self._has_all(one), "all jobs are there", HEARD_SECONDS)
        page = await self._gateways[0].call(
            "carapace.cron.monitors.pings", monitorId=self._monitor_id, limit=1_000
        )
        kept = [one["rid"] for one in reversed(page["items"])]
        assert [rid for rid in kept if rid in self._pings] == self._pings
        assert len(self._jobs) > 5 and len(self._pings) > 5

    async def _has_all(self, gateway: GatewayProcess) -> bool:
        return self._jobs <= {one["id"] for one in await _jobs(gateway)}

    async def _make(self, gateway: GatewayProcess, name: str) -> None:
        said = await gateway.ask("carapace.cron.create", data=_idle(name))
        if said["success"]:
            self._jobs.add(said["data"]["id"])

    async def _send(self, gateway: GatewayProcess, rid: str) -> None:
        if await _ping(gateway, self._client, f"{self._monitor_id}?rid={rid}"):
            self._pings.append(rid)


async def _readyz(gateway: GatewayProcess, client: aiohttp.ClientSession) -> tuple[int, dict[str, Any]]:
    async with client.get(f"{gateway.url}/readyz") as answer:
        return answer.status, await answer.json()


async def _is_ready(gateway: GatewayProcess, client: aiohttp.ClientSession) -> bool:
    return (await _readyz(gateway, client))[0] == 200


async def _is_not_ready(gateway: GatewayProcess, client: aiohttp.ClientSession) -> bool:
    status, body = await _readyz(gateway, client)
    return status == 503 and "the ledger cannot be" in body["reason"]


def _faults(
    jobs: Mapping[str, JobMade], seen: Evidence, horizon: datetime, changed: Sequence[Changed] = ()
) -> list[str]:
    """The judge's, of what is due by a schedule for sure, and told by the channels that it knows."""
    ids = {job.id for job in jobs.values()}
    due = replace(
        seen,
        runs=[
            row
            for row in seen.runs
            if row["job_id"] in ids and not any(one.may_be_due(row) for one in changed)
        ],
        arrivals=[one for one in seen.arrivals if one["channel"] != "plain"],
    )
    return judge(list(jobs.values()), due, horizon)


def _assert_each_notice_came_once(seen: Evidence) -> None:
    """And in order; of runs, and of monitors."""
    came = [one["key"] for one in seen.arrivals if one["channel"] == "plain"]
    sent = [row["id"] for row in seen.deliveries if row["channel_id"] == "plain"]
    twice = {key: count for key, count in Counter(came).items() if count > 1}
    print(len(came), "arrivals", len(sent), "sent", len(twice), "twice")
    assert twice == {}
    assert came == sent
    of_monitors = Counter(row["subject"] for row in seen.deliveries if not row["subject"].startswith("run_"))
    assert list(of_monitors.values()) == [1, 1]


def _assert_both_worked(seen: Evidence, *, owners: int) -> None:
    ends = Counter((row["owner"].partition(":")[2][:8], row["state"]) for row in seen.attempts)
    print(ends)
    succeeded = {owner for owner, state in ends if state == "success"}
    assert len(succeeded) == owners


async def _until_both_work_on(job: JobMade, gateway: GatewayProcess) -> None:
    """Each has begun a run of it not long ago, and will not end it so soon."""
    owners = (
        "SELECT count(DISTINCT owner) FROM attempts JOIN runs ON runs.id = run_id "
        "WHERE job_id = '{}' AND state = 'running' AND attempts.started_at > {}"
    )

    async def both_work() -> bool:
        not_long_ago = (datetime.now(UTC) - EPOCH - timedelta(seconds=2.2)) // timedelta(microseconds=1)
        return count_in_ledger(gateway.ledger, owners.format(job.id, not_long_ago)) == 2

    await until(both_work, "both gateways work", HEARD_SECONDS)


def _assert_taken_over(seen: Evidence, since: datetime) -> None:
    """Attempts that were under way then were lost when the other saw it, and their runs were tried again."""
    lost = [
        row
        for row in seen.attempts
        if row["state"] == "lost"
        and instant_of(row["started_at"]) <= since < instant_of(row["finished_at"])
    ]
    waits = [(instant_of(row["finished_at"]) - since).total_seconds() for row in lost]
    print("taken over after", sorted(waits))
    assert waits and max(waits) < STILL_SECONDS
    again = {(row["run_id"], row["number"]) for row in seen.attempts}
    assert any((row["run_id"], row["number"] + 1) in again for row in lost)
