"""A gateway for tests: on a free port, with people in it, and a client session of yours to talk to it.

::

    async with running_gateway(tmp_path, client, plugins={"hello": HelloPlugin()}) as house:
        answer = await house.call("carapace.gateway.whoami", who="bob")

The tokens are ``alice`` (owns things), ``bob`` (admin in her tenant) and ``charlie`` (admin elsewhere).
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from carapace_cron.clock import Clock, SystemClock
from carapace_cron.gateway.discovery import EntryPoints
from carapace_cron.gateway.gateway import Gateway
from carapace_cron.gateway.hookspecs import Method, Params
from carapace_cron.gateway.limits import Limits
from carapace_cron.gateway.server import GatewayServer, serve
from carapace_cron.gateway.settings import GatewaySettings
from carapace_cron.hookspecs import hookimpl
from carapace_cron.model.actor import Actor

ALICE = Actor("acme", "alice", frozenset({"jobs:write"}))
BOB = Actor("acme", "bob", frozenset({"admin"}))
CHARLIE = Actor("other", "charlie", frozenset({"admin"}))


@dataclass
class People:
    """The plugin that identifies: a token is a person's name. Take one out of `known` to revoke it."""

    known: dict[str, Actor] = field(default_factory=lambda: {"alice": ALICE, "bob": BOB, "charlie": CHARLIE})

    @hookimpl
    async def identify(self, token: str) -> Actor | None:
        return self.known.get(token)


class Methods:
    """A plugin that brings the methods it was given."""

    def __init__(self, methods: Mapping[str, Method]) -> None:
        self._methods = methods

    @hookimpl
    def register_methods(self) -> Mapping[str, Method]:
        return self._methods


@dataclass(frozen=True)
class Sent:
    """One request that the gateway's HTTP client was asked to make."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None
    timeout_seconds: float
    trusted_origin: bool


@dataclass(frozen=True)
class Answered:
    """What the other side answers."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    truncated: bool = False


@dataclass
class Wire:
    """In place of the guarded HTTP client: keeps what is sent, answers or raises what it was told."""

    answer: Answered | Exception = field(default_factory=Answered)
    sent: list[Sent] = field(default_factory=list)

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_seconds: float,
        trusted_origin: bool,
    ) -> Answered:
        self.sent.append(Sent(method, url, headers, body, timeout_seconds, trusted_origin))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def no_plugins() -> tuple[()]:
    """In place of `installed_plugins`: whatever is installed where the tests run stays out of them."""
    return ()


@dataclass
class House:
    """A running gateway and a client for it."""

    server: GatewayServer
    people: People
    client: aiohttp.ClientSession

    @property
    def gateway(self) -> Gateway:
        return self.server.gateway

    async def post(
        self, body: Any, *, who: str | None = "alice", headers: Mapping[str, str] | None = None
    ) -> aiohttp.ClientResponse:
        """POST to ``/rpc``: text and bytes as they are, anything else as JSON. `who`: the token."""
        text = body if isinstance(body, str | bytes) else json.dumps(body)
        sent = {"Content-Type": "application/json", **(headers or {})}
        if who is not None:
            sent["Authorization"] = f"Bearer {who}"
        return await self.client.post(f"{self.server.url}/rpc", data=text, headers=sent)

    async def call(self, method: str, params: Params | None = None, *, who: str | None = "alice") -> Any:
        """The whole answer object of one request."""
        request = {"jsonrpc": "2.0", "method": method, "params": params or [], "id": 1}
        async with await self.post(request, who=who) as response:
            return await response.json()

    async def get(self, path: str, *, headers: Mapping[str, str] | None = None) -> aiohttp.ClientResponse:
        return await self.client.get(f"{self.server.url}{path}", headers=headers)

    async def socket(
        self, who: str | None = "alice", *, headers: Mapping[str, str] | None = None, autoping: bool = True
    ) -> aiohttp.ClientWebSocketResponse:
        """A WebSocket at ``/rpc``."""
        sent = {"Authorization": f"Bearer {who}", **(headers or {})}
        return await self.client.ws_connect(f"{self.server.url}/rpc", headers=sent, autoping=autoping)


@asynccontextmanager
async def running_gateway(
    data_dir: Path,
    client: aiohttp.ClientSession,
    *,
    plugins: Mapping[str, object] | None = None,
    settings: Mapping[str, Any] | None = None,
    limits: Limits | None = None,
    wire: Wire | None = None,
    clock: Clock | None = None,
    installed: EntryPoints = no_plugins,
    **options: Any,
) -> AsyncIterator[House]:
    """A gateway that runs for as long as the block does. `plugins`: id → plugin object."""
    people = People()
    time = clock or SystemClock()
    gateway = Gateway(
        GatewaySettings.model_validate({"port": 0, "data_dir": data_dir, **(settings or {})}),
        outbound=wire or Wire(),
        clock=time,
        built_in={"people": people, **(plugins or {})},
        installed=installed,
        **options,
    )
    server = await serve(gateway, clock=time, limits=limits)
    try:
        yield House(server, people, client)
    finally:
        await server.stop()
