"""One story a seed: jobs, commands and faults in an order that the seed decides, told to its end and judged.

``python -m simulation.story 1234`` tells one, ``--verbose`` with its time line; ``--seeds 10000`` tells many.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

from carapace_cron.house import House
from carapace_cron.services.runs import RunsAsked

from .case import NEVER
from .fakes import Faults
from .judge import judge
from .loop import PROCESS, Hang, simulated_loop
from .witness import Command, Evidence
from .world import ADMIN, CHANNELS, Gateway, World

USERS = ("alice", "bob")
SCHEDULES = (
    "* * * * *",
    "*/2 * * * *",
    "*/5 * * * *",
    "0,7,30,44 * * * *",
    "*/20 * * * * *",
    "*/30 * * * * *",
    "every 40s",
    "every 90s",
)
CALM_SECONDS = 150.0  # in which nothing more is done, and all has to go well again
DRAIN_SECONDS = 300.0  # for the work that was started and for the deliveries; what still waits is deleted

LONGEST_DRAIN_SECONDS = 1500.0  # a channel that failed is tried again after at most 15 minutes
FEWEST_JOBS = 2
LIMITED = (*(f"channel:{name}" for name in CHANNELS), "tenant")
ODD_WISH = 0.12  # part of the jobs that ask for one odd thing
RARE = 0.05  # part of the stories in which a clock leaps by a day: they take long
SHOWN_FAULTS = 20
PROGRESS_EACH = 100  # stories
LEAST_BEGINS_AN_HOUR = 60  # simulated, over ten stories or more: those in which little happens prove little

Step = Callable[["Story"], Awaitable[None]]


@dataclass(frozen=True)
class Plan:
    """What a seed makes of its story before it begins."""

    seed: int
    gateways: int
    slots: int
    jobs: int
    minutes: float
    limits: dict[str, int]
    faults: frozenset[str]
    longest: float  # work, in seconds: some of it takes longer than a lease

    @classmethod
    def of(cls, seed: int) -> Plan:
        dice = Random(f"plan {seed}")
        chosen = [name for name in FAULTS if dice.random() < (RARE if name == "day" else 0.5)]
        return cls(
            seed=seed,
            gateways=dice.choice((1, 2, 2)),
            slots=dice.choice((1, 3, 5)),
            jobs=dice.randint(3, 6),
            minutes=dice.choice((4, 7, 12)),
            limits={name: dice.randint(1, 2) for name in LIMITED if dice.random() < 0.2},
            faults=frozenset(chosen),
            longest=dice.choice((45, 45, 45, 45, 130)),
        )

    def __str__(self) -> str:
        faults = " ".join(sorted(self.faults)) or "none"
        limits = ", ".join(f"{most} at work of {name}" for name, most in self.limits.items())
        return (
            f"seed {self.seed}: {self.gateways} gateways of {self.slots} slots, {self.minutes:g} minutes, "
            f"{self.jobs} jobs, works of up to {self.longest:g} s, {limits or 'no limits'}, faults: {faults}"
        )


@dataclass
class Told:
    """A story that was told: what was seen, what the judge says, and the time line."""

    plan: Plan
    evidence: Evidence
    faults: list[str]
    lines: list[str]
    simulated_seconds: float

    @property
    def begins(self) -> int:
        """The attempts that those who work saw begin."""
        return sum(line.what == "begin" for line in self.evidence.works)


@dataclass
class Story:
    """What happens in it. `ids` are those of the jobs, by their own names, as far as they are known."""

    plan: Plan
    world: World
    dice: Random
    ids: dict[str, str] = field(default_factory=dict)
    deleted: dict[str, str] = field(default_factory=dict)  # the same of those that can be restored
    made: int = 0
    keys: int = 0

    async def tell(self) -> None:
        world = self.world
        for gateway in world.gateways:
            gateway.start()
        await self._all_up()
        for _ in range(self.plan.jobs):
            await self.create()
        self._let_calls_fail()
        end = world.now + self.plan.minutes * 60
        while world.now < end:
            await asyncio.sleep(self.dice.choice((0.3, 2, 5, 13, 31, 62)))
            await self._something()
        await self._heal()
        world.evidence.calm_since = world.now
        world.say("from here on nothing is done to it any more")
        await asyncio.sleep(CALM_SECONDS)
        await self._quiet()
        world.evidence.ended_at = world.now
        await self._read()

    async def _something(self) -> None:
        steps = [*COMMANDS, *(step for name in sorted(self.plan.faults) for step in FAULTS[name])]
        await (Story.create if len(self.ids) < FEWEST_JOBS else self.dice.choice(steps))(self)

    def _let_calls_fail(self) -> None:
        dice = self.dice
        latency = (0.0, dice.choice((0.0, 0.02, 0.4)))
        rate = dice.choice((0.01, 0.03, 0.1)) if "calls" in self.plan.faults else 0.0
        slow = dice.choice((0.002, 0.01)) if "slow" in self.plan.faults else 0.0
        for service in (self.world.database, self.world.store):
            service.faults = Faults(
                latency=latency,
                refused=rate,
                lost=rate / 2,
                late=0 if service.embedded else rate / 4,
                slow=slow,
                slow_seconds=dice.choice((3.0, 20.0, 70.0)),
            )

    async def _heal(self) -> None:
        """All faults end; everybody is up again."""
        for service in (self.world.database, self.world.store):
            service.faults = Faults(latency=(0.0, 0.02))
        for place in self.world.places.values():
            place.mood = "well"
        for gateway in self.world.gateways:
            if gateway.process is not None:
                gateway.process.dies_at_step = None
        while self.world.database.away or self.world.store.away:
            await asyncio.sleep(1)
        behind = self.world.furthest_wall - self.world.wall
        if behind > 100:  # what waits for an instant that had nearly come would wait for it again
            self.world.step_clock(behind)
        await self._all_up()

    async def _all_up(self) -> None:
        while not all(gateway.is_up and not gateway.is_frozen for gateway in self.world.gateways):
            await asyncio.sleep(0.5)

    # Commands.

    async def create(self) -> None:
        self.made += 1
        name = f"job {self.made}"
        data = self._draft(name)
        user = self.dice.choice(USERS)
        command = await self._ask("create", name, data, lambda house: house.jobs.create(ADMIN, data, user))
        if command is not None and command.result == "done":
            self.ids[name] = command.answer["id"]

    def _draft(self, name: str) -> dict[str, Any]:
        dice, faults = self.dice, self.plan.faults
        draft = {
            "name": name,
            "schedule": dice.choice(SCHEDULES),
            "command": self._command(),
            "channelId": dice.choice(CHANNELS),
            "overlap": dice.choice(("skip", "queue", "allow", "cancelPrevious")),
            "catchUp": dice.choice(("latest", "all", "none")),
            "catchUpWindowSeconds": dice.choice((30, 300) if "day" in faults else (30, 300, 3600)),
            "timeoutSeconds": dice.choice((4, 20, 2 * self.plan.longest)),
            "jitterSeconds": dice.choice((0, 0, 7)),
            "notify": dice.choice(("always", "always", "failure", "never")),
            "retry": {
                "maxAttempts": dice.randint(1, 3),
                "initialSeconds": dice.choice((0, 5, 40)),
                "factor": dice.choice((1, 2)),
            },
        }
        return draft | self._wishes() | self._chain()

    def _wishes(self) -> dict[str, Any]:
        """What only some jobs ask for."""
        dice = self.dice
        end = self.world.clock.now() + timedelta(seconds=dice.choice((150, 400)))
        wishes: dict[str, Any] = {
            "deadlineSeconds": dice.choice((20, 60, 200)),
            "maxRuns": dice.randint(1, 4),
            "endAt": end.isoformat(),
            "deleteAfterRun": True,
            "pauseAfterFailures": dice.randint(1, 3),
            "catchUpOrder": "oldestFirst",
            "catchUpLimit": dice.choice((1, 3)),
        }
        return {name: wish for name, wish in wishes.items() if dice.random() < ODD_WISH}

    def _chain(self) -> dict[str, Any]:
        """Some jobs are started by the ends of others, and of these some by nothing else."""
        if not self.ids or self.dice.random() > ODD_WISH:
            return {}
        upstream = self.ids[self.dice.choice(list(self.ids))]
        chain = {"after": [{"jobId": upstream, "when": self.dice.choice(("success", "failure", "end"))}]}
        return chain | ({"schedule": NEVER} if self.dice.random() < 0.5 else {})

    def _command(self) -> str:
        self.keys += 1
        what = self.dice.choice(("ok", "ok", "ok", "flaky", "flaky", "fail", "refuse", "raise", "stubborn"))
        return f"sim {what} {self.dice.choice((0, 0.5, 3, 12, self.plan.longest))} #{self.keys}"

    async def change_schedule(self) -> None:
        await self._update({"schedule": self.dice.choice(SCHEDULES)})

    async def change_command(self) -> None:
        await self._update({"command": self._command()})

    async def _update(self, updates: dict[str, Any]) -> None:
        await self._ask_of_one("update", updates, lambda house, id_: house.jobs.update(ADMIN, id_, updates))

    async def pause(self) -> None:
        await self._ask_of_one("pause", {}, lambda house, id_: house.jobs.pause(ADMIN, id_))

    async def pause_until(self) -> None:
        end = self.world.clock.now() + timedelta(seconds=self.dice.choice((10.5, 45, 130)))
        until = end.isoformat()
        data = {"until": until}
        await self._ask_of_one("pause", data, lambda house, id_: house.jobs.pause(ADMIN, id_, None, until))

    async def resume(self) -> None:
        await self._ask_of_one("resume", {}, lambda house, id_: house.jobs.resume(ADMIN, id_))

    async def delete(self) -> None:
        command = await self._ask_of_one("delete", {}, lambda house, id_: house.removals.delete(ADMIN, id_))
        if command is not None and command.result == "done":
            self.deleted[command.job] = self.ids.pop(command.job)

    async def restore(self) -> None:
        if not self.deleted:
            return
        name = self.dice.choice(list(self.deleted))
        job_id = self.deleted[name]
        command = await self._ask("restore", name, {}, lambda house: house.removals.restore(ADMIN, job_id))
        if command is not None and command.result == "done":
            self.ids[name] = self.deleted.pop(name)

    async def backfill(self) -> None:
        """The instants of the last minutes, so that some of them have run and others have not."""
        until = self.world.clock.now() - timedelta(seconds=self.dice.choice((0.001, 60)))
        since = until - timedelta(seconds=self.dice.choice((60, 200)))
        window = since.isoformat(), until.isoformat()
        data = {"since": window[0], "until": window[1]}
        await self._ask_of_one(
            "backfill", data, lambda house, id_: house.backfills.backfill(ADMIN, id_, *window, dry_run=False)
        )

    async def run_now(self) -> None:
        self.keys += self.dice.random() < 0.7  # else with the key of an earlier call
        key = f"key {self.keys}"
        await self._ask_of_one("run", {"key": key}, lambda house, id_: house.runs.start(ADMIN, id_, key))

    async def cancel(self) -> None:
        lines = [line for line in self.world.evidence.works if line.what == "begin"][-5:]
        if not lines:
            return
        run_id = self.dice.choice(lines).run_id
        await self._ask("cancel", run_id, {}, lambda house: house.runs.cancel(ADMIN, run_id))

    async def _ask_of_one(
        self, kind: str, data: dict[str, Any], call: Callable[[House, str], Awaitable[Any]]
    ) -> Command | None:
        if not self.ids:
            return None
        name = self.dice.choice(list(self.ids))
        job_id = self.ids[name]
        return await self._ask(kind, name, data, lambda house: call(house, job_id))

    async def _ask(
        self, kind: str, name: str, data: dict[str, Any], call: Callable[[House], Awaitable[Any]]
    ) -> Command | None:
        """One command to a gateway that is up, if there is one."""
        up = [gateway for gateway in self.world.gateways if gateway.is_up]
        if not up:
            return None
        gateway = self.dice.choice(up)
        return await self.world.ask(gateway, Command(self.world.now, kind, name, gateway.name, data), call)

    # Faults.

    def _one(self) -> Gateway:
        return self.dice.choice(self.world.gateways)

    async def kill(self) -> None:
        self._one().kill_soon(self.dice.choice((1, 3, 10, 40, 200)))

    async def kill_in_a_command(self) -> None:
        for gateway in self.world.gateways:
            if self.dice.random() < 0.6:
                gateway.kill_soon(self.dice.randint(1, 40))
        await self.dice.choice(COMMANDS)(self)

    async def stop(self) -> None:
        self._one().stop()

    async def freeze(self) -> None:
        self._one().freeze(self.dice.choice((2.0, 20.0, 75.0, 150.0)))

    async def step_clock(self) -> None:
        seconds = self.dice.choice((-1.0, -7.0, 3.0, 15.0, 90.0, -90.0))
        if self.dice.random() < 0.15:
            seconds = self.dice.choice((3600.0, -3600.0))
        self.world.step_clock(seconds + self.dice.choice((0.0, 0.25)))

    async def step_a_day(self) -> None:
        if self.world.clock.offset.days < 1:
            self.world.step_clock(86_400.0)

    async def no_database(self) -> None:
        self.world.take_away(self.world.database, self.dice.choice((2.0, 20.0, 100.0)))

    async def no_store(self) -> None:
        self.world.take_away(self.world.store, self.dice.choice((2.0, 20.0, 100.0)))

    async def moody_channel(self) -> None:
        place = self.world.places[self.dice.choice(CHANNELS)]
        place.mood = self.dice.choice(("well", "failing", "stalled", "busy", "refusing", "forgetful"))
        self.world.say(f"channel {place.name} is {place.mood}")

    # The end.

    async def _quiet(self) -> None:
        """Pause all jobs, and wait until nothing is under way any more."""
        gateway = self.world.gateways[0]
        house = _house_of(gateway)
        for user in USERS:
            for view in house.jobs.list(ADMIN, user).items:
                self.world.evidence.jobs.append(view)
                await self._pause_for_good(view["name"], view["id"])
        self.world.evidence.quiet_since = self.world.now
        self.world.say("all jobs are paused")
        if not await self._is_drained_within(DRAIN_SECONDS):
            for name in list(self.ids):
                await self._delete_for_good(name)
            await self._is_drained_within(LONGEST_DRAIN_SECONDS)

    async def _is_drained_within(self, seconds: float) -> bool:
        until = self.world.now + seconds
        while self.world.now < until:
            if await self._is_drained():
                return True
            await asyncio.sleep(5)
        return False

    async def _delete_for_good(self, name: str) -> None:
        job_id = self.ids[name]
        await self._ask("delete", name, {}, lambda house: house.removals.delete(ADMIN, job_id))

    async def _pause_for_good(self, name: str, job_id: str) -> None:
        self.ids[name] = job_id
        await self._ask("pause", name, {}, lambda house: house.jobs.pause(ADMIN, job_id))

    async def _is_drained(self) -> bool:
        house = _house_of(self.world.gateways[0])
        alive = await house.runs.page(ADMIN, RunsAsked(status=["queued", "running"], limit=1))
        waiting = await house.deliveries.page(
            ADMIN, state="waiting", channel_id=None, limit=1, cursor=None
        )
        return not alive["items"] and not waiting["items"]

    async def _read(self) -> None:
        """The last answers of the API, from a gateway that has heard of everything."""
        house, evidence = _house_of(self.world.gateways[-1]), self.world.evidence
        cursor = None
        while True:
            page = await house.runs.page(ADMIN, RunsAsked(limit=500, cursor=cursor))
            evidence.runs += page["items"]
            if (cursor := page["nextCursor"]) is None:
                break
        number = None
        while True:
            page = await house.deliveries.page(ADMIN, state=None, channel_id=None, limit=500, cursor=number)
            evidence.deliveries += page["items"]
            if (number := page["nextCursor"]) is None:
                break
        evidence.is_whole = True
        for user in USERS:
            evidence.jobs += house.jobs.list(ADMIN, user).items


COMMANDS: tuple[Step, ...] = (
    Story.create,
    Story.change_schedule,
    Story.change_command,
    Story.pause,
    Story.pause_until,
    Story.resume,
    Story.resume,
    Story.delete,
    Story.restore,
    Story.run_now,
    Story.cancel,
    Story.backfill,
)
FAULTS: dict[str, tuple[Step, ...]] = {
    "kill": (Story.kill, Story.kill_in_a_command),
    "stop": (Story.stop,),
    "freeze": (Story.freeze,),
    "clock": (Story.step_clock,),
    "database": (Story.no_database,),
    "store": (Story.no_store,),
    "channels": (Story.moody_channel, Story.moody_channel),
    "day": (Story.step_a_day,),
    "calls": (),  # single calls of a service fail, all along
    "slow": (),  # single calls take long
}


def _house_of(gateway: Gateway) -> House:
    assert gateway.house is not None, f"{gateway.name} is down although nothing is done to it any more"
    return gateway.house


class Listener(logging.Handler):
    """What the gateways log goes into the time line; an exception that surprised one of them is a fault."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        self.over = False

    def emit(self, record: logging.LogRecord) -> None:
        if self.over:
            return
        process = PROCESS.get()
        message = record.getMessage()
        self._world.say(f"{process.name if process else '-'} logs: {message}")
        if record.exc_info and not message.startswith("the runner of"):  # that one was told to fall over
            error = "".join(traceback.format_exception(record.exc_info[1])[-3:])
            self._world.evidence.uncaught.append(f"{message}: {error}")


