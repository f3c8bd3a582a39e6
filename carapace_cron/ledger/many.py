"""Many rows in one statement: INSERT of rows, UPDATE of rows by their key.

SQLite's driver repeats a prepared statement for next to nothing. To PostgreSQL every repetition is a message
to send and an answer to read, which costs three times what the rows themselves do: there they travel
together, as one parameter in JSON, and become rows in the server (``json_to_recordset``, PostgreSQL's manual,
9.16 "JSON Processing Functions").
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from carapace_cron.ledger.tables import InstantColumn, to_micros

Row = Mapping[str, Any]
"""A value for each column that is named. The rows of one call name the same columns."""


def insert_many(connection: sa.Connection, table: sa.Table, rows: Sequence[Row]) -> None:
    """Raises as a plain INSERT does; of no rows there is nothing to do."""
    if not rows:
        return
    if connection.dialect.name == "postgresql":
        connection.execute(_insert_together(table, tuple(rows[0])), {"rows": _document(rows)})
    else:
        connection.execute(sa.insert(table), rows)


def update_many(connection: sa.Connection, table: sa.Table, key: str, rows: Sequence[Row]) -> None:
    """Change the rows with these values of the column `key`: the other columns become as given. A key that no
    row has changes nothing; none is given twice."""
    if not rows:
        return
    if connection.dialect.name == "postgresql":
        connection.execute(_update_together(table, key, tuple(rows[0])), {"rows": _document(rows)})
    else:
        keyed = [{_KEY if name == key else name: value for name, value in row.items()} for row in rows]
        connection.execute(_update_each(table, key, tuple(rows[0])), keyed)


_KEY = "the_key"  # SQLAlchemy would set a column to a parameter of its name


@lru_cache
def _update_each(table: sa.Table, key: str, names: tuple[str, ...]) -> sa.Update:
    values = {name: sa.bindparam(name, type_=table.c[name].type) for name in names if name != key}
    return sa.update(table).where(table.c[key] == sa.bindparam(_KEY)).values(values)


@lru_cache
def _insert_together(table: sa.Table, names: tuple[str, ...]) -> sa.Insert:
    values = _given(table, names)
    return sa.insert(table).from_select(names, sa.select(*values.values()))


@lru_cache
def _update_together(table: sa.Table, key: str, names: tuple[str, ...]) -> sa.Update:
    values = _given(table, names)
    return sa.update(table).where(table.c[key] == values.pop(key)).values(values)


def _given(table: sa.Table, names: Sequence[str]) -> dict[str, sa.ColumnElement[Any]]:
    """The columns of the rows in the parameter ``rows``, as the table has them."""
    columns = [table.c[name] for name in names]
    document = sa.cast(sa.bindparam("rows", type_=sa.Text), sa.JSON)
    called = [sa.column(one.name, _type_in_json(one.type)) for one in columns]
    given = sa.func.json_to_recordset(document).table_valued(*called)
    given = given.render_derived(name="given", with_types=True)
    return {one.name: _from_json(given.c[one.name], one.type) for one in columns}


def _type_in_json(kept: sa.types.TypeEngine[Any]) -> sa.types.TypeEngine[Any]:
    if isinstance(kept, InstantColumn):
        return sa.BigInteger()
    return sa.Text() if isinstance(kept, sa.LargeBinary) else kept


def _from_json(value: sa.ColumnElement[Any], kept: sa.types.TypeEngine[Any]) -> sa.ColumnElement[Any]:
    return sa.func.decode(value, "base64") if isinstance(kept, sa.LargeBinary) else value


def _document(rows: Sequence[Row]) -> str:
    """
    >>> _document([{"body": bytes([255]), "text": "NUL is " + chr(0)}])
    '[{"body": "/w==", "text": "NUL is \ufffd"}]'
    """
    text = json.dumps(rows, default=_plain, ensure_ascii=False)
    # PostgreSQL's text cannot hold U+0000. Beside it, \\u0000 is a backslash and four digits, and stays.
    return _ESCAPE.sub(_without_nul, text) if _NUL in text else text


_NUL = "\\u0000"
_ESCAPE = re.compile(r"\\u0000|\\.")


def _without_nul(escape: re.Match[str]) -> str:
    return "\ufffd" if escape[0] == _NUL else escape[0]


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return to_micros(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"no column holds a {type(value).__name__}")
