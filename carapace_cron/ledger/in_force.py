"""Which definition of each job is in force, as the ledger knows it; and the trail of how it came to be.

A change of a job counts once the job store took it; then it is put in force here, in one transaction with
its event and its chains. From then on no instant is recorded by any definition before it, whichever
process still holds that. After a crash between the two the ledger holds the definition before, so what
came due under it can still be accounted for.

Plain functions on a connection; `InForce` is the door to them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import sqlalchemy as sa
from pydantic import ValidationError

from carapace_cron.database import Database
from carapace_cron.failpoints import failpoint
from carapace_cron.ledger.aftermath import Aftermath, gathered
from carapace_cron.ledger.events import Event, insert_events
from carapace_cron.ledger.job_monitors import WATCHED, follow
from carapace_cron.ledger.statements import AnyRow, chunks, insert_for, one_of
from carapace_cron.ledger.tables import chains, definitions, progress
from carapace_cron.model.job import Job
from carapace_cron.outbound import headers, url

_BOOKKEEPING = frozenset(
    {
        "id",
        "tenant",
        "writeId",
        "earlierWriteIds",
        "revision",
        "createdAt",
        "updatedAt",
        "updatedBy",
        "scheduledSince",
        "deletedAt",
        "restoredAt",
        "executionCount",
        "failureCount",
        "lastExecutedAt",
        "lastStatus",
        "lastError",
        "nextExecutionAt",
    }
)


class InForce:
    """All methods raise `Unavailable` when the database cannot be used; then nothing was changed."""

    def __init__(
        self, database: Database, on_committed: Callable[[Aftermath], None] = lambda aftermath: None
    ) -> None:
        """`on_committed` hears after each commit what it did besides. It must not wait."""
        self._database = database
        self._on_committed = on_committed

    @failpoint("in_force.put")
    async def put(self, jobs: Sequence[Job], *, told: bool = True) -> list[str]:
        """Put definitions in force, tombstones too; older ones than are in force already change nothing.

        `told`: a job that this ledger sees for the first time is an event. Answers with the ids of jobs
        whose chains would run in a circle; they are in force without them.
        """
        work = partial(put_in_force, jobs=jobs, told=told)
        circular, aftermath = await self._database.write(partial(gathered, work=work))
        self._on_committed(aftermath)
        return circular

    async def definition(self, job_id: str) -> bytes | None:
        """The document of the definition in force; None when the ledger has none."""
        return await self._database.read(lambda c: c.execute(_IN_FORCE, {"job": job_id}).scalar())


def put_in_force(
    connection: sa.Connection, aftermath: Aftermath, jobs: Sequence[Job], *, told: bool
) -> list[str]:
    held = _held(connection, [job.id for job in jobs])
    newer = [job for job in jobs if _is_newer(job, held.get(job.id))]
    if not newer:
        return []
    befores = {job.id: _definition(connection, held.get(job.id)) for job in newer}
    rows = [_row(job) for job in newer]
    connection.execute(insert_for(connection, definitions).on_conflict_do_nothing(), rows)
    for job in newer:
        _advance(connection, job, befores[job.id])
    news = [job for job in newer if told or befores[job.id] is not None]
    insert_events(connection, [_event(job, befores[job.id]) for job in news])
    watched = [job for job in newer if job.monitor is not None or _was_watched(befores[job.id])]
    if watched:
        follow(connection, watched, aftermath)
    return [job.id for job in newer if not _chain(connection, job)]


def _was_watched(before: Job | None) -> bool:
    return before is not None and before.monitor is not None


def _row(job: Job) -> dict[str, Any]:
    body = job.model_dump_json(by_alias=True, exclude_none=True).encode()
    return {"job_id": job.id, "revision": job.revision, "body": body}


def labels_of(job: Job) -> str:
    """What limits count the runs of a job by, and whether a monitor watches them: ``channel:ops tag:db
    watched``. Names hold no blanks."""
    channel = f"channel:{job.channel_id}".replace(" ", "_")
    watched = [] if job.monitor is None else [WATCHED]
    return " ".join([channel, *(f"tag:{tag}" for tag in job.tags), *watched])


def changed_fields(before: Job | None, after: Job | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields in which two definitions differ: as they were, and as they are. A side that is None has
    none."""
    old, new = _fields(before), _fields(after)
    names = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    return (
        {name: old[name] for name in names if name in old},
        {name: new[name] for name in names if name in new},
    )


def _fields(job: Job | None) -> dict[str, Any]:
    if job is None:
        return {}
    return job.model_dump(mode="json", by_alias=True, exclude_defaults=True) | {"enabled": job.enabled}


