"""Who may do what. Every use case asks here first; nothing further in asks again."""

from __future__ import annotations

from carapace_cron.errors import Forbidden
from carapace_cron.model.actor import Actor


def require(actor: Actor, scope: str) -> None:
    """Raises `Forbidden`, naming the scope that is missing."""
    if not actor.may(scope):
        held = " ".join(sorted(actor.scopes)) or "none"
        raise Forbidden(f"this needs the scope {scope}; the token has {held}")


def user_of(actor: Actor, user_id: str | None) -> str:
    """The user that a call is about: the caller, or for an admin whom they name, in their own tenant."""
    if user_id is None or user_id == actor.user:
        return actor.user
    if not actor.is_admin:
        message = f'userId must be your own, "{actor.user}": only an admin acts for others'
        raise Forbidden(message, field="userId")
    return user_id


def may_see(actor: Actor, tenant: str, user_id: str) -> bool:
    """Whether a thing of `user_id` in `tenant` exists for the caller at all.

    One's own things; an admin's view is the whole of their tenant, and never another.
    """
    return tenant == actor.tenant and (actor.is_admin or user_id == actor.user)
