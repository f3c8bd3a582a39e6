"""Single values that a ledger knows of itself."""

from __future__ import annotations

import sqlalchemy as sa

from carapace_cron.database import Database
from carapace_cron.ids import random_text
from carapace_cron.ledger.statements import insert_for
from carapace_cron.ledger.tables import facts


async def ledger_id(database: Database) -> str:
    """The id of this ledger: made once, the same for as long as the database lives."""

    def read_or_make(connection: sa.Connection) -> str:
        made = {"name": "ledgerId", "value": f"ledger_{random_text()}"}
        connection.execute(insert_for(connection, facts).on_conflict_do_nothing(), made)
        query = sa.select(facts.c.value).where(facts.c.name == "ledgerId")
        return str(connection.execute(query).scalar_one())

    return await database.write(read_or_make)
