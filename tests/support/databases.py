"""Where a test's ledger is: a SQLite file, or a database of a real PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from carapace_cron.engines import postgresql_engine, sqlite_engine
from carapace_cron.ledger.tables import metadata

Place = Path | str
"""A file, or the URL of a database."""


def engine_at(place: Place) -> sa.Engine:
    return sqlite_engine(place) if isinstance(place, Path) else postgresql_engine(place)


def empty(url: str) -> None:
    """Leave no row in the ledger's tables, if they are there: much quicker than a database for each test."""
    engine = postgresql_engine(url)
    with engine.execution_options(carapace_writer=True).begin() as connection:
        there = sa.inspect(connection).get_table_names()
        ours = ", ".join(name for name in metadata.tables if name in there)
        if ours:
            connection.exec_driver_sql(f"TRUNCATE {ours} RESTART IDENTITY")
    engine.dispose()
