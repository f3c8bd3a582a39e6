"""Tokens of a running gateway: made, listed and revoked by an admin."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import click

from carapace_cron.cli.remote import RemoteGateway, one_line

_COLUMNS = ("id", "tenant", "user", "scopes", "createdAt")


def create(
    gateway: RemoteGateway, scopes: Sequence[str], *, tenant: str | None, user: str | None, as_json: bool
) -> None:
    """Print the new token alone, so that ``$(…)`` is the token. None: as the caller's own."""
    if tenant is None or user is None:
        caller = gateway.call("carapace.gateway.whoami")
        tenant = caller["tenant"] if tenant is None else tenant
        user = caller["userId"] if user is None else user
    made = gateway.call("carapace.cron.tokens.create", tenant=tenant, user=user, scopes=list(scopes))
    click.echo(json.dumps(made) if as_json else made["token"])
    may = ", ".join(made["scopes"])
    click.echo(f'{made["id"]} is for "{user}" of "{tenant}" and may: {may}. It is shown this once.', err=True)


def show_all(gateway: RemoteGateway, *, as_json: bool) -> None:
    """Print the tokens in force, oldest first."""
    tokens = gateway.call("carapace.cron.tokens.list")
    if as_json:
        click.echo(json.dumps(tokens))
        return
    for line in _table(tokens):
        click.echo(line)


def revoke(gateway: RemoteGateway, token_id: str) -> None:
    """From the next request on the token is unknown."""
    gateway.call("carapace.cron.tokens.revoke", id=token_id)
    click.echo(f"{token_id} is revoked", err=True)


def _table(tokens: Iterable[dict[str, Any]]) -> list[str]:
    """
    >>> _table([{"id": "tok_1", "tenant": "acme", "user": "eve", "scopes": ["admin"], "createdAt": "2026"}])
    ['id     tenant  user  scopes  createdAt', 'tok_1  acme    eve   admin   2026']
    """
    rows = [_COLUMNS, *(tuple(_cell(token[name]) for name in _COLUMNS) for token in tokens)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _cell(value: Any) -> str:
    return one_line(" ".join(value) if isinstance(value, list) else value)
