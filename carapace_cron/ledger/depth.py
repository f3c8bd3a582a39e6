"""How much waits in the ledger, over all tenants: for the operator's gauges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from carapace_cron.database import Database
from carapace_cron.ledger.tables import (
    QUEUED,
    RUNNING,
    InstantColumn,
    deliveries,
    monitors,
    runs,
)


@dataclass(frozen=True, slots=True)
class Depth:
    """`waiting`: channel id → notices in the outbox; the instants are None when nothing waits."""

    queued: int
    held: int
    running: int
    oldest_due: datetime | None
    waiting: Mapping[str, int]
    oldest_notice: datetime | None
    monitors: Mapping[str, int]


async def depth(database: Database) -> Depth:
    """All of one moment. Of runs and deliveries it reads the partial indexes of what waits, never what has
    ended; of monitors all."""
    return await database.read(_depth)


def _depth(connection: sa.Connection) -> Depth:
    queue = connection.execute(_QUEUE).one()
    outbox = connection.execute(_OUTBOX).all()
    notices = [row.oldest for row in outbox]
    return Depth(
        queued=queue.queued,
        held=queue.held,
        running=connection.execute(_RUNNING).scalar_one(),
        oldest_due=queue.oldest,
        waiting={row.channel_id: row.waiting for row in outbox},
        oldest_notice=min(notices) if notices else None,
        monitors={row.status: row.number for row in connection.execute(_MONITORS)},
    )


_QUEUE = sa.select(
    sa.func.count(sa.case((runs.c.held_by.is_(None), 1))).label("queued"),
    sa.func.count(runs.c.held_by).label("held"),
    sa.type_coerce(
        sa.func.min(sa.case((runs.c.held_by.is_(None), runs.c.available_at))), InstantColumn
    ).label("oldest"),
).where(QUEUED)
_RUNNING = sa.select(sa.func.count()).select_from(runs).where(RUNNING)
# The index knows how many wait and which is the first of each channel; only those rows are read.
_ROWS = (
    sa.select(
        deliveries.c.channel_id,
        sa.func.count().label("waiting"),
        sa.func.min(deliveries.c.sequence).label("first"),
    )
    .where(deliveries.c.state == sa.literal_column("'waiting'"))
    .group_by(deliveries.c.channel_id)
    .subquery()
)
_OUTBOX = sa.select(_ROWS.c.channel_id, _ROWS.c.waiting, deliveries.c.created_at.label("oldest")).join_from(
    _ROWS, deliveries, deliveries.c.sequence == _ROWS.c.first
)
_MONITORS = sa.select(monitors.c.status, sa.func.count().label("number")).group_by(monitors.c.status)
