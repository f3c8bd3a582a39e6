"""JSON-RPC 2.0, from the bytes of a request to the bytes of its answer.

jsonrpcserver finds and calls the method. What it leaves open is settled here: it refuses a batch as a whole
for one bad element, runs all elements at once without a bound, reads NaN and duplicate names, and repeats
the text of any exception to the caller. So we parse strictly, split the batch, check each element and hand
them over one by one.

Source: https://www.jsonrpc.org/specification, sections 4 to 7.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import warnings
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from carapace_cron.errors import CarapaceError, Forbidden, InvalidValue, Refused
from carapace_cron.gateway.hookspecs import Method, Params
from carapace_cron.gateway.strict_json import InvalidJson, dump_json, parse_json
from carapace_cron.model.actor import Actor

with warnings.catch_warnings():
    # 5.0.9 reads its schema by importlib.resources.read_text, deprecated in 3.11, not any more in 3.13.
    warnings.filterwarnings("ignore", r"(read|open)_text is deprecated", DeprecationWarning)
    from jsonrpcserver import JsonRpcError, Success, async_dispatch_to_serializable

log = logging.getLogger(__name__)

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
REFUSED = -32000  # the specification leaves -32000 to -32099 to the server; `data.code` says more
UNAUTHORIZED = -32001
FORBIDDEN = -32003
UNAVAILABLE = -32004
TOO_LARGE = -32005

MAX_BATCH = 100
MAX_AT_A_TIME = 8  # elements of one batch that run together
MAX_ANSWER_BYTES = 4 * 1024 * 1024  # of all elements of a batch; one answer alone may be larger
_SHOWN_METHOD = 80  # characters of an unknown method's name that the answer repeats
_MEMBERS = frozenset({"jsonrpc", "method", "params", "id"})
_MESSAGES = {
    PARSE_ERROR: "Parse error",
    INVALID_REQUEST: "Invalid Request",
    METHOD_NOT_FOUND: "Method not found",
    INVALID_PARAMS: "Invalid params",
    INTERNAL_ERROR: "Internal error",
    REFUSED: "Refused",
    UNAUTHORIZED: "Unauthorized",
    FORBIDDEN: "Forbidden",
    UNAVAILABLE: "Unavailable",
    TOO_LARGE: "Too large",
}

Answer = dict[str, Any]


def error_answer(code: int, data: Any = None, request_id: Any = None) -> Answer:
    """An error object. `data` is a sentence or an object with one; None leaves it out."""
    error: dict[str, Any] = {"code": code, "message": _MESSAGES[code]}
    if data is not None:
        error["data"] = data
    return {"jsonrpc": "2.0", "error": error, "id": request_id}


def notification(method: str, params: Mapping[str, Any]) -> str:
    """The text of a message from the server that expects no answer."""
    return dump_json({"jsonrpc": "2.0", "method": method, "params": dict(params)})


@dataclass(slots=True)
class _Room:
    """What is left of a batch's answer, in bytes."""

    left: int = MAX_ANSWER_BYTES


class Rpc:
    """Answers requests with the methods that `methods` holds at that time."""

    def __init__(self, methods: Mapping[str, Method]) -> None:
        self._methods = methods

    async def answer(self, text: bytes | str, actor: Actor) -> str | None:
        """The JSON text that answers `text`; None when there is nothing to say (notifications alone)."""
        try:
            request = parse_json(text)
        except InvalidJson as error:
            return dump_json(error_answer(PARSE_ERROR, str(error)))
        if isinstance(request, list):
            return await self._answer_batch(request, actor)
        return await self._answer_one(request, actor)

    async def _answer_batch(self, requests: list[Any], actor: Actor) -> str | None:
        if not 0 < len(requests) <= MAX_BATCH:
            sentence = f"a batch of {len(requests)} requests: expected 1–{MAX_BATCH}"
            return dump_json(error_answer(INVALID_REQUEST, sentence))
        texts: list[str | None] = [None] * len(requests)
        queue = iter(enumerate(requests))
        room = _Room()
        async with asyncio.TaskGroup() as group:
            for _ in range(min(MAX_AT_A_TIME, len(requests))):
                group.create_task(self._work_through(queue, texts, actor, room))
        said = [text for text in texts if text is not None]
        return f"[{','.join(said)}]" if said else None

    async def _work_through(
        self, queue: Iterator[tuple[int, Any]], texts: list[str | None], actor: Actor, room: _Room
    ) -> None:
        """Take requests from the queue that all workers share, until it is empty."""
        for index, request in queue:
            text = await self._answer_one(request, actor)
            if text is not None:
                texts[index] = _fitting(text, request, room)

    async def _answer_one(self, request: Any, actor: Actor) -> str | None:
        fault = fault_of(request)
        if fault is not None:
            return dump_json(error_answer(INVALID_REQUEST, fault, _id_of(request)))
        answer = await self._dispatch(request, actor)
        if answer is None:
            return None
        try:
            return dump_json(answer)
        except (TypeError, ValueError, RecursionError) as error:
            return dump_json(_internal_error(error, request["method"], request["id"]))

    async def _dispatch(self, request: dict[str, Any], actor: Actor) -> Answer | None:
        name = request["method"]
        method = self._methods.get(name)
        if method is None:
            known = f"no method {_cut(name)!r} here"
            return error_answer(METHOD_NOT_FOUND, known, request["id"]) if "id" in request else None
        answer = await async_dispatch_to_serializable(
            request,
            {name: _guarded(name, method)},
            context=actor,
            deserializer=_as_it_is,
            validator=_as_it_is,
        )
        assert not isinstance(answer, list), "one request has one answer"
        return answer


