"""Counts connections before HTTP begins: so many in all, so many from one other machine."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from typing import cast

from aiohttp import web

from carapace_cron.gateway.limits import Limits

logger = logging.getLogger(__name__)

_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nContent-Length: 0\r\n\r\n"
)


class Doorkeeper(asyncio.Protocol):
    """The first protocol of each connection; it hands over to aiohttp's, or refuses."""

    def __init__(self, server: web.Server, limits: Limits) -> None:
        self._server = server
        self._limits = limits

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.Transport, transport)
        address = _address_of(stream.get_extra_info("peername"))
        reason = self._why_refused(address)
        if reason is not None:
            logger.warning("connection from %s refused: %s", address, reason, extra={"action": "door_full"})
            stream.write(_FULL)
            stream.close()
            return
        handler = self._server()
        stream.set_protocol(handler)
        handler.connection_made(stream)

    def _why_refused(self, address: str) -> str | None:
        connected = self._server.connections
        if len(connected) >= self._limits.connections:
            return f"{len(connected)} connections are open"
        if _is_loopback(address):
            return None
        same = sum(_address_of(one.peername) == address for one in connected)
        if same >= self._limits.connections_per_address:
            return f"{same} connections of that address are open"
        return None


def _address_of(peername: object) -> str:
    return str(peername[0]) if isinstance(peername, tuple) else ""


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False
