"""The keys of public badges: random, one a user, made when somebody first asks for them."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from carapace_cron.database import Database
from carapace_cron.failpoints import failpoint
from carapace_cron.ids import new_token, random_text
from carapace_cron.ledger.tables import badges


@dataclass(frozen=True, slots=True)
class BadgeKey:
    """`key` stands in the address of a badge; `secret` signs the tag beside it, and is told to nobody."""

    key: str
    secret: str
    tenant: str
    user_id: str


class BadgeKeys:
    """Both methods raise `Unavailable` when the database cannot be used."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @failpoint("badges.of")
    async def of(self, tenant: str, user_id: str) -> BadgeKey:
        """The user's, made when there is none."""
        query = sa.select(badges).where(badges.c.tenant == tenant, badges.c.user_id == user_id)
        made = {"key": random_text(), "secret": new_token(), "tenant": tenant, "user_id": user_id}

        def find_or_make(connection: sa.Connection) -> BadgeKey:
            row = connection.execute(query).first()
            if row is None:
                connection.execute(sa.insert(badges), made)
                return BadgeKey(**made)
            return BadgeKey(**row._mapping)

        row = await self._database.read(lambda c: c.execute(query).first())
        return await self._database.write(find_or_make) if row is None else BadgeKey(**row._mapping)

    async def find(self, key: str) -> BadgeKey | None:
        query = sa.select(badges).where(badges.c.key == key)
        row = await self._database.read(lambda c: c.execute(query).first())
        return None if row is None else BadgeKey(**row._mapping)
