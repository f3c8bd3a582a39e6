"""Carries what waits in the outbox to its channels: at least once, in order per channel, or says why not.

One loop looks which channels have something due and starts a sender for each. Everything it must not
forget is in the ledger, so it needs no shutdown to be safe: killed between a send and its record, it sends
that notice again after the restart, under the same id.

A channel's notices go strictly one after the other. While the first of them is held back after a failure,
so are those behind it. That is the circuit breaker; and where one notice after the other is refused, which
is the channel's fault and not theirs, the breaker holds back the next of them, too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol

from carapace_cron.channels.hands import Hands
from carapace_cron.clock import Clock
from carapace_cron.errors import CarapaceError
from carapace_cron.ids import stable_fraction
from carapace_cron.ledger.deliveries import Deliveries, Head, UnreadableNotice
from carapace_cron.model.notice import AnyNotice, Delivery
from carapace_cron.model.untrusted import one_line, presentable
from carapace_cron.ports.channel import Channel, DeliveryFailed

MAX_SENDERS = 16  # channels that are sent to at the same time
MAX_FAILING_SENDERS = MAX_SENDERS // 2  # of them, to channels whose last try failed: the rest need room
BURST = 25  # notices a sender may carry before the other channels get their turn
SEND_TIMEOUT_SECONDS = 30.0
FIRST_DELAY = timedelta(seconds=5)
MAX_DELAY = timedelta(minutes=15)
JITTER = 0.25  # at most this part of a delay is taken off, so that channels do not try in step
SHORTEST_WISH = timedelta(seconds=1)  # a Retry-After of 0 is not an invitation to hammer
LONGEST_WISH = timedelta(hours=1)
GIVE_UP_AFTER = timedelta(hours=24)
REFUSED_IN_ROW = 5  # notices given up one after the other: from then on it is not them, it is the channel
IDLE_SECONDS = 30.0  # another process may have put something in; nobody would wake us
HELD_SECONDS = 5.0  # another courier has it in hand, and does not tell us when it is done
LEDGER_PAUSE_SECONDS = 2.0  # after the ledger could not be used
STOP_GRACE_SECONDS = 10.0
CANCEL_SECONDS = 5.0  # for a cancelled send to end
LOGGED_LENGTH = 500

TryResult = Literal[
    "delivered",
    "failed",  # it is tried again
    "undeliverable",  # it is not
]

log = logging.getLogger(__name__)


class ChannelBook(Protocol):
    """What the courier asks of `carapace_cron.channels.registry.Channels`."""

    def resolve(self, channel_id: str, tenant: str) -> Channel | None: ...

    def exists(self, channel_id: str) -> bool: ...


class Misaddressed(DeliveryFailed):
    """The channel is another tenant's. Final, and no fault of the channel's."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Of a channel whose last try failed. Counts since its last success, or the start of this process."""

    error: str
    since: datetime
    failures: int = 0  # tries of notices in a row
    failed_tests: int = 0  # of messages that went past the outbox; no reason to let the channel rest
    refused: int = 0  # notices in a row that were given up
    next_try_at: datetime | None = None  # None: when there is something to send

    @property
    def is_resting(self) -> bool:
        """Whether the channel is only probed now and then."""
        return self.refused >= REFUSED_IN_ROW or self.failures >= REFUSED_IN_ROW


