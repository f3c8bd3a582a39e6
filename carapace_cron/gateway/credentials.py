"""From the token of a request to the actor behind it: one way for all doors.

Most tokens come in a header; some in an address, or in a body.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping

from carapace_cron.errors import Unavailable
from carapace_cron.gateway.faults import HttpFault
from carapace_cron.model.actor import Actor

log = logging.getLogger(__name__)

LONGEST_TOKEN = 512  # characters; ours have under 40

Identify = Callable[[str], Awaitable[Actor | None]]
"""Whose a token is; None when it is not known."""


class _Unchecked(Unavailable):
    """Tokens cannot be checked now, and the log has the reason."""


def token_in(headers: Mapping[str, str]) -> str:
    """The token in ``X-Api-Key`` or ``Authorization: Bearer …``, empty when there is none; never one of the
    query, which is logged by proxies and kept by browsers.

    ``X-Api-Key`` goes first: a proxy may need the other header for itself.
    """
    scheme, _, rest = headers.get("Authorization", "").partition(" ")
    return headers.get("X-Api-Key", "").strip() or (rest.strip() if scheme.lower() == "bearer" else "")


def token_of(headers: Mapping[str, str]) -> str:
    """As `token_in`. Raises `HttpFault` 401 when there is none."""
    token = token_in(headers)
    if not token:
        raise HttpFault(401, "no token: expected the header Authorization: Bearer <token>, or X-Api-Key")
    return token


async def holder_of(token: str, identify: Identify) -> Actor | None:
    """None for what is no token in force. Raises `Unavailable` when nobody can say."""
    if not token.isascii() or len(token) > LONGEST_TOKEN:  # bytes that are no UTF-8 are lone surrogates here
        return None
    try:
        return await identify(token)
    except Unavailable:
        raise
    except Exception as error:
        log.exception("tokens cannot be checked", extra={"action": "identify_failed"})
        raise _Unchecked("tokens cannot be checked now") from error


async def actor_of(token: str, identify: Identify) -> Actor:
    """Who holds the token. Raises `HttpFault`: 401 for an unknown one, 503 when nobody can say."""
    try:
        actor = await holder_of(token, identify)
    except Unavailable as error:
        if not isinstance(error, _Unchecked):  # there may be a thousand callers: no traceback for each
            log.warning("tokens cannot be checked: %s", error, extra={"action": "identify_failed"})
        raise HttpFault(503, "tokens cannot be checked now; try again later") from error
    if actor is None:
        expected = "expected one that this gateway gave out and that was not revoked"
        raise HttpFault(401, f"unknown token: {expected}")
    return actor


def check_scope(actor: Actor, scope: str) -> None:
    """Raises `HttpFault` 403 when the actor's token does not carry the scope."""
    if not actor.may(scope):
        raise HttpFault(403, f'this needs a token with the scope "{scope}"')
