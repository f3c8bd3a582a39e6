"""Runs for a window of the past: which instants of a job lie in it, what became of each, what will."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any, get_args

from carapace_cron.clock import Clock
from carapace_cron.errors import Conflict, InvalidValue
from carapace_cron.ids import run_id
from carapace_cron.ledger.asked import Backfilled, Fate
from carapace_cron.ledger.events import Event
from carapace_cron.ledger.planning import empty_plan
from carapace_cron.ledger.runs import Runs
from carapace_cron.model.actor import Actor
from carapace_cron.model.job import Job
from carapace_cron.model.record import instant_text
from carapace_cron.model.run import run_key
from carapace_cron.schedule.never import is_never
from carapace_cron.services.access import require
from carapace_cron.services.job_drafts import instant
from carapace_cron.services.jobs import Jobs
from carapace_cron.services.schedules import Schedules, just_before

MAX_INSTANTS = 1_000  # of one backfill; as many runs of a job may wait


class BackfillDesk:
    """Backfills of the caller's jobs, paused ones too."""

    def __init__(self, jobs: Jobs, runs: Runs, schedules: Schedules, clock: Clock) -> None:
        self._jobs = jobs
        self._runs = runs
        self._schedules = schedules
        self._clock = clock

    async def backfill(
        self, actor: Actor, job_id: str, since: str, until: str | None, *, dry_run: bool
    ) -> dict[str, Any]:
        """Run the instants with `since` ≤ instant < `until` that have no run yet; None = until now.

        They are those of the job's schedule as it is today. A dry run changes nothing, and answers the same.
        """
        require(actor, "jobs:write")
        job = self._jobs.find(actor, job_id)
        if is_never(job.schedule):
            message = 'the job\'s schedule is "never", so it has no instants: ask for a run of it instead'
            raise Conflict(message, field="jobId")
        now = self._clock.now()
        begin, end = _window(since, until, now)
        instants = self._instants(job, begin, end)
        event = None if dry_run else _event(job, actor, begin, end, now)
        found = await self._runs.backfill(empty_plan(job), instants, now, event) if instants else []
        return _view(job, found, begin, end, dry_run=dry_run)

    def _instants(self, job: Job, since: datetime, until: datetime) -> list[datetime]:
        """Oldest first; raises `InvalidValue` when there are more than one backfill may have."""
        schedule = self._schedules.of(job)
        found: list[datetime] = []
        at = schedule.next_after(just_before(since if job.start_at is None else max(since, job.start_at)))
        while at is not None and at < until and (job.end_at is None or at <= job.end_at):
            if len(found) == MAX_INSTANTS:
                more = f"more than {MAX_INSTANTS} instants lie between it and {instant_text(until)}"
                message = f"bad since {instant_text(since)}: {more}; expected a shorter window"
                raise InvalidValue(message, field="since")
            found.append(at)
            at = schedule.next_after(at)
        return found


def _window(since: str, until: str | None, now: datetime) -> tuple[datetime, datetime]:
    begin, end = instant(since, "since"), instant(until, "until") or now
    assert begin is not None
    if end > now:
        message = f"bad until {instant_text(end)}: expected at most now, {instant_text(now)}"
        raise InvalidValue(f"{message}; what is to come runs by its schedule", field="until")
    if begin >= end:
        message = f"bad since {instant_text(begin)}: expected an instant before {instant_text(end)}"
        raise InvalidValue(message, field="since")
    return begin, end


def _event(job: Job, actor: Actor, since: datetime, until: datetime, now: datetime) -> Event:
    return Event(
        at=now,
        tenant=job.tenant,
        user_id=job.user_id,
        actor=actor.user,
        action="job.backfilled",
        subject=job.id,
        job_id=job.id,
        after={"since": instant_text(since), "until": instant_text(until)},
    )


def _view(
    job: Job, found: Sequence[Backfilled], since: datetime, until: datetime, *, dry_run: bool
) -> dict[str, Any]:
    counts = Counter(one.fate for one in found)
    return {
        "dryRun": dry_run,
        "since": instant_text(since),
        "until": instant_text(until),
        "counts": {fate: counts[fate] for fate in get_args(Fate)},
        "instants": [
            {
                "at": instant_text(one.scheduled_for),
                "fate": one.fate,
                "status": one.status,
                "runId": run_id(run_key(job.id, one.scheduled_for)),
            }
            for one in found
        ],
    }
