"""REST over the functions of the RPC methods: a request becomes the parameters of one of them.

What is answered is what the method answers, in its envelope; the HTTP status says in short what its `code`
says. The gateway has looked at Host, Origin, the token, its scope and the limits of the body before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from aiohttp import web

from carapace_cron.api.envelope import Function, failure
from carapace_cron.errors import InvalidValue
from carapace_cron.gateway.faults import RETRY_AFTER_SECONDS, HttpFault
from carapace_cron.gateway.hookspecs import ACTOR, Handler, Method, Route
from carapace_cron.gateway.methods import method_of
from carapace_cron.gateway.strict_json import dump_json, parse_json

ROOT = "/api/v1"
STATUSES = {
    "invalid": 400,
    "address_not_allowed": 400,
    "forbidden": 403,
    "quota_exceeded": 403,  # not 429: it is a number of things, and asking again later changes nothing
    "not_found": 404,
    "conflict": 409,
    "unavailable": 503,
}

_JSON = "application/json"
_MERGE_PATCH = "application/merge-patch+json"  # RFC 7396
_MOST_DIGITS = 19  # of 64 bits
_SHOWN = 40  # characters of what was given that an answer repeats
_IN_PATH = re.compile(r"\{(\w+)\}")

Reader = Callable[[str, list[str]], Any]
"""(name, its texts in the address) → the parameter."""


@dataclass(frozen=True, slots=True)
class RestCall:
    """One address and the RPC method that it calls. Parameters have the names that they have there.

    `path`: below `ROOT`; what is in braces are parameters. `reads`: how the parameters in the path and the
    query are read; one in the path is a text by itself. `body`: the parameter that the JSON body is as a
    whole; without one, the body is an object with the parameters `members`, or none.
    `makes`: it answers 201, and where the new thing is.
    """

    verb: str
    path: str
    rpc: str
    scope: str
    reads: Mapping[str, Reader] = field(default_factory=dict)
    body: str | None = None
    members: tuple[str, ...] = ()
    makes: bool = False

    @property
    def query(self) -> set[str]:
        """The names that the query may have."""
        return set(self.reads) - set(_IN_PATH.findall(self.path))


def rest_routes(calls: Iterable[RestCall], functions: Mapping[str, Function]) -> list[Route]:
    """`functions`: the RPC methods by their names."""
    return [
        Route(call.verb, f"{ROOT}/{call.path}", _handler(call, method_of(functions[call.rpc])), call.scope)
        for call in calls
    ]


def text(name: str, given: list[str]) -> str:
    if len(given) > 1:
        raise InvalidValue(f"{name} is given {len(given)} times: expected it once", field=name)
    return given[0]


def texts(name: str, given: list[str]) -> list[str]:
    """A list, which an address writes as the same name again: ``?tags=db&tags=prod``."""
    return given


def whole(name: str, given: list[str]) -> int:
    digits = text(name, given)
    if digits.isascii() and digits.isdigit() and len(digits) <= _MOST_DIGITS:
        return int(digits)
    raise InvalidValue(f'bad {name} "{digits[:_SHOWN]}": expected a whole number', field=name)


def _handler(call: RestCall, method: Method) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        try:
            params = _addressed(call, request) | await _sent(call, request)
            envelope = await method(request[ACTOR], params)
        except InvalidValue as error:
            envelope = failure(str(error), error.code, error.field)
        return _response(call, request, envelope)

    return handler


def _addressed(call: RestCall, request: web.Request) -> dict[str, Any]:
    """The parameters in the path and in the query."""
    params = {name: call.reads.get(name, text)(name, [given]) for name, given in request.match_info.items()}
    for name in dict.fromkeys(request.query):
        if name not in call.query:
            expected = ", ".join(sorted(call.query)) or "none"
            shown = name[:_SHOWN]
            raise InvalidValue(f'unknown parameter "{shown}" in the query: expected {expected}', field=shown)
        params[name] = call.reads[name](name, request.query.getall(name))
    return params


async def _sent(call: RestCall, request: web.Request) -> dict[str, Any]:
    """The parameters in the body."""
    body = await request.read() if call.verb in ("POST", "PATCH") else b""
    if not body:
        if call.body is None:
            return {}
        raise InvalidValue("no body: expected a JSON object", field=call.body)
    _check_content_type(request)
    value = parse_json(body)
    return _members(call, value) if call.body is None else {call.body: value}


def _check_content_type(request: web.Request) -> None:
    given = request.content_type
    if given != _JSON and not (given == _MERGE_PATCH and request.method == "PATCH"):
        raise HttpFault(415, f"content type {given[:80]!r}: expected {_JSON}")


def _members(call: RestCall, value: Any) -> dict[str, Any]:
    expected = ", ".join(call.members) or "none"
    if not isinstance(value, dict):
        raise InvalidValue(f"bad body: expected an object; its members may be {expected}")
    for name in value:
        if name not in call.members:
            shown = name[:_SHOWN]
            raise InvalidValue(f'unknown member "{shown}" in the body: expected {expected}', field=shown)
    return value


def _response(call: RestCall, request: web.Request, envelope: Mapping[str, Any]) -> web.Response:
    status = _status(call, envelope)
    response = web.Response(status=status, text=dump_json(envelope), content_type=_JSON)
    if status == 201:
        response.headers["Location"] = f"{ROOT}/{call.path}/{quote(envelope['data']['id'], safe='')}"
    elif status == 503:
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


def _status(call: RestCall, envelope: Mapping[str, Any]) -> int:
    if envelope["success"]:
        return 201 if call.makes else 200
    return STATUSES.get(envelope["code"], 400)
