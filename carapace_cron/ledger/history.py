"""What was: pages of runs, the attempts of one, how far each job has come; and the end of what is old.

Plain functions on a connection; `ledger/runs.py` is the door to them.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from carapace_cron.errors import InvalidValue
from carapace_cron.ledger.statements import SAME_DEFINITION, one_of
from carapace_cron.ledger.tables import (
    ALIVE,
    attempts,
    definitions,
    deliveries,
    from_micros,
    progress,
    runs,
    to_micros,
)
from carapace_cron.model.run import RUN_STATES, Run

PRUNE_BATCH = 500  # rows a transaction, so that pruning never holds up the writer


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Whose runs, and which. None = no limit of that kind. `since` ≤ scheduledFor < `until`."""

    tenant: str
    user_id: str | None = None
    job_id: str | None = None
    statuses: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class RunPage:
    """Newest first. `next_cursor` asks for the page after this one; None = there is none."""

    items: list[Run]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job has come. `accounted_until`: each of its instants up to there has its record."""

    job_id: str
    revision: int | None  # of the definition in force; None: a version before kept none
    accounted_until: datetime
    runs_created: int
    execution_count: int
    failure_count: int
    failures_in_row: int
    last_status: str | None
    last_executed_at: datetime | None
    last_error: str | None


def run_page(connection: sa.Connection, wanted: RunFilter, limit: int, cursor: str | None) -> RunPage:
    query = _RUNS.where(*_conditions(wanted))
    if cursor is not None:
        at, sequence = _decode(cursor)
        # A tuple's values do not take their types from the columns they are compared with.
        last = sa.tuple_(sa.literal(at, runs.c.scheduled_for.type), sequence)
        query = query.where(sa.tuple_(runs.c.scheduled_for, runs.c.sequence) < last)
    newest_first = query.order_by(runs.c.scheduled_for.desc(), runs.c.sequence.desc())
    rows = connection.execute(newest_first.limit(limit + 1)).all()
    more = len(rows) > limit
    return RunPage([_run(row) for row in rows[:limit]], _encode(rows[limit - 1]) if more else None)


def one_run(connection: sa.Connection, run_id: str) -> Run | None:
    row = connection.execute(_RUNS.where(runs.c.id == run_id)).one_or_none()
    return None if row is None else _run(row)


def attempts_of(connection: sa.Connection, run_id: str) -> list[dict[str, Any]]:
    """The attempts of a run in their order, as plain values."""
    query = sa.select(attempts).where(attempts.c.run_id == run_id).order_by(attempts.c.number)
    return [dict(row) for row in connection.execute(query).mappings()]


def all_progress(connection: sa.Connection) -> dict[str, Progress]:
    return _by_job(connection, sa.select(*_PROGRESS))


def progress_of(connection: sa.Connection, job_ids: Sequence[str]) -> dict[str, Progress]:
    query = sa.select(*_PROGRESS).where(progress.c.job_id.in_(job_ids))
    return _by_job(connection, query)


def _by_job(connection: sa.Connection, query: sa.Select[Any]) -> dict[str, Progress]:
    return {row["job_id"]: Progress(**row) for row in connection.execute(query).mappings()}


def count_alive(connection: sa.Connection, tenant: str, user_id: str | None) -> Mapping[str, int]:
    """How many runs are queued and running, by state."""
    query = (
        sa.select(runs.c.status, sa.func.count())
        .where(ALIVE, runs.c.tenant == tenant)
        .group_by(runs.c.status)
    )
    if user_id is not None:
        query = query.where(runs.c.user_id == user_id)
    return {row[0]: row[1] for row in connection.execute(query)}


@dataclass(frozen=True, slots=True)
class Pruned:
    """One batch: how many runs went, and from which sequence on to go on; None = none behind it is old."""

    runs: int
    after: int | None


def prune(connection: sa.Connection, before: datetime, now: datetime, after: int = 0) -> Pruned:
    """Remove ended runs older than `before` with all that hangs on them, one batch of those behind `after`.

    What still waits, or is still to be told, stays and stands in nobody's way. A run is recorded once it is
    due and ends after that, so behind one that was due since `before` there is none that is old.
    The last trace of a job's instants, `progress`, stays, so a removed run can never come due again.
    """
    batch = connection.execute(_BATCH, {"after": after, "most": PRUNE_BATCH}).all()
    ended = [row.id for row in batch if row.finished_at is not None and row.finished_at < before]
    ids = sorted(set(ended) - set(connection.execute(_TO_BE_TOLD, {"ids": ended}).scalars()))
    for column in (attempts.c.run_id, deliveries.c.subject, runs.c.id):
        connection.execute(sa.delete(column.table).where(column.in_(ids)))
    is_last = len(batch) < PRUNE_BATCH or any(before <= row.scheduled_for <= now for row in batch)
    return Pruned(len(ids), None if is_last else batch[-1].sequence)


def drop_unused_definitions(connection: sa.Connection) -> None:
    """Those that are neither in force nor any run's."""
    connection.execute(_DELETE_UNUSED)


