"""One writer, shared commits: an answer means that it is on the disk, and a bad neighbour harms nobody."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from support.databases import Place, engine_at

from carapace_cron.database import Database
from carapace_cron.engines import READERS, sqlite_engine
from carapace_cron.errors import Unavailable
from carapace_cron.ledger.facts import ledger_id
from carapace_cron.ledger.migrations.upgrade import upgrade
from carapace_cron.ledger.tables import facts, metadata


@pytest.fixture
async def database(ledger_place: Place) -> AsyncIterator[Database]:
    made = Database(engine_at(ledger_place), upgrade)
    await made.open()
    yield made
    await made.close()


def add(name: str):  # type: ignore[no-untyped-def]
    return lambda c: c.execute(sa.insert(facts), {"name": name, "value": "x"}).rowcount


async def count(database: Database) -> int:
    query = sa.select(sa.func.count()).select_from(facts)
    return await database.read(lambda c: int(c.execute(query).scalar_one()))


class Held:
    """Work on a connection that goes on when the test lets it."""

    def __init__(self) -> None:
        self._began, self._let_go = threading.Event(), threading.Event()

    def __call__(self, connection: sa.Connection) -> bool:
        """Whether it was let go in time."""
        self._began.set()
        return self._let_go.wait(5)

    async def has_begun(self) -> None:
        while not self._began.is_set():
            await asyncio.sleep(0.001)

    def let_go(self) -> None:
        self._let_go.set()


async def test_the_migrations_make_the_schema_that_the_code_uses(database: Database) -> None:
    drift = await database.read(
        lambda c: compare_metadata(MigrationContext.configure(c), metadata)
    )
    assert drift == []


async def test_it_flushes_each_commit_to_the_disk(tmp_path: Path) -> None:
    database = Database(sqlite_engine(tmp_path / "ledger.sqlite"), upgrade)
    await database.open()
    settings = await database.write(
        lambda c: [c.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")]
    )
    await database.close()
    assert settings == ["wal", 2]


async def test_many_writes_share_commits_and_all_arrive(database: Database) -> None:
    sizes: list[int] = []
    database.on_commit = lambda writes, seconds: sizes.append(writes)
    await asyncio.gather(*(database.write(add(f"fact {number}")) for number in range(500)))
    assert await count(database) == 500
    assert sum(sizes) == 500 > len(sizes)


async def test_a_write_that_fails_fails_alone(database: Database) -> None:
    writes = [database.write(add(name)) for name in ("a", "b", "a", "c")]
    answers = await asyncio.gather(*writes, return_exceptions=True)
    assert isinstance(answers[2], sa.exc.IntegrityError)
    assert await count(database) == 3


async def test_a_write_that_raises_leaves_nothing(database: Database) -> None:
    def half(connection: sa.Connection) -> None:
        add("half")(connection)
        raise RuntimeError("on the way")

    with pytest.raises(RuntimeError, match="on the way"):
        await database.write(half)
    assert await count(database) == 0


async def test_a_caller_that_goes_away_does_not_stop_the_write(database: Database) -> None:
    task = asyncio.create_task(database.write(add("kept")))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await database.write(add("after"))
    assert await count(database) == 2


async def test_closing_finishes_what_was_accepted(tmp_path: Path) -> None:
    database = Database(sqlite_engine(tmp_path / "ledger.sqlite"), upgrade)
    await database.open()
    writes = [asyncio.create_task(database.write(add(f"{number}"))) for number in range(50)]
    await asyncio.sleep(0)
    await database.close()
    await asyncio.gather(*writes)
    with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM facts").fetchone() == (50,)
    connection.close()


async def test_after_closing_it_says_so(database: Database) -> None:
    await database.close()
    with pytest.raises(Unavailable, match="closed"):
        await database.write(add("late"))
    with pytest.raises(Unavailable, match="closed"):
        await count(database)


async def test_a_write_during_the_closing_is_refused_and_not_forgotten(tmp_path: Path) -> None:
    database = Database(sqlite_engine(tmp_path / "ledger.sqlite"), upgrade)
    await database.open()
    held = Held()
    slow = asyncio.create_task(database.write(held))
    await held.has_begun()
    closing = asyncio.create_task(database.close())
    await asyncio.sleep(0)
    for late in (database.write(add("late")), count(database)):
        with pytest.raises(Unavailable, match="closed"):
            await asyncio.wait_for(late, 5)
    held.let_go()
    assert await slow
    await closing


async def test_a_writer_that_died_leaves_nobody_waiting(tmp_path: Path) -> None:
    class Dying(Database):
        def _write_loop(self) -> None:
            """Ends before it has written anything."""

    database = Dying(sqlite_engine(tmp_path / "ledger.sqlite"), upgrade)
    await database.open()
    write = asyncio.create_task(database.write(add("lost")))
    await asyncio.sleep(0)
    await database.close()
    with pytest.raises(Unavailable, match="closed before its turn came"):
        await asyncio.wait_for(write, 5)


async def test_closing_waits_for_a_read_and_holds_up_nobody_else(tmp_path: Path) -> None:
    database = Database(sqlite_engine(tmp_path / "ledger.sqlite"), upgrade)
    await database.open()
    held = Held()
    reading = asyncio.create_task(database.read(held))
    await held.has_begun()
    closing = asyncio.create_task(database.close())
    while database._writer is not None:
        await asyncio.sleep(0.001)
    for _ in range(20):
        await asyncio.sleep(0.001)
        assert not closing.done()
    held.let_go()
    assert await reading, "the loop stood still"
    await closing


async def test_closing_does_not_wait_for_ever_for_a_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("carapace_cron.database.READ_SECONDS", 0.05)
    database = Database(sqlite_engine(tmp_path / "ledger.sqlite"), upgrade)
    await database.open()
    stuck = [Held() for _ in range(READERS)]
    after: list[str] = []
    reads = [asyncio.create_task(database.read(one)) for one in stuck]
    for one in stuck:
        await one.has_begun()
    reads.append(asyncio.create_task(database.read(lambda c: after.append("read after the end"))))
    await asyncio.sleep(0)
    await asyncio.wait_for(database.close(), 3)
    answers = await asyncio.wait_for(asyncio.gather(*reads, return_exceptions=True), 3)
    assert [type(one) for one in answers] == [Unavailable] * 3
    for one in stuck:
        one.let_go()
    for thread in database._readers:
        thread.join(5)
    assert not after


HANGING_READ = """
import asyncio, sys, time
from pathlib import Path
from carapace_cron import database
from carapace_cron.engines import sqlite_engine

