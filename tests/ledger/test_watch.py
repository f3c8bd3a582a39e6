"""Monitors in the ledger: a ping, its flip and what is told of it in one transaction, and kept in bounds."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from support.databases import Place, engine_at
from support.monitor_day import NOON, a_monitor

from carapace_cron.clock import ManualClock
from carapace_cron.database import Database
from carapace_cron.errors import Unavailable
from carapace_cron.ids import unique_key
from carapace_cron.ledger import pings as pings_module
from carapace_cron.ledger.deliveries import Deliveries
from carapace_cron.ledger.events import Event
from carapace_cron.ledger.migrations.upgrade import upgrade
from carapace_cron.ledger.pings import Arrival, Pings, Recorded, record_pings
from carapace_cron.ledger.settling import Settled
from carapace_cron.ledger.tables import monitors
from carapace_cron.ledger.watch_history import WatchHistory
from carapace_cron.ledger.watchlist import Change, Looked, Watchlist
from carapace_cron.model.monitor import Monitor, Ping, PingKind
from carapace_cron.model.notice import MonitorNotice
from carapace_cron.monitors import ping_book
from carapace_cron.monitors.ping_book import Busy, PingBook
from carapace_cron.monitors.watchman import LEDGER_PAUSE_SECONDS, Watchman


def id_of(number: int) -> str:
    return f"{number:08d}-0000-4000-8000-0000000000aa"


def minute(number: float) -> datetime:
    return NOON + timedelta(minutes=number)


class Ledger:
    """An open ledger, and what is told of its monitors."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.settled: list[Settled] = []
        self.watchlist = Watchlist(database, self.settled.append)
        self.pings = Pings(database, self.settled.append)
        self.history = WatchHistory(database)
        self.deliveries = Deliveries(database)

    async def add(self, number: int = 1, **fields: Any) -> Monitor:
        monitor = a_monitor(id=id_of(number), name=f"Monitor {number}", **fields)
        event = Event(NOON, "acme", "alice", "alice", "monitor.created", monitor.id)
        await self.watchlist.add(monitor, event, most=10_000)
        return monitor

    async def ping(self, *said: tuple[int, PingKind, float]) -> list[Recorded | None]:
        """Pings that arrive together: (monitor, what, minute)."""
        arrivals = [Arrival(id_of(n), Ping(minute(at), what)) for n, what, at in said]
        return await self.pings.record(lambda: arrivals)

    async def notices(self) -> list[tuple[str, str]]:
        """(name, event) of all that was told, oldest first."""
        found = [one.notice for one in reversed(await self.deliveries.page(tenant=None, limit=1_000))]
        assert all(isinstance(one, MonitorNotice) for one in found)
        return [(one.monitor_name, one.event) for one in found if isinstance(one, MonitorNotice)]

    async def flips(self, number: int = 1) -> list[tuple[float, str]]:
        """(minute, status) of all changes, oldest first."""
        found = reversed(await self.history.flips(id_of(number)))
        return [((flip.at - NOON) / timedelta(minutes=1), flip.after) for flip in found]


async def busy(database: Database, until: threading.Event) -> asyncio.Task[bool]:
    """A database whose writer does nothing else until then."""
    begun = threading.Event()

    def hang(_: sa.Connection) -> bool:
        begun.set()
        return until.wait(30)

    writing = asyncio.create_task(database.write(hang))
    await asyncio.to_thread(begun.wait, 30)
    return writing


@pytest.fixture
async def ledger(ledger_place: Place) -> AsyncIterator[Ledger]:
    database = Database(engine_at(ledger_place), upgrade)
    await database.open()
    yield Ledger(database)
    await database.close()


