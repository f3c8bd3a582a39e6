"""Every use case of jobs, once: create, read, change, pause, resume, delete; check and preview.

The order of each change is the same: may the caller, is it sound, is it kept; only then is it answered.
The scheduler hears of it from the job store, synchronously with the write, so it is in force for the next
instant by the time the caller has the answer.
"""

from __future__ import annotations

import asyncio
import difflib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from weakref import WeakValueDictionary

from pydantic import ValidationError
from pydantic.alias_generators import to_snake

from carapace_cron.clock import Clock
from carapace_cron.errors import AddressNotAllowed, Conflict, InvalidValue, NotFound, QuotaExceeded
from carapace_cron.ids import is_job_id, new_job_id
from carapace_cron.job_store import JobStore
from carapace_cron.ledger.runs import Runs
from carapace_cron.model.actor import GATEWAY, Actor
from carapace_cron.model.calendar import CalendarPolicy
from carapace_cron.model.job import HttpRequest, Job, JobDraft, JobPolicy
from carapace_cron.model.record import explain, instant_text
from carapace_cron.schedule import Schedule
from carapace_cron.schedule.errors import shown
from carapace_cron.services.access import may_see, require, user_of
from carapace_cron.services.board import Board
from carapace_cron.services.schedules import Schedules, naming, upcoming
from carapace_cron.services.views import job_view

MAX_PAGE = 1_000
SHOWN_INSTANTS = 3  # in the answer to create and update
MAX_REASON = 500

_DEFINITION = JobDraft.model_fields
_REQUIRED = [str(field.alias) for field in _DEFINITION.values() if field.is_required()]
_WIRE_NAMES = {str(field.alias) for field in _DEFINITION.values()} | {"cronExpression"}
_CALENDAR = tuple(CalendarPolicy.model_fields)
# A change of one counts instants anew.
_SCHEDULING = ("schedule", "timezone", "start_at", "enabled", *_CALENDAR)


class CommandRules(Protocol):
    """Raises `Refused` for a command that no runner would run."""

    def check(self, command: str, http: HttpRequest | None) -> None: ...


