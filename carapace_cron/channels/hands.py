"""In whose hands a notice is, where the couriers of several gateways carry what is in one outbox.

A courier writes its mark on a notice before it sends it, and the others leave that one, and so the channel,
to it. It is no promise that a notice is sent only once: a courier that stood still between the mark and the
send goes on with it when others have long taken it over. It is what keeps two that are well from sending
the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from carapace_cron.clock import Clock
from carapace_cron.ledger.deliveries import Deliveries, Head
from carapace_cron.ledger.leases import LeaseWatch
from carapace_cron.model.notice import Delivery

TAKEOVER_SECONDS = 60.0  # a send may take 30, then it is broken off and recorded: whoever needs more is gone


class Hands:
    """`name`: of one's own courier, new at each start; None: there are no others, and all is one's own."""

    def __init__(self, deliveries: Deliveries, clock: Clock, name: str | None) -> None:
        self._deliveries = deliveries
        self._clock = clock
        self._name = name
        self._takes = itertools.count(1)
        self._watch: LeaseWatch[tuple[int, str]] = LeaseWatch(TAKEOVER_SECONDS)
        self._left: dict[str, str] = {}  # channel id → the mark of a courier that is gone

    async def heads(self) -> list[Head]:
        """The first notice of each channel that has one waiting."""
        asked_at = self._clock.monotonic()
        heads = await self._deliveries.heads()
        self._look(heads, asked_at)
        return heads

    def _look(self, heads: Sequence[Head], asked_at: float) -> None:
        marks = {
            head.channel_id: (head.sequence, head.courier)
            for head in heads
            if head.courier is not None and not self._is_ours(head.courier)
        }
        gone = self._watch.run_out(marks, asked_at=asked_at, answered_at=self._clock.monotonic())
        self._left = {channel_id: marks[channel_id][1] for channel_id in gone}

    def has_another(self, channel_id: str, courier: str | None) -> bool:
        """Whether another courier is sending what bears this mark of `courier`, as far as is known."""
        return not (courier is None or self._is_ours(courier) or self._left.get(channel_id) == courier)

    async def take(self, delivery: Delivery) -> bool:
        """Whether it is ours to send now. Raises `Unavailable`; then it may be marked as ours."""
        if self._name is None:
            return True
        if self.has_another(delivery.notice.channel_id, delivery.courier):
            return False
        return await self._deliveries.take(delivery, f"{self._name}.{next(self._takes)}")

    def _is_ours(self, courier: str) -> bool:
        return self._name is None or courier.startswith(f"{self._name}.")
