"""Couriers of several gateways on one outbox: what one has in hand the others leave to it, while it lives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from carapace_cron.channels.courier import Courier
from carapace_cron.channels.hands import TAKEOVER_SECONDS
from carapace_cron.clock import ManualClock
from carapace_cron.database import Database
from carapace_cron.ledger.deliveries import Deliveries
from carapace_cron.model.notice import Notice
from carapace_cron.ports.channel import Channel, DeliveryFailed

MakeNotice = Callable[..., Notice]
Enqueue = Callable[..., Awaitable[None]]


class SlowPlace:
    """The one channel of these tests: it takes each notice when the test lets it."""

    kind = "place"

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.taken: list[str] = []
        self.fails = False
        self.lets_go = asyncio.Event()

    async def send(self, notice: Notice) -> None:
        self.begun.append(notice.id)
        await self.lets_go.wait()
        if self.fails:
            raise DeliveryFailed("the service is busy")
        self.taken.append(notice.id)

    async def close(self) -> None:
        """Nothing is held open."""

    def resolve(self, channel_id: str, tenant: str) -> Channel | None:
        return self

    def exists(self, channel_id: str) -> bool:
        return True


class Street:
    """Two gateways' couriers, first and second, over one outbox."""

    def __init__(self, database: Database, clock: ManualClock, enqueue: Enqueue) -> None:
        self.deliveries = Deliveries(database)
        self.place = SlowPlace()
        self._clock = clock
        self._enqueue = enqueue
        self._wakes = [asyncio.Event(), asyncio.Event()]
        self._work = [self.start(name, wake) for name, wake in zip(("a", "b"), self._wakes, strict=True)]

    def start(self, name: str, wake: asyncio.Event) -> asyncio.Task[None]:
        courier = Courier(self.deliveries, self.place, self._clock, wake=wake, name=name)
        return asyncio.create_task(courier.run())

    async def put(self, *notices: Notice) -> None:
        """Both hear of it in the same moment."""
        await self._enqueue(*notices)
        self.wake()

    def wake(self) -> None:
        for wake in self._wakes:
            wake.set()

    async def pass_time(self, seconds: float) -> None:
        await self._clock.advance(seconds)

    async def kill_whoever_sends(self) -> None:
        """As a power cut. Which of the two it is nobody can know."""
        first = await self.deliveries.first_of("ops")
        assert first is not None and first.courier is not None
        await self.kill("ab".index(first.courier[0]))

    async def kill(self, number: int) -> None:
        self._work[number].cancel()
        await asyncio.wait((self._work[number],))

    async def close(self) -> None:
        self.place.lets_go.set()
        for number in (0, 1):
            await self.kill(number)


@pytest.fixture
async def street(database: Database, clock: ManualClock, enqueue: Enqueue) -> AsyncIterator[Street]:
    clock.busy.append(lambda: database.in_flight > 0)
    street = Street(database, clock, enqueue)
    yield street
    await street.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def test_two_couriers_send_each_notice_once_and_in_order(
    street: Street, make_notice: MakeNotice
) -> None:
    names = [f"notice-{n}" for n in range(60)]
    street.place.lets_go.set()
    for name in names:
        await street.put(make_notice(name))
    async with asyncio.timeout(10):
        while (await street.deliveries.counts()).waiting:
            street.wake()
            await asyncio.sleep(0.001)
    assert street.place.begun == street.place.taken == names


async def test_what_a_courier_that_is_gone_had_in_hand_is_sent_by_another(
    street: Street, make_notice: MakeNotice
) -> None:
    await street.put(make_notice("notice-1"), make_notice("notice-2"))
    await until(lambda: street.place.begun == ["notice-1"])
    await street.pass_time(1)  # so that the other has seen it
    await street.kill_whoever_sends()
    street.place.lets_go.set()
    await street.pass_time(TAKEOVER_SECONDS - 2)
    assert street.place.begun == ["notice-1"]
    await street.pass_time(10)
    await until(lambda: street.place.taken == ["notice-1", "notice-2"])


async def test_a_notice_whose_try_has_failed_is_in_nobodys_hand(
    street: Street, make_notice: MakeNotice
) -> None:
    street.place.fails = True
    street.place.lets_go.set()
    await street.put(make_notice("notice-1"))
    await until(lambda: street.place.begun == ["notice-1"])
    await street.pass_time(1)
    first = await street.deliveries.first_of("ops")
    assert first is not None
    assert (first.courier, first.tries) == (None, 1)
    street.place.fails = False
    await street.pass_time(10)
    await until(lambda: street.place.taken == ["notice-1"])
    assert street.place.begun == ["notice-1"] * 2


async def test_a_notice_is_taken_only_as_it_was_read(
    deliveries: Deliveries, make_notice: MakeNotice, enqueue: Enqueue, clock: ManualClock
) -> None:
    await enqueue(make_notice("notice-1"))
    read = await deliveries.first_of("ops")
    assert read is not None
    assert await deliveries.take(read, "a.1")
    assert not await deliveries.take(read, "b.1")
    await deliveries.retry_later(read.sequence, clock.now(), "the service is busy")
    assert not await deliveries.take(read, "b.1"), "it was free again, after a try that is not known here"
    again = await deliveries.first_of("ops")
    assert again is not None
    assert await deliveries.take(again, "b.1")
    await deliveries.delivered(read.sequence, clock.now())
    assert not await deliveries.take(again, "b.2")