class Courier:
    """`run()` until `stop()`. Set `wake` after a commit that put something into the outbox."""

    def __init__(
        self,
        deliveries: Deliveries,
        channels: ChannelBook,
        clock: Clock,
        *,
        wake: asyncio.Event,
        name: str | None = None,
        on_tried: Callable[[str, TryResult], None] = lambda channel_id, result: None,
    ) -> None:
        """`name`: new at each start, where other couriers carry from the same outbox; None: it is alone.
        `on_tried` hears of each try whose result was recorded."""
        self._deliveries = deliveries
        self._hands = Hands(deliveries, clock, name)
        self._channels = channels
        self._clock = clock
        self._wake = wake
        self._on_tried = on_tried
        self._senders: dict[str, asyncio.Task[None]] = {}
        self._failing: dict[str, Trouble] = {}
        self._not_before: dict[str, float] = {}  # monotonic; only where the ledger could not say it
        self._at_once: set[str] = set()  # channels that took a message just now: what they hold back is due
        self._turns: dict[str, int] = {}  # when each channel had its last turn, for fairness
        self._turn = 0
        self._stopping = False
        self._grace_seconds = STOP_GRACE_SECONDS
        self._ended = asyncio.Event()
        self._ended.set()

    async def run(self) -> None:
        """Deliver until `stop` is called, or this call is cancelled."""
        self._ended.clear()
        try:
            while not self._stopping:
                self._wake.clear()
                seconds = await self._start_due_or_pause()
                await self._clock.wait(self._wake, seconds)
            await self._finish_sends()
        finally:
            await self._cancel_sends()
            self._ended.set()

    async def stop(self, grace_seconds: float = STOP_GRACE_SECONDS) -> None:
        """Start no more sends, give those in flight `grace_seconds`, cancel what is left, and return when
        `run` has ended. What was cancelled is sent after the next start."""
        self._stopping = True
        self._grace_seconds = grace_seconds
        self._wake.set()
        await self._ended.wait()

    @property
    def failing(self) -> Mapping[str, Trouble]:
        """Channels whose last try failed."""
        return self._failing

    @property
    def sending(self) -> Sequence[str]:
        """Channels that are being sent to now."""
        return sorted(self._senders)

    async def say(self, notice: AnyNotice) -> DeliveryFailed | None:
        """Send one notice now, past the outbox and its order; None when the channel has taken it.

        A channel that takes it is well again, and what waits for it goes. One that does not is
        failing, which alone is no reason to let it rest.
        """
        failure = await self._try(notice)
        if failure is None:
            self._note_well(notice.channel_id)
            self._at_once.add(notice.channel_id)
            self._wake.set()
        elif not isinstance(failure, Misaddressed):
            known = self._trouble_with(notice, failure, self._clock.now())
            self._failing[notice.channel_id] = replace(known, failed_tests=known.failed_tests + 1)
        return failure

    async def _start_due_or_pause(self) -> float:
        """Seconds until something may be due that is not being sent."""
        try:
            return self._start_due(await self._hands.heads())
        except CarapaceError as error:
            log.error("cannot read the outbox: %s", error, extra={"action": "outbox_unreadable"})
            return LEDGER_PAUSE_SECONDS

    def _start_due(self, heads: list[Head]) -> float:
        now, seconds = self._clock.now(), IDLE_SECONDS
        self._forget_all_but(heads)
        for head in sorted(heads, key=lambda head: self._turns.get(head.channel_id, 0)):
            if head.channel_id in self._senders:
                continue
            if self._hands.has_another(head.channel_id, head.courier):
                seconds = min(seconds, HELD_SECONDS)
                continue
            left = self._seconds_left(head, now)
            if left > 0:
                seconds = min(seconds, left)
            elif self._has_room(head):
                self._start(head.channel_id)
        return seconds

    def _forget_all_but(self, heads: list[Head]) -> None:
        """Channels with nothing waiting need no memory here, but how the last try of an existing one went."""
        waiting = {head.channel_id for head in heads} | self._senders.keys()
        self._at_once &= waiting
        for channel_id in self._failing.keys() - waiting:
            if not self._channels.exists(channel_id):
                del self._failing[channel_id]
        for memory in (self._turns, self._not_before):
            for channel_id in memory.keys() - waiting - self._failing.keys():
                del memory[channel_id]

    def _seconds_left(self, head: Head, now: datetime) -> float:
        paused = self._not_before.get(head.channel_id, 0.0) - self._clock.monotonic()
        held_back = seconds_until_due(head.tries, head.next_try_at, now)
        return max(paused, 0.0 if head.channel_id in self._at_once else held_back)

    def _has_room(self, head: Head) -> bool:
        if len(self._senders) >= MAX_SENDERS:
            return False
        failing = sum(channel_id in self._failing for channel_id in self._senders)
        return not self._is_failing(head) or failing < MAX_FAILING_SENDERS

    def _is_failing(self, head: Head) -> bool:
        return head.tries > 0 or head.channel_id in self._failing

    def _start(self, channel_id: str) -> None:
        self._turn += 1
        self._turns[channel_id] = self._turn
        sender = asyncio.create_task(self._send_burst(channel_id), name=f"courier-{channel_id}")
        self._senders[channel_id] = sender
        sender.add_done_callback(lambda _: self._end_turn(channel_id))

    def _end_turn(self, channel_id: str) -> None:
        del self._senders[channel_id]
        self._wake.set()

    async def _send_burst(self, channel_id: str) -> None:
        """One channel's turn. Whatever goes wrong here stays this channel's matter."""
        try:
            for _ in range(BURST):
                if self._stopping or not await self._send_first(channel_id):
                    return
        except CarapaceError as error:
            self._pause(channel_id)
            log.error(
                "cannot record deliveries to channel %s: %s", channel_id, error,
                extra={"action": "outbox_unusable", "channel_id": channel_id},
            )
        except Exception:
            self._pause(channel_id)
            log.exception(
                "delivering to channel %s failed unexpectedly", channel_id,
                extra={"action": "courier_bug", "channel_id": channel_id},
            )

    def _pause(self, channel_id: str) -> None:
        self._not_before[channel_id] = self._clock.monotonic() + LEDGER_PAUSE_SECONDS

    async def _send_first(self, channel_id: str) -> bool:
        """Try the channel's first notice; whether the one behind it may be tried now."""
        try:
            delivery = await self._deliveries.first_of(channel_id)
        except UnreadableNotice as error:
            await self._deliveries.give_up(error.sequence, self._clock.now(), str(error))
            return True
        if delivery is None or not self._is_due(delivery) or not await self._hands.take(delivery):
            return False
        failure = await self._try(delivery.notice)
        return await self._record(delivery, failure)

    def _is_due(self, delivery: Delivery) -> bool:
        if delivery.notice.channel_id in self._at_once:
            self._at_once.discard(delivery.notice.channel_id)
            return True
        return seconds_until_due(delivery.tries, delivery.next_try_at, self._clock.now()) <= 0

    async def _try(self, notice: AnyNotice) -> DeliveryFailed | None:
        """None when the channel has taken it. Any channel's misbehaviour comes out as `DeliveryFailed`."""
        try:
            channel = self._channels.resolve(notice.channel_id, notice.tenant)
            if channel is None:
                return self._no_channel(notice)
            await self._within_timeout(channel.send(presentable(notice)))
        except DeliveryFailed as failure:
            return failure
        except CarapaceError as error:
            return DeliveryFailed(str(error))
        except Exception as error:
            log.exception(
                "channel %s failed unexpectedly", notice.channel_id,
                extra={"action": "channel_bug", "channel_id": notice.channel_id, "notice_id": notice.id},
            )
            # The exception's own text may hold a URL with a token in it; only its kind is told.
            return DeliveryFailed(f"the channel failed unexpectedly ({type(error).__name__}); see the log")
        return None

    def _no_channel(self, notice: AnyNotice) -> DeliveryFailed:
        """Not permanent if nobody has it: settings may be wrong for an hour, and the results should survive
        that. One that is others' is theirs: it must not wait at the head of their row."""
        name = f'channel "{notice.channel_id}"'
        sentence = f'{name} is not configured for tenant "{notice.tenant}": add it, or resend'
        if self._channels.exists(notice.channel_id):
            return Misaddressed(sentence, permanent=True)
        return DeliveryFailed(sentence)

    async def _within_timeout(self, send: Coroutine[Any, Any, None]) -> None:
        """As `asyncio.timeout`, by our clock."""
        sending = asyncio.create_task(send)
        done = asyncio.Event()
        sending.add_done_callback(lambda _: done.set())
        try:
            if not await self._clock.wait(done, SEND_TIMEOUT_SECONDS):
                raise DeliveryFailed(f"the channel did not take the notice within {SEND_TIMEOUT_SECONDS:g} s")
            if sending.cancelled():  # by itself: awaiting it would look as if somebody had cancelled us
                raise DeliveryFailed("the channel broke off the send")
            await sending
        finally:
            await _ended_by_cancelling(sending)

    async def _record(self, delivery: Delivery, failure: DeliveryFailed | None) -> bool:
        """Write down how the try went; whether the notice behind this one may be tried now."""
        channel_id, now = delivery.notice.channel_id, self._clock.now()
        if failure is None:
            self._note_well(channel_id)
            await self._deliveries.delivered(delivery.sequence, now)
            self._on_tried(channel_id, "delivered")
            return True
        if failure.permanent or now - delivery.created_at >= GIVE_UP_AFTER:
            await self._give_up(delivery, failure, now)
            return isinstance(failure, Misaddressed) or self._note_refused(delivery.notice, failure, now)
        await self._hold_back(delivery, failure, now)
        return False

    async def _hold_back(self, delivery: Delivery, failure: DeliveryFailed, now: datetime) -> None:
        channel_id, known = delivery.notice.channel_id, self._trouble_of(delivery.notice, failure, now)
        if known.failures == 1:
            log.warning("channel %s fails: %s", channel_id, failure, extra={"action": "channel_failing"})
        tries = max(delivery.tries + 1, known.failures)  # another notice may have failed there before
        at = now + delay_after(tries, delivery.notice.id, failure.retry_after_seconds)
        self._failing[channel_id] = replace(known, next_try_at=at)
        await self._deliveries.retry_later(delivery.sequence, at, str(failure))
        self._on_tried(channel_id, "failed")

    def _note_well(self, channel_id: str) -> None:
        if self._failing.pop(channel_id, None) is not None:
            log.info("channel %s takes notices again", channel_id, extra={"action": "channel_well"})
        self._not_before.pop(channel_id, None)

    def _note_refused(self, notice: AnyNotice, failure: DeliveryFailed, now: datetime) -> bool:
        """One was given up; whether the next may be tried now."""
        trouble = self._trouble_of(notice, failure, now)
        trouble = replace(trouble, refused=trouble.refused + 1, next_try_at=None)
        more_than_enough = trouble.refused - REFUSED_IN_ROW + 1
        if more_than_enough > 0:
            delay = delay_after(more_than_enough, notice.id, failure.retry_after_seconds)
            trouble = replace(trouble, next_try_at=now + delay)
            self._not_before[notice.channel_id] = self._clock.monotonic() + delay.total_seconds()
        self._failing[notice.channel_id] = trouble
        return more_than_enough <= 0

    def _trouble_of(self, notice: AnyNotice, failure: DeliveryFailed, now: datetime) -> Trouble:
        """The channel's, with this failure of a notice from the outbox."""
        known = self._trouble_with(notice, failure, now)
        return replace(known, failures=known.failures + 1)

    def _trouble_with(self, notice: AnyNotice, failure: DeliveryFailed, now: datetime) -> Trouble:
        """The channel's, as this failure leaves it; not counted yet."""
        known = self._failing.get(notice.channel_id) or Trouble(str(failure), now)
        return replace(known, error=str(failure))

    async def _give_up(self, delivery: Delivery, failure: DeliveryFailed, now: datetime) -> None:
        sentence = str(failure)
        if not failure.permanent:
            hours = GIVE_UP_AFTER // timedelta(hours=1)
            sentence = f"given up {hours} hours after it was due, at try {delivery.tries + 1}: {sentence}"
        await self._deliveries.give_up(delivery.sequence, now, sentence)
        log.warning(
            "notice %s cannot be delivered to channel %s: %s",
            delivery.notice.id, delivery.notice.channel_id, one_line(sentence, LOGGED_LENGTH),
            extra={"action": "delivery_given_up", "channel_id": delivery.notice.channel_id},
        )
        self._on_tried(delivery.notice.channel_id, "undeliverable")

    async def _finish_sends(self) -> None:
        """Until no sender is left, at most the grace time."""
        deadline = self._clock.monotonic() + self._grace_seconds
        while self._senders:
            self._wake.clear()
            left = deadline - self._clock.monotonic()
            if left <= 0:
                return
            await self._clock.wait(self._wake, left)

    async def _cancel_sends(self) -> None:
        senders = list(self._senders.values())
        for sender in senders:
            sender.cancel()
        if senders:
            await asyncio.wait(senders, timeout=CANCEL_SECONDS)


