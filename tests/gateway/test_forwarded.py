"""Whose word on a client's address is taken, and which routes any name and page may reach."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

import pytest
from aiohttp import web

from carapace_cron.gateway.forwarded import Client, Proxies, client_of
from carapace_cron.gateway.hookspecs import Route
from carapace_cron.gateway.settings import GatewaySettings
from carapace_cron.gateway.testing import House
from carapace_cron.hookspecs import hookimpl

OpenHouse = Callable[..., Awaitable[House]]
PROXIES = Proxies(["127.0.0.1", "10.0.0.0/8", "2001:db8::/32"])


class Doors:
    """Says who called, and how much of the body was left for it to read."""

    @hookimpl
    def register_routes(self) -> Sequence[Route]:
        open_to_all = {"from_anywhere": True, "reads_body": True, "often": True}
        return [
            Route("POST", "/open/{secret}", self._caller, None, **open_to_all),
            Route("POST", "/own", self._caller, None),
        ]

    async def _caller(self, request: web.Request) -> web.StreamResponse:
        caller = client_of(request)
        size = sum([len(chunk) async for chunk in request.content.iter_any()])
        return web.Response(text=f"{caller.address} {caller.scheme} {size}")


@pytest.mark.parametrize(
    ("peer", "headers", "address"),
    [
        ("192.0.2.1", ["6.6.6.6"], "192.0.2.1"),  # anybody can send the header
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", ["192.0.2.7"], "192.0.2.7"),
        ("127.0.0.1", ["6.6.6.6, 192.0.2.7"], "192.0.2.7"),  # the client itself sent the first
        ("127.0.0.1", ["6.6.6.6", "192.0.2.7"], "192.0.2.7"),
        ("127.0.0.1", ["6.6.6.6, 192.0.2.7, 10.1.2.3"], "192.0.2.7"),
        ("127.0.0.1", ["10.1.2.3, 10.1.2.4"], "10.1.2.3"),
        ("127.0.0.1", ["192.0.2.7:4711"], "192.0.2.7"),
        ("10.9.9.9", ["[2001:db9::7]:4711"], "2001:db9::7"),
        ("2001:db8::1", ["2001:db9::7"], "2001:db9::7"),
        ("10.9.9.9", ["192.0.2.7, unknown"], "10.9.9.9"),
        ("10.9.9.9", ["<script>"], "10.9.9.9"),
        ("", ["192.0.2.7"], ""),
    ],
)
def test_the_first_address_that_is_no_trusted_proxy_is_the_clients(
    peer: str, headers: list[str], address: str
) -> None:
    assert PROXIES.client_behind(peer, headers, "").address == address


@pytest.mark.parametrize(
    ("peer", "said", "scheme"),
    [("127.0.0.1", "https", "https"), ("127.0.0.1", "gopher", "http"), ("192.0.2.1", "https", "http")],
)
def test_the_scheme_is_what_a_trusted_proxy_says(peer: str, said: str, scheme: str) -> None:
    assert PROXIES.client_behind(peer, [], said) == Client(peer, scheme)


def test_a_proxy_that_is_no_network_is_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match=r'bad network "proxy.example": expected one such as 127.0.0.1'):
        GatewaySettings(trusted_proxies=("proxy.example",))


async def test_a_route_learns_who_called_through_a_proxy(open_house: OpenHouse) -> None:
    headers = {"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "https"}
    for proxies, answer in (([], "127.0.0.1 http 0"), (["127.0.0.1"], "192.0.2.7 https 0")):
        house = await open_house(plugins={"doors": Doors()}, settings={"trusted_proxies": proxies})
        response = await house.client.post(f"{house.server.url}/own", headers=headers)
        assert await response.text() == answer
        await house.server.stop()


async def test_only_a_route_from_anywhere_is_reached_under_other_names(open_house: OpenHouse) -> None:
    house = await open_house(plugins={"doors": Doors()})
    for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
        answers = [
            (await house.client.post(house.server.url + path, headers=headers)).status
            for path in ("/open/hunter2", "/own", "/nothing")
        ]
        assert answers == [200, 403, 403]


async def test_a_route_that_reads_itself_may_take_more_than_the_limit(open_house: OpenHouse) -> None:
    house = await open_house(plugins={"doors": Doors()})
    body = b"x" * 300_000
    refused = await house.client.post(f"{house.server.url}/own", data=body)
    assert refused.status == 413
    read = await house.client.post(f"{house.server.url}/open/hunter2", data=body)
    assert await read.text() == "127.0.0.1 http 300000"


async def test_a_route_that_is_asked_often_is_logged_for_debugging_only(
    open_house: OpenHouse, caplog: pytest.LogCaptureFixture
) -> None:
    house = await open_house(plugins={"doors": Doors()})
    with caplog.at_level(logging.DEBUG):
        await house.client.post(f"{house.server.url}/own")
        await house.client.post(f"{house.server.url}/open/hunter2")
        await house.server.stop()
    lines = [(one.levelno, one.getMessage()) for one in caplog.records if one.name == "aiohttp.access"]
    assert [(level, line.rpartition(" 200 ")[0]) for level, line in lines] == [
        (logging.INFO, "POST /own"),
        (logging.DEBUG, "POST /open/{secret}"),
    ]
