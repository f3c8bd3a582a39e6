"""The ends of attempts and runs: what was recorded of them, and what an end sets free.

Plain functions on a connection, inside the writer's transaction; `ledger/runs.py` is the door to them.
An attempt's end goes through `_finish`, an end between attempts through `_end_between`: both see to the
counts, the notice and the pause after failures, and whoever calls them to the next run in line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from pydantic import ValidationError

from carapace_cron.ledger.aftermath import Aftermath
from carapace_cron.ledger.deliveries import insert_delivery
from carapace_cron.ledger.holding import release_after
from carapace_cron.ledger.in_force import definition_in_force
from carapace_cron.ledger.job_monitors import RunEnd, hear_ends
from carapace_cron.ledger.statements import AnyRow, chunks, one_of
from carapace_cron.ledger.tables import ALIVE, QUEUED, RUNNING, attempts, definitions, progress, runs
from carapace_cron.ledger.turns import Turns
from carapace_cron.model.job import Job, Notify
from carapace_cron.model.notice import Notice
from carapace_cron.model.record import instant_text
from carapace_cron.model.run import Outcome, RunState

_NO_LONGER_WAITING: dict[str, Any] = {"available_at": None, "held_by": None}


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
    pause_after: int | None = None  # failures in a row after which the job is to be paused; None = never


@dataclass(frozen=True, slots=True)
class Ended:
    """What the ledger made of an `AttemptEnd`. Not `accepted`: the lease was lost, nothing was recorded."""

    accepted: bool
    status: str | None = None  # of the run; "queued" = it will be tried again
    pause: str | None = None  # why the job is to be paused now; None = it is not


@dataclass(frozen=True, slots=True)
class Expired:
    """A run that came to its deadline in the queue. `status`: missed, or timeout if it had begun."""

    run_id: str
    job_id: str
    status: RunState
    pause: str | None = None  # as of an `Ended`


def record_ends(
    connection: sa.Connection, ends: Sequence[AttemptEnd], aftermath: Aftermath, turns: Turns | None = None
) -> list[Ended]:
    """Record the ends whose lease still holds, with all that follows; one answer each, in their order."""
    held = _held(connection, [end.run_id for end in ends])
    accepted = [end for end in ends if (end.run_id, end.owner, end.attempt) in held]
    now = max((end.finished_at for end in accepted), default=None)
    if accepted:
        connection.execute(_END_ATTEMPT, [_attempt_values(end) for end in accepted])
    statuses: dict[str, str] = {}
    again: list[AttemptEnd] = []
    final: list[AttemptEnd] = []
    for end in accepted:
        cancelled = held[end.run_id, end.owner, end.attempt].cancel_reason is not None
        if end.retry_at is not None and not cancelled:
            again.append(end)
            statuses[end.run_id] = "queued"
        else:
            final.append(_as_cancelled(end) if cancelled and end.outcome.status == "lost" else end)
            statuses[end.run_id] = final[-1].status
    if again:
        connection.execute(_TRY_AGAIN, [{"run": end.run_id, "at": end.retry_at} for end in again])
    pauses = _finish(connection, final) if final else {}
    heard = [_heard(held[end.run_id, end.owner, end.attempt], end) for end in final]
    hear_ends(connection, heard, aftermath)
    if now is not None:
        labels = [held[end.run_id, end.owner, end.attempt].labels for end in accepted]
        release_after(connection, labels, now, turns)
    return [
        Ended(end.run_id in statuses, statuses.get(end.run_id), pauses.get(end.run_id)) for end in ends
    ]


def cancel_runs(
    connection: sa.Connection, job_id: str, reason: str, now: datetime, aftermath: Aftermath
) -> list[str]:
    """Cancel all live runs of a job: those that wait end now, those that run are asked to stop.

    Returns the ids of the running ones.
    """
    of_job = runs.c.job_id == job_id
    ended = {**_NO_LONGER_WAITING, "status": "cancelled", "reason": reason, "finished_at": now}
    waiting = connection.execute(sa.select(runs).where(of_job, QUEUED)).all()
    connection.execute(sa.update(runs).where(of_job, QUEUED).values(**ended))
    _leave(connection, waiting, "cancelled", reason, now, aftermath)
    asked = sa.func.coalesce(runs.c.cancel_reason, reason)
    connection.execute(sa.update(runs).where(of_job, RUNNING).values(cancel_reason=asked))
    return list(connection.execute(sa.select(runs.c.id).where(of_job, RUNNING)).scalars())


def cancellable(connection: sa.Connection, run_id: str) -> str | None:
    """The state of a run that can be cancelled; None when it has ended, or was asked to stop before."""
    row = connection.execute(sa.select(runs).where(runs.c.id == run_id)).one_or_none()
    if row is None or row.status not in ("queued", "running") or row.cancel_reason is not None:
        return None
    return str(row.status)


def cancel_run(
    connection: sa.Connection, run_id: str, reason: str, now: datetime, aftermath: Aftermath
) -> str | None:
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
        .values(**_NO_LONGER_WAITING, status="cancelled", reason=reason, finished_at=now)
    )
    _leave(connection, [row], "cancelled", reason, now, aftermath)
    set_next_free(connection, [row.job_id], now)
    return "cancelled"


def expire(
    connection: sa.Connection, rows: Sequence[AnyRow], now: datetime, aftermath: Aftermath
) -> list[Expired]:
    """End queued runs whose deadline has passed: as missed if it never began, else as timeout."""
    ended: list[Expired] = []
    for row in rows:
        status: RunState = "timeout" if row.attempt else "missed"
        late = "it was tried again" if row.attempt else "it could start"
        reason = f"its deadline, {instant_text(row.deadline_at)}, passed before {late}"
        values = {**_NO_LONGER_WAITING, "status": status, "reason": reason, "finished_at": now}
        connection.execute(sa.update(runs).where(runs.c.id == row.id).values(**values))
        (pause,) = _leave(connection, [row], status, reason, now, aftermath)
        ended.append(Expired(row.id, row.job_id, status, pause))
    set_next_free(connection, [row.job_id for row in rows], now)
    return ended


def _leave(
    connection: sa.Connection,
    rows: Sequence[AnyRow],
    status: RunState,
    reason: str,
    now: datetime,
    aftermath: Aftermath,
) -> list[str | None]:
    """What follows when queued runs end; of each, why its job is to be paused now, None = it is not.

    `rows` are as they were before. One that was to start, and had been let go by a limit, leaves its room.
    """
    release_after(connection, [row.labels for row in rows if row.available_at is not None], now)
    hear_ends(connection, [RunEnd.of(row, status, now, reason) for row in rows], aftermath)
    aftermath.ended_between += [row.id for row in rows if row.attempt]
    return [_end_between(connection, row, status, reason, now) for row in rows]


def _end_between(
    connection: sa.Connection, row: AnyRow, status: RunState, reason: str, now: datetime
) -> str | None:
    """A run ends while nobody works on it. One that had begun counts; of that and of a miss its owner hears.

    Why its job is to be paused now; None = it is not."""
    if not row.attempt and status != "missed":
        return None
    previous, failures = _standings(connection, [row.job_id]).get(row.job_id, (None, 0))
    if row.attempt:
        failures = _failures_after(status, failures)
        _count(connection, row, status, reason)
    job = _definition(connection, row)
    if job is None:
        return None
    notice = _notice(row, job, status, reason, now)
    if job.notify != "never" and (status == "missed" or wants_notice(job.notify, status, previous)):
        insert_delivery(connection, notice, now)
    return _pause(connection, notice, job.notify, failures, job.pause_after_failures)


def _count(connection: sa.Connection, row: AnyRow, status: RunState, reason: str) -> None:
    connection.execute(_COUNT, _count_values(row.job_id, status, row.started_at, reason))


def _definition(connection: sa.Connection, row: AnyRow) -> Job | None:
    """The definition that a run does; None when another version wrote it: its owner's wishes are unknown."""
    same = (definitions.c.job_id == row.job_id) & (definitions.c.revision == row.revision)
    body = connection.execute(sa.select(definitions.c.body).where(same)).scalar_one()
    try:
        return Job.model_validate_json(body)
    except ValidationError:
        return None


