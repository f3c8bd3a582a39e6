"""Objects as rows of the ledger's own database, behind the ledger's own writer.

One database to keep, one commit for what belongs together, and the ETags, keys and conditions of S3, so that
`carapace_cron.objects.copy` moves a gateway into a bucket one to one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import sqlalchemy as sa

from carapace_cron.clock import Clock
from carapace_cron.database import Database
from carapace_cron.failpoints import failpoint
from carapace_cron.ledger.tables import objects
from carapace_cron.objects.conditions import etag_of, judge, require_one
from carapace_cron.ports.object_store import Conflict, Listed, Stored, StoredObject, WriteOutcome

PAGE = 2_000  # rows a read: some megabytes of bodies at a time
_AFTER_ALL = "\U0010ffff"  # sorts after every character that a key can hold


class DatabaseObjects:
    """Objects in the given open `Database`, which stays its owner's to close."""

    conditional_writes = True

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    @failpoint("objects.get")
    async def get(self, key: str) -> StoredObject | None:
        return await self._database.read(lambda connection: _current(connection, key))

    @failpoint("objects.put")
    async def put(
        self, key: str, body: bytes, *, if_match: str | None = None, if_absent: bool = False
    ) -> WriteOutcome:
        require_one(if_match, if_absent)
        etag = etag_of(body)
        row = {"key": key, "etag": etag, "body": body, "modified_at": self._clock.now()}

        def work(connection: sa.Connection) -> WriteOutcome:
            judged = judge(_current(connection, key), body, if_match=if_match, if_absent=if_absent)
            if judged is not None:
                return judged
            write = objects.insert() if if_absent else objects.update().where(objects.c.key == key)
            connection.execute(write.values(row))
            return Stored(etag)

        return await self._database.write(work)

    @failpoint("objects.delete")
    async def delete(self, key: str, *, if_match: str) -> WriteOutcome:
        def work(connection: sa.Connection) -> WriteOutcome:
            current = _current(connection, key)
            if current is not None and current.etag != if_match:
                return Conflict(current.etag)
            connection.execute(objects.delete().where(objects.c.key == key))
            return Stored("")

        return await self._database.write(work)

    @failpoint("objects.list")
    async def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[Listed]:
        last = after or ""
        while page := await self._database.read(_page_reader(prefix, last)):
            for listed in page:
                yield listed
            last = page[-1].key

    async def close(self) -> None:
        """Nothing: the database belongs to who opened it."""


def _current(connection: sa.Connection, key: str) -> StoredObject | None:
    query = sa.select(objects.c.body, objects.c.etag).where(objects.c.key == key)
    row = connection.execute(query).one_or_none()
    return None if row is None else StoredObject(key, row.body, row.etag)


def _page_reader(prefix: str, after: str) -> Callable[[sa.Connection], list[Listed]]:
    # A range over the primary key instead of LIKE: no escaping, and the index is used.
    query = (
        sa.select(objects.c.key, objects.c.etag, objects.c.body)
        .where(objects.c.key > after, objects.c.key >= prefix, objects.c.key < prefix + _AFTER_ALL)
        .order_by(objects.c.key)
        .limit(PAGE)
    )

    def read(connection: sa.Connection) -> list[Listed]:
        return [Listed(key, etag, body) for key, etag, body in connection.execute(query)]

    return read
