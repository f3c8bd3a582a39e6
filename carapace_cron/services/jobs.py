"""Every use case of jobs, once: create, read, change, pause, resume; check and preview.

The order of each change is the same: may the caller, is it sound, is it kept; only then is it answered.
The scheduler hears of it from the job store, synchronously with the write, so it is in force for the next
instant by the time the caller has the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from weakref import WeakValueDictionary

from carapace_cron.clock import Clock
from carapace_cron.errors import Conflict, InvalidValue, NotFound
from carapace_cron.ids import is_job_id, new_job_id
from carapace_cron.job_store import JobStore
from carapace_cron.ledger.runs import Runs
from carapace_cron.model.actor import GATEWAY, Actor
from carapace_cron.model.calendar import CalendarPolicy
from carapace_cron.model.job import Job, JobDraft, JobPolicy
from carapace_cron.model.record import instant_text
from carapace_cron.ports.channel import ChannelRules
from carapace_cron.schedule import Schedule
from carapace_cron.schedule.errors import shown
from carapace_cron.services.access import may_see, require, user_of
from carapace_cron.services.board import Board
from carapace_cron.services.chains import Chains
from carapace_cron.services.job_drafts import calendar_policy, definition, draft, instant, line, patched
from carapace_cron.services.job_rules import CommandRules, JobRules
from carapace_cron.services.quota import JobQuota
from carapace_cron.services.schedules import Schedules, just_before, upcoming
from carapace_cron.services.views import job_view

MAX_PAGE = 1_000
SHOWN_INSTANTS = 3  # in the answer to create, update and resume; fewer where fewer runs are left

_CALENDAR = tuple(CalendarPolicy.model_fields)
# A change of one counts instants anew.
_SCHEDULING = ("schedule", "timezone", "start_at", "enabled", *_CALENDAR)


@dataclass(frozen=True, slots=True)
class JobPage:
    """Jobs in the order of their creation. `next_cursor` is None on the last page."""

    items: list[dict[str, Any]]
    next_cursor: str | None


class Jobs:
    """All methods raise `Refused` for what the caller can mend, and then have changed nothing."""

    def __init__(
        self,
        store: JobStore,
        runs: Runs,
        clock: Clock,
        *,
        schedules: Schedules,
        commands: CommandRules,
        channels: ChannelRules,
        board: Board,
        next_at: Callable[[str], datetime | None],
        runs_left: Callable[[str], int | None],
        max_jobs_per_tenant: int,
    ) -> None:
        self._store = store
        self._runs = runs
        self._clock = clock
        self._schedules = schedules
        self._rules = JobRules(runs, clock, schedules=schedules, commands=commands, channels=channels)
        self._board = board
        self._next_at = next_at
        self._runs_left = runs_left
        self.quota = JobQuota(store, max_jobs_per_tenant)
        self.chains = Chains(store)
        # A lock lives as long as somebody holds or awaits it.
        self._keyed_creates: WeakValueDictionary[tuple[str, str, str], asyncio.Lock] = WeakValueDictionary()

    def list(
        self, actor: Actor, user_id: str | None = None, *, limit: int = MAX_PAGE, cursor: str | None = None
    ) -> JobPage:
        """The jobs of a user. Reads memory only: it waits for nobody."""
        require(actor, "jobs:read")
        user = user_of(actor, user_id)
        check_page(limit, cursor)
        jobs = self._store.list_page(actor.tenant, user, limit=limit + 1, after=cursor)
        more = len(jobs) > limit
        items = [self._view(job) for job in jobs[:limit]]
        return JobPage(items, jobs[limit - 1].id if more else None)

    def get(self, actor: Actor, job_id: str) -> dict[str, Any]:
        require(actor, "jobs:read")
        return self._view(self.find(actor, job_id))

    async def create(self, actor: Actor, data: Any, user_id: str | None = None) -> dict[str, Any]:
        """Keep a new job. With an `idempotencyKey` that the user gave before: the job of that time."""
        require(actor, "jobs:write")
        user = user_of(actor, user_id)
        wanted = draft(data)
        schedule = self._rules.check(actor.tenant, wanted, said=data)
        self.chains.check(actor, wanted.after)
        if wanted.idempotency_key is None:
            return self._with_instants(await self._create(actor, user, wanted), schedule)
        key = (actor.tenant, user, wanted.idempotency_key)
        async with self.key_lock(*key):
            made = self._store.find_by_idempotency_key(*key)
            job = made or await self._create(actor, user, wanted)
        return self._with_instants(job, self._schedules.of(job))

    async def update(
        self, actor: Actor, job_id: str, updates: Any, *, if_revision: int | None = None
    ) -> dict[str, Any]:
        """Change a definition by JSON Merge Patch (RFC 7396): null sets a field back to its default."""
        require(actor, "jobs:write")
        before = self.find(actor, job_id)
        if not isinstance(updates, Mapping):
            raise InvalidValue("bad updates: expected an object with the fields to change", field="updates")
        if not updates:
            raise InvalidValue("bad updates: expected at least one field to change", field="updates")
        wanted = draft(patched(before, updates))
        self._rules.check(actor.tenant, wanted, said=updates, job=before)
        self.chains.check(actor, wanted.after, before.after)
        if wanted.enabled:
            await self._rules.check_runs_left(before.id, wanted)

        def change(job: Job) -> Job:
            if if_revision is not None and job.revision != if_revision:
                message = f"the job is at revision {job.revision}, not {if_revision}: read it again"
                raise Conflict(message, field="ifRevision")
            # The store may have a newer document than the one that was checked: patch that one.
            newest = wanted if job.revision == before.revision else draft(patched(job, updates))
            return self._redefined(job, newest, by=actor.user)

        async with self.chains.changing(before.tenant, wanted):
            if wanted.after != before.after or (wanted.enabled and not before.enabled):
                self.chains.check_circle(actor, before, wanted.after)
            job = await self._store.update(before.id, change)
        return self._with_instants(job, self._schedules.of(job))

    async def pause(
        self, actor: Actor, job_id: str, reason: str | None = None, until: str | None = None
    ) -> dict[str, Any]:
        """No instant comes due from now on and before `until`, None = until it is resumed; what runs goes on.

        A paused job is from now on paused as this says; without a reason it keeps the one that it has.
        """
        require(actor, "jobs:write")
        job = self.find(actor, job_id)
        why, end = line(reason, "reason"), instant(until, "until")
        if end is not None and end <= (now := self._clock.now()):
            message = f"bad until {instant_text(end)}: expected an instant after now, {instant_text(now)}"
            raise InvalidValue(message, field="until")

        def change(job: Job) -> Job:
            reason = why or job.paused_reason or f"paused by {actor.user}"
            if not job.enabled and (reason, end) == (job.paused_reason, job.paused_until):
                return job
            return self._switched(job, enabled=False, why=reason, until=end, by=actor.user)

        return self._view(await self._store.update(job.id, change))

    async def resume(self, actor: Actor, job_id: str) -> dict[str, Any]:
        """From now on; what fell into the pause is neither run nor missed."""
        require(actor, "jobs:write")
        job = self.find(actor, job_id)
        if not job.enabled:
            await self.check_enabled(actor, job)

        def change(job: Job) -> Job:
            return job if job.enabled else self._switched(job, enabled=True, why=None, by=actor.user)

        job = await self._store.update(job.id, change)
        return self._with_instants(job, self._schedules.of(job))

    async def end_pause(self, job_id: str) -> None:
        """Switch a job on again whose pause was until now: its instants count from the end of the pause."""

        def change(job: Job) -> Job:
            until = job.paused_until
            if job.enabled or until is None or until > self._clock.now():
                return job
            resumed: Job = job.evolve(
                enabled=True,
                paused_reason=None,
                paused_until=None,
                scheduled_since=max(job.scheduled_since, just_before(until)),
                updated_by=GATEWAY,
            )
            return resumed

        with suppress(NotFound):
            await self._store.update(job_id, change)

    async def disable(self, job_id: str, reason: Callable[[], str | None]) -> None:
        """Switch a job off: for the gateway's own upkeep. One that is off or gone stays so.

        `reason` is asked as the change is made, by when it may be void: None = the job stays as it is.
        """

        def change(job: Job) -> Job:
            why = reason()
            if why is None or not job.enabled:
                return job
            return self._switched(job, enabled=False, why=why, by=GATEWAY)

        with suppress(NotFound):
            await self._store.update(job_id, change)

    def validate(self, actor: Actor, data: Any) -> dict[str, Any]:
        """Check what `create` would check, keep nothing; in words, and when it would run."""
        require(actor, "jobs:read")
        wanted = draft(data)
        schedule = self._rules.check(actor.tenant, wanted, said=data)
        self.chains.check(actor, wanted.after)
        return {
            "valid": True,
            "description": schedule.describe(),
            "nextExecutions": self._due(wanted, schedule, wanted.max_runs),
        }

    def preview(
        self, actor: Actor, text: str, zone: str, count: int, calendar: Mapping[str, Any]
    ) -> dict[str, Any]:
        """`calendar` has the fields of a job's, each of them None where it is not given."""
        require(actor, "jobs:read")
        policy = calendar_policy(calendar)
        return self._schedules.preview(text, zone, count, self._clock.now(), policy)

    def find(self, actor: Actor, job_id: str) -> Job:
        """The job, if it exists for the caller. A foreign and an unknown id get the same answer."""
        job = self._store.get(job_id) if is_job_id(job_id) else None
        if job is None or not may_see(actor, job.tenant, job.user_id):
            raise NotFound(f'no job "{shown(job_id)}": list your jobs to see their ids', field="jobId")
        return job

    async def check_enabled(self, actor: Actor, job: Job) -> None:
        """Raises `Refused` when a job, as it is, could not be enabled now."""
        self.chains.check_circle(actor, job, job.after)
        self._rules.check(job.tenant, job.evolve(enabled=True), said={}, job=job)
        await self._rules.check_runs_left(job.id, job)

    def key_lock(self, tenant: str, user_id: str, key: str) -> asyncio.Lock:
        """Held by whoever brings a job with this idempotency key about."""
        return self._keyed_creates.setdefault((tenant, user_id, key), asyncio.Lock())

    async def _create(self, actor: Actor, user: str, wanted: JobDraft) -> Job:
        with self.quota.room_for_one(actor.tenant):
            return await self._store.create(self._new(actor, user, wanted))

    def _new(self, actor: Actor, user: str, wanted: JobDraft) -> Job:
        now = self._clock.now()
        return Job(
            **definition(wanted),
            id=new_job_id(now),
            tenant=actor.tenant,
            user_id=user,
            paused_reason=None if wanted.enabled else f"created paused by {actor.user}",
            created_at=now,
            updated_at=now,
            updated_by=actor.user,
            scheduled_since=now,
        )

    def _redefined(self, job: Job, wanted: JobDraft, *, by: str) -> Job:
        now = self._clock.now()
        changes = definition(wanted)
        if all(changes[name] == getattr(job, name) for name in changes):
            return job
        changes["updated_by"] = by
        if any(changes[name] != getattr(job, name) for name in _SCHEDULING):
            changes["scheduled_since"] = now
        if wanted.enabled != job.enabled:
            changes["paused_reason"] = None if wanted.enabled else "paused by an update"
            changes["paused_until"] = None
        redefined: Job = job.evolve(**changes)
        return redefined

    def _switched(
        self, job: Job, *, enabled: bool, why: str | None, until: datetime | None = None, by: str
    ) -> Job:
        since = self._clock.now() if enabled and not job.enabled else job.scheduled_since
        switched: Job = job.evolve(
            enabled=enabled, paused_reason=why, paused_until=until, scheduled_since=since, updated_by=by
        )
        return switched

    def _view(self, job: Job) -> dict[str, Any]:
        view = job_view(job, self._board.of(job.id), self._next_at(job.id))
        warnings = self.chains.warnings(job)
        return {**view, "warnings": warnings} if warnings else view

    def _with_instants(self, job: Job, schedule: Schedule) -> dict[str, Any]:
        """The view, and what the schedule means: in words, and its next instants."""
        scheduled = self._next_at(job.id) is not None
        due = self._due(job, schedule, self._runs_left(job.id)) if scheduled else []
        return {**self._view(job), "scheduleDescription": schedule.describe(), "nextExecutions": due}

    def _due(self, job: JobPolicy, schedule: Schedule, runs_left: int | None) -> Sequence[dict[str, Any]]:
        """The next instants, within the job's own window, and no more than it has runs left (None = any)."""
        count = SHOWN_INSTANTS if runs_left is None else min(SHOWN_INSTANTS, runs_left)
        return upcoming(schedule, self._rules.first_after(job), count, until=job.end_at)


def check_page(limit: int, cursor: str | None) -> None:
    """Raises `InvalidValue` for a page of jobs that cannot be asked for."""
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidValue(f"bad limit {limit}: expected 1–{MAX_PAGE}", field="limit")
    if cursor is not None and not is_job_id(cursor):
        raise InvalidValue("bad cursor: give the nextCursor of the page before", field="cursor")