database.READ_SECONDS = 0.1

async def main():
    one = database.Database(sqlite_engine(Path(sys.argv[1])), lambda connection: None)
    await one.open()
    reading = asyncio.create_task(one.read(lambda connection: time.sleep(600)))
    await asyncio.sleep(0)
    await one.close()
    print(repr(await asyncio.gather(reading, return_exceptions=True)))

asyncio.run(main())
"""


def test_a_read_that_hangs_keeps_no_process_from_its_end(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HANGING_READ, str(tmp_path / "ledger.sqlite")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "[Unavailable('the database does not answer')]\n"


async def test_a_writer_that_outlives_the_closing_ends_when_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(sqlite_engine(tmp_path / "ledger.sqlite"), upgrade)
    await database.open()
    writer = database._writer
    assert writer is not None
    held = Held()
    first = asyncio.create_task(database.write(held))
    await held.has_begun()
    second = asyncio.create_task(database.write(add("second")))
    await asyncio.sleep(0)
    monkeypatch.setattr("carapace_cron.database.WRITE_SECONDS", 0.05)
    await database.close()
    with pytest.raises(Unavailable, match="closed before its turn came"):
        await asyncio.wait_for(second, 3)
    held.let_go()
    assert await first
    writer.join(3)
    assert not writer.is_alive()


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_text("this is a letter, not a database" * 100)
    database = Database(sqlite_engine(path), upgrade)
    with pytest.raises(Unavailable) as refusal:
        await database.open()
    assert str(refusal.value) == f"the database {path} cannot be used: file is not a database"
    await database.close()
    assert path.read_text().startswith("this is a letter")


async def test_a_ledger_keeps_its_id(database: Database) -> None:
    assert await ledger_id(database) == await ledger_id(database)
