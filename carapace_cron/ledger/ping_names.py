"""Whom a ping by name is for: resolved in the transaction that keeps it, for all pings of a batch at once.

A look-up of its own for each would cost several times what keeping the ping costs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass

import sqlalchemy as sa

from carapace_cron.ledger.statements import chunks, one_of
from carapace_cron.ledger.tables import monitors, tokens

PING_KEY_SCOPE = "ping"  # a token that may do more is no ping key: what stands in addresses ends in logs


@dataclass(frozen=True, slots=True)
class Name:
    """How an address names a monitor. `key_hash`: of a ping key."""

    key_hash: str
    slug: str


def resolve(connection: sa.Connection, names: Collection[Name]) -> dict[Name, str]:
    """The ids of the monitors; names of none are left out."""
    owners = _owners(connection, {name.key_hash for name in names})
    slugs: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        slugs[name.key_hash].append(name.slug)
    return {
        Name(key_hash, slug): monitor_id
        for key_hash, owner in owners.items()
        for slug, monitor_id in _ids(connection, owner, slugs[key_hash])
    }


def _owners(connection: sa.Connection, hashes: Collection[str]) -> dict[str, tuple[str, str]]:
    """Tenant and user by the hash of their ping key."""
    found: dict[str, tuple[str, str]] = {}
    for chunk in chunks(list(hashes)):
        for row in connection.execute(_KEYS, {"hashes": chunk}):
            found[row.hash] = (row.tenant, row.user_id)
    return found


def _ids(connection: sa.Connection, owner: tuple[str, str], slugs: Collection[str]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for chunk in chunks(list(slugs)):
        rows = connection.execute(_SLUGS, {"tenant": owner[0], "user": owner[1], "slugs": chunk})
        found += [(row.slug, row.id) for row in rows]
    return found


_KEYS = sa.select(tokens.c.hash, tokens.c.tenant, tokens.c.user_id).where(
    one_of(tokens.c.hash, "hashes"),
    tokens.c.revoked_at.is_(None),
    tokens.c.scopes == PING_KEY_SCOPE,  # the column has all of a token's scopes, joined by blanks
)
_SLUGS = sa.select(monitors.c.slug, monitors.c.id).where(
    monitors.c.tenant == sa.bindparam("tenant"),
    monitors.c.user_id == sa.bindparam("user"),
    one_of(monitors.c.slug, "slugs"),
    monitors.c.slug != sa.literal_column("''"),  # only so does the database see that its partial index fits
)
