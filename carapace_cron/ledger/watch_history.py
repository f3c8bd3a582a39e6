"""What was heard of a monitor and what became of it: its pings and its flips, for those who read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from carapace_cron.database import Database
from carapace_cron.ledger.statements import AnyRow
from carapace_cron.ledger.tables import flips, pings
from carapace_cron.model.monitor import Flip, PingKind


@dataclass(frozen=True, slots=True)
class KeptPing:
    """A ping as it was kept. `n`: counted per monitor, from 1; `kind`: what it meant after all."""

    n: int
    at: datetime
    kind: PingKind
    rid: str
    exit_status: int | None
    duration_ms: int | None  # of the run that ended with it
    scheme: str
    method: str
    remote_address: str
    user_agent: str
    body_bytes: int  # 0: there was none


class WatchHistory:
    """All methods raise `Unavailable` when the database cannot be used."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def pings(self, monitor_id: str, *, before: int | None = None, limit: int = 50) -> list[KeptPing]:
        """At most `limit` pings, newest first; those with an `n` under `before`."""
        query = _PINGS.where(pings.c.monitor_id == monitor_id).order_by(pings.c.n.desc()).limit(limit)
        if before is not None:
            query = query.where(pings.c.n < before)
        rows = await self._database.read(lambda c: c.execute(query).all())
        return [_kept_ping(row) for row in rows]

    async def ping_body(self, monitor_id: str, n: int) -> bytes | None:
        """The body of a ping; empty when it had none, None when there is no such ping (any more)."""
        query = sa.select(pings.c.body).where(pings.c.monitor_id == monitor_id, pings.c.n == n)
        row = await self._database.read(lambda c: c.execute(query).first())
        return None if row is None else (row.body or b"")

    async def flips(
        self,
        monitor_id: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 1_000,
    ) -> list[Flip]:
        """At most `limit` flips, newest first; those from `since` on, before `until`."""
        query = sa.select(flips).where(flips.c.monitor_id == monitor_id)
        if since is not None:
            query = query.where(flips.c.at >= since)
        if until is not None:
            query = query.where(flips.c.at < until)
        newest_first = query.order_by(flips.c.sequence.desc()).limit(limit)
        rows = await self._database.read(lambda c: c.execute(newest_first).all())
        return [Flip(row.at, row.before, row.after, row.reason) for row in rows]


_PINGS = sa.select(
    *(column for column in pings.c if column.name not in ("monitor_id", "body")),
    sa.func.coalesce(sa.func.length(pings.c.body), 0).label("body_bytes"),
)


def _kept_ping(row: AnyRow) -> KeptPing:
    values: dict[str, Any] = dict(row._mapping)
    return KeptPing(**values)