def seconds_until_due(tries: int, next_try_at: datetime, now: datetime) -> float:
    """How long a waiting delivery has yet to wait; 0 when it is due.

    A first try is due at once. An instant further away than any delay can be was written before the wall
    clock was set back, and means nothing any more.
    """
    left = next_try_at - now
    if tries == 0 or left > LONGEST_WISH:
        return 0.0
    return max(left.total_seconds(), 0.0)


def delay_after(tries: int, notice_id: str, wish_seconds: float | None = None) -> timedelta:
    """How long to hold a notice back after its failure number `tries`, counted from 1.

    The service's own wish (Retry-After) between 1 s and 1 h; without one 5 s · 2^(tries - 1), at most
    15 min, less up to a quarter of it: 5, 10, 20, 40 s, … 15 min. The same for the same notice and try.

    >>> [round(delay_after(tries, "notice").total_seconds()) for tries in (1, 2, 3, 8, 100)]
    [4, 8, 15, 489, 808]
    >>> delay_after(1, "notice", 40).total_seconds()
    40.0
    """
    if wish_seconds is not None:
        wish = timedelta(seconds=min(wish_seconds, LONGEST_WISH.total_seconds()))
        return max(wish, SHORTEST_WISH)
    doublings = min(tries - 1, 30)  # far past the cap, and no number that overflows
    full = min(FIRST_DELAY * (1 << doublings), MAX_DELAY)
    return full * (1 - JITTER * stable_fraction(f"{notice_id}/{tries}"))


async def _ended_by_cancelling(task: asyncio.Task[None]) -> None:
    """Cancel `task` if it still works, and let it end; how it ended is of no interest any more."""
    if not task.done():
        task.cancel()
        await asyncio.wait((task,), timeout=CANCEL_SECONDS)
    if task.done() and not task.cancelled():
        task.exception()  # looked at, so that nobody reports it as never retrieved