class ChannelRules(Protocol):
    """Raises `InvalidValue` for a channel that the tenant may not name."""

    def check(self, channel_id: str, tenant: str) -> None: ...


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
        max_jobs_per_tenant: int,
    ) -> None:
        self._store = store
        self._runs = runs
        self._clock = clock
        self._schedules = schedules
        self._commands = commands
        self._channels = channels
        self._board = board
        self._next_at = next_at
        self._max_jobs = max_jobs_per_tenant
        # A lock lives as long as somebody holds or awaits it.
        self._keyed_creates: WeakValueDictionary[tuple[str, str, str], asyncio.Lock] = WeakValueDictionary()
        self._creating: Counter[str] = Counter()  # by tenant
        self._half_removed: dict[str, str] = {}  # job id → why: its object is buried, its runs may live on

    def list(
        self, actor: Actor, user_id: str | None = None, *, limit: int = MAX_PAGE, cursor: str | None = None
    ) -> JobPage:
        """The jobs of a user. Reads memory only: it waits for nobody."""
        require(actor, "jobs:read")
        user = user_of(actor, user_id)
        if not 1 <= limit <= MAX_PAGE:
            raise InvalidValue(f"bad limit {limit}: expected 1–{MAX_PAGE}", field="limit")
        if cursor is not None and not is_job_id(cursor):
            raise InvalidValue("bad cursor: give the nextCursor of the page before", field="cursor")
        jobs = list(self._store.list_page(actor.tenant, user, limit=limit + 1, after=cursor))
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
        draft, schedule = self._checked(actor, _draft(data), data)
        if draft.idempotency_key is None:
            return self._with_instants(await self._create(actor, user, draft), schedule)
        key = (actor.tenant, user, draft.idempotency_key)
        async with self._keyed_creates.setdefault(key, asyncio.Lock()):
            made = self._store.find_by_idempotency_key(*key)
            job = made or await self._create(actor, user, draft)
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
        draft, _ = self._checked(actor, _draft(_patched(before, updates)), updates, job=before)
        if draft.enabled:
            await self._check_runs_left(before.id, draft)

        def change(job: Job) -> Job:
            if if_revision is not None and job.revision != if_revision:
                message = f"the job is at revision {job.revision}, not {if_revision}: read it again"
                raise Conflict(message, field="ifRevision")
            # The store may have a newer document than the one that was checked: patch that one.
            patched = draft if job.revision == before.revision else _draft(_patched(job, updates))
            return self._redefined(job, patched, by=actor.user)

        job = await self._store.update(before.id, change)
        return self._with_instants(job, self._schedules.of(job))

    async def pause(self, actor: Actor, job_id: str, reason: str | None = None) -> dict[str, Any]:
        """No instant after this comes due; what runs goes on. Pausing a paused job changes nothing."""
        require(actor, "jobs:write")
        job = self.find(actor, job_id)
        why = _line(reason, "reason") or f"paused by {actor.user}"

        def change(job: Job) -> Job:
            return self._switched(job, enabled=False, why=why, by=actor.user) if job.enabled else job

        return self._view(await self._store.update(job.id, change))

    async def resume(self, actor: Actor, job_id: str) -> dict[str, Any]:
        """From now on; what fell into the pause is neither run nor missed."""
        require(actor, "jobs:write")
        job = self.find(actor, job_id)
        schedule = self._schedules.check(job, job.created_at, self._clock.now())
        self._check_window(job, schedule)
        if not job.enabled:
            await self._check_runs_left(job.id, job)

        def change(job: Job) -> Job:
            return job if job.enabled else self._switched(job, enabled=True, why=None, by=actor.user)

        return self._with_instants(await self._store.update(job.id, change), schedule)

    async def delete(self, actor: Actor, job_id: str) -> None:
        """The job is gone, what waits is cancelled and what runs is stopped; its runs can still be read.

        Deleting it again is fine, and completes a deletion that failed half way.
        """
        require(actor, "jobs:write")
        job = self._store.buried(job_id) if is_job_id(job_id) else None
        if job is None or not may_see(actor, job.tenant, job.user_id):
            job = self.find(actor, job_id)
        await self.remove(job.id, f"the job was deleted by {actor.user}", by=actor.user)

    async def remove(
        self,
        job_id: str,
        reason: str,
        only_if: Callable[[Job], bool] = lambda job: True,
        *,
        by: str = GATEWAY,
    ) -> None:
        """Delete without asking who asks: for the gateway's own upkeep.

        `only_if` is asked of the newest definition; if it says no, nothing happens. What is left when the
        ledger is away, `complete_removals` does.
        """
        now = self._clock.now()
        try:
            job = await self._store.delete(job_id, now, by=by, only_if=only_if)
        except NotFound:
            if self._store.buried(job_id) is None:
                raise
        else:
            if job.deleted_at is None:
                return
        self._board.forget(job_id)
        self._half_removed[job_id] = reason
        await self._runs.cancel_all(job_id, reason, now)
        self._half_removed.pop(job_id, None)

    async def complete_removals(self) -> None:
        """Cancel the runs of jobs that were deleted while the ledger was away."""
        for job_id, reason in list(self._half_removed.items()):
            await self._runs.cancel_all(job_id, reason, self._clock.now())
            self._half_removed.pop(job_id, None)

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
                scheduled_since=just_before(until),
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
        draft, schedule = self._checked(actor, _draft(data), data)
        return {
            "valid": True,
            "description": schedule.describe(),
            "nextExecutions": self._due(draft, schedule),
        }

    def preview(
        self, actor: Actor, text: str, zone: str, count: int, calendar: Mapping[str, Any]
    ) -> dict[str, Any]:
        """`calendar` has the fields of a job's, each of them None where it is not given."""
        require(actor, "jobs:read")
        policy = _calendar_policy(calendar)
        return self._schedules.preview(text, zone, count, self._clock.now(), policy)

    def find(self, actor: Actor, job_id: str) -> Job:
        """The job, if it exists for the caller. A foreign and an unknown id get the same answer."""
        job = self._store.get(job_id) if is_job_id(job_id) else None
        if job is None or not may_see(actor, job.tenant, job.user_id):
            raise NotFound(f'no job "{shown(job_id)}": list your jobs to see their ids', field="jobId")
        return job

    async def _create(self, actor: Actor, user: str, draft: JobDraft) -> Job:
        """Those that are being made count too: many at once must not slip through together."""
        most = self._max_jobs
        if self._store.count(actor.tenant) + self._creating[actor.tenant] >= most:
            raise QuotaExceeded(f"the tenant has {most} jobs, the most it may have: delete some first")
        self._creating[actor.tenant] += 1
        try:
            return await self._store.create(self._new(actor, user, draft))
        finally:
            self._creating[actor.tenant] -= 1

    def _new(self, actor: Actor, user: str, draft: JobDraft) -> Job:
        now = self._clock.now()
        return Job(
            **_definition(draft),
            id=new_job_id(now),
            tenant=actor.tenant,
            user_id=user,
            paused_reason=None if draft.enabled else f"created paused by {actor.user}",
            created_at=now,
            updated_at=now,
            updated_by=actor.user,
            scheduled_since=now,
        )

    def _checked(
        self, actor: Actor, draft: JobDraft, said: Mapping[str, Any], *, job: Job | None = None
    ) -> tuple[JobDraft, Schedule]:
        """The draft, if each field of it will do; raises `Refused`, naming the first that will not.

        `said`: what the caller wrote, for the name that they have for the schedule.
        """
        with naming("schedule" if said.get("cronExpression") is None else "cronExpression"):
            schedule = self._checked_schedule(draft, job)
        if job is None or draft.enabled:
            self._check_window(draft, schedule)
        try:
            self._commands.check(draft.command, draft.http)
        except AddressNotAllowed as error:
            expected = "expected a public host, or one that the operator allows (URL_ALLOW)"
            raise AddressNotAllowed(f"{error}: {expected}", field=error.field) from error
        self._channels.check(draft.channel_id, actor.tenant)
        return draft, schedule

    def _checked_schedule(self, draft: JobDraft, job: Job | None) -> Schedule:
        now = self._clock.now()
        anchor = now if job is None else job.created_at
        if job is not None and not draft.enabled:  # what has come to its end can still be renamed
            return self._schedules.read(draft, anchor)
        return self._schedules.check(draft, anchor, now)

    async def _check_runs_left(self, job_id: str, policy: JobPolicy) -> None:
        """Raises `Conflict` when a job under this policy would be over as soon as it is enabled."""
        if policy.max_runs is None:
            return
        progress = (await self._runs.progress_of([job_id])).get(job_id)
        if progress is not None and progress.runs_created >= policy.max_runs:
            message = f"the job has had {progress.runs_created} runs and maxRuns is {policy.max_runs}"
            raise Conflict(f"{message}: raise maxRuns by an update", field="maxRuns")

    def _check_window(self, draft: JobPolicy, schedule: Schedule) -> None:
        """Raises `InvalidValue` unless an instant lies between startAt and endAt."""
        first = schedule.next_after(self._first_after(draft))
        if first is None and draft.start_at is not None:
            message = f"bad startAt {instant_text(draft.start_at)}: no instant of the schedule lies after it"
            raise InvalidValue(message, field="startAt")
        if draft.end_at is not None and first is not None and first > draft.end_at:
            message = f"bad endAt {instant_text(draft.end_at)}: no instant of the schedule lies before it"
            raise InvalidValue(message, field="endAt")

    def _first_after(self, draft: JobPolicy) -> datetime:
        """The instant after which the first run of a job falls."""
        now = self._clock.now()
        return now if draft.start_at is None else max(now, draft.start_at - timedelta(seconds=1))

    def _redefined(self, job: Job, draft: JobDraft, *, by: str) -> Job:
        now = self._clock.now()
        changes = _definition(draft)
        if all(changes[name] == getattr(job, name) for name in changes):
            return job
        changes["updated_by"] = by
        if any(changes[name] != getattr(job, name) for name in _SCHEDULING):
            changes["scheduled_since"] = now
        if draft.enabled != job.enabled:
            changes["paused_reason"] = None if draft.enabled else "paused by an update"
            changes["paused_until"] = None
        redefined: Job = job.evolve(**changes)
        return redefined

    def _switched(self, job: Job, *, enabled: bool, why: str | None, by: str) -> Job:
        since = self._clock.now() if enabled and not job.enabled else job.scheduled_since
        switched: Job = job.evolve(
            enabled=enabled, paused_reason=why, paused_until=None, scheduled_since=since, updated_by=by
        )
        return switched

    def _view(self, job: Job) -> dict[str, Any]:
        return job_view(job, self._board.of(job.id), self._next_at(job.id))

    def _with_instants(self, job: Job, schedule: Schedule) -> dict[str, Any]:
        """The view, and what the schedule means: in words, and its next instants."""
        due = [] if self._next_at(job.id) is None else self._due(job, schedule)
        return {**self._view(job), "scheduleDescription": schedule.describe(), "nextExecutions": due}

    def _due(self, job: JobPolicy, schedule: Schedule) -> Sequence[dict[str, Any]]:
        """The next instants, within the job's own window."""
        due = upcoming(schedule, self._first_after(job), SHOWN_INSTANTS)
        if job.end_at is None:
            return due
        return [one for one in due if datetime.fromisoformat(one["at"]) <= job.end_at]


