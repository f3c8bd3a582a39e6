"""One SQL database, one writer with group commit: many callers share the cost of making a commit durable.

Writes are functions that get the writer's connection. They run one after another in a thread of their
own; all that queued up while the disk was busy share one transaction, and each caller is answered only
after that commit. SQLite has one writer anyway, so nothing is lost by it, and a durable commit costs a
flush of the disk, on PostgreSQL a way to the server too, that a hundred callers may as well share.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import sqlalchemy as sa

from carapace_cron.engines import READERS
from carapace_cron.errors import CarapaceError, Unavailable

T = TypeVar("T")

MAX_BATCH = 512  # writes a transaction: bounds how long the first of them waits for the last
READ_SECONDS = 10.0  # after that a caller hears that the database does not answer: it may hang for hours
WRITE_SECONDS = 30.0  # the same; what was to be written may be written yet


@dataclass(slots=True)
class _Call:
    work: Callable[..., Any]  # of a write: what is done with the writer's connection
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None


class Database:
    """A database behind SQLAlchemy Core, in one of the places of `carapace_cron.engines`.

    `write` answers after the commit is on the disk. `read` sees all that was committed when it began and
    never waits for a writer. Both raise `Unavailable` when the database cannot be used, when it has not
    answered for long, and from the moment at which `close` is called.
    """

    def __init__(self, engine: sa.Engine, migrate: Callable[[sa.Connection], None]) -> None:
        """`migrate` brings the schema up to date, inside a transaction; it runs once, at `open`."""
        # Whether other processes write it, too. The folder of a file is locked by one gateway.
        self.shared = engine.dialect.name != "sqlite"
        self._migrate_schema = migrate
        self._engine = engine
        self._writes: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._reads: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        # Of our own, that end with the process: a pool's are waited for, and a server may hang for hours.
        self._readers = [
            threading.Thread(target=self._read_loop, name=f"database-read-{number}", daemon=True)
            for number in range(READERS)
        ]
        self._writer: threading.Thread | None = None
        self.on_commit: Callable[[int, float], None] | None = None  # hears writes and seconds of each
        self.in_flight = 0  # calls that were not answered yet

    async def open(self) -> None:
        """Bring the schema to the newest version and start the writer. Raises `Unavailable`."""
        for reader in self._readers:
            reader.start()
        await self._by_a_reader(self._migrate)
        self._writer = threading.Thread(target=self._write_loop, name="database-write", daemon=True)
        self._writer.start()

    async def close(self) -> None:
        """Finish what was accepted, then let go of the file. Safe to call twice.

        Neither a write nor a read is waited for longer than its caller waits.
        """
        writer, self._writer = self._writer, None  # first of all, so that nothing is queued behind the end
        loop = asyncio.get_running_loop()
        if writer is not None:
            self._writes.put(None)
            await loop.run_in_executor(None, writer.join, WRITE_SECONDS)
            self._refuse_the_rest(self._writes)
        for _ in self._readers:
            self._reads.put(None)
        await loop.run_in_executor(None, self._join_readers)
        self._refuse_the_rest(self._reads)
        self._engine.dispose()

    async def write(self, work: Callable[[sa.Connection], T]) -> T:
        """Run `work` in a transaction; its result once that is durable, or what it raised (nothing kept).

        `work` may be run twice (when a neighbour in its batch failed), so it changes only the database.
        """
        self._check_open()
        loop = asyncio.get_running_loop()
        write = _Call(work, loop, loop.create_future())
        self._writes.put(write)
        with self._counted(), _in_time():
            async with asyncio.timeout(WRITE_SECONDS):  # wait_for of Python 3.11 can swallow a cancellation
                result: T = await write.done
        return result

    async def read(self, work: Callable[[sa.Connection], T]) -> T:
        """Run `work` on a read connection in a thread."""
        self._check_open()
        with self._counted(), _in_time():
            async with asyncio.timeout(READ_SECONDS):
                return await self._by_a_reader(lambda: self._read(work))

    def _check_open(self) -> None:
        if self._writer is None:
            raise Unavailable("the database is closed")

    async def _by_a_reader(self, work: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        call = _Call(work, loop, loop.create_future())
        self._reads.put(call)
        result: T = await call.done
        return result

    def _join_readers(self) -> None:
        deadline = time.monotonic() + READ_SECONDS
        for reader in self._readers:
            if reader.is_alive():
                reader.join(max(deadline - time.monotonic(), 0.0))

    def _refuse_the_rest(self, calls: queue.SimpleQueue[_Call | None]) -> None:
        """Whatever became of the threads, nobody waits for them for ever, nor they for anybody."""
        refused = []
        while not calls.empty():
            call = calls.get_nowait()
            if call is not None:
                call.error = Unavailable("the database was closed before its turn came")
                refused.append(call)
        if refused:
            _answer(refused)
        for _ in self._readers:
            calls.put(None)

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1

    def _read(self, work: Callable[[sa.Connection], T]) -> T:
        with _translated(), self._engine.connect() as connection:
            return work(connection)

    def _migrate(self) -> None:
        # At a start the operator reads what is raised, so the file is named; later on, callers read it.
        place = "the database" if self.shared else f"the database {self._engine.url.database}"
        with _translated(place), self._engine.connect() as connection:
            writer = connection.execution_options(carapace_writer=True)
            with writer.begin():
                self._migrate_schema(writer)

    def _read_loop(self) -> None:
        while (call := self._reads.get()) is not None:
            if call.done.cancelled():
                continue
            try:
                call.result = call.work()
            except Exception as error:  # noqa: BLE001  # whatever the caller's work raised is the caller's answer
                call.error = error
            _answer([call])

    def _write_loop(self) -> None:
        with contextlib.closing(_WriteConnection(self._engine)) as connection:
            while (first := self._writes.get()) is not None:
                batch, closing = self._batch_from(first)
                self._commit_timed(connection, batch)
                _answer(batch)
                if closing:
                    return

    def _batch_from(self, first: _Call) -> tuple[list[_Call], bool]:
        batch = [first]
        while len(batch) < MAX_BATCH:
            try:
                write = self._writes.get_nowait()
            except queue.Empty:
                break
            if write is None:
                return batch, True
            batch.append(write)
        return batch, False

    def _commit_timed(self, connection: _WriteConnection, batch: list[_Call]) -> None:
        began = time.perf_counter()
        self._commit(connection, batch)
        if self.on_commit is not None:
            self.on_commit(len(batch), time.perf_counter() - began)

    def _commit(self, connection: _WriteConnection, batch: list[_Call]) -> None:
        """All in one transaction; if one fails, each by itself, so that it fails alone."""
        try:
            with _translated(), connection.begin() as transaction:
                for write in batch:
                    write.result = write.work(transaction)
        except Exception as error:  # noqa: BLE001  # whatever the caller's work raised is the caller's answer
            # Without a server all fail alike; and if it went away during the commit, they may be written.
            if len(batch) == 1 or connection.is_lost:
                for write in batch:
                    write.error = error
                return
            for write in batch:
                self._commit(connection, [write])


class _WriteConnection:
    """The writer's connection, made when it is needed and again when it was lost."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._connection: sa.Connection | None = None

    @property
    def is_lost(self) -> bool:
        return self._connection is None

    @contextlib.contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """A transaction, committed at the end. If the connection breaks meanwhile, `is_lost`."""
        if self._connection is None:
            self._connection = self._engine.connect().execution_options(carapace_writer=True)
        connection = self._connection
        try:
            with connection.begin():
                yield connection
        finally:
            if connection.invalidated:
                self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


def _answer(batch: list[_Call]) -> None:
    """One wake-up of the loop for the whole batch; a caller that went away needs no answer."""

    def resolve() -> None:
        for write in batch:
            if write.done.cancelled():
                continue
            if write.error is not None:
                write.done.set_exception(write.error)
            else:
                write.done.set_result(write.result)

    # A loop that is closed has nobody left to tell; what was written stays written.
    with contextlib.suppress(RuntimeError):
        batch[0].loop.call_soon_threadsafe(resolve)


@contextlib.contextmanager
def _in_time() -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise Unavailable("the database does not answer") from error


@contextlib.contextmanager
def _translated(place: str = "the database") -> Iterator[None]:
    try:
        yield
    except CarapaceError:
        raise
    except (sa.exc.DatabaseError, sqlite3.Error) as error:
        if isinstance(error, sa.exc.IntegrityError):
            raise
        cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
        raise Unavailable(f"{place} cannot be used: {cause}") from error
