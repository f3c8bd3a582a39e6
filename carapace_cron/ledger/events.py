"""The audit trail: who changed what, from what, to what. Each event is written with the change it tells of.

`insert_events` works on a connection, inside the writer's transaction; `Events` is the door for reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from carapace_cron.database import Database
from carapace_cron.failpoints import failpoint
from carapace_cron.ledger.tables import events

PRUNE_BATCH = 1_000  # rows a transaction, so that pruning never holds up the writer


ACTIONS = (
    "job.created",
    "job.updated",
    "job.paused",
    "job.resumed",
    "job.deleted",
    "job.restored",
    "job.backfilled",
    "run.started",  # by hand
    "run.cancelled",  # by hand; one that works is asked to stop
    "delivery.resent",
    "token.created",
    "token.revoked",
    "monitor.created",
    "monitor.updated",
    "monitor.paused",
    "monitor.resumed",
    "monitor.deleted",
    "monitor.acknowledged",
    "monitor.snoozed",
    "monitor.resent",  # a notice of it
)
"""What can be done: ``<kind of thing>.<what was done to it>``."""


@dataclass(frozen=True, slots=True)
class Event:
    """One change. `tenant` and `user_id`: whose thing it is; `actor`: who did it.

    `before` and `after` hold the fields that differ; None = nothing to say on that side. `sequence` is 0
    until it is written.
    """

    at: datetime
    tenant: str
    user_id: str
    actor: str
    action: str
    subject: str
    job_id: str | None = None
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    sequence: int = 0

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ValueError(f"no action {self.action!r}: add it to ACTIONS")


def insert_events(connection: sa.Connection, made: Sequence[Event]) -> None:
    rows = [asdict(event) for event in made]
    for row in rows:
        del row["sequence"]
    if rows:
        connection.execute(sa.insert(events), rows)


class Events:
    """All methods raise `Unavailable` when the database cannot be used."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self,
        *,
        tenant: str,
        user_id: str | None = None,
        job_id: str | None = None,
        actions: Sequence[str] = ACTIONS,
        before: int | None = None,
        limit: int = 50,
    ) -> list[Event]:
        """At most `limit` events, newest first; those with a sequence under `before`. None = any."""
        return await self._database.read(
            lambda c: event_page(c, tenant, user_id, job_id, actions, before, limit)
        )

    @failpoint("events.prune")
    async def prune(self, before: datetime) -> int:
        """Remove events older than `before`, in batches; how many."""
        removed = 0
        while batch := await self._database.write(lambda c: prune_batch(c, before)):
            removed += batch
        return removed


def event_page(
    connection: sa.Connection,
    tenant: str,
    user_id: str | None,
    job_id: str | None,
    actions: Sequence[str],
    before: int | None,
    limit: int,
) -> list[Event]:
    query = sa.select(events).where(events.c.tenant == tenant, events.c.action.in_(actions))
    if user_id is not None:
        query = query.where(events.c.user_id == user_id)
    if job_id is not None:
        query = query.where(events.c.job_id == job_id)
    if before is not None:
        query = query.where(events.c.sequence < before)
    newest_first = query.order_by(events.c.sequence.desc()).limit(limit)
    return [Event(**row) for row in connection.execute(newest_first).mappings()]


def prune_batch(connection: sa.Connection, before: datetime) -> int:
    old = sa.select(events.c.sequence).where(events.c.at < before).limit(PRUNE_BATCH)
    return connection.execute(sa.delete(events).where(events.c.sequence.in_(old))).rowcount
