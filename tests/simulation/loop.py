"""Time and chance under a seed: an event loop that waits for nothing and owns all the randomness there is.

Time jumps to the next timer as soon as nothing is ready. What is ready at the same moment runs in an order
that the seed decides. Each callback belongs to a `Process`, by the context that it was made in, and a
process can be killed between any two of its steps, as by ``kill -9``: nothing of it runs any more, no
``finally`` block and no done callback. It can be frozen, as by SIGSTOP, and thawed.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import heapq
import itertools
import random
import secrets
import uuid
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, TypeVar, TypeVarTuple
from unittest import mock

from carapace_cron.clock import SystemClock

from .witness import START

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

MAX_SECONDS = 2 * 3600.0  # of a story: far more than any needs
MAX_STEPS_A_MOMENT = 50_000  # steps without time going on: far more than any story needs, so it is a hang

PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)


class Hang(AssertionError):
    """Nothing will ever happen again, or all of it at one moment, and the story is not over."""


class Dead(BaseException):
    """A dead process called: only the tidying up after a story does that, and nobody answers."""


class Process:
    """What would be a process of the system: it lives, may be frozen, and dies once."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.frozen = False
        self.steps = 0
        self.dies_at_step: int | None = None
        self.on_death: Callable[[], None] = lambda: None
        self.held: list[asyncio.Handle] = []  # what waits for a frozen process to be thawed
        self.remains: list[asyncio.Handle] = []  # kept: what is collected would run its `finally` blocks
        self.tasks: list[NumberedTask] = []

    def kill(self) -> None:
        """From here on no callback of it runs."""
        if self.alive:
            self.alive = False
            self.on_death()

    def kill_within(self, steps: int) -> None:
        """Kill it just before its `steps`-th step from now: at whatever await it has come to."""
        self.dies_at_step = self.steps + steps


def living() -> Process | None:
    """The process that runs now, None for the outside. Raises `Dead`: the fakes refuse calls of the dead."""
    process = PROCESS.get()
    if process is not None and not process.alive:
        raise Dead
    return process


class NumberedTask(asyncio.Task[Any]):
    """A task whose place in a set does not depend on its address, so that a seed replays exactly."""

    number: int
    process: Process | None = None
    _log_destroy_pending: bool  # whether it complains when it is collected before its end

    def __new__(cls, *_args: Any, loop: SimulatedLoop, **_named: Any) -> NumberedTask:
        task: NumberedTask = super().__new__(cls)
        task.number = next(loop.numbers)
        return task

    def __hash__(self) -> int:
        return self.number


