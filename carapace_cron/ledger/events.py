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
from carapace_cron.ledger.tables import events

PRUNE_BATCH = 1_000  # rows a transaction, so that pruning never holds up the writer


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

    async def note(self, event: Event) -> None:
        """Write down a change that no other record of the ledger goes with."""
        await self._database.write(lambda c: insert_events(c, [event]))

    async def page(
        self,
        *,
        tenant: str,
        user_id: str | None = None,
        job_id: str | None = None,
        actions: Sequence[str] = (),
        before: int | None = None,
        limit: int = 50,
    ) -> list[Event]:
        """At most `limit` events, newest first; those with a sequence under `before`. None = any."""
        query = sa.select(events).where(events.c.tenant == tenant)
        if user_id is not None:
            query = query.where(events.c.user_id == user_id)
        if job_id is not None:
            query = query.where(events.c.job_id == job_id)
        if actions:
            query = query.where(events.c.action.in_(actions))
        if before is not None:
            query = query.where(events.c.sequence < before)
        newest_first = query.order_by(events.c.sequence.desc()).limit(limit)
        rows = await self._database.read(lambda c: c.execute(newest_first).mappings().all())
        return [Event(**row) for row in rows]

    async def prune(self, before: datetime) -> int:
        """Remove events older than `before`, in batches; how many."""
        removed = 0
        while batch := await self._database.write(lambda c: _prune(c, before)):
            removed += batch
        return removed


def _prune(connection: sa.Connection, before: datetime) -> int:
    old = sa.select(events.c.sequence).where(events.c.at < before).limit(PRUNE_BATCH)
    return connection.execute(sa.delete(events).where(events.c.sequence.in_(old))).rowcount
