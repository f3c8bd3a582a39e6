"""A gateway on a free port with a small plugin that knows three people, and clients for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from carapace_cron.clock import SystemClock
from carapace_cron.gateway.gateway import Gateway
from carapace_cron.gateway.hookspecs import Method, Params
from carapace_cron.gateway.limits import Limits
from carapace_cron.gateway.server import GatewayServer, serve
from carapace_cron.gateway.settings import GatewaySettings
from carapace_cron.hookspecs import hookimpl
from carapace_cron.model.actor import Actor
from carapace_cron.ports.host import HostMessage

ALICE = Actor("acme", "alice", frozenset({"jobs:write"}))
BOB = Actor("acme", "bob", frozenset({"admin"}))
CHARLIE = Actor("other", "charlie", frozenset({"admin"}))


@dataclass
class People:
    """The plugin that identifies: the token is the person's name; `revoked` ones are unknown."""

    known: dict[str, Actor] = field(
        default_factory=lambda: {"alice": ALICE, "bob": BOB, "charlie": CHARLIE}
    )

    @hookimpl
    async def identify(self, token: str) -> Actor | None:
        await asyncio.sleep(0)
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
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    truncated: bool = False


@dataclass
class Wire:
    """In place of the guarded HTTP client: the network's edge. Notes what is sent, answers what is set."""

    answer: Answered | Exception = field(default_factory=Answered)
    sent: list[Sent] = field(default_factory=list)

    async def request(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None,
        timeout_seconds: float, trusted_origin: bool,
    ) -> Answered:
        self.sent.append(Sent(method, url, headers, body, timeout_seconds, trusted_origin))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


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
        self, body: Any, *, token: str | None = "alice", headers: Mapping[str, str] | None = None
    ) -> aiohttp.ClientResponse:
        text = body if isinstance(body, str | bytes) else json.dumps(body)
        sent = {"Content-Type": "application/json", **(headers or {})}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        return await self.client.post(f"{self.server.url}/rpc", data=text, headers=sent)

    async def call(self, method: str, params: Params | None = None, *, token: str = "alice") -> Any:
        """The whole answer object of one request."""
        request = {"jsonrpc": "2.0", "method": method, "params": params or [], "id": 1}
        response = await self.post(request, token=token)
        return await response.json()

    async def socket(self, token: str = "alice") -> aiohttp.ClientWebSocketResponse:
        return await self.client.ws_connect(
            f"{self.server.url}/rpc", headers={"Authorization": f"Bearer {token}"}
        )


OpenHouse = Callable[..., Awaitable[House]]


@pytest.fixture
async def open_house(tmp_path: Path) -> AsyncIterator[OpenHouse]:
    """Starts gateways: ``open_house(plugins={...}, limits=..., settings={...})``; all end with the test."""
    async with AsyncExitStack() as stack:

        async def start(
            *,
            plugins: Mapping[str, object] | None = None,
            limits: Limits | None = None,
            settings: Mapping[str, Any] | None = None,
            wire: Wire | None = None,
            **options: Any,
        ) -> House:
            people = People()
            gateway = Gateway(
                GatewaySettings(**{"port": 0, "data_dir": tmp_path / "data", **(settings or {})}),
                outbound=wire or Wire(),
                clock=SystemClock(),
                built_in={"people": people, **(plugins or {})},
                installed=lambda: (),
                **options,
            )
            server = await serve(gateway, clock=SystemClock(), limits=limits)
            stack.push_async_callback(server.stop)
            client = await stack.enter_async_context(aiohttp.ClientSession())
            return House(server, people, client)

        yield start


@pytest.fixture
async def house(open_house: OpenHouse) -> House:
    """A gateway with nothing but people."""
    return await open_house()


def message(text: str, *, user: str = "alice", key: str = "k1", tenant: str = "acme") -> HostMessage:
    return HostMessage("gateway", tenant, user, "Report", text, {"runId": "run_1"}, key)
