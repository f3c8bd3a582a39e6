"""Tokens: who may issue them, and for whom."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from carapace_cron.clock import Clock
from carapace_cron.errors import InvalidValue
from carapace_cron.ledger.tokens import Tokens
from carapace_cron.model.actor import SCOPES, Actor
from carapace_cron.model.record import instant_text
from carapace_cron.services.access import require

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9@._+-]{0,99}")  # no "/": it parts tenant and user in a lane


class TokenDesk:
    """Admins issue tokens for any tenant, and see and revoke them: they run the gateway."""

    def __init__(self, tokens: Tokens, clock: Clock) -> None:
        self._tokens = tokens
        self._clock = clock

    async def create(self, actor: Actor, tenant: str, user: str, scopes: Sequence[str]) -> dict[str, Any]:
        """``{id, token}``: the token is shown this once."""
        require(actor, "admin")
        _check_name(tenant, "tenant")
        _check_name(user, "user")
        if not isinstance(scopes, list) or not scopes:
            raise InvalidValue(f"bad scopes: expected a list of {', '.join(SCOPES)}", field="scopes")
        for scope in scopes:
            if scope not in SCOPES:
                shown = str(scope)[:40]
                expected = ", ".join(SCOPES)
                raise InvalidValue(f'bad scope "{shown}": expected one of {expected}', field="scopes")
        issued = await self._tokens.issue(tenant, user, scopes, self._clock.now())
        return {"id": issued.id, "token": issued.secret, "tenant": tenant, "user": user, "scopes": scopes}

    async def list(self, actor: Actor) -> list[dict[str, Any]]:
        require(actor, "admin")
        return [
            {
                "id": holder.token_id,
                "tenant": holder.tenant,
                "user": holder.user,
                "scopes": sorted(holder.scopes),
                "createdAt": instant_text(created_at),
            }
            for holder, created_at in await self._tokens.list()
        ]

    async def revoke(self, actor: Actor, token_id: str) -> None:
        """From the next request on the token is unknown."""
        require(actor, "admin")
        await self._tokens.revoke(str(token_id), self._clock.now())


def _check_name(text: str, field: str) -> None:
    if not isinstance(text, str) or not _NAME.fullmatch(text):
        raise InvalidValue(
            f'bad {field} "{str(text)[:40]}": expected 1–100 letters, digits, @ . _ + or -', field=field
        )
