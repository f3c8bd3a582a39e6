"""One connection, as aiohttp serves it, but with our answers and our log lines where bytes are no request.

aiohttp's own log holds such bytes as they came, and they may hold the key in a ping's address or a token;
anybody could fill it, too, with a traceback for each.
"""

from __future__ import annotations

import logging

from aiohttp import web
from aiohttp.http import HttpProcessingError

from carapace_cron.gateway.access_log import pattern_of
from carapace_cron.gateway.faults import HttpFault, fault_response, unexpected

log = logging.getLogger(__name__)

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_NO_REQUEST = (
    "this is no valid HTTP/1.1 request, or a line of it is too long: expected a path without blanks, and "
    "headers of printable characters"
)


class Connection(web.RequestHandler):
    """aiohttp calls `handle_error` where a request does not come to an answer by itself."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to bytes that are no request, or to what failed outside of all handlers.

        Raises `ConnectionError` when nobody is there to be answered, or the answer is half sent.
        """
        if isinstance(exc, ConnectionError):
            log.info(
                "%s %s: the client went away before its answer", request.method, pattern_of(request),
                extra={"action": "client_gone"},
            )
            raise exc
        fault = _fault_of(exc)
        if request.writer.output_size > 0:
            raise ConnectionError("a part of the answer is sent already")
        response = fault_response(request, fault)
        add_headers(response)
        return response


def add_headers(response: web.StreamResponse) -> None:
    """What every answer carries."""
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["Server"] = "carapace"  # aiohttp's own names the versions in use


def _fault_of(error: BaseException | None) -> HttpFault:
    if isinstance(error, HttpProcessingError):
        return HttpFault(400, _NO_REQUEST, closes=True)
    return unexpected(error, closes=True)