@contextmanager
def listening(world: World) -> Iterator[Listener]:
    log, listener = logging.getLogger("carapace_cron"), Listener(world)
    log.addHandler(listener)
    log.propagate = False
    try:
        yield listener
    finally:
        log.propagate = True
        log.removeHandler(listener)


def tell(seed: int) -> Told:
    """Tell the story of `seed`, and let the judge say what is wrong with it."""
    plan = Plan.of(seed)
    with tempfile.TemporaryDirectory(prefix="story-") as folder, simulated_loop(seed) as loop:
        dice = Random(f"story {seed}")
        world = World(loop, dice, Path(folder), gateways=plan.gateways, slots=plan.slots, limits=plan.limits)
        story = Story(plan, world, dice)
        with listening(world) as listener:
            try:
                loop.run_until_complete(story.tell())
            except (Hang, AssertionError) as error:
                world.evidence.uncaught.append(f"{type(error).__name__}: {error}")
            finally:
                listener.over = True
                world.evidence.uncaught += loop.troubles
                world.bury()
        evidence = world.evidence
        faults = judge(evidence) if evidence.is_whole else evidence.uncaught
        return Told(plan, evidence, faults, world.lines, loop.time())


def replay_command(seed: int) -> str:
    return f"PYTHONPATH=tests python -m simulation.story {seed} --verbose"


