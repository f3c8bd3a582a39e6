"""Gateways on a ledger and a job store that they share: what another does meanwhile, and lost answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pluggy
import pytest

from carapace_cron.clock import ManualClock
from carapace_cron.database import Database
from carapace_cron.engines import sqlite_engine
from carapace_cron.errors import NotFound, Unavailable
from carapace_cron.hookspecs import PROJECT, CronHooks, StoreFactory, hookimpl
from carapace_cron.house import House
from carapace_cron.ledger.ending import AttemptEnd, Ended
from carapace_cron.ledger.history import RunFilter
from carapace_cron.ledger.migrations.upgrade import upgrade
from carapace_cron.model.actor import Actor
from carapace_cron.objects.memory import MemoryObjects
from carapace_cron.ports.host import AgentCall, AgentReply, HostMessage
from carapace_cron.ports.object_store import ObjectStore
from carapace_cron.services.neighbours import REFRESH_SECONDS
from carapace_cron.services.upkeep import CHECKPOINT_SECONDS
from carapace_cron.settings import CronSettings

from .conftest import NOON

ALICE = Actor("acme", "alice", frozenset({"jobs:read", "jobs:write"}))
SETTINGS = CronSettings.model_validate({"job_store": "mem:", "admin_token": "a-token-of-a-test-0"})
HEARD_SECONDS = REFRESH_SECONDS + 1  # a change at one gateway is known at the other
JOB = {"name": "Report", "cronExpression": "0 13 * * *", "command": "echo done", "channelId": "gateway"}


class Bucket:
    """The plugin with the one object store of all gateways."""

    def __init__(self) -> None:
        self.objects = MemoryObjects()

    @hookimpl
    def register_stores(self) -> Mapping[str, StoreFactory]:
        async def opened(_address: str) -> ObjectStore:
            return self.objects

        return {"mem": opened}


class BareHost:
    """A host whose agent only fails."""

    def __init__(self, data_dir: Path, plugin_manager: pluggy.PluginManager) -> None:
        self.data_dir = data_dir
        self.plugin_manager = plugin_manager

    def settings_of(self, plugin_id: str) -> Mapping[str, Any]:
        raise NotFound(f"no settings of {plugin_id}: the house is given them")

    def agents(self) -> Collection[str]:
        return ("fail",)

    async def run_agent(self, call: AgentCall) -> AgentReply:
        return AgentReply("", "failure", "the source was empty")

    def channels(self) -> Collection[str]:
        return ("gateway",)

    async def post(self, message: HostMessage) -> None:
        """It has it."""

    async def identify(self, token: str) -> Actor | None:
        return None

    def emit(self, event: str, payload: Mapping[str, Any], *, tenant: str, user_id: str) -> None:
        """Nobody watches."""


class Street:
    """`house` builds one more gateway; it is not open yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = ManualClock(NOON)
        self._plugins = pluggy.PluginManager(PROJECT)
        self._plugins.add_hookspecs(CronHooks)
        self._plugins.register(Bucket())
        self._houses: list[House] = []

    def house(self) -> House:
        database = Database(sqlite_engine(self.folder / "ledger.sqlite"), upgrade)
        database.shared = True  # what a gateway makes of it, a file serves for that as well
        self.clock.busy.append(lambda: database.in_flight > 0)
        name = f"gateway{len(self._houses)}"
        host = BareHost(self.folder / name, self._plugins)
        made = House(host, SETTINGS, self.clock, database=database)
        self._houses.append(made)
        return made

    async def close(self) -> None:
        for house in self._houses:
            await house.close()


@pytest.fixture
async def street(tmp_path: Path) -> AsyncIterator[Street]:
    made = Street(tmp_path)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(made.close)
        yield made


async def test_a_gateway_that_starts_leaves_the_runs_of_a_job_that_another_makes_meanwhile(
    street: Street,
) -> None:
    first, second = street.house(), street.house()
    await first.open()
    first._executor._stopping.set()  # so that what waits still waits
    made: dict[str, Any] = {}
    real_open_engine = second._open_engine

    def opening() -> None:
        real_open_engine()
        progress = second._ledger.progress

        async def meanwhile() -> Any:
            found = await progress()
            job = await first.jobs.create(ALICE, JOB)
            made.update(await first.runs.start(ALICE, job["id"]))
            return found

        second._ledger.progress = meanwhile  # type: ignore[method-assign]

    second._open_engine = opening  # type: ignore[method-assign]
    await second.open()
    await street.clock.advance(2)
    run = await second._ledger.get(made["id"])
    assert run is not None and (run.status, run.reason) == ("success", None)
    assert second._scheduler.next_at(made["jobId"]) == NOON + timedelta(hours=1)


def lose_answers(house: House) -> None:
    """What ends is recorded, but the answer to that is lost, and so it is told once more."""
    real, lost = house._ledger.record_ends, set[str]()

    async def lossy(ends: Sequence[AttemptEnd]) -> list[Ended]:
        answers = await real(ends)
        if news := {f"{end.run_id}/{end.attempt}" for end in ends} - lost:
            lost.update(news)
            raise Unavailable("no answer")
        return answers

    house._ledger.record_ends = lossy  # type: ignore[method-assign]


