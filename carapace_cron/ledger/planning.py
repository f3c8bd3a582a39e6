"""Turn due instants into records: a run, or a skip or miss with its reason. Exactly one per instant.

Plain functions on a connection, inside the writer's transaction; `ledger/runs.py` is the door to them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa

from carapace_cron.errors import Conflict
from carapace_cron.ids import run_id
from carapace_cron.ledger.deliveries import insert_delivery
from carapace_cron.ledger.ending import cancel_runs, set_next_free
from carapace_cron.ledger.history import one_run
from carapace_cron.ledger.statements import chunks, insert_for
from carapace_cron.ledger.tables import ALIVE, definitions, progress, runs
from carapace_cron.model.job import Overlap
from carapace_cron.model.notice import Notice
from carapace_cron.model.record import instant_text
from carapace_cron.model.run import Run, Trigger, run_key

MAX_WAITING = 1_000  # runs of one job that may wait for each other; more are skipped


@dataclass(frozen=True, slots=True)
class PlannedInstant:
    """One due instant of a job. `available_at`: not to be started before it (jitter, catch-up spread)."""

    scheduled_for: datetime
    verdict: Literal["run", "missed"]
    available_at: datetime
    trigger: Trigger = "schedule"
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class JobPlan:
    """All that is due of one job, oldest first. After it is recorded, each instant of the job up to
    `accounted_until` has its record. `definition` is needed only if one of them is to run; `notice` is what
    is said, once, if one of them was missed."""

    job_id: str
    tenant: str
    user_id: str
    revision: int
    definition: bytes
    overlap: Overlap
    accounted_until: datetime
    instants: tuple[PlannedInstant, ...]
    notice: Notice | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """What was recorded of one plan: how many runs may start, were skipped, were missed."""

    job_id: str
    runs: int
    skipped: int
    missed: int


@dataclass(slots=True)
class _InTheWay:
    """The serial runs of a job that are alive: the first of them, and how many."""

    run_id: str = ""
    scheduled_for: datetime | None = None
    alive: int = 0


@dataclass(slots=True)
class _Rows:
    """Rows to insert, in order, and the jobs whose live runs make way first."""

    inserts: list[dict[str, Any]] = field(default_factory=list)
    making_way: list[str] = field(default_factory=list)


def record_plans(connection: sa.Connection, plans: Sequence[JobPlan], now: datetime) -> list[Planned]:
    """Insert what `plans` say. An instant that has its record already keeps it and is not counted."""
    known = _known_instants(connection, plans)
    in_the_way = _alive(connection, [plan.job_id for plan in plans if plan.overlap != "allow"])
    rows = _Rows()
    answers = [
        _plan_one(plan, in_the_way.setdefault(plan.job_id, _InTheWay()), known, rows, now) for plan in plans
    ]
    for job_id in rows.making_way:
        cancel_runs(connection, job_id, "the next instant came due; the job's overlap is cancelPrevious", now)
    starting = (plan for plan in plans if _runs(plan))
    keep_definitions(connection, ((plan.job_id, plan.revision, plan.definition) for plan in starting))
    if rows.inserts:
        connection.execute(sa.insert(runs), rows.inserts)
    set_next_free(connection, rows.making_way, now)  # what was only waiting is gone: the new one is first
    for plan, answer in zip(plans, answers, strict=True):
        if plan.notice is not None and answer.missed:
            insert_delivery(connection, plan.notice, now)
    _advance(connection, plans, answers)
    return answers


def _runs(plan: JobPlan) -> bool:
    return any(instant.verdict == "run" for instant in plan.instants)


def _plan_one(
    plan: JobPlan, way: _InTheWay, known: set[tuple[str, datetime]], rows: _Rows, now: datetime
) -> Planned:
    counts = Counter[str]()
    for instant in plan.instants:
        if (plan.job_id, instant.scheduled_for) in known:
            continue
        row = run_row(plan, instant.scheduled_for, instant.trigger)
        if instant.verdict == "missed":
            row |= {"status": "missed", "reason": instant.reason, "finished_at": now}
        else:
            row |= _make_way(plan, instant, way, rows, now)
        counts[row["status"]] += 1
        rows.inserts.append(row)
    return Planned(plan.job_id, counts["queued"], counts["skipped"], counts["missed"])


def _make_way(
    plan: JobPlan, instant: PlannedInstant, way: _InTheWay, rows: _Rows, now: datetime
) -> dict[str, Any]:
    """What the overlap policy makes of an instant, given the runs of the job that are alive.

    Instants that are caught up never skip each other: they were asked for, so they run one by one.
    """
    if plan.overlap == "allow":
        return {"available_at": instant.available_at}
    waits = way.alive > 0
    if waits and plan.overlap == "skip" and instant.trigger != "catchUp":
        return _skip(f"the run for {_text(way.scheduled_for)} ({way.run_id}) had not ended", now)
    if way.alive >= MAX_WAITING:
        return _skip(f"{MAX_WAITING} runs of this job were waiting already", now)
    if waits and plan.overlap == "cancelPrevious" and instant.trigger != "catchUp":
        rows.making_way.append(plan.job_id)
    if not waits:
        way.run_id = run_id(run_key(plan.job_id, instant.scheduled_for))
        way.scheduled_for = instant.scheduled_for
    way.alive += 1
    return {"available_at": None if waits else instant.available_at}


def _skip(reason: str, now: datetime) -> dict[str, Any]:
    return {"status": "skipped", "reason": reason, "finished_at": now}


def record_manual(connection: sa.Connection, plan: JobPlan, key: str, now: datetime) -> Run:
    """One run outside the schedule, under `key`; the run of that key if there is one already.

    Its instant is `now` with a fraction of a second that no other run of the job has, so it can never
    take the place of a scheduled one. Raises `Conflict` when the overlap policy is skip and one is alive.
    """
    existing = one_run(connection, run_id(key))
    if existing is not None:
        return existing
    serial = [plan.job_id] if plan.overlap != "allow" else []
    way = _alive(connection, serial).get(plan.job_id, _InTheWay())
    if way.alive and plan.overlap == "skip":
        raise Conflict(
            f"run {way.run_id} of this job has not ended and the job's overlap is skip; "
            "wait for it, or cancel it"
        )
    if way.alive and plan.overlap == "cancelPrevious":
        cancel_runs(connection, plan.job_id, "a newer run was asked for; overlap is cancelPrevious", now)
    _check_room(connection, plan.job_id)
    keep_definitions(connection, [(plan.job_id, plan.revision, plan.definition)])
    row = run_row(plan, _free_instant(connection, plan.job_id, now), "manual")
    row |= {"id": run_id(key), "available_at": None if way.alive else now}
    connection.execute(sa.insert(runs), [row])
    set_next_free(connection, [plan.job_id] if way.alive else [], now)
    _advance(connection, [plan], [Planned(plan.job_id, 0, 0, 0)])
    made = one_run(connection, run_id(key))
    assert made is not None
    return made


def _check_room(connection: sa.Connection, job_id: str) -> None:
    count = sa.select(sa.func.count()).select_from(runs).where(ALIVE, runs.c.job_id == job_id)
    if connection.execute(count).scalar_one() >= MAX_WAITING:
        raise Conflict(f"{MAX_WAITING} runs of this job have not ended; wait for some, or cancel them")


def _free_instant(connection: sa.Connection, job_id: str, now: datetime) -> datetime:
    at = now if now.microsecond else now + timedelta(microseconds=1)
    taken = sa.select(runs.c.id).where(runs.c.job_id == job_id, runs.c.scheduled_for == sa.bindparam("at"))
    while connection.execute(taken, {"at": at}).first() is not None:
        at += timedelta(microseconds=1)
    return at


def run_row(plan: JobPlan, scheduled_for: datetime, trigger: Trigger) -> dict[str, Any]:
    """A row of `runs` with each column named, so that many can be inserted by one statement."""
    return {
        "id": run_id(run_key(plan.job_id, scheduled_for)),
        "job_id": plan.job_id,
        "tenant": plan.tenant,
        "user_id": plan.user_id,
        "lane": lane(plan.tenant, plan.user_id),
        "revision": plan.revision,
        "scheduled_for": scheduled_for,
        "available_at": None,
        "status": "queued",
        "trigger": trigger,
        "serial": plan.overlap != "allow",
        "reason": None,
        "attempt": 0,
        "finished_at": None,
    }


def lane(tenant: str, user_id: str) -> str:
    """The queue a run stands in. Slots are dealt out over tenants first, then over the users of each."""
    return f"{tenant}/{user_id}"


def keep_definitions(connection: sa.Connection, bodies: Iterable[tuple[str, int, bytes]]) -> None:
    rows = [{"job_id": job_id, "revision": revision, "body": body} for job_id, revision, body in bodies]
    if rows:
        connection.execute(insert_for(connection, definitions).on_conflict_do_nothing(), rows)


def _known_instants(connection: sa.Connection, plans: Sequence[JobPlan]) -> set[tuple[str, datetime]]:
    """The instants of `plans` that have a record: another gateway was quicker, or a clock was set back."""
    wanted = [(plan.job_id, instant.scheduled_for) for plan in plans for instant in plan.instants]
    known: set[tuple[str, datetime]] = set()
    by_identity = sa.select(runs.c.job_id, runs.c.scheduled_for).where(
        runs.c.id.in_(sa.bindparam("ids", expanding=True))
    )
    for chunk in chunks(wanted):
        ids = [run_id(run_key(job_id, at)) for job_id, at in chunk]
        known.update((row.job_id, row.scheduled_for) for row in connection.execute(by_identity, {"ids": ids}))
    return known


def _alive(connection: sa.Connection, job_ids: Sequence[str]) -> dict[str, _InTheWay]:
    """Per job, the first of its serial runs that are alive, and how many there are."""
    first = sa.func.min(runs.c.sequence).label("first")
    counted = (
        sa.select(runs.c.job_id, first, sa.func.count().label("alive"))
        .where(ALIVE, runs.c.serial, runs.c.job_id.in_(sa.bindparam("ids", expanding=True)))
        .group_by(runs.c.job_id)
        .subquery()
    )
    query = sa.select(runs.c.job_id, runs.c.id, runs.c.scheduled_for, counted.c.alive).join(
        counted, runs.c.sequence == counted.c.first
    )
    found: dict[str, _InTheWay] = {}
    for chunk in chunks(list(dict.fromkeys(job_ids))):
        for row in connection.execute(query, {"ids": chunk}):
            found[row.job_id] = _InTheWay(row.id, row.scheduled_for, row.alive)
    return found


def _advance(connection: sa.Connection, plans: Sequence[JobPlan], answers: Sequence[Planned]) -> None:
    insert = insert_for(connection, progress)
    advance = insert.on_conflict_do_update(
        index_elements=[progress.c.job_id],
        set_={
            "accounted_until": sa.func.max(progress.c.accounted_until, insert.excluded.accounted_until)
            if connection.dialect.name == "sqlite"
            else sa.func.greatest(progress.c.accounted_until, insert.excluded.accounted_until),
            "runs_created": progress.c.runs_created + insert.excluded.runs_created,
        },
    )
    connection.execute(
        advance,
        [
            {
                "job_id": plan.job_id,
                "accounted_until": plan.accounted_until,
                "runs_created": answer.runs,
                "execution_count": 0,
                "failure_count": 0,
            }
            for plan, answer in zip(plans, answers, strict=True)
        ],
    )


def _text(instant: datetime | None) -> str:
    return instant_text(instant) if instant is not None else "an earlier instant"
