"""Who asks: taken from the credentials of the connection, never from a parameter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Scope = Literal["jobs:read", "jobs:write", "admin", "monitors", "monitors:read", "ping", "host"]
SCOPES: tuple[str, ...] = get_args(Scope)


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
        """``jobs:write`` includes ``jobs:read``; ``admin`` includes all."""
        return self.is_admin or scope in self.scopes or (scope == "jobs:read" and "jobs:write" in self.scopes)
