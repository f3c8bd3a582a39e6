"""From an ordinary async function to a JSON-RPC method: params are bound by name or by position."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from carapace_cron.errors import InvalidValue
from carapace_cron.gateway.hookspecs import Method, Params
from carapace_cron.model.actor import Actor


def method_of(function: Callable[..., Awaitable[Any]]) -> Method:
    """A method that calls ``function(actor, …)`` with the request's params.

    The names of the function's parameters are those of the wire. A missing, unknown or surplus one is
    answered with *Invalid params* and a sentence that names it.
    """
    parameters = list(inspect.signature(function).parameters.values())[1:]

    async def method(actor: Actor, params: Params) -> Any:
        return await function(actor, **_bound(parameters, params))

    return method


def _bound(parameters: list[inspect.Parameter], params: Params) -> dict[str, Any]:
    named = _by_name(parameters, params) if isinstance(params, list) else params
    names = [parameter.name for parameter in parameters]
    for name in named:
        if name not in names:
            expected = ", ".join(names) or "none"
            raise InvalidValue(f'unknown parameter "{name[:40]}": expected {expected}', field=name[:40])
    for parameter in parameters:
        if parameter.default is parameter.empty and parameter.name not in named:
            raise InvalidValue(f'missing parameter "{parameter.name}"', field=parameter.name)
    return named


def _by_name(parameters: list[inspect.Parameter], values: list[Any]) -> dict[str, Any]:
    if len(values) > len(parameters):
        names = ", ".join(parameter.name for parameter in parameters) or "none"
        raise InvalidValue(f"{len(values)} parameters given: expected at most {len(parameters)} ({names})")
    return {parameter.name: value for parameter, value in zip(parameters, values, strict=False)}