_IN_FORCE = (progress.c.job_id == definitions.c.job_id) & (progress.c.revision == definitions.c.revision)
_DELETE_UNUSED = sa.delete(definitions).where(
    ~sa.exists().where(SAME_DEFINITION), ~sa.exists().where(_IN_FORCE)
)
_BATCH = (
    sa.select(runs.c.sequence, runs.c.id, runs.c.finished_at, runs.c.scheduled_for)
    .where(runs.c.sequence > sa.bindparam("after"))
    .order_by(runs.c.sequence)
    .limit(sa.bindparam("most"))
)
_TO_BE_TOLD = sa.select(deliveries.c.subject).where(
    one_of(deliveries.c.subject, "ids"), deliveries.c.state == "waiting"
)
_RUNS = sa.select(
    runs,
    attempts.c.output,
    attempts.c.error,
    attempts.c.duration_ms,
    attempts.c.metadata.label("details"),
).join(attempts, (attempts.c.run_id == runs.c.id) & (attempts.c.number == runs.c.attempt), isouter=True)

_PROGRESS = (
    progress.c.job_id,
    progress.c.revision,
    progress.c.accounted_until,
    progress.c.runs_created,
    progress.c.execution_count,
    progress.c.failure_count,
    progress.c.failures_in_row,
    progress.c.last_status,
    progress.c.last_executed_at,
    progress.c.last_error,
)


def _conditions(wanted: RunFilter) -> list[sa.ColumnElement[bool]]:
    unknown = [status for status in wanted.statuses if status not in RUN_STATES]
    if unknown:
        expected = ", ".join(RUN_STATES)
        raise InvalidValue(f'bad status "{unknown[0][:60]}": expected one of {expected}', field="status")
    conditions = [runs.c.tenant == wanted.tenant]
    if wanted.user_id is not None:
        conditions.append(runs.c.user_id == wanted.user_id)
    if wanted.job_id is not None:
        conditions.append(runs.c.job_id == wanted.job_id)
    if wanted.statuses:
        conditions.append(runs.c.status.in_(wanted.statuses))
    if wanted.since is not None:
        conditions.append(runs.c.scheduled_for >= wanted.since)
    if wanted.until is not None:
        conditions.append(runs.c.scheduled_for < wanted.until)
    return conditions


def _run(row: sa.Row[Any]) -> Run:
    return Run.model_construct(
        id=row.id,
        job_id=row.job_id,
        tenant=row.tenant,
        user_id=row.user_id,
        revision=row.revision,
        scheduled_for=row.scheduled_for,
        available_at=row.available_at,
        status=row.status,
        trigger=row.trigger,
        reason=row.reason,
        deadline_at=row.deadline_at,
        caused_by=row.caused_by,
        held_by=row.held_by,
        attempt=row.attempt,
        started_at=row.started_at,
        finished_at=row.finished_at,
        output=row.output,
        error=row.error,
        duration_ms=row.duration_ms,
        metadata=row.details or {},
    )


def _encode(row: sa.Row[Any]) -> str:
    return base64.urlsafe_b64encode(f"{to_micros(row.scheduled_for)}:{row.sequence}".encode()).decode()


def _decode(cursor: str) -> tuple[datetime, int]:
    try:
        at, sequence = base64.urlsafe_b64decode(cursor.encode()).decode().split(":")
        if int(sequence).bit_length() > 63:
            raise OverflowError("more than a database's integer")
        return from_micros(int(at)), int(sequence)
    except (ValueError, binascii.Error, OverflowError) as error:
        raise InvalidValue("bad cursor: give the nextCursor of the page before", field="cursor") from error
