"""Who may do what. Every use case asks here first; nothing further in asks again."""

from __future__ import annotations

import re
from typing import Any

from carapace_cron.errors import Forbidden, InvalidValue
from carapace_cron.ids import is_monitor_id, unique_key
from carapace_cron.model.actor import Actor, Scope
from carapace_cron.schedule.errors import shown

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9@._+-]{0,99}")  # no "/": it parts tenant and user in a lane


def require(actor: Actor, scope: Scope) -> None:
    """Raises `Forbidden`, naming the scope that is missing."""
    if not actor.may(scope):
        raise Forbidden(f"this needs the scope {scope}; the token has {_held(actor)}")


def require_one_of(actor: Actor, *scopes: Scope) -> None:
    """Raises `Forbidden`, naming the scopes of which each would do."""
    if not any(actor.may(scope) for scope in scopes):
        raise Forbidden(f"this needs one of the scopes {', '.join(scopes)}; the token has {_held(actor)}")


def user_of(actor: Actor, user_id: str | None) -> str:
    """The user that a call is about: the caller, or for an admin whom they name, in their own tenant."""
    if user_id is None or user_id == actor.user:
        return actor.user
    if not actor.is_admin:
        message = f'userId must be your own, "{actor.user}": only an admin acts for others'
        raise Forbidden(message, field="userId")
    check_name(user_id, "userId")
    return user_id


def check_name(text: Any, field: str) -> None:
    """Raises `InvalidValue` for what cannot be the name of a tenant or a user."""
    if not isinstance(text, str) or not _NAME.fullmatch(text):
        expected = "expected 1–100 letters, digits, @ . _ + or -, a letter or digit first"
        raise InvalidValue(f'bad {field} "{shown(str(text))}": {expected}', field=field)


def may_see(actor: Actor, tenant: str, user_id: str) -> bool:
    """Whether a thing of `user_id` in `tenant` exists for the caller at all.

    One's own things; an admin's view is the whole of their tenant, and never another.
    """
    return tenant == actor.tenant and (actor.is_admin or user_id == actor.user)


def name_for(actor: Actor, monitor: str) -> str:
    """How the caller is told of a monitor, which is given by its id or its unique key. The id is the right to
    ping: who may only read gets the unique key, which calls take as `monitorId` just as well."""
    return unique_key(monitor) if is_monitor_id(monitor) and not actor.may("monitors") else monitor


def _held(actor: Actor) -> str:
    return " ".join(sorted(actor.scopes)) or "none"
