"""Many rows in one statement are what they are one by one, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from support.databases import Place, engine_at

from carapace_cron.ledger.many import insert_many, update_many
from carapace_cron.ledger.migrations.upgrade import upgrade
from carapace_cron.ledger.tables import monitors, pings

AT = datetime(2026, 11, 21, 9, 30, 0, 123_456, tzinfo=UTC)
TEXTS = ["", "plain", "ünïcode 🐢", 'quo"ted \\ back', "two\nlines\t", "\\u0000 is six signs", "\x7f\x1f"]


@pytest.fixture
def connection(ledger_place: Place) -> Iterator[sa.Connection]:
    engine = engine_at(ledger_place)
    with engine.connect().execution_options(carapace_writer=True) as made:
        with made.begin():
            upgrade(made)
        with made.begin():
            yield made
    engine.dispose()


def a_ping(n: int, **fields: Any) -> dict[str, Any]:
    plain = {
        "monitor_id": "one", "n": n, "at": AT, "kind": "success", "rid": "", "exit_status": None,
        "duration_ms": None, "scheme": "http", "method": "GET", "remote_address": "", "user_agent": "",
        "body": None,
    }  # fmt: skip
    return plain | fields


def a_monitor(name: str, **fields: Any) -> dict[str, Any]:
    plain = {
        "id": name, "tenant": "acme", "user_id": "alice", "slug": name, "unique_key": f"of {name}",
        "job_id": None, "revision": 1, "created_at": AT, "body": b"{}", "status": "new", "pings": 0,
        "last_ping_at": None, "last_duration_ms": None, "expected_after": None, "open_runs": None,
        "failures_in_row": 0, "ends": "", "deadline": None, "alarm": None, "look_at": None,
    }  # fmt: skip
    return plain | fields


def kept(connection: sa.Connection, table: sa.Table) -> list[dict[str, Any]]:
    query = sa.select(table).order_by(*table.primary_key.columns)
    return [dict(row) for row in connection.execute(query).mappings()]


def test_each_row_is_kept_as_it_was_given(connection: sa.Connection) -> None:
    rows = [a_ping(number, user_agent=text, body=text.encode()) for number, text in enumerate(TEXTS)]
    rows.append(a_ping(100, body=bytes(range(256)) * 40, exit_status=255, duration_ms=2**40))
    insert_many(connection, pings, rows)
    assert kept(connection, pings) == rows
    monitors_ = [a_monitor("a", alarm={"since": 1, "texts": TEXTS}, look_at=AT), a_monitor("b", job_id="j")]
    insert_many(connection, monitors, monitors_)
    assert kept(connection, monitors) == monitors_


def test_columns_that_are_not_given_have_their_defaults(connection: sa.Connection) -> None:
    row = a_ping(1)
    del row["body"], row["exit_status"]
    insert_many(connection, pings, [row])
    assert kept(connection, pings) == [a_ping(1)]


def test_each_row_is_changed_by_its_key_and_no_other_is(connection: sa.Connection) -> None:
    first, second, third = (a_monitor(name, alarm={"of": name}, look_at=AT) for name in "abc")
    insert_many(connection, monitors, [first, second, third])
    changes: list[dict[str, Any]] = [
        {"id": "c", "status": "up", "pings": 7, "open_runs": [["r", 1]], "alarm": None, "look_at": None},
        {"id": "a", "status": "down", "pings": 2**40, "open_runs": None, "alarm": {"of": 1}, "look_at": AT},
        {"id": "unknown", "status": "up", "pings": 1, "open_runs": None, "alarm": None, "look_at": None},
    ]
    update_many(connection, monitors, "id", changes)
    assert kept(connection, monitors) == [first | changes[1], second, third | changes[0]]
    none = sa.select(monitors.c.id).where(monitors.c.alarm.is_(None))
    assert list(connection.execute(none).scalars()) == ["c"], "NULL, and not the null of JSON"


def test_no_rows_are_nothing_to_do(connection: sa.Connection) -> None:
    insert_many(connection, pings, [])
    update_many(connection, monitors, "id", [])
    assert kept(connection, pings) == []


def test_a_row_that_is_there_already_is_refused(connection: sa.Connection) -> None:
    with pytest.raises(sa.exc.IntegrityError), connection.begin_nested():
        insert_many(connection, pings, [a_ping(1), a_ping(2), a_ping(1)])
    assert kept(connection, pings) == []


def test_a_nul_is_kept_where_text_can_hold_it(connection: sa.Connection) -> None:
    text, stays = "a\0b\\\0", "\0" if connection.dialect.name == "sqlite" else "\ufffd"
    insert_many(connection, pings, [a_ping(1, user_agent=text, body=b"\0")])
    assert kept(connection, pings) == [a_ping(1, user_agent=text.replace("\0", stays), body=b"\0")]


def test_what_no_column_holds_is_an_error(connection: sa.Connection) -> None:
    with pytest.raises((TypeError, sa.exc.StatementError)):
        insert_many(connection, pings, [a_ping(1, user_agent={1, 2})])
