"""Gateways made of the real parts over the fakes at the edge, and an outside that does things to them."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pluggy

from carapace_cron.errors import NotFound, Refused, Unavailable
from carapace_cron.hookspecs import PROJECT, ChannelFactory, CronHooks, StoreFactory, hookimpl
from carapace_cron.house import House
from carapace_cron.model.actor import Actor
from carapace_cron.ports.host import AgentCall, AgentReply, HostMessage
from carapace_cron.ports.object_store import ObjectStore
from carapace_cron.ports.runner import Runner
from carapace_cron.settings import CronSettings

from .fakes import (
    Bucket,
    DatabaseServer,
    Place,
    Service,
    SimulatedDatabase,
    SimulatedObjects,
    SimulatedRunner,
    channel_kind,
)
from .loop import Process, SimulatedClock, SimulatedLoop, bury, in_process
from .witness import Command, Evidence, Result, Trouble

ADMIN = Actor("acme", "admin", frozenset({"admin"}))
CHANNELS = ("ops", "alerts", "logs")
RESTART_SECONDS = 3.0  # until the system's supervisor starts again what could not start


class Edge:
    """The plugin that brings the fakes in by the hooks that any plugin has."""

    def __init__(
        self, runner: SimulatedRunner, objects: Callable[[], ObjectStore], places: Mapping[str, Place]
    ) -> None:
        self._runner = runner
        self._objects = objects
        self._places = places

    @hookimpl
    def register_runners(self) -> Sequence[Runner]:
        return [self._runner]

    @hookimpl
    def register_channel_kinds(self) -> Mapping[str, ChannelFactory]:
        return {"sim": channel_kind(self._places)}

    @hookimpl
    def register_stores(self) -> Mapping[str, StoreFactory]:
        async def opened(_address: str) -> ObjectStore:
            return self._objects()

        return {"sim": opened}


class SimulatedHost:
    """A host without agents; its own channel takes everything."""

    def __init__(self, data_dir: Path, plugin_manager: pluggy.PluginManager) -> None:
        self.data_dir = data_dir
        self.plugin_manager = plugin_manager

    def settings_of(self, plugin_id: str) -> Mapping[str, Any]:
        raise NotFound(f"no settings of {plugin_id}: the house is given them")

    def agents(self) -> Collection[str]:
        return ()

    async def run_agent(self, call: AgentCall) -> AgentReply:
        raise NotFound(f"no agent {call.agent}")

    def channels(self) -> Collection[str]:
        return ("gateway",)

    async def post(self, message: HostMessage) -> None:
        """It has it."""

    async def identify(self, token: str) -> Actor | None:
        return None

    def emit(self, event: str, payload: Mapping[str, Any], *, tenant: str, user_id: str) -> None:
        """Nobody watches."""


@dataclass
class Gateway:
    """One of the machines: at most one process of it at a time, started again and again."""

    name: str
    world: World
    lives: int = 0
    process: Process | None = None
    house: House | None = None  # None until it is open
    down_since: float | None = 0.0
    trouble: Trouble | None = None  # open since it went down
    past: list[Process] = field(default_factory=list)

    @property
    def is_up(self) -> bool:
        return self.house is not None and self.process is not None and self.process.alive

    @property
    def is_frozen(self) -> bool:
        return self.process is not None and self.process.alive and self.process.frozen

    def start(self) -> None:
        """A new process; it opens in its own time, and is started again when it cannot."""
        assert self.process is None or not self.process.alive
        self.lives += 1
        process = self.process = Process(f"{self.name}.{self.lives}")
        process.on_death = lambda: self._ended(process)
        self.past.append(process)
        self.world.say(f"{process.name} starts")
        in_process(process, self._open(process))

    async def _open(self, process: Process) -> None:
        house = self.world.new_house(process)
        try:
            await house.open()
        except Exception as error:
            if not process.alive:
                raise
            self.world.say(f"{process.name} cannot start: {error!r}")
            if not isinstance(error, Unavailable):
                self.world.evidence.uncaught.append(f"{process.name} could not start: {error!r}")
            await house.close()
            self.world.outside(process.kill)
            return
        self.house = house
        self.world.outside(self._opened)

    def _opened(self) -> None:
        self.world.say(f"{self.name}.{self.lives} is up")
        if self.trouble is not None:
            self.trouble.until = self.world.now + 1
            self.trouble = None

    def _ended(self, process: Process) -> None:
        """The process is gone, whatever the reason; a supervisor starts another one later."""
        self.world.say(f"{process.name} has ended")
        self.world.runner.end_of(process)
        self.house = None
        self._note_down()
        self.world.loop.call_later(
            self.world.dice.choice((0.5, RESTART_SECONDS, 30.0)), self.restart, context=self.world.context
        )

    def _note_down(self) -> None:
        if self.trouble is None:
            self.trouble = Trouble("down", self.world.now, float("inf"), self.name)
            self.world.evidence.troubles.append(self.trouble)

    def restart(self) -> None:
        if self.process is None or not self.process.alive:
            self.start()

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()

    def kill_soon(self, steps: int) -> None:
        if self.process is not None:
            self.process.kill_within(steps)

    def freeze(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT so many seconds later."""
        process = self.process
        if process is None or not process.alive or process.frozen:
            return
        process.frozen = True
        self.world.evidence.troubles.append(
            Trouble("frozen", self.world.now, self.world.now + seconds + 1, self.name)
        )
        self.world.say(f"{process.name} is frozen for {seconds:g} s")
        self.world.loop.call_later(seconds, self._thaw, process, context=self.world.context)

    def _thaw(self, process: Process) -> None:
        if process.alive:
            self.world.say(f"{process.name} goes on")
        self.world.loop.thaw(process)

    def stop(self) -> None:
        """SIGTERM: it drains, then ends."""
        process, house = self.process, self.house
        if process is None or house is None or not process.alive:
            return
        self.house = None
        self._note_down()
        self.world.say(f"{process.name} is asked to stop")

        async def close() -> None:
            await house.close()
            self.world.outside(process.kill)

        in_process(process, close())


