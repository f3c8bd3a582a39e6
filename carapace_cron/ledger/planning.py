"""Turn due instants into records: a run, or a skip or miss with its reason. Exactly one per instant.

Plain functions on a connection, inside the writer's transaction; `ledger/runs.py` is the door to them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa

from carapace_cron.ids import run_id
from carapace_cron.ledger.aftermath import Aftermath
from carapace_cron.ledger.deliveries import insert_delivery
from carapace_cron.ledger.ending import cancel_runs, set_next_free
from carapace_cron.ledger.job_monitors import hear_plans
from carapace_cron.ledger.statements import chunks, one_of
from carapace_cron.ledger.tables import ALIVE, progress, runs
from carapace_cron.ledger.turns import lane
from carapace_cron.model.job import Job, Overlap
from carapace_cron.model.notice import Notice
from carapace_cron.model.record import instant_text
from carapace_cron.model.run import Trigger, run_key

MAX_WAITING = 1_000  # runs of one job that may wait for each other; more are skipped
FAR_AHEAD = timedelta(days=1)  # no honest mark is further ahead: clocks are moved by hours, not by days


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
    """What is due of one job, in the order in which it is to run. After it is recorded, each instant of the
    job up to `accounted_until` has its record. `notice` is what is said, once, if one of them was missed.

    A plan made from a definition that is not in force is not recorded."""

    job_id: str
    tenant: str
    user_id: str
    revision: int
    overlap: Overlap
    accounted_until: datetime
    instants: tuple[PlannedInstant, ...] = ()
    deadline_seconds: float | None = None
    max_runs: int | None = None  # runs that the schedule may ever make of the job
    notice: Notice | None = None


def empty_plan(job: Job) -> JobPlan:
    """The plan of a job with no instant: for runs that somebody, or another run, asks for."""
    return JobPlan(
        job_id=job.id,
        tenant=job.tenant,
        user_id=job.user_id,
        revision=job.revision,
        overlap=job.overlap,
        accounted_until=job.scheduled_since,
        deadline_seconds=job.deadline_seconds,
    )


@dataclass(frozen=True, slots=True)
class Planned:
    """What was recorded of one plan: how many runs may start, were skipped, were missed.

    Not `in_force`: nothing was, as another definition of the job is. `is_over`: a newer one, so that this
    one will never be in force again."""

    runs: int = 0
    skipped: int = 0
    missed: int = 0
    in_force: bool = True
    is_over: bool = False
    runs_created: int = 0  # of the job, ever, by the schedule


@dataclass(frozen=True, slots=True)
class _InForce:
    """What the ledger holds of a job's definition."""

    revision: int | None
    labels: str
    runs_created: int


@dataclass(slots=True)
class InTheWay:
    """The serial runs of a job that are alive: the first of them, and how many."""

    run_id: str = ""
    scheduled_for: datetime | None = None
    alive: int = 0


@dataclass(slots=True)
class _Rows:
    """Rows to insert, in order, and the jobs whose live runs make way first."""

    inserts: list[dict[str, Any]] = field(default_factory=list)
    making_way: list[str] = field(default_factory=list)


def record_plans(
    connection: sa.Connection, plans: Sequence[JobPlan], now: datetime, aftermath: Aftermath
) -> list[Planned]:
    """Insert what `plans` say. An instant that has its record already keeps it and is not counted."""
    in_force = definitions_in_force(connection, [plan.job_id for plan in plans])
    sound = [plan for plan in plans if is_in_force(plan, in_force)]
    known = _known_runs(connection, sound)
    in_the_way = alive_runs(connection, [plan.job_id for plan in sound if plan.overlap != "allow"])
    rows = _Rows()
    answers = [
        _plan_one(
            plan,
            in_force[plan.job_id],
            in_the_way.setdefault(plan.job_id, InTheWay()),
            known,
            rows,
            now,
        )
        for plan in sound
    ]
    for job_id in rows.making_way:
        cancel_runs(connection, job_id, _MADE_WAY, now, aftermath)
    if rows.inserts:
        connection.execute(sa.insert(runs), rows.inserts)
        hear_plans(connection, rows.inserts, now, aftermath)
    set_next_free(connection, rows.making_way, now)  # what was only waiting is gone: the new one is first
    for plan, answer in zip(sound, answers, strict=True):
        if plan.notice is not None and answer.missed:
            insert_delivery(connection, plan.notice, now)
    advance(connection, sound, answers, now)
    in_order = iter(answers)
    return [
        next(in_order) if is_in_force(plan, in_force) else _refused(plan, in_force) for plan in plans
    ]


_MADE_WAY = "the next instant came due; the job's overlap is cancelPrevious"


def _refused(plan: JobPlan, in_force: Mapping[str, _InForce]) -> Planned:
    held = in_force.get(plan.job_id)
    is_over = held is not None and held.revision is not None and held.revision > plan.revision
    return Planned(in_force=False, is_over=is_over)


def definitions_in_force(connection: sa.Connection, job_ids: Sequence[str]) -> dict[str, _InForce]:
    """Of the jobs that ever were in force; a deleted one's is that of its deletion."""
    found: dict[str, _InForce] = {}
    for chunk in chunks(list(dict.fromkeys(job_ids))):
        rows = connection.execute(_IN_FORCE, {"ids": chunk})
        found.update((row.job_id, _InForce(row.revision, row.labels, row.runs_created)) for row in rows)
    return found


def is_in_force(plan: JobPlan, in_force: Mapping[str, _InForce]) -> bool:
    """Whether a plan was made from the definition that the ledger knows to be the newest."""
    one = in_force.get(plan.job_id)
    return one is not None and one.revision == plan.revision


