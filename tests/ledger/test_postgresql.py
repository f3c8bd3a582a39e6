"""What only PostgreSQL can do to a ledger: other gateways, a server that goes away, one that is stopped."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import sqlalchemy as sa
from support.postgresql import PostgresqlServer, postgresql_server

from carapace_cron import database as database_module
from carapace_cron.database import Database
from carapace_cron.engines import PATIENCE, postgresql_engine
from carapace_cron.errors import ConfigurationError, Unavailable
from carapace_cron.ledger.migrations.upgrade import upgrade
from carapace_cron.ledger.tables import facts

Work = Callable[[sa.Connection], int]


@pytest.fixture
async def gateways(postgresql: PostgresqlServer) -> AsyncIterator[list[Database]]:
    """Three on one database, begun at the same moment."""
    url = postgresql.new_database()
    made = [Database(postgresql_engine(url), upgrade) for _ in range(3)]
    await asyncio.gather(*(one.open() for one in made))
    yield made
    for one in made:
        await one.close()


@pytest.fixture
def own_server() -> Iterator[PostgresqlServer]:
    """One that may be stopped."""
    with postgresql_server() as server:
        yield server


def counted(name: str) -> Work:
    """One more, read and then written: what loses counts where writers do not take turns."""

    def work(connection: sa.Connection) -> int:
        query = sa.select(facts.c.value).where(facts.c.name == name)
        found = connection.execute(query).scalar_one_or_none()
        if found is None:
            connection.execute(sa.insert(facts), {"name": name, "value": "1"})
            return 1
        connection.execute(sa.update(facts).where(facts.c.name == name).values(value=str(int(found) + 1)))
        return int(found) + 1

    return work


async def value(database: Database, name: str) -> str:
    query = sa.select(facts.c.value).where(facts.c.name == name)
    found: str = await database.read(lambda connection: connection.execute(query).scalar_one())
    return found


async def test_gateways_that_write_at_once_take_turns(gateways: list[Database]) -> None:
    answers = await asyncio.gather(*(one.write(counted("n")) for _ in range(50) for one in gateways))
    assert sorted(answers) == list(range(1, 151))


async def test_a_reader_sees_one_moment(gateways: list[Database]) -> None:
    writer, reader, _ = gateways
    await writer.write(counted("n"))
    loop = asyncio.get_running_loop()

    def twice(connection: sa.Connection) -> list[str]:
        query = sa.select(facts.c.value).where(facts.c.name == "n")
        first = connection.execute(query).scalar_one()
        asyncio.run_coroutine_threadsafe(writer.write(counted("n")), loop).result(10)
        return [first, connection.execute(query).scalar_one()]

    assert await reader.read(twice) == ["1", "1"]
    assert await value(reader, "n") == "2"


async def test_it_says_that_the_server_is_away_and_goes_on_when_it_is_back(
    own_server: PostgresqlServer,
) -> None:
    database = Database(postgresql_engine(own_server.url()), upgrade)
    await database.open()
    await database.write(counted("n"))
    own_server.stop()
    for call in (database.write(counted("n")), database.write(counted("n")), value(database, "n")):
        with pytest.raises(Unavailable, match="the database cannot be used"):
            await call
    own_server.start()
    assert await database.write(counted("n")) == 2
    assert await value(database, "n") == "2"
    await database.close()


async def test_all_that_was_acknowledged_is_there_after_the_server_crashed(
    own_server: PostgresqlServer,
) -> None:
    database = Database(postgresql_engine(own_server.url()), upgrade)
    await database.open()
    acknowledged = 0

    async def write_on() -> None:
        nonlocal acknowledged
        while True:
            acknowledged = max(acknowledged, await database.write(counted("n")))

    writers = [asyncio.create_task(write_on()) for _ in range(5)]
    while acknowledged < 100:
        await asyncio.sleep(0.01)
    own_server.stop(signal.SIGQUIT)
    ends = await asyncio.wait_for(asyncio.gather(*writers, return_exceptions=True), 30)
    assert all(isinstance(end, Unavailable) for end in ends)
    own_server.start()
    assert int(await value(database, "n")) >= acknowledged
    await database.close()


async def test_work_whose_connection_broke_is_not_run_a_second_time(gateways: list[Database]) -> None:
    """Nobody knows whether it is written: its caller is told, and decides."""
    calls: list[str] = []

    def breaking(connection: sa.Connection) -> None:
        calls.append("breaking")
        connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")

    def beside(_: sa.Connection) -> None:
        calls.append("beside")

    one = gateways[0]
    works = (beside, breaking, beside)
    ends = await asyncio.gather(*(one.write(work) for work in works), return_exceptions=True)
    assert isinstance(ends[1], Unavailable)
    assert calls.count("breaking") == 1
    assert await one.write(counted("after")) == 1


async def test_a_gateway_that_is_stopped_while_it_writes_holds_up_nobody_for_long(
    postgresql: PostgresqlServer,
) -> None:
    url = postgresql.new_database()
    hasty = {**PATIENCE, "idle_in_transaction_session_timeout": 300}
    stopped, living = (Database(postgresql_engine(url, hasty), upgrade) for _ in range(2))
    await stopped.open()
    await living.open()
    frozen = asyncio.create_task(stopped.write(lambda _: time.sleep(1.5)))
    await asyncio.sleep(0.2)
    assert await asyncio.wait_for(living.write(counted("n")), 1.2) == 1
    with pytest.raises(Unavailable):
        await frozen
    assert await stopped.write(counted("n")) == 2
    await stopped.close()
    await living.close()


async def test_who_does_not_get_its_turn_in_time_is_told_and_gets_it_later(
    postgresql: PostgresqlServer,
) -> None:
    url = postgresql.new_database()
    hurried = PATIENCE | {"lock_timeout": 50}
    first, second = (Database(postgresql_engine(url, hurried), upgrade) for _ in range(2))
    await first.open()
    await second.open()
    begun, goes_on = threading.Event(), threading.Event()
    busy = asyncio.create_task(first.write(lambda _: begun.set() or goes_on.wait()))
    await asyncio.to_thread(begun.wait)
    for _ in range(2):
        with pytest.raises(Unavailable, match="lock timeout"):
            await second.write(counted("turns"))
    goes_on.set()
    await busy
    assert await second.write(counted("turns")) == 1
    await first.close()
    await second.close()


async def test_a_server_that_hangs_is_told_in_time_and_used_again_when_it_goes_on(
    own_server: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "READ_SECONDS", 0.3)
    monkeypatch.setattr(database_module, "WRITE_SECONDS", 0.3)
    database = Database(postgresql_engine(own_server.url()), upgrade)
    await database.open()
    assert await database.write(counted("n")) == 1
    with own_server.frozen():
        for call in (database.write(counted("n")), value(database, "n")):
            with pytest.raises(Unavailable, match="does not answer"):
                await asyncio.wait_for(call, 5)
    async with asyncio.timeout(10):
        while (await value(database, "n")) != "2":  # it was on its way, and is written yet
            await asyncio.sleep(0.05)
    monkeypatch.undo()
    assert await database.write(counted("n")) == 3
    await database.close()


async def test_text_with_a_nul_is_kept_without_it(gateways: list[Database]) -> None:
    await gateways[0].write(lambda c: c.execute(sa.insert(facts), {"name": "odd", "value": "a\0b"}).rowcount)
    assert await value(gateways[1], "odd") == "a\ufffdb"


async def test_a_server_that_is_not_there_is_named_without_the_password() -> None:
    database = Database(postgresql_engine("postgresql://me:hunter2@127.0.0.1:1/x"), upgrade)
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1.*port 1") as told:
        await database.open()
    await database.close()
    assert "hunter2" not in str(told.value)


@pytest.mark.parametrize("bad", ["postgresql://me:hunter2@host:port/x", "hunter2"])
def test_an_address_that_is_none_is_refused_without_its_password(bad: str) -> None:
    with pytest.raises(ConfigurationError, match="expected postgresql://") as told:
        postgresql_engine(bad)
    assert "hunter2" not in str(told.value)