class World:
    """Everything of one story. `say` writes its time line."""

    def __init__(
        self,
        loop: SimulatedLoop,
        dice: Random,
        folder: Path,
        *,
        gateways: int,
        slots: int,
        limits: Mapping[str, int],
    ) -> None:
        """`limits`: "channel:<id>" and "tenant" → how many runs of it may be at work."""
        self.loop = loop
        self.dice = dice
        self.folder = folder
        self.clock = SimulatedClock(loop)
        self.context = contextvars.copy_context()
        self.evidence = Evidence(limits=dict(limits))
        self.database = DatabaseServer("database", dice, self.evidence, embedded=gateways == 1)
        self.store = Service("object store", dice, self.evidence)
        self.bucket = Bucket()
        self.runner = SimulatedRunner(self.evidence, dice)
        self.places = {name: Place(name, dice, self.evidence) for name in CHANNELS}
        self.lines: list[str] = []
        self.furthest_wall = 0.0  # as of the last step
        self._settings = CronSettings.model_validate(
            {
                "job_store": "sim:",
                "admin_token": "a-token-of-a-story-0",
                "max_concurrent_runs": slots,
                "min_interval_seconds": 1,
                "shutdown_grace_seconds": 3,
                "channels": {name: {"kind": "sim"} for name in CHANNELS},
                "concurrency": {name: most for name, most in limits.items() if name != "tenant"},
                "max_concurrent_runs_per_tenant": limits.get("tenant", 0),
            }
        )
        self._plugins = pluggy.PluginManager(PROJECT)
        self._plugins.add_hookspecs(CronHooks)
        self._plugins.register(Edge(self.runner, self._new_objects, self.places))
        self.gateways = [Gateway(name, self) for name in "abc"[:gateways]]
        self.evidence.gateways = [one.name for one in self.gateways]
        self.database.clear()

    @property
    def now(self) -> float:
        return self.loop.time()

    @property
    def wall(self) -> float:
        """What the clock on the wall shows, in seconds since the story began."""
        return self.now + self.clock.offset.total_seconds()

    def say(self, line: str) -> None:
        self.lines.append(f"{self.now:11.4f}  {self.clock.now():%H:%M:%S}  {line}")

    def outside(self, callback: Callable[[], object]) -> None:
        """Do something as nobody's step."""
        self.loop.call_soon(callback, context=self.context)

    def new_house(self, process: Process) -> House:
        host = SimulatedHost(self.folder / process.name, self._plugins)
        return House(host, self._settings, self.clock, database=SimulatedDatabase(self.database))

    def _new_objects(self) -> ObjectStore:
        return SimulatedObjects(self.bucket, self.store)

    def step_clock(self, seconds: float) -> None:
        self.furthest_wall = max(self.furthest_wall, self.wall)
        self.clock.step(timedelta(seconds=seconds))
        self.evidence.clock.append((self.now, self.clock.offset.total_seconds()))
        self.evidence.troubles.append(Trouble("clock", self.now - 1, self.now + 5))
        self.say(f"the clock is moved by {seconds:+g} s")

    def take_away(self, service: Service, seconds: float) -> None:
        """Nobody reaches the service for a while."""
        if service.away:
            return
        service.away = True
        self.evidence.troubles.append(Trouble(f"no {service.name}", self.now, self.now + seconds + 3))
        self.say(f"the {service.name} is away for {seconds:g} s")
        self.loop.call_later(seconds, self._bring_back, service, context=self.context)

    def _bring_back(self, service: Service) -> None:
        service.away = False
        self.say(f"the {service.name} is back")

    async def ask(
        self, gateway: Gateway, command: Command, call: Callable[[House], Awaitable[Any]]
    ) -> Command:
        """Let a user call `gateway`, and wait for the answer or its death."""
        house, process = gateway.house, gateway.process
        assert house is not None and process is not None
        self.evidence.commands.append(command)
        over = asyncio.Event()

        async def calling() -> None:
            result, answer = await _answered(lambda: call(house))
            self.outside(lambda: self._note_answer(command, result, answer, over))

        task = in_process(process, calling())
        while not over.is_set() and process.alive:
            await self.clock.wait(over, 0.5)
        self.say(f"{gateway.name}: {command.kind} {command.job} {command.data} → {command.result}")
        del task
        return command

    def _note_answer(self, command: Command, result: Result, answer: Any, over: asyncio.Event) -> None:
        command.answered_at, command.result, command.answer = self.now, result, answer
        over.set()

    def bury(self) -> None:
        """Tidy up, after the last word."""
        for gateway in self.gateways:
            for process in gateway.past:
                process.alive = False
                bury(process)


async def _answered(call: Callable[[], Awaitable[Any]]) -> tuple[Result, Any]:
    try:
        return "done", await call()
    except Refused as error:
        return "refused", str(error)
    except Unavailable as error:
        return "unsure", str(error)
    except Exception as error:  # noqa: BLE001  # a defect, for the judge to see
        return "broken", repr(error)