class SimulatedLoop(asyncio.BaseEventLoop):
    """Runs no thread, opens no socket, sleeps never."""

    # What `asyncio.BaseEventLoop` keeps for itself: the handles that are ready, and the heap of timers.
    _ready: Any
    _scheduled: list[Any]
    _stopping: bool

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.dice = random.Random(f"order {seed}")
        self.numbers = itertools.count()
        self.troubles: list[str] = []  # exceptions that nobody caught
        self.ends_at = MAX_SECONDS
        self._now = 0.0
        self._steps_now = 0
        self._tasks: list[NumberedTask] = []
        self.set_task_factory(self._new_task)
        self.set_exception_handler(self._note_trouble)

    def time(self) -> float:
        return self._now

    def run_in_executor(
        self, executor: Any, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """There are no threads: it is done at once, and told in the next turn."""
        done: asyncio.Future[T] = self.create_future()
        try:
            result = func(*args)
        except Exception as error:  # noqa: BLE001  # whatever the function raised is its caller's
            self.call_soon(_tell_unless_gone, done, done.set_exception, error)
        else:
            self.call_soon(_tell_unless_gone, done, done.set_result, result)
        return done

    def call_soon_threadsafe(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def _new_task(
        self, loop: asyncio.AbstractEventLoop, coro: Any, *, context: contextvars.Context | None = None
    ) -> NumberedTask:
        assert loop is self
        task = NumberedTask(coro, loop=self, context=context)
        process = task.process = (context or contextvars.copy_context()).get(PROCESS)
        if process is not None:
            process.tasks = [one for one in process.tasks if not one.done()]
            process.tasks.append(task)
        return task

    def _note_trouble(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        process = getattr(context.get("task") or context.get("future"), "process", None)
        if process is None or process.alive:
            self.troubles.append(f"{context.get('message')}: {context.get('exception')!r}")

    def _run_once(self) -> None:
        """One turn: all that is ready now, in the order of the dice."""
        if not self._ready:
            self._jump()
        batch = list(self._ready)
        self._ready.clear()
        if len(batch) > 1:
            self.dice.shuffle(batch)
        self._steps_now += len(batch)
        if self._steps_now > MAX_STEPS_A_MOMENT:
            raise Hang(f"at {self._now:.6f} s {MAX_STEPS_A_MOMENT} steps were taken and time does not go on")
        for handle in batch:
            if not handle._cancelled:
                self._step(handle)

    def _step(self, handle: Any) -> None:
        process: Process | None = handle._context.get(PROCESS)
        if process is not None:
            if process.alive and process.steps == process.dies_at_step:
                process.kill()
            if not process.alive:
                process.remains.append(handle)
                return
            if process.frozen:
                process.held.append(handle)
                return
            process.steps += 1
        handle._run()

    def thaw(self, process: Process) -> None:
        process.frozen = False
        held, process.held = process.held, []
        self._ready.extend(held)

    def _jump(self) -> None:
        """On to the next timer that still means something."""
        while self._scheduled and self._scheduled[0]._cancelled:
            heapq.heappop(self._scheduled)._scheduled = False
        if not self._scheduled:
            if self._stopping:
                return
            raise Hang(f"at {self._now:.6f} s nothing is ready, nothing is scheduled, and the story goes on")
        if (at := self._scheduled[0].when()) > self.ends_at:
            raise Hang(f"{self.ends_at:g} s have passed, and the story goes on and on")
        if at > self._now:
            self._now, self._steps_now = at, 0
        while self._scheduled and self._scheduled[0].when() <= self._now:
            handle = heapq.heappop(self._scheduled)
            handle._scheduled = False
            if not handle._cancelled:
                self._ready.append(handle)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers go when their time has come."""

    def _process_events(self, event_list: Any) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody is asleep."""


def _tell_unless_gone(done: asyncio.Future[Any], tell: Callable[[Any], None], what: Any) -> None:
    if not done.done():
        tell(what)


class SimulatedClock(SystemClock):
    """The wall clock of a story, which steps, over the time of the loop, which does not."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop
        self.offset = timedelta()

    def now(self) -> datetime:
        return START + timedelta(seconds=self._loop.time()) + self.offset

    def monotonic(self) -> float:
        return self._loop.time()

    def step(self, by: timedelta) -> None:
        self.offset += by


@contextmanager
def simulated_loop(seed: int) -> Iterator[SimulatedLoop]:
    """A loop under `seed`, with everything that is drawn at random anywhere drawn from the seed, too."""
    dice = random.Random(f"entropy {seed}")
    state = random.getstate()
    random.seed(f"random {seed}")
    loop = SimulatedLoop(seed)
    collecting = gc.isenabled()
    gc.disable()  # what is collected in the middle of a story would run code at a moment that no seed decides
    try:
        with (
            mock.patch.object(secrets, "choice", dice.choice),
            mock.patch.object(secrets, "token_urlsafe", lambda size: f"{dice.getrandbits(8 * size):x}"),
            mock.patch.object(uuid, "uuid4", lambda: uuid.UUID(int=dice.getrandbits(128))),
        ):
            yield loop
    finally:
        random.setstate(state)
        loop.close()
        if collecting:
            gc.enable()


def in_process(process: Process, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start `work` as a task of `process`."""
    context = contextvars.copy_context()
    context.run(PROCESS.set, process)
    return asyncio.get_running_loop().create_task(work, context=context)


def bury(process: Process) -> None:
    """Tidy up after the story: close the coroutines of a dead process, whatever they say to it."""
    for task in process.tasks:
        if not task.done():
            task._log_destroy_pending = False
            _close(task.get_coro())
    process.tasks.clear()
    process.remains.clear()
    process.held.clear()


def _close(coroutine: Any) -> None:
    """A `finally` block that awaits must be closed once more."""
    for _ in range(20):
        try:
            coroutine.close()
        except BaseException:  # noqa: BLE001  # a dead one's last words, of whatever kind
            continue
        return
