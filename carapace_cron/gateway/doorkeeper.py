"""Counts connections before HTTP begins: so many in all, so many from one other machine."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
import resource
from collections.abc import Callable, Sequence
from typing import cast

from aiohttp import web

from carapace_cron.gateway.limits import Limits

log = logging.getLogger(__name__)

LEFT_BEHIND = 4  # requests whose client went away, for each connection that may be open
WARN_EVERY_SECONDS = 60.0
OTHER_FILES = 256  # descriptors for everything that is no connection: databases, logs, runs

_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nContent-Length: 0\r\n\r\n"
)


class Refusals:
    """Says in the log that connections are refused: at once, and then each minute for all that were since."""

    def __init__(self) -> None:
        self._untold = 0
        self._told_at = -math.inf

    def note(self, address: str, reason: str) -> None:
        self._untold += 1
        now = asyncio.get_running_loop().time()
        if now - self._told_at >= WARN_EVERY_SECONDS:
            sentence = "connections are refused, %d since this was last said, the newest from %s: %s"
            log.warning(sentence, self._untold, address, reason, extra={"action": "door_full"})
            self._untold, self._told_at = 0, now


class Doorkeeper(asyncio.Protocol):
    """The first protocol of each connection; it hands over to aiohttp's, or refuses."""

    def __init__(
        self,
        server: web.Server,
        connection: Callable[[web.Server], asyncio.Protocol],
        limits: Limits,
        refusals: Refusals,
    ) -> None:
        """`connection` makes the protocol of one that is let in."""
        self._server = server
        self._connection = connection
        self._limits = limits
        self._refusals = refusals

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.Transport, transport)
        address = _address_of(stream.get_extra_info("peername"))
        reason = self._why_refused(address)
        if reason is not None:
            self._refusals.note(address, reason)
            stream.write(_FULL)
            stream.close()
            return
        handler = self._connection(self._server)
        stream.set_protocol(handler)
        handler.connection_made(stream)

    def _why_refused(self, address: str) -> str | None:
        known = self._server.connections
        # aiohttp knows a connection that was closed until the request that came by it is done.
        connected = [_address_of(one.peername) for one in known if one.transport is not None]
        left_behind = len(known) - len(connected)
        if left_behind >= self._limits.connections * LEFT_BEHIND:
            return f"{left_behind} requests are at work whose clients went away"
        return why_refused(address, connected, self._limits)


def why_refused(address: str, connected: Sequence[str], limits: Limits) -> str | None:
    """Why one more connection is too many, given the addresses of those there are; None when it is not.

    >>> why_refused("192.0.2.7", ["192.0.2.7"] * 2, Limits(connections_per_address=2))
    '2 connections of that address are open'
    >>> why_refused("127.0.0.1", ["127.0.0.1"] * 2, Limits(connections_per_address=2))
    """
    if len(connected) >= limits.connections:
        return f"{len(connected)} connections are open"
    same = connected.count(address)
    if same >= limits.connections_per_address and not _is_loopback(address):
        return f"{same} connections of that address are open"
    return None


def make_room_for(connections: int) -> None:
    """Raise the limit of open files as far as needed; say so when the system does not allow it.

    A server that runs out of descriptors cannot open its database either.
    """
    wanted = connections + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        log.warning(
            "only %d files may be open: expected at least %d for %d connections (ulimit -n)",
            allowed, wanted, connections, extra={"action": "few_descriptors"},
        )


def _address_of(peername: object) -> str:
    return str(peername[0]) if isinstance(peername, tuple) else ""


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False
