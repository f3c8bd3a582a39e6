"""The loop that notices what did not happen: it looks at each monitor when something happens to it by itself.

What it finds is decided in ``monitors/status.py`` and ``monitors/alarm.py`` and written down in the
transaction that looked, so a watchman that is killed, or one too many of them, loses nothing and tells
nothing twice. It knows nothing of the loop that runs jobs, and would notice if that one stood still.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime
from typing import Protocol

from carapace_cron.clock import Clock
from carapace_cron.errors import CarapaceError
from carapace_cron.ledger.watchlist import Looked

log = logging.getLogger(__name__)

LOOKS_PER_WRITE = 100  # monitors a transaction, so that pings never wait long for it
IDLE_SECONDS = 30.0  # another process may have changed something; nobody would wake us
LEDGER_PAUSE_SECONDS = 2.0  # after the ledger could not be used


class Looks(Protocol):
    """The part of the ledger that this needs."""

    async def look(self, now: datetime, limit: int) -> Looked: ...


class Watchman:
    """`run` is the loop; `stop` lets it end. `note` tells it of something that comes sooner than it knows."""

    def __init__(self, watchlist: Looks, clock: Clock) -> None:
        self._watchlist = watchlist
        self._clock = clock
        self._wake = asyncio.Event()
        self._next_at: datetime | None = None  # None: nothing is known to come
        self._stopping = False
        self.trouble: str | None = None  # why monitors wait to be looked at; None: they do not
        self.last_look_at: datetime | None = None  # when it last saw to all that was due

    def note(self, look_at: datetime | None) -> None:
        """A monitor is to be looked at then."""
        if look_at is not None and (self._next_at is None or look_at < self._next_at):
            self._next_at = look_at
            self._wake.set()

    async def run(self) -> None:
        while not self._stopping:
            seconds = await self._look_or_pause()
            if not self._stopping:
                self._wake.clear()  # what was noted meanwhile is in `seconds`
                await self._clock.wait(self._wake, seconds)

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()

    async def _look_or_pause(self) -> float:
        """Seconds until something may happen."""
        try:
            seconds = await self._look()
        except CarapaceError as error:
            return self._pause(str(error))
        except Exception:
            log.exception("looking at monitors failed; it is tried again", extra={"action": "watch"})
            return self._pause("an unexpected failure; see the log")
        self.trouble = None
        return seconds

    async def _look(self) -> float:
        """See to all that is due; seconds until the next."""
        now = self._clock.now()
        self._next_at = None
        looked = await self._watchlist.look(now, LOOKS_PER_WRITE)
        if looked.count < LOOKS_PER_WRITE:
            self.last_look_at = now
        self.note(looked.next_at)
        if self._next_at is None:
            return IDLE_SECONDS
        return min(max((self._next_at - self._clock.now()).total_seconds(), 0.0), IDLE_SECONDS)

    def _pause(self, trouble: str) -> float:
        if self.trouble is None:
            log.error("monitors wait to be looked at: %s", trouble, extra={"action": "watch"})
        self.trouble = trouble
        return LEDGER_PAUSE_SECONDS