def _notice(row: AnyRow, job: Job, status: RunState, reason: str, now: datetime) -> Notice:
    missed = status == "missed"
    return Notice(
        id=f"{row.id}.{'missed' if missed else 'ended'}",
        tenant=row.tenant,
        user_id=row.user_id,
        channel_id=job.channel_id,
        event="run.missed" if missed else "run.completed",
        job_id=row.job_id,
        job_name=job.name,
        run_id=row.id,
        status=status,
        success=False,
        scheduled_for=row.scheduled_for,
        finished_at=now,
        attempt=row.attempt,
        error=reason,
    )


def _heard(row: AnyRow, end: AttemptEnd) -> RunEnd:
    return RunEnd.of(row, end.status, end.finished_at, end.outcome.error)


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


def _held(connection: sa.Connection, run_ids: Sequence[str]) -> dict[tuple[str, str, int], AnyRow]:
    """The fence: (run id, lease owner, attempt) → the row, of those that are running."""
    held: dict[tuple[str, str, int], AnyRow] = {}
    for chunk in chunks(run_ids):
        rows = connection.execute(_HELD, {"ids": chunk})
        held.update(((row.id, row.lease_owner, row.attempt), row) for row in rows)
    return held


def _finish(connection: sa.Connection, ends: Sequence[AttemptEnd]) -> dict[str, str]:
    """End the runs; run id → why its job is to be paused, where it is."""
    before = _standings(connection, [end.job_id for end in ends])
    connection.execute(_FINISH_RUN, [_run_values(end) for end in ends])
    connection.execute(
        _COUNT,
        [_count_values(end.job_id, end.status, end.started_at, end.outcome.error) for end in ends],
    )
    pauses: dict[str, str] = {}
    for end in ends:
        previous, failures = before.get(end.job_id, (None, 0))
        failures = _failures_after(end.status, failures)
        before[end.job_id] = end.status, failures
        if end.notice is not None and wants_notice(end.notify, end.status, previous):
            insert_delivery(connection, end.notice, end.finished_at)
        if end.notice is not None:
            why = _pause(connection, end.notice, end.notify, failures, end.pause_after)
            pauses |= {} if why is None else {end.run_id: why}
    set_next_free(connection, [end.job_id for end in ends], ends[-1].finished_at)
    return pauses


