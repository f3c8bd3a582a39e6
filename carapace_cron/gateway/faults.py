"""What goes wrong before a method or handler is reached, and how it is answered.

At ``/rpc`` the answer is a JSON-RPC error object with the HTTP status of its kind; elsewhere it is
``{"success": false, "error": sentence, "code": …}``.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable

from aiohttp import web

from carapace_cron.errors import Forbidden, NotFound, Refused
from carapace_cron.gateway.rpc import (
    FORBIDDEN,
    INTERNAL_ERROR,
    INVALID_REQUEST,
    REFUSED,
    TOO_LARGE,
    UNAUTHORIZED,
    UNAVAILABLE,
    error_answer,
)
from carapace_cron.gateway.strict_json import dump_json

log = logging.getLogger(__name__)

RPC_PATH = "/rpc"
RETRY_AFTER_SECONDS = 5  # what a caller is told who finds something away or busy

_CODES = {  # HTTP status → JSON-RPC code, code for machines
    400: (INVALID_REQUEST, "bad_request"),
    401: (UNAUTHORIZED, "unauthorized"),
    403: (FORBIDDEN, "forbidden"),
    404: (REFUSED, "not_found"),
    405: (REFUSED, "method_not_allowed"),
    408: (INVALID_REQUEST, "timeout"),
    413: (TOO_LARGE, "too_large"),
    415: (INVALID_REQUEST, "unsupported_media_type"),
    426: (INVALID_REQUEST, "upgrade_required"),
    500: (INTERNAL_ERROR, "internal"),
    503: (UNAVAILABLE, "unavailable"),
}


class HttpFault(Exception):
    """A request that ends here, with its HTTP status and a sentence for the asker."""

    def __init__(self, status: int, sentence: str, *, closes: bool = False) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.closes = closes  # the connection cannot be used further


@web.middleware
async def answer_faults(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Outermost: whatever goes wrong further in becomes an answer in our form."""
    try:
        return await handler(request)
    except HttpFault as fault:
        return fault_response(request, fault)
    except web.HTTPException as error:
        return _foreign_response(request, error)
    except Refused as error:
        return fault_response(request, HttpFault(_status_of(error), str(error)))
    except Exception as error:  # a handler may raise anything; `unexpected` logs it
        if isinstance(error, ConnectionError) and _is_gone(request):
            raise
        return fault_response(request, unexpected(error))


def fault_response(request: web.BaseRequest, fault: HttpFault) -> web.Response:
    code, name = _CODES.get(fault.status, (REFUSED, "refused"))
    if request.path == RPC_PATH:
        body = error_answer(code, fault.sentence)
    else:
        body = {"success": False, "error": fault.sentence, "code": name}
    response = web.Response(status=fault.status, text=dump_json(body), content_type="application/json")
    if fault.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if fault.status == 503:
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    if fault.closes:
        response.force_close()
    return response


def _foreign_response(request: web.Request, error: web.HTTPException) -> web.StreamResponse:
    """aiohttp's own faults in our form; redirects and what a handler raised with a body stay as they are."""
    if error.status < 400:
        return _copy_of(error)
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        response = fault_response(
            request, HttpFault(405, f"{request.method} is not for this path: expected {allowed}")
        )
        response.headers["Allow"] = allowed
        return response
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return fault_response(request, HttpFault(413, "the body is too large", closes=True))
    if isinstance(error, web.HTTPNotFound):
        return fault_response(request, HttpFault(404, "there is nothing at this path"))
    return fault_response(request, HttpFault(error.status, error.reason))


def _copy_of(error: web.HTTPException) -> web.Response:
    headers = {name: value for name, value in error.headers.items() if name.lower() != "content-type"}
    return web.Response(status=error.status, headers=headers)


def _status_of(error: Refused) -> int:
    if isinstance(error, NotFound):
        return 404
    return 403 if isinstance(error, Forbidden) else 400


def _is_gone(request: web.Request) -> bool:
    """Whether the asker is: else a `ConnectionError` is of a connection that the handler made itself."""
    return request.transport is None or request.transport.is_closing()


def unexpected(error: BaseException | None, *, closes: bool = False) -> HttpFault:
    """Log it, and tell the asker where it is in the log."""
    error_id = secrets.token_hex(6)
    log.error(
        "a request failed (error id %s)", error_id,
        exc_info=error, extra={"action": "request_failed", "error_id": error_id},
    )
    sentence = f"this failed on our side; the gateway's log has the reason as {error_id}"
    return HttpFault(500, sentence, closes=closes)
