"""The courier on a clock that stands still, with the real ledger and channels that keep what they get."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from carapace_cron.channels import courier as courier_module
from carapace_cron.channels.courier import Courier, delay_after, seconds_until_due
from carapace_cron.clock import ManualClock
from carapace_cron.database import Database
from carapace_cron.errors import Unavailable
from carapace_cron.ids import stable_fraction
from carapace_cron.ledger.deliveries import Deliveries, insert_delivery
from carapace_cron.ledger.tables import deliveries as table
from carapace_cron.model.notice import Delivery, Notice
from carapace_cron.ports.channel import Channel, DeliveryFailed

MakeNotice = Callable[..., Notice]
Enqueue = Callable[..., Awaitable[None]]


class Place:
    """A channel that takes notices, or does with them what the test says."""

    kind = "place"

    def __init__(self) -> None:
        self.tried: list[str] = []
        self.taken: list[str] = []
        self.behaviour: Callable[[Notice], Awaitable[None]] | None = None

    async def send(self, notice: Notice) -> None:
        self.tried.append(notice.id)
        if self.behaviour is not None:
            await self.behaviour(notice)
        self.taken.append(notice.id)

    async def close(self) -> None:
        """Nothing is held open."""

    def fail(self, **how: Any) -> None:
        async def refuse(_: Notice) -> None:
            raise DeliveryFailed("the service is busy", **how)

        self.behaviour = refuse

    def hang(self) -> None:
        async def for_ever(_: Notice) -> None:
            await asyncio.Event().wait()

        self.behaviour = for_ever


class Places:
    """Every id is a place, but those in `unknown`; one in `owners` is that tenant's alone."""

    def __init__(self) -> None:
        self.unknown: set[str] = set()
        self.owners: dict[str, str] = {}
        self._places: defaultdict[str, Place] = defaultdict(Place)

    def __getitem__(self, channel_id: str) -> Place:
        return self._places[channel_id]

    def resolve(self, channel_id: str, tenant: str) -> Channel | None:
        foreign = self.owners.get(channel_id, tenant) != tenant
        return None if foreign or channel_id in self.unknown else self[channel_id]

    def exists(self, channel_id: str) -> bool:
        return channel_id not in self.unknown


class Desk:
    """A courier at work, and what a test needs to watch it."""

    def __init__(self, database: Database, clock: ManualClock, enqueue: Enqueue, make: MakeNotice) -> None:
        self.deliveries = Deliveries(database)
        self.database = database
        self.clock = clock
        self.places = Places()
        self.wake = asyncio.Event()
        self.make = make
        self._enqueue = enqueue
        self._work: asyncio.Task[None] | None = None
        self.courier = self._new_courier()

    def _new_courier(self) -> Courier:
        return Courier(self.deliveries, self.places, self.clock, wake=self.wake)

    def start(self) -> None:
        self._work = asyncio.create_task(self.courier.run())

    async def put(self, *notices: Notice) -> None:
        await self._enqueue(*notices)
        self.wake.set()

    async def kill(self) -> None:
        """As a power cut: the loop is gone wherever it stands."""
        if self._work is not None:
            self._work.cancel()
            await asyncio.wait((self._work,))
            self._work = None

    async def restart(self) -> None:
        await self.kill()
        self.courier = self._new_courier()
        self.start()

    async def at_rest(self) -> None:
        """Until nothing more happens at this instant of the clock."""
        async with asyncio.timeout(10):
            while self.wake.is_set() or self.courier.sending or await self._due():
                await asyncio.sleep(0.001)

    async def _due(self) -> bool:
        now = self.clock.now()
        heads = await self.deliveries.heads()
        return any(seconds_until_due(head.tries, head.next_try_at, now) <= 0 for head in heads)

    async def pass_time(self, seconds: float) -> None:
        """Let it pass; then until all is done that came due. Of a long while the courier lives through the
        last minute only: it looks at the wall clock, and an hour has 120 idle rounds."""
        lived = min(seconds, 60)
        self.clock.step(timedelta(seconds=seconds - lived))
        await self.clock.advance(lived)
        await self.at_rest()

    async def delivery(self, notice_id: str) -> Delivery:
        query = sa.select(table.c.sequence).where(table.c.id == notice_id)
        sequence = await self.database.read(lambda c: c.execute(query).scalar_one())
        found = await self.deliveries.get(sequence)
        assert found is not None
        return found

    async def state(self, notice_id: str) -> str:
        return (await self.delivery(notice_id)).state


