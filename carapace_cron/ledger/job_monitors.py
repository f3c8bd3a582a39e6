"""The monitors of our own jobs: made, changed and pinged in the transactions of the ledger that tell of them.

A job with the switch `monitor` has a monitor that follows its definition (`follow`) and hears of its runs:
when they begin (`hear_starts`), how they end (`hear_ends`), and of instants that get no run of their own or
wait for another (`hear_plans`). It is judged by the watchman, who knows nothing of the loops that should have
run the job, so it tells when they did not.

A run that is watched bears the label `WATCHED`, so those that are not cost nothing here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from carapace_cron.ids import job_monitor_id
from carapace_cron.ledger.aftermath import Aftermath
from carapace_cron.ledger.monitors import Watched
from carapace_cron.ledger.pings import Arrival, record_pings
from carapace_cron.ledger.settling import Settling
from carapace_cron.ledger.statements import AnyRow
from carapace_cron.model.actor import GATEWAY
from carapace_cron.model.calendar import CalendarPolicy
from carapace_cron.model.job import Job
from carapace_cron.model.monitor import (
    LONGEST_NAME,
    AlarmPolicy,
    Health,
    JobMonitor,
    Monitor,
    Ping,
    PingKind,
)
from carapace_cron.model.untrusted import one_line
from carapace_cron.monitors import status

WATCHED = "watched"  # among the labels of a run
LATE_START_SECONDS = 300.0  # patience for a run that is late to begin, beside the job's own jitter
_KINDS: Mapping[str, PingKind] = {
    "success": "success",
    "degraded": "success",
    "failure": "fail",
    "timeout": "fail",
    "missed": "fail",
}


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a run ended. `due_at`: the instant that it answers; None: it was asked for."""

    run_id: str
    job_id: str
    is_watched: bool
    status: str
    at: datetime
    due_at: datetime | None
    error: str | None

    @classmethod
    def of(cls, row: AnyRow, status: str, at: datetime, error: str | None) -> RunEnd:
        """`row`: of the run, as it was before."""
        due_at = _due_at(row.trigger, row.scheduled_for)
        return cls(row.id, row.job_id, _is_watched(row.labels), status, at, due_at, error)


def follow(connection: sa.Connection, jobs: Sequence[Job], aftermath: Aftermath) -> None:
    """These definitions are in force now: their monitors are made, changed, paused, removed accordingly."""
    settling = Settling(connection, [job_monitor_id(job.id) for job in jobs])
    for job in jobs:
        monitor_id = job_monitor_id(job.id)
        wanted = None if job.deleted_at is not None else job.monitor
        if wanted is not None and monitor_id in settling:
            _change(settling, job, wanted)
        elif wanted is not None:
            _make(settling, job, wanted)
        elif monitor_id in settling:
            settling.remove(monitor_id, job.updated_at)
    aftermath.add(settling.keep())


def hear_starts(
    connection: sa.Connection, rows: Sequence[AnyRow], now: datetime, aftermath: Aftermath
) -> None:
    """These runs begin; `rows` are as they were before."""
    begun = [_start(row, now) for row in rows if _is_watched(row.labels) and row.attempt == 0]
    _hear(connection, begun, aftermath)


def hear_ends(connection: sa.Connection, ends: Sequence[RunEnd], aftermath: Aftermath) -> None:
    """These runs have ended, whether or not they had begun."""
    _hear(connection, [_end(end) for end in ends if end.is_watched], aftermath)


def hear_plans(
    connection: sa.Connection, rows: Sequence[Mapping[str, Any]], now: datetime, aftermath: Aftermath
) -> None:
    """These instants got their records: what was missed is a failure; what was skipped, or waits for the run
    before it, is no silence. Of many of one job the last tells for all."""
    watched = [row for row in rows if _is_watched(row["labels"]) and row["available_at"] is None]
    missed = {row["job_id"]: row for row in watched if row["status"] == "missed"}
    others = {row["job_id"]: row for row in watched if row["status"] != "missed"}
    _hear(connection, [_planned(row, now) for row in (*missed.values(), *others.values())], aftermath)


def _is_watched(labels: str) -> bool:
    return WATCHED in labels.split()


def _start(row: AnyRow, now: datetime) -> Arrival:
    return _arrival(row.job_id, now, "start", rid=row.id, due_at=_due_at(row.trigger, row.scheduled_for))


