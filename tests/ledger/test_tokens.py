"""Tokens are kept as hashes, fail the moment they are revoked, and say who holds them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from carapace_cron.database import Database
from carapace_cron.engines import sqlite_engine
from carapace_cron.errors import NotFound
from carapace_cron.ledger.events import Events
from carapace_cron.ledger.migrations.upgrade import upgrade
from carapace_cron.ledger.tokens import OPERATOR_TOKEN, Tokens

NOW = datetime(2026, 11, 21, tzinfo=UTC)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    made = Database(sqlite_engine(tmp_path / "ledger.sqlite"), upgrade)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def tokens(database: Database) -> Tokens:
    return Tokens(database)


async def test_a_token_says_who_holds_it(tokens: Tokens) -> None:
    issued = await tokens.issue(tenant="acme", user="alice", scopes=["jobs:write", "jobs:read"], now=NOW)
    holder = await tokens.find(issued.secret)
    assert holder is not None
    assert (holder.tenant, holder.user, holder.scopes) == ("acme", "alice", {"jobs:read", "jobs:write"})
    assert await tokens.find(issued.secret + "x") is None


async def test_the_secret_itself_is_nowhere_in_the_file(
    tokens: Tokens, database: Database, tmp_path: Path
) -> None:
    issued = await tokens.issue(tenant="acme", user="alice", scopes=["admin"], now=NOW)
    await database.close()
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert issued.id.encode() in written
    assert issued.secret.encode() not in written


async def test_the_audit_trail_has_each_token_without_its_secret(
    tokens: Tokens, database: Database
) -> None:
    issued = await tokens.issue(tenant="acme", user="alice", scopes=["jobs:read"], now=NOW, by="ada")
    await tokens.revoke(issued.id, NOW, by="bob")
    for chosen in ("first-secret-of-mine", "first-secret-of-mine", "second-secret-of-mine", None, None):
        await tokens.set_operator_token(chosen, NOW)
    trail = await Events(database).page(tenant="acme")
    assert [(one.action, one.actor, one.subject, one.before, one.after) for one in trail] == [
        ("token.revoked", "bob", issued.id, {"user": "alice", "scopes": ["jobs:read"]}, None),
        ("token.created", "ada", issued.id, None, {"user": "alice", "scopes": ["jobs:read"]}),
    ]
    assert await of_operator(database) == ["created", "revoked", "created", "revoked"]
    assert {one.actor for one in await Events(database).page(tenant="default")} == {"the gateway"}


async def test_a_revoked_token_is_unknown_from_the_next_use_on(tokens: Tokens) -> None:
    issued = await tokens.issue(tenant="acme", user="alice", scopes=["admin"], now=NOW)
    await tokens.revoke(issued.id, NOW)
    assert await tokens.find(issued.secret) is None
    assert not await tokens.any_admin()
    with pytest.raises(NotFound):
        await tokens.revoke(issued.id, NOW)


async def test_the_operators_token_is_replaced_by_a_new_one_and_removed_by_none(tokens: Tokens) -> None:
    await tokens.set_operator_token("first-secret-of-mine", NOW)
    await tokens.set_operator_token("second-secret-of-mine", NOW)
    assert await tokens.find("first-secret-of-mine") is None
    assert (await tokens.find("second-secret-of-mine")) is not None
    await tokens.set_operator_token(None, NOW)
    assert await tokens.find("second-secret-of-mine") is None


async def test_a_start_with_the_operators_token_puts_it_in_force_again_after_it_was_revoked(
    tokens: Tokens, database: Database
) -> None:
    await tokens.set_operator_token("first-secret-of-mine", NOW)
    await tokens.revoke(OPERATOR_TOKEN, NOW)
    assert not await tokens.any_admin()
    await tokens.set_operator_token("first-secret-of-mine", NOW)
    assert await tokens.find("first-secret-of-mine") is not None
    assert await of_operator(database) == ["created", "revoked", "created"]


@pytest.mark.parametrize("chosen", [None, "second-secret-of-mine"])
async def test_the_operators_token_is_revoked_once(
    tokens: Tokens, database: Database, chosen: str | None
) -> None:
    await tokens.set_operator_token("first-secret-of-mine", NOW)
    await tokens.revoke(OPERATOR_TOKEN, NOW)
    await tokens.set_operator_token(chosen, NOW)
    assert await of_operator(database) == ["created", "revoked", *(["created"] if chosen else [])]


async def of_operator(database: Database) -> list[str]:
    """What the audit trail has of the operator's token, oldest first."""
    return [one.action.partition(".")[2] for one in await Events(database).page(tenant="default")][::-1]
