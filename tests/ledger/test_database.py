"""One writer, shared commits: an answer means that it is on the disk, and a bad neighbour harms nobody."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from support.databases import Place, engine_at

from carapace_cron.database import Database
from carapace_cron.engines import sqlite_engine
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
    await asyncio.gather(*(database.write(add(f"fact {number}")) for number in range(500)))
    assert await count(database) == 500


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
    began, go_on = threading.Event(), threading.Event()

    def slowly(connection: sa.Connection) -> None:
        began.set()
        go_on.wait(5)
        add("slow")(connection)

    slow = asyncio.create_task(database.write(slowly))
    while not began.is_set():
        await asyncio.sleep(0.001)
    closing = asyncio.create_task(database.close())
    await asyncio.sleep(0)
    for late in (database.write(add("late")), count(database)):
        with pytest.raises(Unavailable, match="closed"):
            await asyncio.wait_for(late, 5)
    go_on.set()
    await asyncio.gather(slow, closing)


async def test_a_writer_that_died_leaves_nobody_waiting(tmp_path: Path) -> None:
    class Dying(Database):
        def _write_loop(self) -> None:
            """Ends before it has written anything."""

    database = Dying(sqlite_engine(tmp_path / "ledger.sqlite"), upgrade)
    await database.open()
    write = asyncio.create_task(database.write(add("lost")))
    await asyncio.sleep(0)
    await database.close()
    with pytest.raises(Unavailable, match="closed before this was written"):
        await asyncio.wait_for(write, 5)


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
