"""From the headers of a request to the actor behind it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping

from carapace_cron.errors import Unavailable
from carapace_cron.gateway.faults import HttpFault
from carapace_cron.model.actor import Actor

logger = logging.getLogger(__name__)

Identify = Callable[[str], Awaitable[Actor | None]]

_MAX_TOKEN = 512  # characters; ours have under 40
_NOT_NOW = "tokens cannot be checked now; try again later"


def token_of(headers: Mapping[str, str]) -> str:
    """The token in ``Authorization: Bearer …`` or ``X-Api-Key``; never one of the query, which is logged
    by proxies and kept by browsers. Raises `HttpFault` 401 when there is none."""
    scheme, _, rest = headers.get("Authorization", "").partition(" ")
    token = rest.strip() if scheme.lower() == "bearer" else headers.get("X-Api-Key", "").strip()
    if not token:
        raise HttpFault(401, "no token: expected the header Authorization: Bearer <token>, or X-Api-Key")
    return token


async def actor_of(token: str, identify: Identify) -> Actor:
    """Who holds the token. Raises `HttpFault`: 401 for an unknown one, 503 when nobody can say."""
    if len(token) > _MAX_TOKEN:
        raise _unknown()
    try:
        actor = await identify(token)
    except Unavailable as error:  # no fault, and there may be a thousand callers: no traceback for each
        logger.warning("tokens cannot be checked: %s", error, extra={"action": "identify_failed"})
        raise HttpFault(503, _NOT_NOW) from error
    except Exception as error:
        logger.exception("tokens cannot be checked", extra={"action": "identify_failed"})
        raise HttpFault(503, _NOT_NOW) from error
    if actor is None:
        raise _unknown()
    return actor


def check_scope(actor: Actor, scope: str) -> None:
    """Raises `HttpFault` 403 when the actor's token does not carry the scope."""
    if not actor.may(scope):
        raise HttpFault(403, f'this needs a token with the scope "{scope}"')


def _unknown() -> HttpFault:
    return HttpFault(401, "unknown token: expected one that this gateway gave out and that was not revoked")
