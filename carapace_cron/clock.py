"""Time comes in by this door only: every loop is handed a `Clock` and reads it once a decision.

`SystemClock` is the real one; `ManualClock` moves when a test says so, and no test waits for time to pass.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Wall time for what is due, monotonic time for how long things last."""

    def now(self) -> datetime:
        """The wall clock: an aware datetime in UTC. May step either way."""
        ...

    def monotonic(self) -> float:
        """Seconds that only grow; the origin means nothing."""
        ...

    async def wait(self, event: asyncio.Event, seconds: float) -> bool:
        """Until `event` is set or `seconds` passed; True when the event was set. Never longer."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def wait(self, event: asyncio.Event, seconds: float) -> bool:
        if event.is_set():
            return True
        try:
            async with asyncio.timeout(max(seconds, 0)):
                await event.wait()
        except TimeoutError:
            return event.is_set()
        return True


class ManualClock:
    """A clock that stands still until `advance` or `step`. For tests: see ``docs/testing.md``.

    `advance` lets time pass (both clocks); `step` moves the wall clock alone, as NTP or a person does.
    """

    def __init__(self, start: datetime) -> None:
        self._wall = start.astimezone(UTC)
        self._monotonic = 0.0
        self.busy: list[Callable[[], bool]] = []  # asked before time goes on: is real work under way?
        self._sleepers: list[tuple[float, int, asyncio.Event]] = []
        self._tickets = itertools.count()

    def now(self) -> datetime:
        return self._wall

    def monotonic(self) -> float:
        return self._monotonic

    def step(self, by: timedelta) -> None:
        self._wall += by

    async def advance(self, seconds: float) -> None:
        """Let `seconds` pass, waking each sleeper at its own moment and letting its task run."""
        end = self._monotonic + seconds
        await self._settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            at, _, alarm = heapq.heappop(self._sleepers)
            self._move_to(max(at, self._monotonic))
            alarm.set()
            await self._settle()
        self._move_to(end)
        await self._settle()

    async def wait(self, event: asyncio.Event, seconds: float) -> bool:
        if event.is_set() or seconds <= 0:
            return event.is_set()
        alarm = asyncio.Event()
        heapq.heappush(self._sleepers, (self._monotonic + seconds, next(self._tickets), alarm))
        waiters = {asyncio.ensure_future(event.wait()), asyncio.ensure_future(alarm.wait())}
        try:
            await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiter in waiters:
                waiter.cancel()
        return event.is_set()

    def _move_to(self, monotonic: float) -> None:
        self._wall += timedelta(seconds=monotonic - self._monotonic)
        self._monotonic = monotonic

    async def _settle(self) -> None:
        """Let the tasks run until they all wait again, also for threads if `busy` can tell of them."""
        await _turns()
        if not self.busy:
            await asyncio.sleep(0.005)
            await _turns()
        while any(is_busy() for is_busy in self.busy):
            await asyncio.sleep(0.0002)
            await _turns()


async def _turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)
