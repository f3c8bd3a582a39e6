"""Tokens: who may issue them, and for whom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from carapace_cron.clock import Clock
from carapace_cron.errors import Forbidden, InvalidValue, NotFound
from carapace_cron.ledger.tokens import OPERATOR_TENANT, Tokens
from carapace_cron.model.actor import SCOPES, Actor
from carapace_cron.model.record import instant_text
from carapace_cron.schedule.errors import shown
from carapace_cron.services.access import check_name, require


class TokenDesk:
    """Admins issue, see and revoke the tokens of their tenant; the operator's admins those of every tenant.

    Otherwise one tenant's admin could make a token for another's data.
    """

    def __init__(self, tokens: Tokens, clock: Clock) -> None:
        self._tokens = tokens
        self._clock = clock

    async def create(self, actor: Actor, tenant: str, user: str, scopes: Sequence[str]) -> dict[str, Any]:
        """``{id, token}``: the token is shown this once."""
        require(actor, "admin")
        check_name(tenant, "tenant")
        check_name(user, "user")
        if not _administers(actor, tenant):
            others = f'only an admin of "{OPERATOR_TENANT}" makes tokens for others'
            raise Forbidden(f'tenant must be your own, "{actor.tenant}": {others}', field="tenant")
        if not isinstance(scopes, list) or not scopes:
            raise InvalidValue(f"bad scopes: expected a list of {', '.join(SCOPES)}", field="scopes")
        for scope in scopes:
            if scope not in SCOPES:
                expected = ", ".join(SCOPES)
                message = f'bad scope "{shown(str(scope))}": expected one of {expected}'
                raise InvalidValue(message, field="scopes")
        now, by = self._clock.now(), _named(actor, tenant)
        issued = await self._tokens.issue(tenant=tenant, user=user, scopes=scopes, now=now, by=by)
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
            if _administers(actor, holder.tenant)
        ]

    async def revoke(self, actor: Actor, token_id: str) -> None:
        """From the next request on the token is unknown."""
        require(actor, "admin")
        tenants = {one["id"]: one["tenant"] for one in await self.list(actor)}
        if token_id not in tenants:
            named = f' "{shown(token_id)}"' if token_id.startswith("tok_") else ""  # it may be a secret
            message = f"no token{named} is in force: list the tokens to see their ids"
            raise NotFound(message, field="id")
        by = _named(actor, tenants[token_id])
        await self._tokens.revoke(token_id, self._clock.now(), by=by)


def _named(actor: Actor, tenant: str) -> str:
    """The actor as those of `tenant` know them."""
    return actor.user if actor.tenant == tenant else f"{actor.tenant}/{actor.user}"


def _administers(actor: Actor, tenant: str) -> bool:
    return actor.tenant in (tenant, OPERATOR_TENANT)