async def test_a_job_is_deleted_after_its_run_though_the_answer_to_its_end_is_lost(street: Street) -> None:
    house = street.house()
    await house.open()
    lose_answers(house)
    job = await house.jobs.create(ALICE, {**JOB, "cronExpression": "* * * * *", "deleteAfterRun": True})
    await street.clock.advance(130)
    with pytest.raises(NotFound):
        house.jobs.get(ALICE, job["id"])
    assert len((await house._ledger.page(RunFilter("acme"), limit=10)).items) == 1


async def test_a_job_is_paused_after_failures_though_the_answer_to_their_ends_is_lost(street: Street) -> None:
    house = street.house()
    await house.open()
    lose_answers(house)
    failing = {"command": "agent: fail", "pauseAfterFailures": 2, "retry": {"maxAttempts": 1}}
    job = await house.jobs.create(ALICE, {**JOB, "cronExpression": "* * * * *", **failing})
    await street.clock.advance(5 * 60)
    shown = house.jobs.get(ALICE, job["id"])
    assert (shown["enabled"], shown["failureCount"], shown["executionCount"]) == (False, 2, 2)


async def test_what_waits_of_a_job_is_cancelled_though_its_deletion_was_cut_in_two(street: Street) -> None:
    """The object is buried, then the ledger is away; it comes back, and nobody asks again."""
    house = street.house()
    await house.open()
    house._executor._stopping.set()  # so that what waits still waits
    job = await house.jobs.create(ALICE, JOB)
    run = await house.runs.start(ALICE, job["id"])
    in_force = house._register._in_force
    real = in_force.put

    async def away(*_: Any, **__: Any) -> list[str]:
        raise Unavailable("no ledger")

    in_force.put = away  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await house.removals.delete(ALICE, job["id"])
    in_force.put = real  # type: ignore[method-assign]
    await street.clock.advance(11)
    after = await house._ledger.get(run["id"])
    assert after is not None and (after.status, after.reason) == ("cancelled", "the job was deleted by alice")


@pytest.mark.parametrize("starts_again", [False, True])
async def test_a_restored_job_goes_on_at_every_gateway_where_it_had_come_to(
    street: Street, starts_again: bool
) -> None:
    """Though the clock was set back, so that the restore is earlier than that."""
    first, second = street.house(), street.house()
    await first.open()
    await second.open()
    job = await first.jobs.create(ALICE, {**JOB, "cronExpression": "* * * * *"})
    await street.clock.advance(10 * 60)
    await first.removals.delete(ALICE, job["id"])
    await street.clock.advance(HEARD_SECONDS)
    street.clock.step(timedelta(minutes=-7))
    if starts_again:
        await second.close()
        second = street.house()
        await second.open()
    await first.removals.restore(ALICE, job["id"])
    await street.clock.advance(HEARD_SECONDS)
    assert second.jobs.get(ALICE, job["id"])["enabled"]
    next_at = [house._scheduler.next_at(job["id"]) for house in (first, second)]
    assert next_at == [NOON + timedelta(minutes=11)] * 2
    await street.clock.advance(8 * 60)
    page = await first._ledger.page(RunFilter("acme"), limit=100)
    assert [one.status for one in page.items] == ["success"] * 11


async def test_nothing_is_known_any_more_of_a_job_whose_tombstone_is_gone(street: Street) -> None:
    first, second = street.house(), street.house()
    await first.open()
    await second.open()
    job = await first.jobs.create(ALICE, {**JOB, "cronExpression": "* * * * *"})
    await street.clock.advance(61)
    await first.removals.delete(ALICE, job["id"])
    await street.clock.advance(HEARD_SECONDS)
    assert [list(house._scheduler._known) for house in (first, second)] == [[job["id"]]] * 2
    await first._store.purge(street.clock.now())
    await street.clock.advance(HEARD_SECONDS)
    assert [list(house._scheduler._known) for house in (first, second)] == [[], []]


async def test_what_became_of_a_jobs_runs_is_the_same_at_every_gateway(street: Street) -> None:
    first, second = street.house(), street.house()
    await first.open()
    await second.open()
    job = await first.jobs.create(ALICE, {**JOB, "cronExpression": "*/10 * * * *"})
    for working, idle in ((first, second), (second, first), (first, second)):
        working._executor._slots, idle._executor._slots = 1, 0
        await street.clock.advance(600)
    await street.clock.advance(CHECKPOINT_SECONDS + 2 * HEARD_SECONDS)
    shown = [house.jobs.get(ALICE, job["id"]) for house in (first, second)]
    assert [one["executionCount"] for one in shown] == [3, 3]
    assert shown[0] == shown[1]
    assert [house._store.get(job["id"]).execution_count for house in (first, second)] == [3, 3]  # type: ignore[union-attr]  # it is there
