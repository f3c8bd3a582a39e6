"""What tests of several folders run on: the ledger's databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.databases import Place, empty
from support.postgresql import PostgresqlServer, postgresql_server


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlServer]:
    """One for all tests of this process. A test that stops it takes one of its own."""
    with postgresql_server() as server:
        yield server


@pytest.fixture(scope="session")
def shared_database(postgresql: PostgresqlServer) -> str:
    """The URL of the one that all tests of this process use, one after another."""
    return postgresql.new_database()


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty ledger's place; each test runs on both."""
    if request.param == "sqlite":
        return tmp_path / "ledger.sqlite"
    url: str = request.getfixturevalue("shared_database")
    empty(url)
    return url
