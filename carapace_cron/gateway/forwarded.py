"""Who is behind a proxy: what ``X-Forwarded-For`` says is believed only from proxies that the operator named.

Anybody can send the header. So the list in it is read from its end, where our own proxy wrote, and as far
as the addresses are those of trusted proxies; the first other one is the client.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from aiohttp import web

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Client:
    """`address` is empty when the transport has none. `scheme`: http or https."""

    address: str
    scheme: str


class Proxies:
    """The networks whose word is taken."""

    def __init__(self, networks: Sequence[str] = ()) -> None:
        """Raises `ValueError` for what is no address and no network."""
        self._networks: tuple[_Network, ...] = tuple(map(ipaddress.ip_network, networks))

    def client_behind(self, peer: str, forwarded_for: Sequence[str], scheme: str) -> Client:
        """`peer`: the other end of the connection. `forwarded_for`, `scheme`: what the headers say.

        >>> Proxies(["10.0.0.0/8"]).client_behind("10.0.0.1", ["6.6.6.6, 192.0.2.7, 10.0.0.2"], "https")
        Client(address='192.0.2.7', scheme='https')
        >>> Proxies().client_behind("10.0.0.1", ["192.0.2.7"], "https")
        Client(address='10.0.0.1', scheme='http')
        """
        if not self._trusts(peer):
            return Client(peer, "http")
        address = peer
        for named in reversed(",".join(forwarded_for).split(",")):
            found = _address_in(named.strip())
            if found is None:
                break
            address = found
            if not self._trusts(found):
                break
        return Client(address, "https" if scheme == "https" else "http")

    def _trusts(self, address: str) -> bool:
        if not self._networks:
            return False
        try:
            known = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        return any(known in network for network in self._networks)


PROXIES = web.AppKey("proxies", Proxies)


def client_of(request: web.Request) -> Client:
    """Who sent the request, for logs and records; never a credential."""
    headers = request.headers
    return request.app[PROXIES].client_behind(
        request.remote or "", headers.getall("X-Forwarded-For", []), headers.get("X-Forwarded-Proto", "")
    )


def _address_in(named: str) -> str | None:
    """The address of an item: some proxies add the port, and put IPv6 into brackets.

    >>> _address_in("192.0.2.7:4711"), _address_in("[2001:db8::1]:443"), _address_in("unknown")
    ('192.0.2.7', '2001:db8::1', None)
    """
    bare = named[1:].partition("]")[0] if named.startswith("[") else named
    if bare.count(":") == 1:
        bare = bare.partition(":")[0]
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        return None
