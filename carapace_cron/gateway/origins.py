"""Which Host and Origin headers are ours: a page on the internet must not drive a gateway on localhost.

A name that an attacker's DNS points at 127.0.0.1 reaches us with that name in Host; a page that calls us
directly says so in Origin (browsers always send it with a POST and with a WebSocket).
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")


class Origins:
    """`allowed_hosts` are names, each with a port (that one) or without (any port, as behind a proxy)."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        allowed_hosts: Collection[str] = (),
        allowed_origins: Collection[str] = (),
    ) -> None:
        bound = f"[{host}]" if ":" in host else host
        own = {f"{name}{suffix}" for name in (*_LOOPBACK_NAMES, bound.lower()) for suffix in ("", f":{port}")}
        self._exact = own | {name.lower() for name in allowed_hosts}
        self._any_port = frozenset(name.lower() for name in allowed_hosts if not _port_of(name))
        self._origins = frozenset(origin.lower().rstrip("/") for origin in allowed_origins)

    def fault_of(self, hosts: list[str], origins: list[str]) -> str | None:
        """Why a request with these Host and Origin headers is not let in; None when it is."""
        if len(hosts) != 1:
            return f"{len(hosts)} Host headers: expected one"
        if not self._is_ours(hosts[0].lower()):
            return f'host "{hosts[0][:80]}" is not a name of this gateway: expected one of allowed_hosts'
        if any(not self._may_call(origin.lower(), hosts[0].lower()) for origin in origins):
            return f'origin "{origins[0][:80]}" may not call this gateway: expected one of allowed_origins'
        return None

    def _is_ours(self, host: str) -> bool:
        return host in self._exact or host.removesuffix(f":{_port_of(host)}") in self._any_port

    def _may_call(self, origin: str, host: str) -> bool:
        if origin in self._origins:
            return True
        scheme, _, authority = origin.partition("://")
        return scheme in ("http", "https") and authority == host


def _port_of(host: str) -> str:
    """The digits after the last colon, empty when there are none.

    >>> _port_of("localhost:8787"), _port_of("[::1]"), _port_of("cron.example")
    ('8787', '', '')
    """
    try:
        port = urlsplit(f"//{host}").port
    except ValueError:
        return ""
    return "" if port is None else str(port)