def _sentences(faults: Sequence[str]) -> str:
    return "".join(f"\n  {fault}" for fault in faults[:SHOWN_FAULTS])


def _tell_one(seed: int, verbose: bool) -> bool:
    """Tell it and show what is wrong with it; whether nothing is."""
    told = tell(seed)
    if verbose:
        print("\n".join(told.lines))
    print(f"{told.plan}{_sentences(told.faults)}")
    return not told.faults


def too_little_happened(begins: int, simulated_seconds: float) -> bool:
    return begins < LEAST_BEGINS_AN_HOUR * simulated_seconds / 3600


def _outcome(seed: int) -> tuple[int, list[str], int, float]:
    told = tell(seed)
    return seed, told.faults, told.begins, told.simulated_seconds


def _tell_many(seeds: Sequence[int], processes: int) -> bool:
    """Tell them all, with a line of progress now and then; whether enough happened and nothing is wrong."""
    began, failed, begins, simulated = time.monotonic(), 0, 0, 0.0
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for told, (seed, faults, begun, seconds) in enumerate(pool.imap_unordered(_outcome, seeds), start=1):
            begins += begun
            simulated += seconds
            if faults:
                failed += 1
                print(f"seed {seed}: {replay_command(seed)}{_sentences(faults)}")
            if told % PROGRESS_EACH == 0 or told == len(seeds):
                took = time.monotonic() - began
                print(
                    f"{told} stories of {simulated / 3600:.0f} hours and {begins} attempts "
                    f"told in {took:.0f} s, {failed} failed",
                    flush=True,
                )
    if too_little_happened(begins, simulated):
        print(f"too little happened: fewer than {LEAST_BEGINS_AN_HOUR} attempts an hour")
        return False
    return not failed


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m simulation.story", description=__doc__)
    parser.add_argument("seed", type=int, nargs="?", default=0, help="the seed, or the first of many")
    parser.add_argument("--verbose", action="store_true", help="show the time line")
    parser.add_argument("--seeds", type=int, default=1, help="how many stories to tell")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="that many at once")
    options = parser.parse_args(arguments)
    if options.seeds == 1:
        return not _tell_one(options.seed, options.verbose)
    return not _tell_many(range(options.seed, options.seed + options.seeds), options.processes)


if __name__ == "__main__":
    sys.exit(main())