def _end(end: RunEnd) -> Arrival:
    kind = _KINDS.get(end.status, "log")
    text = end.error or ("" if kind == "success" else end.status)
    return _arrival(
        end.job_id, end.at, kind, rid=end.run_id, due_at=end.due_at, text=text, gives_up=kind == "log"
    )


def _planned(row: Mapping[str, Any], now: datetime) -> Arrival:
    kind: PingKind = "fail" if row["status"] == "missed" else "log"
    text = f"{row['status']}: {row['reason']}" if row["reason"] else row["status"]
    return _arrival(row["job_id"], now, kind, due_at=row["scheduled_for"], text=text)


def _due_at(trigger: str, scheduled_for: datetime) -> datetime | None:
    """A backfilled run, or one that somebody asked for, is in nobody's place."""
    return scheduled_for if trigger in ("schedule", "catchUp") else None


def _arrival(
    job_id: str,
    at: datetime,
    kind: PingKind,
    *,
    rid: str = "",
    due_at: datetime | None,
    text: str = "",
    gives_up: bool = False,
) -> Arrival:
    ping = Ping(
        at, kind, rid, scheme="internal", method="RUN", user_agent="carapace-cron", body=text.encode(),
        due_at=due_at, gives_up=gives_up,
    )  # fmt: skip
    return Arrival(job_monitor_id(job_id), ping)


def _hear(connection: sa.Connection, arrivals: Sequence[Arrival], aftermath: Aftermath) -> None:
    if arrivals:
        _, settled = record_pings(connection, arrivals, of_jobs=True)
        aftermath.add(settled)


def _make(settling: Settling, job: Job, wanted: JobMonitor) -> None:
    settling.add(Watched(_monitor(job, wanted), Health(status="paused") if _is_paused(job) else Health()))
    _await(settling, job)


def _change(settling: Settling, job: Job, wanted: JobMonitor) -> None:
    monitor_id = job_monitor_id(job.id)
    before = settling[monitor_id]
    settling.redefine(_monitor(job, wanted).evolve(snoozed_until=before.monitor.snoozed_until))
    is_paused = before.health.status == "paused"
    if is_paused and not _is_paused(job):
        settling.settle(monitor_id, job.updated_at, status.resumed(before.health, job.updated_at))
    elif _is_paused(job) and not is_paused:
        settling.settle(monitor_id, job.updated_at, status.paused(before.health, job.updated_at))
    _await(settling, job)


def _is_paused(job: Job) -> bool:
    """By a person. A job that the gateway switched off has come to its end, or failed too often: nothing more
    is awaited of it, but what works of it is watched to its end."""
    return not job.enabled and job.updated_by != GATEWAY


def _await(settling: Settling, job: Job) -> None:
    """The instants that the job has from now on are awaited, if it has any."""
    one = settling[job_monitor_id(job.id)]
    since = job.scheduled_since if job.enabled else None
    settling.replace(one.with_health(status.awaiting(one.monitor, one.health, one.due, since)))
    settling.settle(one.monitor.id, job.updated_at)


def _monitor(job: Job, wanted: JobMonitor) -> Monitor:
    """What the job does not say in its switch, it says elsewhere."""
    alarm = {name: getattr(wanted, name) for name in AlarmPolicy.model_fields}
    calendar = {name: getattr(job, name) for name in CalendarPolicy.model_fields}
    return Monitor(
        **alarm | {"channels": wanted.channels or (job.channel_id,)},
        id=job_monitor_id(job.id),
        tenant=job.tenant,
        user_id=job.user_id,
        job_id=job.id,
        name=one_line(job.name, LONGEST_NAME),
        tags=job.tags,
        schedule=job.schedule,
        timezone=job.timezone,
        calendar=CalendarPolicy(**calendar) if job.has_calendar else None,
        start_at=job.start_at,
        end_at=job.end_at,
        manual_resume=True,  # a run that goes on while the job is paused does not end the pause
        grace_seconds=wanted.grace_seconds or LATE_START_SECONDS + job.jitter_seconds,
        max_run_seconds=wanted.max_run_seconds or longest_run_seconds(job),
        revision=job.revision,
        created_at=job.created_at,
        updated_at=job.updated_at,
        updated_by=job.updated_by,
    )


def longest_run_seconds(job: Job) -> float:
    """What a run may take with all its attempts, the waits between them, and some for the queue."""
    waits = sum(job.retry.wait_seconds(attempt) for attempt in range(1, job.retry.max_attempts))
    return job.retry.max_attempts * job.timeout_seconds + waits + LATE_START_SECONDS
