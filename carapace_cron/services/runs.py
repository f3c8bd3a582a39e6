"""Every use case of runs, once: start one now, cancel one, read what was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from carapace_cron.clock import Clock
from carapace_cron.errors import Conflict, InvalidValue, NotFound
from carapace_cron.ids import is_run_id, random_text
from carapace_cron.ledger.events import Event
from carapace_cron.ledger.history import RunFilter
from carapace_cron.ledger.planning import empty_plan
from carapace_cron.ledger.runs import Runs
from carapace_cron.model.actor import Actor
from carapace_cron.model.record import instant_text
from carapace_cron.model.run import Run
from carapace_cron.schedule.errors import shown
from carapace_cron.services.access import may_see, require
from carapace_cron.services.job_drafts import instant
from carapace_cron.services.jobs import Jobs
from carapace_cron.services.views import run_view

DEFAULT_PAGE = 50
MAX_PAGE = 500
MAX_KEY = 200
MAX_STATUSES = 16


@dataclass(frozen=True, slots=True)
class RunsAsked:
    """What a caller wants to see; None = no limit of that kind. Instants as ISO 8601 texts with a zone."""

    job_id: str | None = None
    status: str | list[str] | None = None
    since: str | None = None
    until: str | None = None
    limit: int = DEFAULT_PAGE
    cursor: str | None = None


class RunHistory:
    """Runs of the caller's jobs; an admin's view is the whole of their tenant."""

    def __init__(self, jobs: Jobs, runs: Runs, clock: Clock) -> None:
        self._jobs = jobs
        self._runs = runs
        self._clock = clock

    async def start(self, actor: Actor, job_id: str, idempotency_key: str | None = None) -> dict[str, Any]:
        """Run a job now, beside its schedule; paused jobs too. The same key again is the same run."""
        require(actor, "jobs:write")
        job = self._jobs.find(actor, job_id)
        if idempotency_key is not None and not (0 < len(idempotency_key) <= MAX_KEY):
            raise InvalidValue(f"bad idempotencyKey: expected 1–{MAX_KEY} characters", field="idempotencyKey")
        key = random_text() if idempotency_key is None else f"key:{idempotency_key}"
        now = self._clock.now()
        said = None if idempotency_key is None else {"idempotencyKey": idempotency_key}
        event = Event(
            now, job.tenant, job.user_id, actor.user, "run.started", subject="", job_id=job.id, after=said
        )
        return run_view(await self._runs.start_now(empty_plan(job), key, now, event))

    async def cancel(self, actor: Actor, run_id: str) -> dict[str, Any]:
        """Cancel a run: one that waits at once, one that works as soon as its work has stopped.

        Cancelling what was cancelled is fine; cancelling what has ended otherwise is a Conflict.
        """
        require(actor, "jobs:write")
        run = await self._find(actor, run_id)
        now = self._clock.now()
        event = Event(
            now, run.tenant, run.user_id, actor.user, "run.cancelled", subject=run.id, job_id=run.job_id
        )
        status = await self._runs.cancel(run.id, f"cancelled by {actor.user}", now, event)
        after = await self._find(actor, run_id)  # retention may have been quicker
        if status not in ("cancelled", "running"):
            message = f"run {run.id} has ended already, as {status}: nothing is left to cancel"
            raise Conflict(message, field="runId")
        return run_view(after)

    async def page(self, actor: Actor, asked: RunsAsked) -> dict[str, Any]:
        """Newest first: ``{items, nextCursor}``; nextCursor null on the last page.

        Runs of a deleted job can still be read, by its id too.
        """
        require(actor, "jobs:read")
        if isinstance(asked.limit, bool) or not 1 <= asked.limit <= MAX_PAGE:
            raise InvalidValue(f"bad limit {asked.limit}: expected 1–{MAX_PAGE}", field="limit")
        since, until = instant(asked.since, "since"), instant(asked.until, "until")
        if since is not None and until is not None and until <= since:
            message = f"bad until {instant_text(until)}: expected an instant after since"
            raise InvalidValue(message, field="until")
        wanted = RunFilter(
            tenant=actor.tenant,
            user_id=None if actor.is_admin else actor.user,
            job_id=asked.job_id,
            statuses=_statuses(asked.status),
            since=since,
            until=until,
        )
        page = await self._runs.page(wanted, limit=asked.limit, cursor=asked.cursor)
        return {"items": [run_view(run) for run in page.items], "nextCursor": page.next_cursor}

    async def _find(self, actor: Actor, run_id: str) -> Run:
        run = await self._runs.get(run_id) if is_run_id(run_id) else None
        if run is None or not may_see(actor, run.tenant, run.user_id):
            raise NotFound(f'no run "{shown(run_id)}": list your runs to see their ids', field="runId")
        return run


def _statuses(given: str | list[str] | None) -> tuple[str, ...]:
    if given is None:
        return ()
    statuses = [given] if isinstance(given, str) else given
    if not 1 <= len(statuses) <= MAX_STATUSES:
        expected = f"expected a state or a list of 1–{MAX_STATUSES} states"
        raise InvalidValue(f"bad status: {expected}, found {len(statuses)}", field="status")
    return tuple(statuses)
