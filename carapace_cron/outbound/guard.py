"""The guard of one call: asked for every name that is looked up and every socket that is made.

The socket is what counts. A resolver is never asked about a literal address, and what it said a moment ago
need not be what is connected to now; the socket's own address has no such gaps.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from aiohttp.abc import AbstractResolver, ResolveResult

from carapace_cron.errors import Unavailable
from carapace_cron.outbound.address import AllowList, IPAddress, is_metadata, read_address, why_refused

Lookup = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host name, for a port, as text. Raises OSError when there are none."""

_LOOKUP_THREADS = 16  # getaddrinfo cannot be stopped; slow name servers must not fill the loop's own pool

log = logging.getLogger(__name__)


class NotCalled(OSError):
    """The guard said no; an OSError because that is what aiohttp expects of sockets and resolvers."""


@dataclass(slots=True)
class Guard:
    """What one call may reach: public addresses, what the operator allowed, or the one trusted origin.

    `trusted`: the host and port that the operator configured for this call, or None.
    `refused` tells afterwards that a connection failed because of this guard.
    """

    allow: AllowList
    trusted: tuple[str, int] | None = None
    host: str = ""  # of the hop under way
    refused: bool = field(default=False, init=False)

    def check(self, text: str, port: int) -> None:
        """Raise `NotCalled` unless the address may be called; the operator's log hears which it was."""
        address = read_address(text)
        reason = "not an address" if address is None else self._reason(address, port)
        if reason is None:
            return
        self.refused = True
        log.warning(
            "outbound call to %s refused: it leads to %s port %d (%s)",
            self.host,
            text,
            port,
            reason,
            extra={"action": "outbound_refused", "host": self.host, "address": text, "port": port},
        )
        raise NotCalled(f"{self.host} is not called")

    def open_socket(self, addr_info: tuple[int, int, int, str, tuple[str, int]]) -> socket.socket:
        """The `socket_factory` of aiohttp's connector: sees the final address of every connection."""
        family, kind, protocol, _, address = addr_info
        self.check(address[0], address[1])
        return socket.socket(family, kind, protocol)

    def _reason(self, address: IPAddress, port: int) -> str | None:
        if is_metadata(address):
            return "metadata service"
        if self.trusted == (self.host, port) or self.allow.covers(address, port):
            return None
        return why_refused(address) or ("this gateway's own" if _is_own(address) else None)


class CheckedResolver(AbstractResolver):
    """Looks a name up once for a connection, and refuses it if any answer is forbidden."""

    def __init__(self, guard: Guard, lookup: Lookup) -> None:
        self._guard = guard
        self._lookup = lookup

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        addresses = await self._addresses(host, port)
        for address in addresses:
            self._guard.check(address, port)
        return [_result(host, address, port) for address in addresses]

    async def close(self) -> None:
        """Nothing is held."""

    async def _addresses(self, host: str, port: int) -> Sequence[str]:
        # RFC 6761 section 6.3: localhost is the loopback; a name server is not asked.
        allowed = self._guard.allow.localhost(port) if host == "localhost" else []
        return [str(address) for address in allowed] or await self._lookup(host, port)


def _result(host: str, address: str, port: int) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=flags)


class SystemLookup:
    """The system's own resolver (files, DNS, whatever it is set to), in threads of its own."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_LOOKUP_THREADS, thread_name_prefix="carapace-lookup")

    async def __call__(self, host: str, port: int) -> list[str]:
        try:
            looking = asyncio.get_running_loop().run_in_executor(self._threads, _ask_system, host, port)
        except RuntimeError as error:  # how a pool says that it is shut down
            raise Unavailable("the gateway is stopping: no name is looked up any more") from error
        return await looking

    def close(self) -> None:
        """Start no look-up any more; one under way ends in its thread, and nobody waits for it."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _ask_system(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _is_own(address: IPAddress) -> bool:
    """Whether this machine has the address: only then can a socket be bound to it. Nothing is sent."""
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True
