"""Who asks: taken from the credentials of the connection, never from a parameter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Scope = Literal["jobs:read", "jobs:write", "admin", "monitors", "monitors:read", "ping", "host"]
SCOPES: tuple[str, ...] = get_args(Scope)


_INCLUDED_IN = {"jobs:read": "jobs:write", "monitors:read": "monitors"}
GATEWAY = "the gateway"  # who changed what no user changed


@dataclass(frozen=True, slots=True)
class Actor:
    """`tenant` is whose data, `user` who within it. `admin` includes every other scope, in its own tenant."""

    tenant: str
    user: str
    scopes: frozenset[str]
    token_id: str = ""

    @property
    def is_admin(self) -> bool:
        return "admin" in self.scopes

    def may(self, scope: str) -> bool:
        """``jobs:write`` includes ``jobs:read``, ``monitors`` ``monitors:read``; ``admin`` includes all."""
        return self.is_admin or scope in self.scopes or _INCLUDED_IN.get(scope) in self.scopes
