"""Tokens that come another way than in a header of ``/rpc``: in an address, or in a body."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from carapace_cron.errors import Unavailable
from carapace_cron.model.actor import Actor

log = logging.getLogger(__name__)

LONGEST_TOKEN = 512  # characters; ours have under 40

Identify = Callable[[str], Awaitable[Actor | None]]
"""Whose a token is; None when it is not known."""


async def holder_of(token: str, identify: Identify) -> Actor | None:
    """None for what is no token in force. Raises `Unavailable` when nobody can say."""
    if not token.isascii() or len(token) > LONGEST_TOKEN:
        return None
    try:
        return await identify(token)
    except Unavailable:
        raise
    except Exception as error:
        log.exception("tokens cannot be checked", extra={"action": "identify"})
        raise Unavailable("tokens cannot be checked now") from error
