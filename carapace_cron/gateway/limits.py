"""How much a client may ask of the server at once. One place, so that tests can make the limits small."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """The defaults close a half-open request within 15 s, even if its headers trickle before its body
    stays away."""

    body_bytes: int = 256 * 1024
    body_seconds: float = 6.0  # from the end of the headers to the end of the body
    linger_seconds: float = 1.5  # reading on after an early answer, so that the client sees it
    keepalive_seconds: float = 7.0  # silence before, between and within the headers of requests
    connections: int = 1_000
    connections_per_address: int = 50  # loopback is one machine and has no such limit
    socket_heartbeat_seconds: float = 30.0
    socket_queue: int = 256  # texts on their way to one WebSocket client; one more closes it
    socket_at_a_time: int = 8  # requests of one WebSocket client that run together
    socket_waiting: int = 64  # its further requests that wait; one more is refused
    socket_recheck_seconds: float = 30.0  # how long pushes go on after a token was revoked, at most
    stop_seconds: float = 5.0  # for answers under way when the server stops
