"""Runs outside the schedule: somebody asked for one, or for past instants, or another run's end did.

Plain functions on a connection, inside the writer's transaction; `ledger/runs.py` is the door to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import sqlalchemy as sa

from carapace_cron.errors import Conflict, NotFound
from carapace_cron.ids import run_id
from carapace_cron.ledger.aftermath import Aftermath
from carapace_cron.ledger.ending import cancel_runs, set_next_free
from carapace_cron.ledger.history import one_run
from carapace_cron.ledger.planning import (
    MAX_WAITING,
    InTheWay,
    JobPlan,
    alive_runs,
    definitions_in_force,
    run_row,
)
from carapace_cron.ledger.statements import AnyRow, chunks
from carapace_cron.ledger.tables import runs
from carapace_cron.model.run import Run, Trigger, run_key

SPREAD = timedelta(seconds=0.1)  # between backfilled runs of a job whose runs may overlap: no stampede

Fate = Literal[
    "run",  # it has no record: a run is made
    "runAgain",  # it was missed or skipped: it runs after all, under its old id
    "leave",  # it has run, or will: nothing happens
]


@dataclass(frozen=True, slots=True)
class Backfilled:
    """What a backfill does to one instant. `status`: of the record that was there; None = none was."""

    scheduled_for: datetime
    fate: Fate
    status: str | None


def recorded(connection: sa.Connection, key: str) -> Run | None:
    """The run of that key; None when there is none yet."""
    return one_run(connection, run_id(key))


def record_asked(
    connection: sa.Connection,
    plan: JobPlan,
    key: str,
    now: datetime,
    aftermath: Aftermath,
    *,
    trigger: Trigger = "manual",
    caused_by: str | None = None,
) -> Run:
    """One run outside the schedule, under `key`; the run of that key if there is one already.

    Its instant is `now` with a fraction of a second that no other run of the job has, so it can never
    take the place of a scheduled one. When the overlap policy is skip and a run is alive, one that somebody
    asked for raises `Conflict`, and one that another run's end asks for is recorded as skipped.
    """
    existing = recorded(connection, key)
    if existing is not None:
        return existing
    labels = _labels_in_force(connection, plan)
    serial = [plan.job_id] if plan.overlap != "allow" else []
    way = alive_runs(connection, serial).get(plan.job_id, InTheWay())
    row = run_row(plan, labels, _free_instant(connection, plan.job_id, now), trigger)
    row |= {"id": run_id(key), "caused_by": caused_by, "available_at": None if way.alive else now}
    if refusal := _refusal(plan, way):
        if trigger == "manual":
            raise Conflict(f"{refusal}; wait for it, or cancel it")
        row |= {"status": "skipped", "reason": refusal, "available_at": None, "finished_at": now}
    elif way.alive and plan.overlap == "cancelPrevious":
        reason = "a newer run was asked for; overlap is cancelPrevious"
        cancel_runs(connection, plan.job_id, reason, now, aftermath)
    connection.execute(sa.insert(runs), [row])
    set_next_free(connection, [plan.job_id] if way.alive else [], now)
    made = recorded(connection, key)
    assert made is not None
    return made


def _refusal(plan: JobPlan, way: InTheWay) -> str | None:
    if way.alive and plan.overlap == "skip":
        return f"run {way.run_id} of this job has not ended and the job's overlap is skip"
    if way.alive >= MAX_WAITING:
        return f"{MAX_WAITING} runs of this job have not ended"
    return None


def backfill(
    connection: sa.Connection,
    plan: JobPlan,
    instants: Sequence[datetime],
    now: datetime,
    *,
    actor: str,
    dry_run: bool,
) -> list[Backfilled]:
    """Runs for past instants of a job, oldest first, each at most once ever; what becomes of each.

    An instant that was missed or skipped gets its run under the id that its record had; one that has run
    is left alone, so asking again changes nothing. Raises `Conflict` when too many would wait.
    """
    labels = _labels_in_force(connection, plan)
    before = _records(connection, plan.job_id, instants)
    answers = [_fate(at, before.get(at)) for at in instants]
    wanted = [one for one in answers if one.fate != "leave"]
    way = alive_runs(connection, [plan.job_id] if plan.overlap != "allow" else [])
    alive = way.get(plan.job_id, InTheWay()).alive
    if alive + len(wanted) > MAX_WAITING:
        message = f"{alive} runs of this job have not ended and {len(wanted)} more are asked for: expected"
        raise Conflict(f"{message} at most {MAX_WAITING} together; ask for fewer")
    if wanted and not dry_run:
        again = [before[one.scheduled_for].id for one in wanted if one.fate == "runAgain"]
        for chunk in chunks(again):
            connection.execute(sa.delete(runs).where(runs.c.id.in_(chunk)))
        rows = [run_row(plan, labels, one.scheduled_for, "backfill") for one in wanted]
        for number, (one, row) in enumerate(zip(wanted, rows, strict=True)):
            row |= {"reason": _why(one, before, actor), "deadline_at": None}
            row |= {"available_at": now + number * SPREAD if plan.overlap == "allow" else None}
        if plan.overlap != "allow" and not alive:
            rows[0]["available_at"] = now
        connection.execute(sa.insert(runs), rows)
    return answers


def _fate(at: datetime, record: AnyRow | None) -> Backfilled:
    if record is None:
        return Backfilled(at, "run", None)
    return Backfilled(at, "runAgain" if record.status in ("missed", "skipped") else "leave", record.status)


def _why(one: Backfilled, before: dict[datetime, AnyRow], actor: str) -> str:
    asked = f"asked for by {actor}"
    record = before.get(one.scheduled_for)
    return asked if record is None else f"{asked}; it was {record.status}: {record.reason}"


def _records(
    connection: sa.Connection, job_id: str, instants: Sequence[datetime]
) -> dict[datetime, AnyRow]:
    query = sa.select(runs.c.id, runs.c.scheduled_for, runs.c.status, runs.c.reason)
    found: dict[datetime, AnyRow] = {}
    for chunk in chunks(instants):
        rows = connection.execute(query.where(runs.c.id.in_([run_id(run_key(job_id, at)) for at in chunk])))
        found.update((row.scheduled_for, row) for row in rows)
    return found


def _labels_in_force(connection: sa.Connection, plan: JobPlan) -> str:
    """Raises `Conflict` when the job has another definition by now, and `NotFound` when it has none."""
    one = definitions_in_force(connection, [plan.job_id]).get(plan.job_id)
    if one is None:
        raise NotFound(f"job {plan.job_id} is not in force yet: try again", field="jobId")
    if one.revision != plan.revision:
        raise Conflict(f"job {plan.job_id} is just being changed: try again", field="jobId")
    return one.labels


def _free_instant(connection: sa.Connection, job_id: str, now: datetime) -> datetime:
    at = _fractional(now)
    taken = sa.select(runs.c.id).where(runs.c.job_id == job_id, runs.c.scheduled_for == sa.bindparam("at"))
    while connection.execute(taken, {"at": at}).first() is not None:
        at = _fractional(at + timedelta(microseconds=1))
    return at


def _fractional(at: datetime) -> datetime:
    """No whole second: that may be an instant of the schedule."""
    return at if at.microsecond else at + timedelta(microseconds=1)
