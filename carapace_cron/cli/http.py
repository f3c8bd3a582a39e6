"""One HTTP request of the command line: from the user's own machine to what the user named.

The gateway's guarded client is not for this: who runs a command here may open any connection anyway. Only
the standard library, because `wrap` stands in front of other people's jobs and must be ready at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from http.client import HTTPException, HTTPMessage, HTTPResponse
from typing import NamedTuple
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import HTTPErrorProcessor, OpenerDirector, ProxyHandler, Request, build_opener

from carapace_cron.errors import Unavailable

ANSWER_LIMIT = 4 * 1024 * 1024  # bytes

_LOOPBACK = re.compile(r"localhost|127\.[0-9.]+|::1")


class Answer(NamedTuple):
    """Whatever the other side answered, whichever its status."""

    status: int
    headers: HTTPMessage
    body: bytes  # at most ANSWER_LIMIT


class Unreachable(Unavailable):
    """There was no answer. The message is the reason alone: ``Connection refused``."""


def post(url: str, body: bytes, *, headers: Mapping[str, str], timeout_seconds: float) -> Answer:
    """Send it once. `timeout_seconds` is for each wait, not for all together. Raises `Unreachable`.

    Redirects are not followed: they would take the credentials along, and leave the body behind.
    """
    request = Request(url, body, {"User-Agent": "carapace-cron", **headers}, method="POST")  # noqa: S310  # url.check_url
    try:
        with _opener(url).open(request, timeout=timeout_seconds) as response:
            return Answer(response.status, response.headers, response.read(ANSWER_LIMIT))
    except (OSError, HTTPException, ValueError) as error:
        raise Unreachable(_reason(error)) from error


class _AnyStatus(HTTPErrorProcessor):
    """Each answer is an answer: an exception for some, or a redirect, would only have to be caught again."""

    def http_response(self, request: Request, response: HTTPResponse) -> HTTPResponse:
        return response

    https_response = http_response


def _opener(url: str) -> OpenerDirector:
    """By way of ``https_proxy`` and its like, as curl does, but never from this machine to itself."""
    is_near = _LOOPBACK.fullmatch(urlsplit(url).hostname or "") is not None
    return build_opener(_AnyStatus, ProxyHandler({}) if is_near else ProxyHandler())


def _reason(error: Exception) -> str:
    """
    >>> _reason(URLError(ConnectionRefusedError(111, "Connection refused")))
    'Connection refused'
    """
    cause = error.reason if isinstance(error, URLError) else error
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
