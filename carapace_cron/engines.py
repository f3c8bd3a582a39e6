"""Where a `Database` can live: a SQLite file of one gateway's own, or a PostgreSQL that gateways share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import QueuePool

from carapace_cron.errors import ConfigurationError

READERS = 2  # connections that read; one more writes
BUSY_TIMEOUT_MS = 10_000  # another process (a backup, an inspection) may hold the file for a moment

# A gateway that was stopped in the middle of a transaction would hold up all others for as long as it is.
# Each is milliseconds, see PostgreSQL's manual, "Client Connection Defaults".
PATIENCE = MappingProxyType(
    {
        "idle_in_transaction_session_timeout": 10_000,
        "lock_timeout": 20_000,  # longer than the one above, so that it is outlived
        "statement_timeout": 60_000,
        "tcp_user_timeout": 20_000,
    }
)
_WRITERS = 0x6361726170616365  # "carapace", the number of the lock that writers of one database share
_CONNECT_SECONDS = 10


def sqlite_engine(path: Path) -> sa.Engine:
    """The file at `path`, made if it is not there. Writers take its lock when they begin."""
    engine = sa.create_engine(
        f"sqlite+pysqlite:///{path}",
        poolclass=QueuePool,
        pool_size=READERS + 1,
        connect_args={"check_same_thread": False, "isolation_level": None},
    )
    sa.event.listen(engine, "connect", _configure_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def postgresql_engine(url: str, patience: Mapping[str, int] = PATIENCE) -> sa.Engine:
    """The database at ``postgresql://user:password@host:port/name?sslmode=…`` (libpq's parameters).

    Writers of all gateways take turns, by an advisory lock until each one's transaction ends, so that a
    transaction sees what the ones before it did and nothing changes under it: what SQLite gives, too.
    Readers see one moment. `patience`: settings of the session, by name, in milliseconds.
    Raises `ConfigurationError` if `url` is none, or if the driver is not installed.
    """
    try:
        address = sa.make_url(url).set(drivername="postgresql+psycopg")
        engine = sa.create_engine(
            address,
            pool_size=READERS + 1,
            pool_pre_ping=True,
            connect_args={
                "autocommit": True,  # the driver's own BEGIN is off: one on the way with the lock is quicker
                "connect_timeout": _CONNECT_SECONDS,
                "tcp_user_timeout": patience["tcp_user_timeout"],  # of this side; libpq's own name for it
                "application_name": "carapace-cron",
                "options": " ".join(f"-c {name}={milliseconds}" for name, milliseconds in patience.items()),
            },
        )
    except (sa.exc.ArgumentError, ValueError):
        raise ConfigurationError(
            "bad PostgreSQL address: expected postgresql://user:password@host:port/database"
        ) from None  # the error that it replaces quotes the password
    except ImportError as error:
        raise ConfigurationError(
            "PostgreSQL needs its driver: pip install 'carapace-cron[postgresql]'"
        ) from error
    sa.event.listen(engine, "connect", _configure_postgresql)
    sa.event.listen(engine, "begin", _begin_postgresql)
    return engine


def _configure_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",  # an acknowledged call survives a power cut, not only a crash
        f"busy_timeout={BUSY_TIMEOUT_MS}",
        "foreign_keys=ON",
        "cache_size=-16384",  # 16 MiB
        "temp_store=MEMORY",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    # The driver's own BEGIN is off (isolation_level=None). A writer takes the lock at once, because a
    # transaction that reads first and is upgraded later fails with "database is locked" without waiting.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if _writes(connection) else "BEGIN")


def _configure_postgresql(connection: Any, _record: Any) -> None:
    # Imported here: the driver is there only where PostgreSQL is used.
    from psycopg.types.string import StrDumper

    class WithoutNul(StrDumper):
        """PostgreSQL's text cannot hold U+0000, and a program's output may: it becomes U+FFFD."""

        def dump(self, obj: str) -> Any:
            return super().dump(obj.replace("\0", "\ufffd"))

    connection.adapters.register_dumper(str, WithoutNul)


def _begin_postgresql(connection: sa.Connection) -> None:
    if _writes(connection):
        # The lock is a statement of its own: those after it see what was committed while it waited.
        connection.exec_driver_sql(f"BEGIN; SELECT pg_advisory_xact_lock({_WRITERS})")
    else:
        connection.exec_driver_sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")


def _writes(connection: sa.Connection) -> bool:
    return bool(connection.get_execution_options().get("carapace_writer"))