@pytest.fixture
async def desk(
    database: Database, clock: ManualClock, enqueue: Enqueue, make_notice: MakeNotice
) -> AsyncIterator[Desk]:
    desk = Desk(database, clock, enqueue, make_notice)
    desk.start()
    yield desk
    await desk.kill()


async def until(condition: Callable[[], bool]) -> None:
    """Let tasks and the database's threads work until `condition` holds."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def test_it_delivers_what_is_put_in_and_records_it(desk: Desk) -> None:
    await desk.put(desk.make("1"))
    await desk.at_rest()
    kept = await desk.delivery("1")
    assert desk.places["ops"].taken == ["1"]
    assert (kept.state, kept.tries, kept.finished_at) == ("delivered", 1, desk.clock.now())


async def test_it_finds_what_somebody_put_in_without_waking_it(desk: Desk, enqueue: Enqueue) -> None:
    await desk.at_rest()
    await enqueue(desk.make("1"))
    await desk.pass_time(30)
    assert desk.places["ops"].taken == ["1"]


async def test_it_keeps_the_order_of_a_channel_across_failures(desk: Desk) -> None:
    failures = iter([True, False, True, True, False, False, True, False, False])

    async def now_and_then(_: Notice) -> None:
        if next(failures):
            raise DeliveryFailed("busy")

    desk.places["ops"].behaviour = now_and_then
    names = [str(n) for n in range(5)]
    await desk.put(*(desk.make(name) for name in names))
    await desk.at_rest()
    for _ in range(10):
        await desk.pass_time(60)
    assert desk.places["ops"].taken == names
    assert desk.places["ops"].tried == ["0", "0", "1", "1", "1", "2", "3", "3", "4"]


async def test_a_channel_that_hangs_delays_nobody_else(desk: Desk) -> None:
    desk.places["stuck"].hang()
    await desk.put(desk.make("stuck-1", "stuck"), *(desk.make(f"ops-{n}") for n in range(30)))
    await until(lambda: len(desk.places["ops"].taken) == 30)
    assert desk.courier.sending[-1] == "stuck"
    await desk.put(desk.make("last"))
    await until(lambda: desk.places["ops"].taken[-1] == "last")
    assert desk.places["stuck"].tried == ["stuck-1"]


async def test_a_send_that_hangs_is_cancelled_after_thirty_seconds(desk: Desk) -> None:
    desk.places["ops"].hang()
    await desk.put(desk.make("1"))
    await until(lambda: desk.places["ops"].tried == ["1"])
    await desk.pass_time(30)
    kept = await desk.delivery("1")
    assert (kept.state, kept.error) == ("waiting", "the channel did not take the notice within 30 s")
    desk.places["ops"].behaviour = None
    await desk.pass_time(5)
    assert desk.places["ops"].taken == ["1"]


async def test_channels_that_hang_leave_half_of_the_room_to_the_others(desk: Desk) -> None:
    many = [f"stuck-{n}" for n in range(courier_module.MAX_SENDERS * 2)]
    for name in many:
        desk.places[name].fail()
    await desk.put(*(desk.make(name, name) for name in many))
    await desk.at_rest()
    for name in many:
        desk.places[name].hang()
    await desk.clock.advance(5)
    await until(lambda: sum(len(desk.places[name].tried) == 2 for name in many) == 8)
    await desk.put(*(desk.make(f"well-{n}", f"well-{n}") for n in range(20)))
    await until(lambda: all(desk.places[f"well-{n}"].taken for n in range(20)))
    second_tries = sum(len(desk.places[name].tried) - 1 for name in many)
    assert second_tries == courier_module.MAX_FAILING_SENDERS


async def test_no_more_channels_are_sent_to_at_once_than_there_are_senders(desk: Desk) -> None:
    names = [f"channel-{n}" for n in range(40)]
    for name in names:
        desk.places[name].hang()
    await desk.put(*(desk.make(name, name) for name in names))
    await until(lambda: sum(len(desk.places[name].tried) for name in names) == courier_module.MAX_SENDERS)
    assert len(desk.courier.sending) == courier_module.MAX_SENDERS


async def test_it_holds_a_failed_notice_back_longer_each_time(desk: Desk) -> None:
    desk.places["ops"].fail()
    await desk.put(desk.make("1"))
    await desk.at_rest()
    for tries in range(1, 12):
        kept = await desk.delivery("1")
        assert (kept.tries, kept.error) == (tries, "the service is busy")
        delay = kept.next_try_at - desk.clock.now()
        assert abs(delay - delay_after(tries, "1")) < timedelta(milliseconds=10)
        assert len(desk.places["ops"].tried) == tries
        await desk.pass_time(delay.total_seconds() + 0.001)  # a float's seconds may fall short by a hair


def test_delays_double_from_five_seconds_to_fifteen_minutes_less_a_stable_part() -> None:
    for tries, full in ((1, 5), (2, 10), (3, 20), (4, 40), (8, 640), (9, 900), (1000, 900)):
        delays = [delay_after(tries, f"notice-{n}").total_seconds() for n in range(200)]
        assert full * 0.75 < min(delays) < full * 0.77
        assert full * 0.98 < max(delays) <= full
        assert delay_after(tries, "notice-7").total_seconds() == delays[7]
    assert 0 <= stable_fraction("x") < 1


@pytest.mark.parametrize(("wish", "held"), [(0, 1), (7.5, 7.5), (120, 120), (3600, 3600), (10**9, 3600)])
async def test_it_does_as_the_service_wishes_between_a_second_and_an_hour(
    desk: Desk, wish: float, held: float
) -> None:
    desk.places["ops"].fail(retry_after_seconds=wish)
    await desk.put(desk.make("1"))
    await desk.at_rest()
    assert (await desk.delivery("1")).next_try_at == desk.clock.now() + timedelta(seconds=held)


async def test_what_can_never_arrive_is_undeliverable_at_once_and_the_next_one_goes(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse_the_first(notice: Notice) -> None:
        if notice.id == "1":
            raise DeliveryFailed("the webhook answered 410 Gone", permanent=True)

    desk.places["ops"].behaviour = refuse_the_first
    with caplog.at_level(logging.WARNING):
        await desk.put(desk.make("1"), desk.make("2"))
        await desk.at_rest()
    kept = await desk.delivery("1")
    assert (kept.state, kept.tries, kept.error) == ("undeliverable", 1, "the webhook answered 410 Gone")
    assert desk.places["ops"].taken == ["2"]
    assert [record.__dict__["action"] for record in caplog.records] == ["delivery_given_up"]


async def test_it_gives_up_after_a_day_and_says_so(desk: Desk) -> None:
    desk.places["ops"].fail(retry_after_seconds=3600)
    await desk.put(desk.make("1"))
    await desk.at_rest()
    for _ in range(24):
        assert await desk.state("1") == "waiting"
        await desk.pass_time(3600)
    kept = await desk.delivery("1")
    assert (kept.state, kept.tries) == ("undeliverable", 25)
    assert kept.error == "given up 24 hours after it was due, at try 25: the service is busy"


async def test_each_notice_is_tried_at_least_once_even_after_a_day_of_waiting(desk: Desk) -> None:
    desk.places["ops"].fail(retry_after_seconds=3600)
    await desk.put(desk.make("1"), desk.make("2"))
    await desk.at_rest()
    for _ in range(23):
        await desk.pass_time(3600)
    assert await desk.state("2") == "waiting"

    async def poison(notice: Notice) -> None:
        if notice.id == "1":
            raise DeliveryFailed("the service chokes on it")

    desk.places["ops"].behaviour = poison
    await desk.pass_time(3600)
    assert [await desk.state("1"), await desk.state("2")] == ["undeliverable", "delivered"]


async def test_a_resent_one_goes_first_again(desk: Desk) -> None:
    desk.places["ops"].fail(permanent=True)
    await desk.put(desk.make("1"))
    await desk.at_rest()
    desk.places["ops"].behaviour = None
    assert await desk.deliveries.resend((await desk.delivery("1")).sequence, desk.clock.now())
    desk.wake.set()
    await desk.at_rest()
    assert await desk.state("1") == "delivered"


async def test_a_resent_one_is_tried_for_a_day_like_a_new_one(desk: Desk) -> None:
    desk.places["ops"].fail(retry_after_seconds=3600)
    await desk.put(desk.make("1"))
    await desk.at_rest()
    for _ in range(24):
        await desk.pass_time(3600)
    assert await desk.state("1") == "undeliverable"
    assert await desk.deliveries.resend((await desk.delivery("1")).sequence, desk.clock.now())
    desk.wake.set()
    await desk.at_rest()
    for _ in range(24):
        assert await desk.state("1") == "waiting"
        await desk.pass_time(3600)
    assert await desk.state("1") == "undeliverable"


async def test_a_restart_goes_on_where_the_ledger_stands(desk: Desk) -> None:
    desk.places["ops"].fail()
    await desk.put(desk.make("1"), desk.make("2"), desk.make("3", "other"))
    await desk.at_rest()
    desk.places["ops"].behaviour = None
    await desk.restart()
    await desk.at_rest()
    assert desk.places["ops"].tried == ["1"], "the back-off outlives the restart"
    await desk.pass_time(5)
    assert desk.places["ops"].taken == ["1", "2"]
    assert desk.places["other"].taken == ["3"]


async def test_killed_between_send_and_record_it_sends_the_same_notice_again(desk: Desk) -> None:
    took = asyncio.Event()

    async def take_and_be_killed(_: Notice) -> None:
        took.set()
        await asyncio.Event().wait()

    desk.places["ops"].behaviour = take_and_be_killed
    await desk.put(desk.make("1"), desk.make("2"))
    await took.wait()
    await desk.kill()
    assert (await desk.delivery("1")).tries == 0
    desk.places["ops"].behaviour = None
    await desk.restart()
    await desk.at_rest()
    assert desk.places["ops"].tried == ["1", "1", "2"]
    assert await desk.state("1") == "delivered"


async def test_stopping_lets_a_send_end_and_starts_no_other(desk: Desk) -> None:
    go_on, tried = asyncio.Event(), asyncio.Event()

    async def slowly(_: Notice) -> None:
        tried.set()
        await go_on.wait()

    desk.places["ops"].behaviour = slowly
    await desk.put(desk.make("1"), desk.make("2"))
    await tried.wait()
    stopping = asyncio.create_task(desk.courier.stop())
    await asyncio.sleep(0)
    assert not stopping.done()
    go_on.set()
    await asyncio.wait_for(stopping, 5)
    assert [await desk.state("1"), await desk.state("2")] == ["delivered", "waiting"]


async def test_stopping_ends_after_the_grace_time_whatever_hangs(desk: Desk) -> None:
    desk.places["ops"].hang()
    await desk.put(desk.make("1"))
    await until(lambda: desk.places["ops"].tried == ["1"])
    stopping = asyncio.create_task(desk.courier.stop(grace_seconds=3))
    await desk.clock.advance(2.9)
    assert not stopping.done()
    await desk.clock.advance(0.2)
    await asyncio.wait_for(stopping, 5)
    assert (await desk.delivery("1")).tries == 0
    assert desk.courier.sending == []


async def test_stopping_one_that_never_ran_returns_at_once(
    deliveries: Deliveries, clock: ManualClock
) -> None:
    await asyncio.wait_for(Courier(deliveries, Places(), clock, wake=asyncio.Event()).stop(), 1)


@pytest.mark.parametrize("error", [ValueError("https://hook/T0KEN"), asyncio.CancelledError()])
async def test_a_channel_with_a_bug_is_held_back_and_the_others_go_on(
    desk: Desk, error: BaseException
) -> None:
    async def stumble(_: Notice) -> None:
        raise error

    desk.places["buggy"].behaviour = stumble
    await desk.put(desk.make("1", "buggy"), desk.make("2"))
    await desk.at_rest()
    kept = await desk.delivery("1")
    assert (kept.state, kept.tries) == ("waiting", 1)
    assert kept.next_try_at > desk.clock.now()
    assert "T0KEN" not in (kept.error or "")
    assert desk.places["ops"].taken == ["2"]
    assert {name: one.error for name, one in desk.courier.failing.items()} == {"buggy": kept.error}


async def test_an_unreachable_host_is_a_failure_like_others(desk: Desk) -> None:
    async def away(_: Notice) -> None:
        raise Unavailable("the host is restarting")

    desk.places["ops"].behaviour = away
    await desk.put(desk.make("1"))
    await desk.at_rest()
    assert (await desk.delivery("1")).error == "the host is restarting"


async def test_results_survive_an_hour_of_wrong_settings(desk: Desk) -> None:
    desk.places.unknown.add("ops")
    await desk.put(desk.make("1"))
    await desk.at_rest()
    expected = 'channel "ops" is not configured for tenant "acme": add it, or resend'
    assert (await desk.delivery("1")).error == expected
    desk.places.unknown.clear()
    await desk.pass_time(3600)
    assert desk.places["ops"].taken == ["1"]


async def test_a_channel_that_became_anothers_is_not_held_up_by_the_tenant_before(desk: Desk) -> None:
    desk.places.owners["ops"] = "acme"
    rivals = [desk.make(f"{number}", tenant="rival") for number in range(1, 20)]
    await desk.put(*rivals, desk.make("mine"))
    await desk.at_rest()
    assert desk.places["ops"].taken == ["mine"]
    assert desk.courier.failing == {}, "its owner hears nothing of it either"
    kept = await desk.delivery("1")
    expected = 'channel "ops" is not configured for tenant "rival": add it, or resend'
    assert (kept.state, kept.error) == ("undeliverable", expected)


async def test_a_failure_is_forgotten_with_its_channel(desk: Desk) -> None:
    desk.places["ops"].fail(permanent=True)
    await desk.put(desk.make("1"))
    await desk.at_rest()
    assert list(desk.courier.failing) == ["ops"]
    desk.places.unknown.add("ops")
    await desk.pass_time(30)
    assert desk.courier.failing == {}


async def test_a_row_that_holds_no_notice_is_given_up_and_blocks_nobody(desk: Desk) -> None:
    desk.places["ops"].fail()
    await desk.put(desk.make("1"), desk.make("2"))
    await desk.at_rest()
    broken = sa.update(table).where(table.c.id == "1").values(body=b"not json")
    await desk.database.write(lambda c: c.execute(broken).rowcount)
    desk.places["ops"].behaviour = None
    await desk.pass_time(5)
    assert desk.places["ops"].taken == ["2"]
    assert (await desk.deliveries.counts()).undeliverable == 1


async def test_it_waits_for_a_ledger_that_cannot_be_used_and_then_goes_on(
    clock: ManualClock, database: Database, make_notice: MakeNotice, enqueue: Enqueue
) -> None:
    class Moody(Deliveries):
        reading, writing = False, False

        async def heads(self) -> Any:
            if not self.reading:
                raise Unavailable("the disk is full")
            return await super().heads()

        async def delivered(self, *step: Any) -> bool:
            if not self.writing:
                raise Unavailable("the disk is full")
            return await super().delivered(*step)

    deliveries, places = Moody(database), Places()
    courier = Courier(deliveries, places, clock, wake=asyncio.Event())
    await enqueue(make_notice("1"))
    work = asyncio.create_task(courier.run())
    await clock.advance(1)
    assert places["ops"].tried == []
    deliveries.reading = True
    await clock.advance(2)
    await until(lambda: places["ops"].tried == ["1"])
    deliveries.writing = True
    await clock.advance(2)
    await until(lambda: places["ops"].tried == ["1", "1"])
    await courier.stop()
    await work
    assert (await deliveries.counts()).delivered == 1


async def test_a_wall_clock_that_is_set_back_holds_nothing_back(desk: Desk) -> None:
    desk.places["ops"].fail()
    await desk.put(desk.make("1"))
    await desk.at_rest()
    desk.places["ops"].behaviour = None
    desk.clock.step(timedelta(days=-2))
    await desk.pass_time(30)
    assert desk.places["ops"].taken == ["1"]
    await desk.put(desk.make("2"))
    desk.clock.step(timedelta(minutes=-10))
    await desk.at_rest()
    assert desk.places["ops"].taken == ["1", "2"]


async def test_channels_take_turns_when_all_have_more_than_one_burst(desk: Desk) -> None:
    order: list[str] = []
    names = [f"channel-{n:02}" for n in range(courier_module.MAX_SENDERS + 4)]

    async def keep(notice: Notice) -> None:
        order.append(notice.channel_id)

    for name in names:
        desk.places[name].behaviour = keep
    per_channel = courier_module.BURST * 2
    await desk.put(*(desk.make(f"{name}-{n}", name) for n in range(per_channel) for name in names))
    await desk.at_rest()
    assert len(order) == per_channel * len(names)
    last_to_begin = max(order.index(name) for name in names)
    first_to_end = min(len(order) - 1 - order[::-1].index(name) for name in names)
    assert last_to_begin < first_to_end


async def test_ten_thousand_waiting_for_a_dead_channel_cost_the_living_nothing(
    desk: Desk, database: Database
) -> None:
    template, now = desk.make("template", "dead"), desk.clock.now()

    def fill(connection: sa.Connection) -> None:
        insert_delivery(connection, template, now)
        values = connection.execute(sa.select(table)).mappings().one()
        rows = [dict(values) | {"sequence": n, "id": f"dead-{n}"} for n in range(2, 10_001)]
        connection.execute(sa.insert(table), rows)

    desk.places["dead"].fail()
    await database.write(fill)
    await desk.put(*(desk.make(f"ops-{n}") for n in range(50)))
    await desk.at_rest()
    assert desk.places["ops"].taken == [f"ops-{n}" for n in range(50)]
    assert desk.places["dead"].tried == ["template"]
    assert (await desk.deliveries.counts()).waiting == 10_000


async def test_a_thousand_notices_of_one_channel_arrive_in_order(desk: Desk) -> None:
    names = [f"{n:04}" for n in range(1_000)]
    await desk.put(*(desk.make(name) for name in names))
    await desk.at_rest()
    assert desk.places["ops"].taken == names


# The breaker


async def test_a_channel_that_refuses_one_notice_after_the_other_is_probed_now_and_then(desk: Desk) -> None:
    """An archived channel: without the breaker, a hundred notices would be a hundred requests at once."""
    desk.places["ops"].fail(permanent=True)
    await desk.put(*(desk.make(f"{n}") for n in range(100)), desk.make("well", "other"))
    await until(lambda: len(desk.places["ops"].tried) == courier_module.REFUSED_IN_ROW)
    await desk.clock.advance(3_600)
    assert 10 < len(desk.places["ops"].tried) < 20, "each quarter of an hour, after a few quicker ones"
    assert desk.courier.failing["ops"].is_resting
    assert desk.places["other"].taken == ["well"]

    desk.places["ops"].behaviour = None
    left = 100 - len(desk.places["ops"].tried)
    await desk.clock.advance(900)
    await desk.at_rest()
    assert len(desk.places["ops"].taken) == left, "those that were not tried were not given up"
    assert "ops" not in desk.courier.failing


async def test_the_breaker_holds_for_what_comes_later(desk: Desk) -> None:
    desk.places["ops"].fail(permanent=True)
    await desk.put(*(desk.make(f"{n}") for n in range(courier_module.REFUSED_IN_ROW)))
    await until(lambda: len(desk.places["ops"].tried) == courier_module.REFUSED_IN_ROW)
    await until(lambda: desk.courier.failing["ops"].refused == courier_module.REFUSED_IN_ROW)
    await desk.put(desk.make("later"))
    await desk.clock.advance(3)
    assert "later" not in desk.places["ops"].tried
    await desk.pass_time(2)
    assert await desk.state("later") == "undeliverable"


async def test_a_dead_channel_is_tried_no_oftener_for_the_next_notice(desk: Desk) -> None:
    """A day after the first, each notice is given up in its turn; the next does not start at five seconds."""
    desk.places["ops"].fail(retry_after_seconds=3600)
    await desk.put(desk.make("1"))
    await desk.at_rest()
    for _ in range(23):
        await desk.pass_time(3600)
    desk.places["ops"].fail()
    await desk.put(desk.make("2"))
    await desk.pass_time(3600)
    assert await desk.state("1") == "undeliverable"
    kept = await desk.delivery("2")
    assert kept.next_try_at - desk.clock.now() > timedelta(minutes=10)


async def test_messages_said_in_vain_hold_no_notice_back(desk: Desk) -> None:
    desk.places["ops"].fail(permanent=True)
    for n in range(2 * courier_module.REFUSED_IN_ROW):
        assert await desk.courier.say(desk.make(f"test {n}")) is not None
    trouble = desk.courier.failing["ops"]
    assert (trouble.error, trouble.is_resting) == ("the service is busy", False)

    desk.places["ops"].fail()
    await desk.put(desk.make("1"))
    await desk.at_rest()
    held_back = (await desk.delivery("1")).next_try_at - desk.clock.now()
    assert held_back <= courier_module.FIRST_DELAY, "as after any first failure"
    desk.places["ops"].behaviour = None
    await desk.pass_time(5)
    assert desk.places["ops"].taken == ["1"] and desk.courier.failing == {}


async def test_a_message_said_at_once_makes_the_channel_well(desk: Desk) -> None:
    desk.places["ops"].fail(permanent=True)
    await desk.put(*(desk.make(f"{n}") for n in range(10)))
    await until(lambda: len(desk.places["ops"].tried) == courier_module.REFUSED_IN_ROW)
    failure = await desk.courier.say(desk.make("test"))
    assert failure is not None and failure.permanent
    desk.places["ops"].behaviour = None
    assert await desk.courier.say(desk.make("test again")) is None
    await until(lambda: len(desk.places["ops"].taken) == 6)
    assert desk.courier.failing == {}
