"""Whether the bucket is still this gateway's: another one may have been told to adopt it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from carapace_cron.clock import Clock
from carapace_cron.errors import CarapaceError
from carapace_cron.objects.binding import new_owner
from carapace_cron.ports.object_store import ObjectStore

log = logging.getLogger(__name__)

LOOK_SECONDS = 30.0  # how long two gateways can both run the jobs of a bucket; one request each


class Ownership:
    """`run` looks now and then, until the bucket is another's or `stop`; `on_lost` is awaited once, with a
    sentence for the operator."""

    def __init__(
        self,
        objects: ObjectStore,
        ledger_id: str,
        clock: Clock,
        *,
        on_lost: Callable[[str], Awaitable[None]],
    ) -> None:
        self._objects = objects
        self._ledger_id = ledger_id
        self._clock = clock
        self._on_lost = on_lost
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        while not await self._clock.wait(self._stopping, LOOK_SECONDS):
            try:
                host = await new_owner(self._objects, self._ledger_id)
            except CarapaceError as error:
                log.warning("whose the bucket is cannot be read: %s", error, extra={"action": "ownership"})
                continue
            if host is not None:
                sentence = f"the gateway on {host} has taken over the jobs of this bucket: stop this one"
                log.critical("%s", sentence, extra={"action": "ownership"})
                await self._on_lost(sentence)
                await self._stopping.wait()

    def stop(self) -> None:
        self._stopping.set()