def why_paused(failures: int) -> str:
    """What a job shows that was paused because it failed so often.

    >>> why_paused(3)
    'paused after 3 failures in a row, as pauseAfterFailures asks; mend the cause, then resume it'
    """
    runs_ = "1 failure" if failures == 1 else f"{failures} failures in a row"
    return f"paused after {runs_}, as pauseAfterFailures asks; mend the cause, then resume it"


def _pause(
    connection: sa.Connection, end: Notice, notify: Notify, failures: int, pause_after: int | None
) -> str | None:
    """Why the job of a run that ended so is to be paused, once it failed so often; its owner is told, once.

    None = it is not, or is paused already: runs that were under way then may still fail."""
    if pause_after is None or failures < pause_after or end.status not in _FAILED:
        return None
    job = definition_in_force(connection, end.job_id)
    if job is None or not job.enabled or job.deleted_at is not None:
        return None
    reason = why_paused(failures)
    if notify != "never":
        error = f"{reason}. The last error: {end.error}"
        once = f"{job.id}.{job.revision}.paused"  # the pause itself makes the next revision
        notice = end.evolve(id=once, event="job.paused", error=error, output="")
        insert_delivery(connection, notice, end.finished_at)
    return reason


_FAILED = ("failure", "timeout")


def _failures_after(status: str, before: int) -> int:
    """Failures in a row, after one more end. What was cancelled tells nothing."""
    if status in _FAILED:
        return before + 1
    return before if status == "cancelled" else 0


def _standings(connection: sa.Connection, job_ids: Sequence[str]) -> dict[str, tuple[str | None, int]]:
    """job id → how its last run ended (None: none has), and how many failed in a row."""
    found: dict[str, tuple[str | None, int]] = {}
    for chunk in chunks(list(dict.fromkeys(job_ids))):
        rows = connection.execute(_STANDINGS, {"ids": chunk})
        found.update((row.job_id, (row.last_status, row.failures_in_row)) for row in rows)
    return found


def set_next_free(connection: sa.Connection, job_ids: Sequence[str], now: datetime) -> None:
    """Where no serial run of a job is under way any more, let the first that waits for it go, now or at its
    own time."""
    for chunk in chunks(list(dict.fromkeys(job_ids))):
        for first in connection.execute(_WAITING_FIRST, {"jobs": chunk}).all():
            connection.execute(_SET_FREE, {"run": first.id, "at": now})


_HELD = sa.select(
    runs.c.id,
    runs.c.job_id,
    runs.c.lease_owner,
    runs.c.attempt,
    runs.c.trigger,
    runs.c.scheduled_for,
    runs.c.cancel_reason,
    runs.c.labels,
).where(RUNNING, one_of(runs.c.id, "ids"))
_STANDINGS = sa.select(progress.c.job_id, progress.c.last_status, progress.c.failures_in_row).where(
    one_of(progress.c.job_id, "ids")
)
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
        failures_in_row=progress.c.failures_in_row * sa.bindparam("kept", type_=sa.Integer)
        + sa.bindparam("failed", type_=sa.Integer),
        last_status=sa.bindparam("to_status"),
        last_executed_at=sa.bindparam("began"),
        last_error=sa.bindparam("fault"),
    )
)
_FIRST_ALIVE = (
    sa.select(sa.func.min(runs.c.sequence))
    .where(one_of(runs.c.job_id, "jobs"), ALIVE, runs.c.serial)
    .group_by(runs.c.job_id)
)
_WAITING_FIRST = sa.select(runs.c.id).where(
    runs.c.sequence.in_(_FIRST_ALIVE), QUEUED, runs.c.available_at.is_(None), runs.c.held_by.is_(None)
)
_AT = sa.bindparam("at", type_=runs.c.available_at.type)
_SET_FREE = (
    sa.update(runs)
    .where(runs.c.id == sa.bindparam("run"))
    .values(available_at=sa.case((runs.c.not_before > _AT, runs.c.not_before), else_=_AT))
)


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


def _count_values(job_id: str, status: str, began: datetime | None, error: str | None) -> dict[str, Any]:
    """`kept`: 0 sets the failures in a row back."""
    return {
        "job": job_id,
        "failed": 1 if status in _FAILED else 0,
        "kept": 1 if status in (*_FAILED, "cancelled") else 0,
        "to_status": status,
        "began": began,
        "fault": error,
    }