def _event(job: Job, before: Job | None) -> Event:
    gone = job.deleted_at is not None
    old, new = changed_fields(before, None if gone else job)
    return Event(
        at=job.updated_at,
        tenant=job.tenant,
        user_id=job.user_id,
        actor=job.updated_by or "unknown",
        action=f"job.{_action(job, before)}",
        subject=job.id,
        job_id=job.id,
        before=_as_told(old) or None,
        after=_as_told(new) or None,
    )


def _as_told(fields: dict[str, Any]) -> dict[str, Any]:
    """What an event says of fields: without those that say nothing of the job, and without secrets."""
    told = {name: value for name, value in fields.items() if name not in _BOOKKEEPING}
    if "command" in told:
        told["command"] = url.without_secrets(told["command"])
    if told.get("http") is not None:
        told["http"] = _request_as_told(told["http"])
    return told


def _request_as_told(http: dict[str, Any]) -> dict[str, Any]:
    told = dict(http)
    if "headers" in told:
        told["headers"] = headers.without_secrets(told["headers"])
    if told.get("body") is not None:
        told["body"] = "[redacted]"
    return told


def _action(job: Job, before: Job | None) -> str:
    if job.deleted_at is not None:
        return "deleted"
    if before is None:
        return "created"
    if before.deleted_at is not None:
        return "restored"
    if before.enabled != job.enabled:
        return "resumed" if job.enabled else "paused"
    return "updated"


def _is_newer(job: Job, held: AnyRow | None) -> bool:
    return held is None or held.revision is None or held.revision < job.revision


def _held(connection: sa.Connection, job_ids: Sequence[str]) -> dict[str, AnyRow]:
    found: dict[str, AnyRow] = {}
    for chunk in chunks(job_ids):
        found.update((row.job_id, row) for row in connection.execute(_HELD, {"ids": chunk}))
    return found


def _definition(connection: sa.Connection, held: AnyRow | None) -> Job | None:
    """The definition before; None when there is none."""
    return None if held is None or held.revision is None else definition_in_force(connection, held.job_id)


def definition_in_force(connection: sa.Connection, job_id: str) -> Job | None:
    """None when the ledger has none of the job, or another version wrote it."""
    body = connection.execute(_IN_FORCE, {"job": job_id}).scalar()
    try:
        return None if body is None else Job.model_validate_json(body)
    except ValidationError:
        return None


def _advance(connection: sa.Connection, job: Job, before: Job | None) -> None:
    values = {"revision": job.revision, "labels": labels_of(job)}
    statement = insert_for(connection, progress).values(
        job_id=job.id,
        # Where a job that is new to this ledger goes on; the ledger before it had come at least so far.
        accounted_until=max(job.scheduled_since, job.last_executed_at or job.scheduled_since),
        runs_created=0,
        execution_count=0,
        failure_count=0,
        failures_in_row=0,
        **values,
    )
    fresh = values | ({"failures_in_row": 0} if before is not None and _counts_anew(job, before) else {})
    connection.execute(statement.on_conflict_do_update(index_elements=[progress.c.job_id], set_=fresh))


def _counts_anew(job: Job, before: Job) -> bool:
    """Whether failures in a row are counted from here: since a resume, or since another limit of them."""
    resumed = job.enabled and not before.enabled
    return resumed or job.pause_after_failures != before.pause_after_failures


def _chain(connection: sa.Connection, job: Job) -> bool:
    """Renew the chains of a job; False when they would run in a circle, and are left out."""
    connection.execute(sa.delete(chains).where(chains.c.job_id == job.id))
    if not job.after or not job.enabled or job.deleted_at is not None:
        return True
    if _reaches(connection, [one.job_id for one in job.after], job.id):
        return False
    conditions = {one.job_id: one.when for one in job.after}
    connection.execute(
        sa.insert(chains),
        [{"job_id": job.id, "upstream_id": one, "condition": when} for one, when in conditions.items()],
    )
    return True


def _reaches(connection: sa.Connection, job_ids: Sequence[str], goal: str) -> bool:
    """Whether `goal` is one of the jobs or comes, however indirectly, before one of them."""
    seen: set[str] = set()
    frontier = set(job_ids)
    while frontier:
        if goal in frontier:
            return True
        seen |= frontier
        query = sa.select(chains.c.upstream_id).where(chains.c.job_id.in_(frontier))
        frontier = set(connection.execute(query).scalars()) - seen
    return False


_HELD = sa.select(progress.c.job_id, progress.c.revision).where(one_of(progress.c.job_id, "ids"))
_IN_FORCE = (
    sa.select(definitions.c.body)
    .join(progress, (progress.c.job_id == definitions.c.job_id))
    .where(progress.c.job_id == sa.bindparam("job"), definitions.c.revision == progress.c.revision)
)