def _plan_one(
    plan: JobPlan,
    before: _InForce,
    way: InTheWay,
    known: set[str],
    rows: _Rows,
    now: datetime,
) -> Planned:
    counts = Counter[str]()
    for instant in plan.instants:
        row = run_row(plan, before.labels, instant.scheduled_for, instant.trigger)
        if row["id"] in known:
            continue
        is_used_up = plan.max_runs is not None and before.runs_created + counts["queued"] >= plan.max_runs
        # A miss is older than the runs beside it: it came due before they used up what the job may have.
        if is_used_up and (instant.verdict == "run" or not counts["queued"]):
            continue
        if instant.verdict == "missed":
            row |= {"status": "missed", "reason": instant.reason, "finished_at": now}
        else:
            row |= _make_way(plan, instant, row["id"], way, rows, now)
        counts[row["status"]] += 1
        rows.inserts.append(row)
    made = counts["queued"]
    return Planned(made, counts["skipped"], counts["missed"], runs_created=before.runs_created + made)


def _make_way(
    plan: JobPlan, instant: PlannedInstant, run: str, way: InTheWay, rows: _Rows, now: datetime
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
        way.run_id, way.scheduled_for = run, instant.scheduled_for
    way.alive += 1
    if waits:
        return {"not_before": instant.available_at if instant.available_at > now else None}
    return {"available_at": instant.available_at}


def _skip(reason: str, now: datetime) -> dict[str, Any]:
    return {"status": "skipped", "reason": reason, "finished_at": now}


def run_row(plan: JobPlan, labels: str, scheduled_for: datetime, trigger: Trigger) -> dict[str, Any]:
    """A row of `runs` with each column named, so that many can be inserted by one statement."""
    deadline = plan.deadline_seconds
    return {
        "id": run_id(run_key(plan.job_id, scheduled_for)),
        "job_id": plan.job_id,
        "tenant": plan.tenant,
        "user_id": plan.user_id,
        "lane": lane(plan.tenant, plan.user_id),
        "revision": plan.revision,
        "scheduled_for": scheduled_for,
        "available_at": None,
        "not_before": None,
        "status": "queued",
        "trigger": trigger,
        "serial": plan.overlap != "allow",
        "reason": None,
        "labels": labels,
        "caused_by": None,
        "deadline_at": None if deadline is None else scheduled_for + timedelta(seconds=deadline),
        "attempt": 0,
        "finished_at": None,
    }


def _known_runs(connection: sa.Connection, plans: Sequence[JobPlan]) -> set[str]:
    """Ids of the runs of `plans` that have a record: another gateway was quicker, or a clock was set back."""
    ids = [run_id(run_key(plan.job_id, one.scheduled_for)) for plan in plans for one in plan.instants]
    known: set[str] = set()
    for chunk in chunks(ids):
        known.update(connection.execute(_KNOWN, {"ids": chunk}).scalars())
    return known


def alive_runs(connection: sa.Connection, job_ids: Sequence[str]) -> dict[str, InTheWay]:
    """Per job, the first of its serial runs that are alive, and how many there are."""
    found: dict[str, InTheWay] = {}
    for chunk in chunks(list(dict.fromkeys(job_ids))):
        for row in connection.execute(_FIRST_ALIVE, {"ids": chunk}):
            found[row.job_id] = InTheWay(row.id, row.scheduled_for, row.alive)
    return found


def advance(
    connection: sa.Connection, plans: Sequence[JobPlan], answers: Sequence[Planned], now: datetime
) -> None:
    """A mark only moves on, but for one that a wrong clock has put far ahead: the next start is to find how
    far the job has really come."""
    values = [
        {"job": plan.job_id, "until": plan.accounted_until, "made": answer.runs, "far": now + FAR_AHEAD}
        for plan, answer in zip(plans, answers, strict=True)
    ]
    if values:  # to execute a statement with no rows is not to do nothing
        connection.execute(_ADVANCE, values)


def _text(instant: datetime | None) -> str:
    return instant_text(instant) if instant is not None else "an earlier instant"


def _first_alive_query() -> sa.Select[tuple[str, str, datetime, int]]:
    counted = (
        sa.select(
            runs.c.job_id,
            sa.func.min(runs.c.sequence).label("first"),
            sa.func.count().label("alive"),
        )
        .where(ALIVE, runs.c.serial, one_of(runs.c.job_id, "ids"))
        .group_by(runs.c.job_id)
        .subquery()
    )
    return sa.select(runs.c.job_id, runs.c.id, runs.c.scheduled_for, counted.c.alive).join(
        counted, runs.c.sequence == counted.c.first
    )


_FIRST_ALIVE = _first_alive_query()
_IN_FORCE = sa.select(
    progress.c.job_id, progress.c.revision, progress.c.labels, progress.c.runs_created
).where(one_of(progress.c.job_id, "ids"))
_KNOWN = sa.select(runs.c.id).where(one_of(runs.c.id, "ids"))
_MARK = progress.c.accounted_until
_UNTIL = sa.bindparam("until", type_=_MARK.type)
_FAR = sa.bindparam("far", type_=_MARK.type)
_ADVANCE = (
    sa.update(progress)
    .where(progress.c.job_id == sa.bindparam("job"))
    .values(
        accounted_until=sa.case(((_MARK < _UNTIL) | (_MARK > _FAR), _UNTIL), else_=_MARK),
        runs_created=progress.c.runs_created + sa.bindparam("made", type_=sa.Integer),
    )
)