def _draft(data: Any) -> JobDraft:
    """The draft that a caller's JSON describes; raises `InvalidValue` for the first field that is off.

    Strict, as JSON has types of its own: "300" is not a number, and true is not 1. A field that is null
    is one that was not given.
    """
    if not isinstance(data, Mapping):
        expected = "an object with name, schedule, command and channelId"
        raise InvalidValue(f"bad data: expected {expected}", field="data")
    given = _merged({}, _known(data))
    if missing := [name for name in _REQUIRED if name not in given]:
        fields = "field" if len(missing) == 1 else "fields"
        raise InvalidValue(f"missing required {fields} {', '.join(missing)}", field=missing[0])
    try:
        return JobDraft.model_validate_json(json.dumps(given), strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        raise explain(error) from error


def _calendar_policy(given: Mapping[str, Any]) -> CalendarPolicy:
    """Strict, as `_draft` is."""
    try:
        text = json.dumps(_merged({}, given))
        return CalendarPolicy.model_validate_json(text, strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        raise explain(error) from error


def _known(data: Mapping[str, Any]) -> dict[str, Any]:
    """`data` with the schedule under its own name. Raises `InvalidValue` for a name that no job has."""
    for name in data:
        if name not in _WIRE_NAMES:
            raise _unknown(name)
    known = {name: value for name, value in data.items() if name != "cronExpression"}
    if "cronExpression" in data:
        expression = data["cronExpression"]
        if known.setdefault("schedule", expression) != expression and expression is not None:
            message = "schedule and cronExpression are two names of one field and differ: give one of them"
            raise InvalidValue(message, field="cronExpression")
    return known


def _unknown(name: str) -> InvalidValue:
    given = shown(name)
    if to_snake(given) in Job.model_fields and to_snake(given) not in _DEFINITION:
        return InvalidValue(f'field "{given}" cannot be set: leave it out', field=given)
    near = difflib.get_close_matches(given, _WIRE_NAMES, n=1)
    expected = f'did you mean "{near[0]}"?' if near else f"expected {', '.join(sorted(_WIRE_NAMES))}"
    return InvalidValue(f'unknown field "{given}": {expected}', field=given)


def _definition(draft: JobPolicy) -> dict[str, Any]:
    """The fields of a draft, or of a job, as values and not as JSON."""
    return {name: getattr(draft, name) for name in _DEFINITION}


def _patched(job: Job, updates: Mapping[str, Any]) -> dict[str, Any]:
    """The job's definition with `updates` merged in, ready to be checked as a draft."""
    if updates.get("idempotencyKey", job.idempotency_key) != job.idempotency_key:
        message = "bad idempotencyKey: it belongs to the call that made the job; leave it out"
        raise InvalidValue(message, field="idempotencyKey")
    document = job.model_dump(mode="json", by_alias=True, include=set(_DEFINITION), exclude_none=True)
    return _merged(document, _known(updates))


def _merged(target: dict[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """JSON Merge Patch, RFC 7396.

    >>> _merged({"a": 1, "b": {"c": 2, "d": 3}}, {"a": None, "b": {"c": 4}})
    {'b': {'c': 4, 'd': 3}}
    """
    merged = dict(target)
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, Mapping):
            inner = merged.get(name)
            merged[name] = _merged(inner if isinstance(inner, dict) else {}, value)
        else:
            merged[name] = value
    return merged


def just_before(instant: datetime) -> datetime:
    """The whole second after which the first instant of a schedule is at `instant` or later."""
    return datetime.fromtimestamp(-int(-instant.timestamp() // 1) - 1, UTC)


def _line(text: Any, field: str) -> str | None:
    """A short printable line from a caller, or None."""
    if text is None:
        return None
    if not isinstance(text, str) or len(text) > MAX_REASON or not text.isprintable():
        expected = f"one printable line of at most {MAX_REASON} characters"
        raise InvalidValue(f"bad {field}: expected {expected}", field=field)
    return text.strip() or None