def fault_of(request: Any) -> str | None:
    """Why this is no request object, in a sentence; None when it is one.

    >>> fault_of({"jsonrpc": "2.0", "method": 1})
    '"method" must be a text'
    """
    if not isinstance(request, dict):
        return "a request must be an object"
    if request.get("jsonrpc") != "2.0":
        return '"jsonrpc" must be "2.0"'
    if not isinstance(request.get("method"), str):
        return '"method" must be a text'
    if not isinstance(request.get("params", []), list | dict):
        return '"params" must be an array or an object'
    if not _is_id(request.get("id")):
        return '"id" must be a text, a number or null'
    unknown = sorted(request.keys() - _MEMBERS)
    return f'unknown member "{_cut(unknown[0])}" in the request' if unknown else None


def _guarded(name: str, method: Method) -> Callable[..., Awaitable[Any]]:
    """The method as jsonrpcserver calls it; all that it raises becomes an answer of ours."""

    async def call(actor: Actor, /, *positional: Any, **named: Any) -> Any:
        params: Params = named or list(positional)
        try:
            return Success(await method(actor, params))
        except Refused as error:
            raise JsonRpcError(*_refusal(error)) from error
        except CarapaceError as error:
            raise _foreign(error, name, UNAVAILABLE) from error
        except Exception as error:  # a plugin's method may raise anything
            raise _foreign(error, name, INTERNAL_ERROR) from error

    return call


def _refusal(error: Refused) -> tuple[int, str, dict[str, str]]:
    data = {"code": error.code, "error": str(error)}
    if error.field is not None:
        data["field"] = error.field
    code = _code_of(error)
    return code, _MESSAGES[code], data


def _code_of(error: Refused) -> int:
    if isinstance(error, InvalidValue):
        return INVALID_PARAMS
    return FORBIDDEN if isinstance(error, Forbidden) else REFUSED


def _foreign(error: Exception, method: str, code: int) -> JsonRpcError:
    return JsonRpcError(code, _MESSAGES[code], _logged(error, method, code))


def _internal_error(error: Exception, method: str, request_id: Any) -> Answer:
    return error_answer(INTERNAL_ERROR, _logged(error, method, INTERNAL_ERROR), request_id)


def _logged(error: Exception, method: str, code: int) -> dict[str, str]:
    """Log the whole error for the operator; the caller learns only under which id."""
    error_id = secrets.token_hex(6)
    log.error(
        "method %s failed (error id %s)", _cut(method), error_id,
        exc_info=error, extra={"action": "rpc_method_failed", "error_id": error_id},
    )
    if code == UNAVAILABLE:
        return {"error": "a service that this needs is not available; try again later", "errorId": error_id}
    return {"error": "this failed on our side; the gateway's log has the reason", "errorId": error_id}


def _fitting(text: str, request: Any, room: _Room) -> str:
    room.left -= len(text.encode())
    if room.left >= 0:
        return text
    sentence = f"the batch's answers exceed {MAX_ANSWER_BYTES} bytes; ask for fewer at once"
    return dump_json(error_answer(TOO_LARGE, sentence, _id_of(request)))


def _id_of(request: Any) -> Any:
    """The request's id as far as it has a valid one, else null, as the specification wants it."""
    found = request.get("id") if isinstance(request, dict) else None
    return found if _is_id(found) else None


def _is_id(value: Any) -> bool:
    return value is None or (isinstance(value, str | int | float) and not isinstance(value, bool))


def _cut(name: str) -> str:
    return name if len(name) <= _SHOWN_METHOD else name[:_SHOWN_METHOD] + "…"


def _as_it_is(request: Any) -> Any:
    return request
