"""The loop that writes pings down, many at once: a caller is answered when its ping is on the disk.

While one batch is written, the next one waits for its turn, and takes all that came until then: so the
ledger's writer never waits for pings that are there. Who comes when too many wait is told so at once.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from carapace_cron.errors import CarapaceError, Unavailable
from carapace_cron.ledger.pings import Answer, Arrival, Recorded
from carapace_cron.metrics import Metrics

PINGS_PER_WRITE = 256
MOST_WAITING = 8_192  # some seconds' worth; more would only be answered too late
_STOPPING = "the gateway is stopping"
ANSWER_SECONDS = 30.0  # a ledger that hangs must not keep the caller, who can come again


class Busy(CarapaceError):
    """More pings wait than can be kept in time: try again in a few seconds."""


class Pings(Protocol):
    """The part of the ledger that this needs."""

    async def record(self, arrivals: Callable[[], Sequence[Arrival]]) -> list[Answer]: ...


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An arrival, and who is to hear what became of it. `until`: by the loop's clock."""

    arrival: Arrival
    answer: asyncio.Future[Answer]
    until: float


class _Batch:
    """What is written at once: the first `PINGS_PER_WRITE` of those that wait when its turn comes."""

    def __init__(self, waiting: deque[_Waiting]) -> None:
        self.until = waiting[0].until
        self.turn = asyncio.Event()  # it has come, or nobody waits for it any more
        self._waiting = waiting
        self._taken: list[_Waiting] | None = None
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()

    def arrivals(self) -> list[Arrival]:
        """In the writer's thread, perhaps a second time: then they are the same."""
        with self._lock:
            if self._taken is None:
                self._taken = self._first()
                with suppress(RuntimeError):  # a loop that is closed has nobody left to tell
                    self._loop.call_soon_threadsafe(self.turn.set)
            return [one.arrival for one in self._taken]

    def end(self, until: float = math.inf) -> list[_Waiting]:
        """Who is to be told how it went. If its turn has not come, it will find nothing to write, and they
        are those of its first that wait until `until` at most."""
        with self._lock:
            self.turn.set()
            if self._taken is not None:
                return self._taken
            self._taken = []
            return self._first(until)

    def _first(self, until: float = math.inf) -> list[_Waiting]:
        first = list(itertools.islice(self._waiting, PINGS_PER_WRITE))
        return [self._waiting.popleft() for one in first if one.until <= until]


class PingBook:
    """`record` answers when the ping is durable. `run` is the loop that writes; `stop` lets it end."""

    def __init__(self, pings: Pings, metrics: Metrics | None = None) -> None:
        self._pings = pings
        self._metrics = metrics or Metrics()
        self._waiting: deque[_Waiting] = deque()
        self._filled = asyncio.Event()
        self._stopping = False

    async def record(self, arrival: Arrival) -> Answer:
        """Keep a ping; None when there is no such monitor. Raises `Busy`, and `Unavailable` when the ledger
        is away or has not answered in `ANSWER_SECONDS`: then it may or may not have been kept."""
        if self._stopping:
            raise Unavailable(_STOPPING)
        if len(self._waiting) >= MOST_WAITING:
            self._metrics.pings_refused.add()
            raise Busy("too many pings wait: try again in a few seconds")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append(_Waiting(arrival, answer, loop.time() + ANSWER_SECONDS))
        self._filled.set()
        return await answer

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as writing:
                while not self._stopping or self._waiting:
                    await self._filled.wait()
                    self._filled.clear()
                    while self._waiting:
                        batch = _Batch(self._waiting)
                        writing.create_task(self._write(batch))
                        await batch.turn.wait()
        finally:  # however it ends, nobody waits for it
            self._stopping = True
            _fail(self._waiting, Unavailable(_STOPPING))
            self._waiting.clear()

    def stop(self) -> None:
        """Take no more; `run` returns when what waits is written."""
        self._stopping = True
        self._filled.set()

    async def _write(self, batch: _Batch) -> None:
        """All in one transaction; if that fails for another reason than the ledger's absence, each alone, and
        then perhaps after some that came later."""
        try:
            async with asyncio.timeout_at(batch.until):  # nobody waits for longer than the first of them
                answers = await self._pings.record(batch.arrivals)
        except TimeoutError:
            now = asyncio.get_running_loop().time()
            _fail(batch.end(max(now, batch.until)), Unavailable("the ledger does not answer"))
        except asyncio.CancelledError:
            _fail(batch.end(), Unavailable(_STOPPING))
            raise
        except Unavailable as error:
            _fail(batch.end(), error)
        except Exception as error:  # noqa: BLE001  # whatever a ping's write raised is that ping's answer
            taken = batch.end()
            if len(taken) == 1:
                _fail(taken, error)
                return
            for one in taken:
                await self._write(_Batch(deque([one])))
        else:
            for one, answer in zip(batch.end(), answers, strict=True):
                if isinstance(answer, Recorded) and answer.after.kind is not None:
                    self._metrics.pings.add(answer.after.kind)
                with suppress(asyncio.InvalidStateError):  # who asked went away
                    one.answer.set_result(answer)


def _fail(some: Iterable[_Waiting], error: Exception) -> None:
    for one in some:
        with suppress(asyncio.InvalidStateError):
            one.answer.set_exception(error)
