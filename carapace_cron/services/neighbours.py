"""What other gateways changed: the jobs of the store are looked through every few seconds.

Only for gateways that share a ledger; one that has its own is the only writer of its jobs. A change of
another's is in force before it is heard of here, by what the ledger and the store refuse.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from carapace_cron.clock import Clock
from carapace_cron.errors import CarapaceError
from carapace_cron.job_store import JobStore

log = logging.getLogger(__name__)

REFRESH_SECONDS = 5.0  # one listing each; how long a new job of another gateway can stay unseen here


class Neighbours:
    """`run` is the loop; `stop` lets it end."""

    def __init__(
        self, store: JobStore, clock: Clock, *, on_changed: Callable[[Sequence[str]], None]
    ) -> None:
        """`on_changed` hears the ids of jobs that others wrote, be it only how they fared."""
        self._store = store
        self._on_changed = on_changed
        self._clock = clock
        self._stopping = False
        self.wake = asyncio.Event()  # set: look now

    async def run(self) -> None:
        await self._clock.wait(self.wake, REFRESH_SECONDS)
        while not self._stopping:
            self.wake.clear()
            await self._refresh()
            await self._clock.wait(self.wake, REFRESH_SECONDS)

    def stop(self) -> None:
        self._stopping = True
        self.wake.set()

    async def _refresh(self) -> None:
        try:
            self._on_changed((await self._store.refresh()).changed)
        except CarapaceError as error:
            log.warning("changes by other gateways wait: %s", error, extra={"action": "refresh"})
        except Exception:
            log.exception("looking for changes failed; it is tried again", extra={"action": "refresh"})
