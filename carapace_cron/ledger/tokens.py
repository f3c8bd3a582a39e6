"""Bearer tokens: only their hashes are kept, so what is lost cannot be read here, only replaced.

Each that is made or revoked is in the audit trail, by its id, with its scopes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from carapace_cron.database import Database
from carapace_cron.errors import NotFound
from carapace_cron.ids import new_token, random_text, token_hash
from carapace_cron.ledger.events import Event, insert_events
from carapace_cron.ledger.tables import tokens
from carapace_cron.model.actor import GATEWAY, Actor

OPERATOR_TENANT = "default"  # whose admins run the gateway
FIRST_ADMIN = "admin"  # the user of its first token, and of the one that the operator chose
OPERATOR_TOKEN = "tok_operator"  # noqa: S105  # the id of the token from the setting ADMIN_TOKEN


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A new token. `secret` is shown once and is not kept."""

    id: str
    secret: str


class Tokens:
    """Every call looks into the database, so a revoked token fails on its next use."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def issue(
        self, *, tenant: str, user: str, scopes: Iterable[str], now: datetime, by: str = GATEWAY
    ) -> IssuedToken:
        """`by`: whom the audit trail names."""
        issued = IssuedToken("tok_" + random_text(), new_token())
        row = {
            "id": issued.id,
            "hash": token_hash(issued.secret),
            "tenant": tenant,
            "user_id": user,
            "scopes": " ".join(sorted(scopes)),
            "created_at": now,
        }
        await self._database.write(lambda c: _insert(c, row, by))
        return issued

    async def set_operator_token(self, secret: str | None, now: datetime) -> None:
        """Put the admin token that the operator chose in force, and only the newest; None = none is.

        One that was revoked is in force again: who starts a gateway with it wants it so.
        """
        row = {
            "id": OPERATOR_TOKEN,
            "hash": None if secret is None else token_hash(secret),
            "tenant": OPERATOR_TENANT,
            "user_id": FIRST_ADMIN,
            "scopes": "admin",
            "created_at": now,
        }
        await self._database.write(lambda c: _replace_operators(c, row))

    async def find(self, secret: str) -> Actor | None:
        """Who holds this token; None when there is no such token or it was revoked.

        The look-up is by hash: what its timing tells is nothing about any token.
        """
        query = sa.select(tokens).where(tokens.c.hash == token_hash(secret), tokens.c.revoked_at.is_(None))
        row = await self._database.read(lambda c: c.execute(query).one_or_none())
        return None if row is None else _actor(row)

    async def any_admin(self) -> bool:
        """Whether anybody could administer this gateway."""
        query = sa.select(tokens.c.scopes).where(tokens.c.revoked_at.is_(None))
        scopes = await self._database.read(lambda c: list(c.execute(query).scalars()))
        return any("admin" in text.split() for text in scopes)

    async def revoke(self, token_id: str, now: datetime, *, by: str = GATEWAY) -> None:
        """From the next request on the token is unknown. Raises NotFound. `by` as for `issue`."""
        if not await self._database.write(lambda c: _revoke(c, token_id, now, by)):
            raise NotFound(f"no token {token_id[:40]!r}, or it is revoked already", field="id")

    async def list(self) -> list[tuple[Actor, datetime]]:
        """The tokens in force, oldest first, with the time of their making; never the secrets."""
        query = sa.select(tokens).where(tokens.c.revoked_at.is_(None)).order_by(tokens.c.created_at)
        rows = await self._database.read(lambda c: c.execute(query).all())
        return [(_actor(row), row.created_at) for row in rows]


def _insert(connection: sa.Connection, row: Mapping[str, Any], by: str) -> None:
    connection.execute(sa.insert(tokens), row)
    insert_events(connection, [_event("token.created", row, row["created_at"], by)])


def _revoke(connection: sa.Connection, token_id: str, now: datetime, by: str) -> bool:
    """False when no such token is in force."""
    in_force = (tokens.c.id == token_id) & tokens.c.revoked_at.is_(None)
    row = connection.execute(sa.select(tokens).where(in_force)).mappings().one_or_none()
    if row is None:
        return False
    connection.execute(sa.update(tokens).where(in_force).values(revoked_at=now))
    insert_events(connection, [_event("token.revoked", dict(row), now, by)])
    return True


def _replace_operators(connection: sa.Connection, row: Mapping[str, Any]) -> None:
    """`row` has no hash: the operator chose none."""
    of_operator = tokens.c.id == OPERATOR_TOKEN
    in_force = sa.select(tokens.c.hash).where(of_operator, tokens.c.revoked_at.is_(None))
    if connection.execute(in_force).scalar_one_or_none() == row["hash"]:
        return
    _revoke(connection, OPERATOR_TOKEN, row["created_at"], GATEWAY)
    connection.execute(sa.delete(tokens).where(of_operator))
    if row["hash"] is not None:
        connection.execute(sa.delete(tokens).where(tokens.c.hash == row["hash"]))
        _insert(connection, row, GATEWAY)


def _event(action: str, row: Mapping[str, Any], at: datetime, by: str) -> Event:
    """Without the secret, and without its hash."""
    about = {"user": row["user_id"], "scopes": row["scopes"].split()}
    return Event(
        at=at,
        tenant=row["tenant"],
        user_id=row["user_id"],
        actor=by,
        action=action,
        subject=row["id"],
        before=about if action == "token.revoked" else None,
        after=about if action == "token.created" else None,
    )


def _actor(row: sa.Row[tuple[object, ...]]) -> Actor:
    return Actor(row.tenant, row.user_id, frozenset(row.scopes.split()), row.id)
