"""What several files of the ledger say alike: lists of ids, INSERT … ON CONFLICT, a run's definition."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from carapace_cron.ledger.tables import definitions, runs

T = TypeVar("T")

AnyRow = sa.Row[*tuple[Any, ...]]
"""A row whose columns are named at the query."""

IN_LIST = 500  # ids in one IN (…): far below SQLite's limit of bound values

SAME_DEFINITION = (definitions.c.job_id == runs.c.job_id) & (definitions.c.revision == runs.c.revision)
"""Joins a run with the definition that it does."""


def chunks(items: Sequence[T], size: int = IN_LIST) -> Iterator[list[T]]:
    """
    >>> list(chunks([1, 2, 3], 2))
    [[1, 2], [3]]
    """
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk


class _OneOf(sa.BinaryExpression[bool]):
    """IN (…), or = ANY (array) on PostgreSQL: one statement to prepare, however many values there are."""

    inherit_cache = True


def one_of(column: sa.Column[Any], values: str) -> sa.ColumnElement[bool]:
    """Whether the value of a column is in the list that is given as the parameter `values`."""
    said = column.in_(sa.bindparam(values, expanding=True, type_=column.type))
    return _OneOf(said.left, said.right, said.operator, type_=said.type)


@compiles(_OneOf, "postgresql")
def _in_postgresql(one: _OneOf, compiler: SQLCompiler, **options: Any) -> str:
    given = sa.bindparam(one.right.key, type_=postgresql.ARRAY(one.left.type))
    return compiler.process(one.left == sa.any_(given), **options)


def insert_for(connection: sa.Connection, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that knows ON CONFLICT, in the dialect of the connection."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)
