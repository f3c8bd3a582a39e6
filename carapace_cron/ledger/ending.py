"""The ends of attempts and runs: what was recorded of them, and what an end sets free.

Plain functions on a connection, inside the writer's transaction; `ledger/runs.py` is the door to them.
An attempt's end goes through `_finish`, a cancellation between attempts through `_count_cancelled`: both
see to the counts and the notice, and whoever calls them to the next run in line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from pydantic import ValidationError

from carapace_cron.ledger.deliveries import insert_delivery
from carapace_cron.ledger.statements import chunks
from carapace_cron.ledger.tables import ALIVE, QUEUED, RUNNING, attempts, definitions, progress, runs
from carapace_cron.model.job import Job, Notify
from carapace_cron.model.notice import Notice
from carapace_cron.model.run import Outcome, RunState


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """How an attempt ended, and what becomes of its run.

    `retry_at`: when the next attempt may begin; None = the run ends with `status`. `notice` is what is to
    be said if the run ends and `notify` wants it. The pair (`owner`, `attempt`) is the fence: the end of
    an attempt whose lease went to another is refused.
    """

    run_id: str
    job_id: str
    owner: str
    trigger: str
    attempt: int
    outcome: Outcome
    started_at: datetime
    finished_at: datetime
    duration_ms: int
    status: RunState
    retry_at: datetime | None
    notify: Notify
    notice: Notice | None


@dataclass(frozen=True, slots=True)
class Ended:
    """What the ledger made of an `AttemptEnd`. Not `accepted`: the lease was lost, nothing was recorded."""

    run_id: str
    accepted: bool
    status: str | None = None  # of the run; "queued" = it will be tried again


def record_ends(connection: sa.Connection, ends: Sequence[AttemptEnd]) -> list[Ended]:
    """Record the ends whose lease still holds, with all that follows; one answer each, in their order."""
    held = _held(connection, [end.run_id for end in ends])
    accepted = [end for end in ends if (end.run_id, end.owner, end.attempt) in held]
    if accepted:
        connection.execute(_END_ATTEMPT, [_attempt_values(end) for end in accepted])
    statuses: dict[str, str] = {}
    again: list[AttemptEnd] = []
    final: list[AttemptEnd] = []
    for end in accepted:
        cancelled = held[end.run_id, end.owner, end.attempt] is not None
        if end.retry_at is not None and not cancelled:
            again.append(end)
            statuses[end.run_id] = "queued"
        else:
            final.append(_as_cancelled(end) if cancelled and end.outcome.status == "lost" else end)
            statuses[end.run_id] = final[-1].status
    if again:
        connection.execute(_TRY_AGAIN, [{"run": end.run_id, "at": end.retry_at} for end in again])
    if final:
        _finish(connection, final)
    return [Ended(end.run_id, end.run_id in statuses, statuses.get(end.run_id)) for end in ends]


def cancel_runs(connection: sa.Connection, job_id: str, reason: str, now: datetime) -> list[str]:
    """Cancel all live runs of a job: those that wait end now, those that run are asked to stop.

    Returns the ids of the running ones.
    """
    of_job = runs.c.job_id == job_id
    ended = {"status": "cancelled", "reason": reason, "finished_at": now, "available_at": None}
    begun = connection.execute(sa.select(runs).where(of_job, QUEUED, runs.c.attempt > 0)).all()
    connection.execute(sa.update(runs).where(of_job, QUEUED).values(**ended))
    for row in begun:
        _count_cancelled(connection, row, reason, now)
    asked = sa.func.coalesce(runs.c.cancel_reason, reason)
    connection.execute(sa.update(runs).where(of_job, RUNNING).values(cancel_reason=asked))
    return list(connection.execute(sa.select(runs.c.id).where(of_job, RUNNING)).scalars())


def cancel_run(connection: sa.Connection, run_id: str, reason: str, now: datetime) -> str | None:
    """Cancel one run; its status afterwards ("running" = asked to stop), None when there is none."""
    row = connection.execute(sa.select(runs).where(runs.c.id == run_id)).one_or_none()
    if row is None:
        return None
    if row.status == "running":
        asked = sa.func.coalesce(runs.c.cancel_reason, reason)
        connection.execute(sa.update(runs).where(runs.c.id == run_id).values(cancel_reason=asked))
        return "running"
    if row.status != "queued":
        return str(row.status)
    connection.execute(
        sa.update(runs)
        .where(runs.c.id == run_id)
        .values(status="cancelled", reason=reason, finished_at=now, available_at=None)
    )
    if row.attempt > 0:
        _count_cancelled(connection, row, reason, now)
    set_next_free(connection, [row.job_id], now)
    return "cancelled"


def _count_cancelled(connection: sa.Connection, row: sa.Row[Any], reason: str, now: datetime) -> None:
    """A run that had begun ends between two attempts: it counts, and its owner hears of it."""
    same = (definitions.c.job_id == row.job_id) & (definitions.c.revision == row.revision)
    body = connection.execute(sa.select(definitions.c.body).where(same)).scalar_one()
    try:
        job: Job | None = Job.model_validate_json(body)
    except ValidationError:
        job = None  # another version's: it counts, but what its owner wants to hear is not known
    previous = _last_statuses(connection, [row.job_id]).get(row.job_id)
    counted = {"job": row.job_id, "failed": 0, "to_status": "cancelled"}
    connection.execute(_COUNT, counted | {"began": row.started_at, "fault": reason})
    if job is not None and wants_notice(job.notify, "cancelled", previous):
        notice = Notice(
            id=f"{row.id}.ended",
            tenant=row.tenant,
            user_id=row.user_id,
            channel_id=job.channel_id,
            job_id=row.job_id,
            job_name=job.name,
            run_id=row.id,
            status="cancelled",
            success=False,
            scheduled_for=row.scheduled_for,
            finished_at=now,
            attempt=row.attempt,
            error=reason,
        )
        insert_delivery(connection, notice, now)


def _as_cancelled(end: AttemptEnd) -> AttemptEnd:
    """A run that was to be cancelled, and whose gateway stopped before it could be: cancelled."""
    notice = None if end.notice is None else end.notice.evolve(status="cancelled")
    return replace(end, status="cancelled", notice=notice)


def wants_notice(notify: Notify, status: str, previous: str | None) -> bool:
    """Whether a job's owner wants to hear of an end.

    >>> [wants_notice("change", status, "success") for status in ("success", "failure")]
    [False, True]
    """
    good = status in ("success", "degraded")
    if notify == "change":
        return previous is None or good != (previous in ("success", "degraded"))
    return notify == "always" or (notify == "failure" and not good)


def _held(
    connection: sa.Connection, run_ids: Sequence[str]
) -> dict[tuple[str, str, int], str | None]:
    """The fence: (run id, lease owner, attempt) → reason to cancel, of those that are running."""
    query = sa.select(runs.c.id, runs.c.lease_owner, runs.c.attempt, runs.c.cancel_reason).where(
        RUNNING, runs.c.id.in_(sa.bindparam("ids", expanding=True))
    )
    held: dict[tuple[str, str, int], str | None] = {}
    for chunk in chunks(run_ids):
        rows = connection.execute(query, {"ids": chunk})
        held.update(((row.id, row.lease_owner, row.attempt), row.cancel_reason) for row in rows)
    return held


def _finish(connection: sa.Connection, ends: Sequence[AttemptEnd]) -> None:
    previous = _last_statuses(connection, [end.job_id for end in ends])
    connection.execute(_FINISH_RUN, [_run_values(end) for end in ends])
    connection.execute(_COUNT, [_count_values(end) for end in ends])
    for end in ends:
        if end.notice is not None and wants_notice(end.notify, end.status, previous.get(end.job_id)):
            insert_delivery(connection, end.notice, end.finished_at)
        previous[end.job_id] = end.status
    set_next_free(connection, [end.job_id for end in ends], ends[-1].finished_at)


def _last_statuses(connection: sa.Connection, job_ids: Sequence[str]) -> dict[str, str | None]:
    query = sa.select(progress.c.job_id, progress.c.last_status).where(
        progress.c.job_id.in_(sa.bindparam("ids", expanding=True))
    )
    found: dict[str, str | None] = {}
    for chunk in chunks(job_ids):
        rows = connection.execute(query, {"ids": chunk})
        found.update((row.job_id, row.last_status) for row in rows)
    return found


def set_next_free(connection: sa.Connection, job_ids: Sequence[str], now: datetime) -> None:
    """Where no serial run of a job is under way any more, let the first that waits for it go."""
    for job_id in dict.fromkeys(job_ids):
        first = connection.execute(_FIRST_ALIVE, {"job": job_id}).first()
        if first is not None and first.status == "queued" and first.available_at is None:
            connection.execute(_SET_FREE, {"run": first.id, "at": now})


_END_ATTEMPT = (
    sa.update(attempts)
    .where(attempts.c.run_id == sa.bindparam("run"), attempts.c.number == sa.bindparam("attempt"))
    .values(
        state=sa.bindparam("to_state"),
        finished_at=sa.bindparam("ended"),
        duration_ms=sa.bindparam("took"),
        output=sa.bindparam("said"),
        error=sa.bindparam("fault"),
        metadata=sa.bindparam("details", type_=attempts.c.metadata.type),
    )
)
_TRY_AGAIN = (
    sa.update(runs)
    .where(runs.c.id == sa.bindparam("run"))
    .values(status="queued", available_at=sa.bindparam("at"), lease_owner=None, lease_until=None)
)
_FINISH_RUN = (
    sa.update(runs)
    .where(runs.c.id == sa.bindparam("run"))
    .values(
        status=sa.bindparam("to_status"),
        finished_at=sa.bindparam("ended"),
        reason=sa.func.coalesce(runs.c.cancel_reason, runs.c.reason),
        available_at=None,
        lease_owner=None,
        lease_until=None,
    )
)
_COUNT = (
    sa.update(progress)
    .where(progress.c.job_id == sa.bindparam("job"))
    .values(
        execution_count=progress.c.execution_count + 1,
        failure_count=progress.c.failure_count + sa.bindparam("failed", type_=sa.Integer),
        last_status=sa.bindparam("to_status"),
        last_executed_at=sa.bindparam("began"),
        last_error=sa.bindparam("fault"),
    )
)
_FIRST_ALIVE = (
    sa.select(runs.c.id, runs.c.status, runs.c.available_at)
    .where(runs.c.job_id == sa.bindparam("job"), ALIVE, runs.c.serial)
    .order_by(runs.c.sequence)
    .limit(1)
)
_SET_FREE = sa.update(runs).where(runs.c.id == sa.bindparam("run")).values(available_at=sa.bindparam("at"))


def _attempt_values(end: AttemptEnd) -> dict[str, Any]:
    return {
        "run": end.run_id,
        "attempt": end.attempt,
        "to_state": end.outcome.status,
        "ended": end.finished_at,
        "took": end.duration_ms,
        "said": end.outcome.output,
        "fault": end.outcome.error,
        "details": end.outcome.metadata or None,
    }


def _run_values(end: AttemptEnd) -> dict[str, Any]:
    return {"run": end.run_id, "to_status": end.status, "ended": end.finished_at}


def _count_values(end: AttemptEnd) -> dict[str, Any]:
    return {
        "job": end.job_id,
        "failed": int(end.status in ("failure", "timeout")),
        "to_status": end.status,
        "began": end.started_at,
        "fault": end.outcome.error,
    }
