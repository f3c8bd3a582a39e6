"""Who listens on a WebSocket, and which messages are for whom."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from carapace_cron.gateway.rpc import notification
from carapace_cron.model.actor import Actor, Scope

LISTENING_SCOPES: tuple[Scope, ...] = ("jobs:read", "monitors:read")  # one of them, or what includes it


class Listener(Protocol):
    """A connected client. `offer` takes a text or closes the client; it never waits."""

    @property
    def actor(self) -> Actor: ...

    def offer(self, text: str) -> None: ...


class Audience:
    """All connected clients. A user hears what is theirs, an admin all of their own tenant; and each token
    only what its scopes let it read."""

    def __init__(self) -> None:
        self._listeners: set[Listener] = set()

    def __len__(self) -> int:
        return len(self._listeners)

    def join(self, listener: Listener) -> None:
        self._listeners.add(listener)

    def leave(self, listener: Listener) -> None:
        self._listeners.discard(listener)

    def tell(
        self, method: str, params: Mapping[str, Any], *, tenant: str, user_id: str, scope: str
    ) -> None:
        """Push a notification to those whom it concerns. Raises what `dump_json` does."""
        meant = [one for one in self._listeners if may_see(one.actor, tenant, user_id, scope)]
        if meant:
            text = notification(method, params)
            for listener in meant:
                listener.offer(text)


def may_listen(actor: Actor) -> bool:
    return any(actor.may(scope) for scope in LISTENING_SCOPES)


def may_see(actor: Actor, tenant: str, user_id: str, scope: str) -> bool:
    return actor.tenant == tenant and (actor.user == user_id or actor.is_admin) and actor.may(scope)
