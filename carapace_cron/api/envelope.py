"""Turns our errors into the answers of RPC methods and REST: ``{success, data}``, ``{success, error, code}``.

``gateway/faults.py`` and the wire-compatible doors have forms of their own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import wraps
from inspect import signature
from typing import Any

from pydantic import ConfigDict, ValidationError, validate_call

from carapace_cron.errors import Refused, Unavailable
from carapace_cron.model.actor import Actor
from carapace_cron.model.record import explain

log = logging.getLogger(__name__)

Answer = dict[str, Any]
Function = Callable[..., Awaitable[Answer]]

ANSWER_SECONDS = 45.0  # a store that hangs must not keep a caller waiting for ever; its writes go on

_AWAY = "the gateway's store cannot be reached now, so it is not known whether anything changed: try again"


@dataclass(frozen=True, slots=True)
class Page:
    """A list that goes on: the cursor stands beside the data, which stays a plain list."""

    items: list[dict[str, Any]]
    next_cursor: str | None


def enveloped(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[dict[str, Any]]]:
    """Hold the parameters to the method's annotations, and wrap its answer in the envelope.

    A parameter that may be left out may be null too: callers that fill in a form send all of its names.
    What is our own fault goes on as an exception: the gateway answers it with a JSON-RPC error that
    tells nothing of the inside.
    """
    optional = {name for name, one in signature(method).parameters.items() if one.default is not one.empty}
    checked = validate_call(config=ConfigDict(strict=True, arbitrary_types_allowed=True))(method)

    @wraps(method)
    async def answer(actor: Actor, **params: Any) -> dict[str, Any]:
        given = {name: value for name, value in params.items() if value is not None or name not in optional}
        try:
            async with asyncio.timeout(ANSWER_SECONDS) as limit:
                return success(await checked(actor, **given))
        except TimeoutError:
            if not limit.expired():
                raise
            log.warning("a call got no answer in %g s", ANSWER_SECONDS, extra={"action": "rpc"})
            return failure(_AWAY, Unavailable.code, None)
        except ValidationError as error:
            refused = explain(error)
            return failure(str(refused), refused.code, refused.field)
        except Refused as error:
            return failure(str(error), error.code, error.field)
        except Unavailable as error:
            log.warning("a call was answered with unavailable: %s", error, extra={"action": "rpc"})
            return failure(_AWAY, error.code, None)

    return answer


def success(data: Any) -> dict[str, Any]:
    """``{success: true, data}``; a `Page` brings its cursor along. No `data` where there is none."""
    if isinstance(data, Page):
        return {"success": True, "data": data.items, "nextCursor": data.next_cursor}
    return {"success": True} if data is None else {"success": True, "data": data}


def failure(sentence: str, code: str, field: str | None) -> dict[str, Any]:
    """``{success: false, error: sentence, code}``, and the path of the field that is off, if one is."""
    answer: dict[str, Any] = {"success": False, "error": sentence, "code": code}
    return answer if field is None else {**answer, "field": field}