class TestPings:
    async def test_each_gets_its_number_and_its_answer(self, ledger: Ledger) -> None:
        await ledger.add(1)
        await ledger.add(2)
        answers = await ledger.ping((1, "start", 0), (9, "success", 0), (2, "fail", 0), (1, "success", 1))
        assert [None if one is None else (one.monitor_id, one.n) for one in answers] == [
            (id_of(1), 1), None, (id_of(2), 1), (id_of(1), 2),
        ]  # fmt: skip
        newest, oldest = await ledger.history.pings(id_of(1))
        assert (newest.n, newest.kind, newest.duration_ms) == (2, "success", 60_000)
        assert (oldest.n, oldest.kind, oldest.duration_ms) == (1, "start", None)

    async def test_what_it_carries_is_kept_within_bounds(self, ledger: Ledger) -> None:
        await ledger.add()
        sent = Ping(
            NOON, "fail", "rid", 3, scheme="https", method="POST", remote_address="192.0.2.1",
            user_agent="u" * 500, body=b"\xff" * 20_000,
        )  # fmt: skip
        await ledger.pings.record(lambda: [Arrival(id_of(1), sent)])
        [kept] = await ledger.history.pings(id_of(1))
        assert (kept.rid, kept.exit_status, kept.scheme, kept.method) == ("rid", 3, "https", "POST")
        assert (kept.remote_address, kept.user_agent, kept.body_bytes) == ("192.0.2.1", "u" * 200, 10_000)
        assert await ledger.history.ping_body(id_of(1), 1) == b"\xff" * 10_000
        assert await ledger.history.ping_body(id_of(1), 2) is None

    async def test_a_late_one_comes_after_the_flip_of_its_lateness(self, ledger: Ledger) -> None:
        await ledger.add()
        await ledger.ping((1, "success", 0), (1, "success", 90))
        assert await ledger.flips() == [(0, "up"), (70, "down"), (90, "up")]
        assert await ledger.notices() == [("Monitor 1", "monitor.down"), ("Monitor 1", "monitor.up")]

    async def test_a_transaction_that_fails_keeps_neither_ping_nor_flip_nor_notice(
        self, ledger: Ledger
    ) -> None:
        await ledger.add()

        def fail_afterwards(connection: sa.Connection) -> None:
            record_pings(connection, [Arrival(id_of(1), Ping(NOON, "fail"))])
            raise RuntimeError("the disk is full")

        with pytest.raises(RuntimeError):
            await ledger.database.write(fail_afterwards)
        one = await ledger.watchlist.get(id_of(1))
        assert one is not None and one.health.status == "new" and one.health.pings == 0
        assert await ledger.history.pings(id_of(1)) == []
        assert await ledger.flips() == [] and await ledger.notices() == []

    async def test_only_the_newest_are_kept(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pings_module, "KEPT_PINGS", 150)
        await ledger.add()
        await ledger.ping(*((1, "log", 0) for _ in range(298)))
        assert len(await ledger.history.pings(id_of(1), limit=1_000)) == 249
        await ledger.ping((1, "log", 0))
        kept = await ledger.history.pings(id_of(1), limit=1_000)
        assert [one.n for one in kept] == list(range(299, 149, -1))

    async def test_monitors_that_are_pinged_in_step_are_not_pruned_at_once(
        self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pings_module, "KEPT_PINGS", 50)
        numbers = range(20)
        for number in numbers:
            await ledger.add(number)
        for _ in range(99):
            await ledger.ping(*((number, "log", 0) for number in numbers))
        kept = [len(await ledger.history.pings(id_of(number), limit=1_000)) for number in numbers]
        assert max(kept) == 99 and len(set(kept)) == 20

    async def test_flips_and_deliveries_of_long_ago_go(self, ledger: Ledger) -> None:
        await ledger.add()
        await ledger.ping((1, "fail", 0))
        [head] = await ledger.deliveries.heads()
        await ledger.deliveries.delivered(head.sequence, NOON)
        later = 94 * 24 * 60
        await ledger.ping(*((1, "log", later) for _ in range(99)), (1, "success", later))
        assert await ledger.flips() == [(later, "up")]
        assert await ledger.notices() == [("Monitor 1", "monitor.up")]

    async def test_each_channel_gets_a_notice_of_its_own(self, ledger: Ledger) -> None:
        await ledger.add(channels=("ops", "mail"))
        await ledger.ping((1, "fail", 0))
        heads = await ledger.deliveries.heads()
        assert [head.channel_id for head in heads] == ["mail", "ops"]
        assert [one.told for one in ledger.settled] == [True]

    async def test_children_of_a_parent_that_goes_down_beside_them_are_not_told(self, ledger: Ledger) -> None:
        await ledger.add(1)
        await ledger.add(2, depends_on=(id_of(1),))
        await ledger.ping((1, "fail", 0), (2, "fail", 0))
        assert await ledger.notices() == [("Monitor 1", "monitor.down")]
        await ledger.ping((2, "fail", 1), (1, "success", 1))
        looked = await ledger.watchlist.look(minute(1), 100)
        assert looked.count == 1
        assert await ledger.notices() == [
            ("Monitor 1", "monitor.down"), ("Monitor 1", "monitor.up"), ("Monitor 2", "monitor.down"),
        ]  # fmt: skip

    async def test_it_says_when_something_happens_next(self, ledger: Ledger) -> None:
        await ledger.add(1)
        await ledger.add(2, period_seconds=60)
        ledger.settled.clear()
        await ledger.ping((1, "success", 0), (2, "success", 0))
        assert ledger.settled == [Settled(minute(11), told=False)]


