"""One line a request. The path is the route's pattern: a real one may hold a secret, as ping addresses do."""

from __future__ import annotations

import logging

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

from carapace_cron.gateway.hookspecs import ROUTE


class AccessLog(AbstractAccessLogger):
    """``POST /rpc 200 3.1 ms``: no query, no headers, no tokens."""

    @property
    def enabled(self) -> bool:
        return self.logger.isEnabledFor(logging.INFO)

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        route = request.get(ROUTE)
        level = logging.DEBUG if route is not None and route.often else logging.INFO
        if not self.logger.isEnabledFor(level):
            return
        pattern = pattern_of(request)
        self.logger.log(
            level, "%s %s %s %.1f ms", request.method, pattern, response.status, time * 1_000,
            extra={"action": "request"},
        )


def pattern_of(request: web.BaseRequest) -> str:
    """The path as a log may have it."""
    try:
        resource = request.match_info.route.resource if isinstance(request, web.Request) else None
    except AssertionError:  # aiohttp's, for bytes that never became a request
        return "(no request)"
    return resource.canonical if resource is not None else "(no route)"
