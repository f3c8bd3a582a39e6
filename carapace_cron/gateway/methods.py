"""From an ordinary async function to a JSON-RPC method: params are bound by name or by position."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic.alias_generators import to_camel

from carapace_cron.errors import InvalidValue
from carapace_cron.gateway.hookspecs import Method, Params
from carapace_cron.model.actor import Actor

_SHOWN = 40  # characters of an unknown name that the answer repeats


def method_of(function: Callable[..., Awaitable[Any]]) -> Method:
    """A method that calls ``function(actor, …)`` with the request's params.

    ``async def get(actor, job_id, limit=5)`` takes ``{"jobId": …, "limit": …}`` or ``[…, …]``. A missing,
    unknown or surplus parameter is answered with *Invalid params* and a sentence that names it.
    """
    parameters = list(inspect.signature(function).parameters.values())[1:]
    by_wire_name = {to_camel(parameter.name): parameter for parameter in parameters}

    async def method(actor: Actor, params: Params) -> Any:
        named = _named(by_wire_name, params)
        return await function(actor, **{by_wire_name[name].name: value for name, value in named.items()})

    return method


def _named(parameters: dict[str, inspect.Parameter], params: Params) -> dict[str, Any]:
    """The params by their names on the wire. Raises `InvalidValue` when they do not fit."""
    expected = ", ".join(parameters) or "none"
    if isinstance(params, list):
        if len(params) > len(parameters):
            raise InvalidValue(
                f"{len(params)} parameters given: expected at most {len(parameters)} ({expected})"
            )
        params = dict(zip(parameters, params, strict=False))
    for name in params:
        if name not in parameters:
            shown = name[:_SHOWN]
            raise InvalidValue(f'unknown parameter "{shown}": expected {expected}', field=shown)
    for name, parameter in parameters.items():
        if name not in params and parameter.default is parameter.empty:
            raise InvalidValue(f'missing parameter "{name}"', field=name)
    return params