class TestPingBook:
    @pytest.fixture
    async def book(self, ledger: Ledger) -> AsyncIterator[PingBook]:
        book = PingBook(ledger.pings)
        loop = asyncio.create_task(book.run())
        yield book
        book.stop()
        await loop

    async def test_it_answers_when_the_ping_is_durable(self, ledger: Ledger, book: PingBook) -> None:
        await ledger.add()
        arrivals = [Arrival(id_of(1 + number % 2), Ping(minute(number), "log")) for number in range(600)]
        answers = await asyncio.gather(*(book.record(one) for one in arrivals))
        assert [one.n for one in answers if one is not None] == list(range(1, 301))
        assert len(await ledger.history.pings(id_of(1), limit=1_000)) == 300

    async def test_too_many_that_wait_are_refused(
        self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ping_book, "MOST_WAITING", 3)
        book = PingBook(ledger.pings)
        await ledger.add()
        waiting = [asyncio.create_task(book.record(Arrival(id_of(1), Ping(NOON, "log")))) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(Busy):
            await book.record(Arrival(id_of(1), Ping(NOON, "log")))
        loop = asyncio.create_task(book.run())
        assert [one.n for one in await asyncio.gather(*waiting) if one is not None] == [1, 2, 3]
        book.stop()
        await loop

    async def test_what_was_taken_is_written_before_it_ends(self, ledger: Ledger) -> None:
        book = PingBook(ledger.pings)
        await ledger.add()
        waiting = asyncio.create_task(book.record(Arrival(id_of(1), Ping(NOON, "log"))))
        await asyncio.sleep(0)
        book.stop()
        await book.run()
        assert (await waiting) is not None
        with pytest.raises(Unavailable, match="stopping"):
            await book.record(Arrival(id_of(1), Ping(NOON, "log")))

    async def test_a_ledger_that_is_away_is_said_and_the_book_goes_on(
        self, ledger: Ledger, book: PingBook
    ) -> None:
        await ledger.add()
        await ledger.database.close()
        for _ in range(2):
            with pytest.raises(Unavailable):
                await book.record(Arrival(id_of(1), Ping(NOON, "log")))

    async def test_nobody_waits_for_long_for_a_ledger_that_hangs(
        self, ledger: Ledger, book: PingBook, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await ledger.add()
        goes_on = threading.Event()
        monkeypatch.setattr(ping_book, "ANSWER_SECONDS", 0.2)
        monkeypatch.setattr(ping_book, "PINGS_PER_WRITE", 2)
        hanging = await busy(ledger.database, goes_on)
        pings = [book.record(Arrival(id_of(1), Ping(NOON, "log"))) for _ in range(5)]
        async with asyncio.timeout(10):
            answers = await asyncio.gather(*pings, return_exceptions=True)
        assert [str(one) for one in answers] == ["the ledger does not answer"] * 5
        goes_on.set()
        await hanging
        monkeypatch.undo()
        answer = await book.record(Arrival(id_of(1), Ping(NOON, "log")))
        assert isinstance(answer, Recorded) and answer.n == 1, "what nobody waits for any more is not written"

    async def test_one_that_came_later_waits_its_own_time(
        self, ledger: Ledger, book: PingBook, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await ledger.add()
        goes_on = threading.Event()
        hanging = await busy(ledger.database, goes_on)
        with monkeypatch.context() as patch:
            patch.setattr(ping_book, "ANSWER_SECONDS", 0.1)
            first = asyncio.create_task(book.record(Arrival(id_of(1), Ping(NOON, "log"))))
            await asyncio.sleep(0)
        second = asyncio.create_task(book.record(Arrival(id_of(1), Ping(NOON, "log"))))
        with pytest.raises(Unavailable, match="does not answer"):
            await first
        goes_on.set()
        answer = await second
        assert isinstance(answer, Recorded) and answer.n == 1
        await hanging

    async def test_pings_beside_a_write_that_fails_are_kept_once(
        self, ledger: Ledger, book: PingBook
    ) -> None:
        """They shared its transaction, and are written again in one of their own."""
        await ledger.add()
        goes_on = threading.Event()
        hanging = await busy(ledger.database, goes_on)
        pings = [asyncio.create_task(book.record(Arrival(id_of(1), Ping(NOON, "log")))) for _ in range(3)]
        await asyncio.sleep(0)  # the pings ask the book
        await asyncio.sleep(0)  # the book begins to write
        await asyncio.sleep(0)  # its write waits at the database
        beside = asyncio.create_task(ledger.database.write(lambda c: c.execute(sa.text("no SQL"))))
        await asyncio.sleep(0)
        goes_on.set()
        with pytest.raises(Unavailable):
            await beside
        async with asyncio.timeout(10):
            answers = await asyncio.gather(*pings)
        assert [one.n for one in answers if isinstance(one, Recorded)] == [1, 2, 3]
        assert len(await ledger.history.pings(id_of(1))) == 3
        await hanging

    async def test_nobody_waits_for_a_book_that_is_closed(self, ledger: Ledger) -> None:
        book = PingBook(ledger.pings)
        loop = asyncio.create_task(book.run())
        goes_on = threading.Event()
        hanging = await busy(ledger.database, goes_on)
        pings = [asyncio.create_task(book.record(Arrival(id_of(1), Ping(NOON, "log")))) for _ in range(3)]
        await asyncio.sleep(0)
        loop.cancel()
        async with asyncio.timeout(10):
            answers = await asyncio.gather(*pings, loop, return_exceptions=True)
        assert [str(one) for one in answers[:3]] == ["the gateway is stopping"] * 3
        with pytest.raises(Unavailable, match="stopping"):
            await book.record(Arrival(id_of(1), Ping(NOON, "log")))
        goes_on.set()
        await hanging

    async def test_one_that_cannot_be_kept_harms_no_other(self, ledger: Ledger, book: PingBook) -> None:
        await ledger.add()
        poison = Arrival(id_of(1), Ping(NOON, "log", user_agent="\ud800"))  # no database can hold it
        good = [Arrival(id_of(1), Ping(NOON, "log")) for _ in range(2)]
        answers = await asyncio.gather(
            *(book.record(one) for one in (good[0], poison, good[1])), return_exceptions=True
        )
        assert [one.n if isinstance(one, Recorded) else type(one) for one in answers][::2] == [1, 2]
        assert isinstance(answers[1], Exception)

    async def test_a_caller_that_went_away_is_no_trouble(self, ledger: Ledger, book: PingBook) -> None:
        await ledger.add()
        gone = asyncio.create_task(book.record(Arrival(id_of(1), Ping(NOON, "log"))))
        await asyncio.sleep(0)
        gone.cancel()
        second = await book.record(Arrival(id_of(1), Ping(NOON, "log")))
        assert second is not None and second.n == 2


class TestWatchman:
    @pytest.fixture
    def clock(self, ledger: Ledger) -> ManualClock:
        clock = ManualClock(NOON)
        clock.busy.append(lambda: ledger.database.in_flight > 0)
        return clock

    async def test_it_looks_when_something_happens_and_tells_it_once(
        self, ledger: Ledger, clock: ManualClock
    ) -> None:
        await ledger.add()
        await ledger.ping((1, "success", 0))
        watchman = Watchman(ledger.watchlist, clock)
        loop = asyncio.create_task(watchman.run())
        await clock.advance(69 * 60)
        assert await ledger.notices() == []
        await clock.advance(2 * 60)
        assert await ledger.notices() == [("Monitor 1", "monitor.down")]
        await clock.advance(24 * 3600)
        assert await ledger.flips() == [(0, "up"), (70, "down")]
        assert len(await ledger.notices()) == 1 and watchman.trouble is None
        watchman.stop()
        await loop

    async def test_two_of_them_tell_nothing_twice(self, ledger: Ledger) -> None:
        for number in range(30):
            await ledger.add(number)
        await ledger.ping(*((number, "success", 0) for number in range(30)))
        other = Watchlist(ledger.database, ledger.settled.append)
        looks = [one.look(minute(75), 20) for one in (ledger.watchlist, other) for _ in range(3)]
        assert sum(looked.count for looked in await asyncio.gather(*looks)) == 30
        assert len(await ledger.notices()) == 30

    async def test_it_hears_of_what_comes_sooner(self, ledger: Ledger, clock: ManualClock) -> None:
        watchman = Watchman(ledger.watchlist, clock)
        loop = asyncio.create_task(watchman.run())
        await clock.advance(1)
        await ledger.add(max_run_seconds=5)
        await ledger.ping((1, "start", 0))
        watchman.note(ledger.settled[-1].look_at)
        await clock.advance(5)
        assert await ledger.flips() == [(5 / 60, "down")]
        watchman.stop()
        await loop

    async def test_a_ping_moves_no_look_that_comes_anyway(self, ledger: Ledger) -> None:
        """It comes too early once, changes nothing, and then the next is in time."""
        await ledger.add()
        for at in (0, 40, 50):
            await ledger.ping((1, "success", at))
            watched = await ledger.watchlist.get(id_of(1))
            assert watched is not None and watched.look_at == minute(70)
        assert await ledger.watchlist.look(minute(70), 10) == Looked(1, minute(120))
        assert await ledger.flips() == [(0, "up")]
        assert await ledger.watchlist.look(minute(120), 10) == Looked(1, None)
        assert await ledger.flips() == [(0, "up"), (120, "down")]

    async def test_a_ping_that_is_followed_by_something_sooner_moves_the_look(self, ledger: Ledger) -> None:
        await ledger.add(max_run_seconds=300)
        await ledger.ping((1, "success", 0), (1, "start", 1))
        watched = await ledger.watchlist.get(id_of(1))
        assert watched is not None and watched.look_at == minute(6)

    async def test_very_many_at_once_are_all_seen_to(self, ledger: Ledger, clock: ManualClock) -> None:
        for number in range(250):
            await ledger.add(number)
        await ledger.ping(*((number, "success", 0) for number in range(250)))
        clock.step(timedelta(hours=2))
        watchman = Watchman(ledger.watchlist, clock)
        loop = asyncio.create_task(watchman.run())
        await clock.advance(1)
        assert len(await ledger.notices()) == 250
        assert watchman.last_look_at is not None
        watchman.stop()
        await loop

    async def test_it_survives_the_absence_of_the_ledger(self, clock: ManualClock) -> None:
        class Away:
            def __init__(self) -> None:
                self.faults = [RuntimeError("a bug"), Unavailable("the database cannot be used")]

            async def look(self, now: datetime, limit: int) -> Looked:
                if self.faults:
                    raise self.faults.pop()
                return Looked(0, None)

        watchman = Watchman(Away(), clock)
        loop = asyncio.create_task(watchman.run())
        await clock.advance(0)
        assert watchman.trouble == "the database cannot be used"
        await clock.advance(LEDGER_PAUSE_SECONDS)
        assert watchman.trouble == "an unexpected failure; see the log" and watchman.last_look_at is None
        await clock.advance(LEDGER_PAUSE_SECONDS)
        assert watchman.trouble is None and watchman.last_look_at == clock.now()
        watchman.stop()
        await loop

    async def test_a_monitor_of_another_version_stops_no_other(
        self, ledger: Ledger, caplog: pytest.LogCaptureFixture
    ) -> None:
        await ledger.add(1)
        await ledger.add(2)
        await ledger.ping((1, "success", 0), (2, "success", 0))
        spoil = sa.update(monitors).where(monitors.c.id == id_of(1)).values(body=b'{"unheard": "of"}')
        await ledger.database.write(lambda c: c.execute(spoil).rowcount)
        with caplog.at_level(logging.ERROR):
            looked = await ledger.watchlist.look(minute(80), 100)
        assert looked == Looked(2, minute(140)), "it is looked at again in an hour"
        assert await ledger.notices() == [("Monitor 2", "monitor.down")]
        assert f"monitor {id_of(1)} cannot be read by this version" in caplog.text
        assert await ledger.ping((1, "success", 81)) == [None]
        assert await ledger.watchlist.by_unique_key(unique_key(id_of(1))) is None

    async def test_what_only_a_later_version_knows_of_an_alarm_is_left_alone(self, ledger: Ledger) -> None:
        await ledger.add()
        await ledger.ping((1, "fail", 0))
        before = await ledger.watchlist.get(id_of(1))
        assert before is not None and before.alarm.is_down
        own = sa.select(monitors.c.alarm).where(monitors.c.id == id_of(1))
        kept = await ledger.database.read(lambda c: c.execute(own).scalar_one())
        spoil = sa.update(monitors).where(monitors.c.id == id_of(1)).values(alarm=kept | {"unheard": "of"})
        await ledger.database.write(lambda c: c.execute(spoil).rowcount)
        after = await ledger.watchlist.get(id_of(1))
        assert after is not None and after.alarm == before.alarm


class TestChanges:
    async def test_a_definition_that_changes_moves_the_deadline(self, ledger: Ledger) -> None:
        monitor = await ledger.add()
        await ledger.ping((1, "success", 0))
        longer = monitor.evolve(period_seconds=7200, revision=2)
        changed = await ledger.watchlist.change(monitor.id, lambda one: Change(minute(1), monitor=longer))
        assert changed is not None and changed.look_at == minute(130)
        assert ledger.settled[-1] == Settled(minute(130))

    async def test_what_raises_changes_nothing(self, ledger: Ledger) -> None:
        monitor = await ledger.add()

        def refuse(one: Any) -> Change:
            raise LookupError("no")

        with pytest.raises(LookupError):
            await ledger.watchlist.change(monitor.id, refuse)
        assert await ledger.watchlist.change(id_of(9), refuse) is None, "there is no such monitor"

    async def test_a_removed_one_leaves_nothing_but_its_event(self, ledger: Ledger) -> None:
        monitor = await ledger.add()
        await ledger.ping((1, "fail", 0))
        event = Event(minute(1), "acme", "alice", "alice", "monitor.deleted", monitor.id)
        assert await ledger.watchlist.remove(monitor.id, event) is not None
        assert await ledger.watchlist.remove(monitor.id, event) is None
        assert await ledger.watchlist.get(monitor.id) is None
        assert await ledger.history.pings(monitor.id) == [] and await ledger.flips() == []
        assert await ledger.notices() == [("Monitor 1", "monitor.down")], "it is still on its way"


PLANS: dict[str, Callable[[Ledger], Any]] = {
    "a ping": lambda ledger: ledger.ping((1, "success", 1)),
    "pings and flips that go": lambda ledger: ledger.ping(*((1, "fail", 1) for _ in range(110))),
    "a look": lambda ledger: ledger.watchlist.look(minute(500), 100),
    "a slug": lambda ledger: ledger.watchlist.by_slug("acme", "alice", "backup"),
    "all of a user": lambda ledger: ledger.watchlist.of_user("acme", "alice"),
    "a page of pings": lambda ledger: ledger.history.pings(id_of(1)),
    "a page of flips": lambda ledger: ledger.history.flips(id_of(1)),
}


@pytest.mark.parametrize("ledger_place", ["sqlite"], indirect=True)  # what it asks is SQLite's to answer
@pytest.mark.parametrize("name", PLANS)
async def test_it_looks_through_no_history(ledger: Ledger, name: str) -> None:
    await ledger.add(1)
    await ledger.add(2, depends_on=(id_of(1),))
    await ledger.ping((1, "fail", 0), (2, "success", 0))
    asked: list[tuple[str, Any]] = []

    @sa.event.listens_for(ledger.database._engine, "before_cursor_execute")
    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith(("SELECT", "UPDATE", "DELETE")):
            asked.append((statement, parameters[0] if isinstance(parameters, list) else parameters))

    await PLANS[name](ledger)
    sa.event.remove(ledger.database._engine, "before_cursor_execute", note)

    def explained(connection: sa.Connection) -> list[str]:
        return [
            row[3]
            for statement, parameters in asked
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        ]

    steps = await ledger.database.read(explained)
    assert asked and [step for step in steps if step.startswith("SCAN") and "USING" not in step] == []
