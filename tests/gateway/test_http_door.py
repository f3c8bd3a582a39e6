"""Who is let in over HTTP, and what every answer carries."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from aiohttp import web

from carapace_cron.clock import SystemClock
from carapace_cron.errors import ConfigurationError, NotFound, Unavailable
from carapace_cron.gateway.doorkeeper import LEFT_BEHIND
from carapace_cron.gateway.gateway import Gateway
from carapace_cron.gateway.hookspecs import ACTOR, Handler, Params, Route
from carapace_cron.gateway.limits import Limits
from carapace_cron.gateway.server import serve
from carapace_cron.gateway.settings import GatewaySettings
from carapace_cron.gateway.testing import House, Methods, Wire, no_plugins
from carapace_cron.hookspecs import hookimpl
from carapace_cron.model.actor import Actor

OpenHouse = Callable[..., Awaitable[House]]
WHOAMI = {"jsonrpc": "2.0", "method": "carapace.gateway.whoami", "id": 1}


class Routes:
    """A plugin that brings the routes it was given."""

    def __init__(self, *routes: Route) -> None:
        self._routes = routes

    @hookimpl
    def register_routes(self) -> Sequence[Route]:
        return self._routes


def says(text: str) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(text=text)

    return handler


async def test_a_request_is_answered_as_its_token_says(house: House) -> None:
    answer = await house.call("carapace.gateway.whoami", who="bob")
    assert answer == {
        "jsonrpc": "2.0",
        "result": {"tenant": "acme", "userId": "bob", "scopes": ["admin"]},
        "id": 1,
    }


async def test_the_token_may_come_as_an_api_key(house: House) -> None:
    response = await house.post(WHOAMI, who=None, headers={"X-Api-Key": "charlie"})
    assert (await response.json())["result"]["tenant"] == "other"


@pytest.mark.parametrize(
    ("headers", "sentence"),
    [
        ({}, "no token"),
        ({"Authorization": "Bearer"}, "no token"),
        ({"Authorization": "Basic YWxpY2U6"}, "no token"),
        ({"Authorization": "Bearer mallory"}, "unknown token"),
        ({"Authorization": "Bearer " + "a" * 5_000}, "unknown token"),
        ({"Authorization": "Bearer alice", "X-Api-Key": "mallory"}, "unknown token"),
        ({"X-Api-Key": "ALICE"}, "unknown token"),
    ],
)
async def test_without_a_known_token_it_answers_401(
    house: House, headers: dict[str, str], sentence: str
) -> None:
    response = await house.post(WHOAMI, who=None, headers=headers)
    assert response.status == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    answer = await response.json()
    assert answer["error"]["code"] == -32001
    assert answer["error"]["data"].startswith(sentence)
    assert answer["id"] is None


async def test_a_token_in_the_query_is_not_looked_at(house: House) -> None:
    url = f"{house.server.url}/rpc?token=alice&api_key=alice&access_token=alice"
    response = await house.client.post(url, json=WHOAMI)
    assert response.status == 401


async def test_a_revoked_token_is_refused_at_once(house: House) -> None:
    assert (await house.post(WHOAMI)).status == 200
    del house.people.known["alice"]
    assert (await house.post(WHOAMI)).status == 401


@pytest.mark.parametrize(
    ("error", "is_fault"),
    [(OSError("the database is odd"), True), (Unavailable("the database is away"), False)],
)
async def test_nobody_is_let_in_when_tokens_cannot_be_checked(
    open_house: OpenHouse, caplog: pytest.LogCaptureFixture, error: Exception, is_fault: bool
) -> None:
    """What is merely away costs the log a line, not a traceback for each of many callers."""

    class Broken:
        @hookimpl
        async def identify(self, token: str) -> Actor | None:
            raise error

    house = await open_house(plugins={"broken": Broken()})
    response = await house.post(WHOAMI)
    assert response.status == 503
    assert "database" not in await response.text()
    (line,) = [one for one in caplog.records if one.name == "carapace_cron.gateway.credentials"]
    assert (line.exc_info is not None) == is_fault


async def test_a_second_plugin_may_know_other_tokens(open_house: OpenHouse) -> None:
    class Guests:
        @hookimpl
        def identify(self, token: str) -> Actor | None:
            return Actor("guests", token, frozenset()) if token.startswith("guest") else None

    house = await open_house(plugins={"guests": Guests()})
    assert (await house.call("carapace.gateway.whoami", who="guest7"))["result"]["tenant"] == "guests"
    assert (await house.call("carapace.gateway.whoami", who="alice"))["result"]["tenant"] == "acme"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{port}", 200),
        ("localhost:{port}", 200),
        ("LOCALHOST", 200),
        ("[::1]:{port}", 200),
        ("cron.example:8443", 200),
        ("cron.example", 403),
        ("proxy.example", 200),
        ("proxy.example:9999", 200),
        ("evil.example", 403),
        ("evil.example:{port}", 403),
        ("localhost:1", 403),
        ("localhost.evil.example", 403),
        ("evil.example@localhost", 403),
        ("127.0.0.1.nip.io:{port}", 403),
        ("proxy.example:80:{port}", 403),
        ("0", 403),
        ("", 403),
    ],
)
async def test_the_host_header_must_name_this_gateway(open_house: OpenHouse, host: str, status: int) -> None:
    house = await open_house(settings={"allowed_hosts": ["cron.example:8443", "proxy.example"]})
    named = {"Host": host.format(port=house.server.port)}
    assert (await house.post(WHOAMI, headers=named)).status == status
    assert (await house.get("/healthz", headers=named)).status == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 200),
        ("http://127.0.0.1:{port}", 200),
        ("https://console.example", 200),
        ("http://localhost:{port}", 403),
        ("http://127.0.0.1", 403),
        ("https://evil.example", 403),
        ("null", 403),
        ("file://", 403),
        ("chrome-extension://127.0.0.1:{port}", 403),
        ("", 403),
    ],
)
async def test_a_page_from_elsewhere_may_not_call(
    open_house: OpenHouse, origin: str | None, status: int
) -> None:
    house = await open_house(settings={"allowed_origins": ["https://console.example"]})
    headers = {} if origin is None else {"Origin": origin.format(port=house.server.port)}
    assert (await house.post(WHOAMI, headers=headers)).status == status


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/json"]
)
async def test_a_body_that_a_form_could_send_is_refused(house: House, content_type: str) -> None:
    response = await house.post(WHOAMI, headers={"Content-Type": content_type})
    assert response.status == 415
    assert "expected application/json" in (await response.json())["error"]["data"]


async def test_a_charset_beside_the_content_type_is_fine(house: House) -> None:
    response = await house.post(WHOAMI, headers={"Content-Type": "application/json; charset=utf-8"})
    assert response.status == 200


async def test_a_compressed_body_is_refused(house: House) -> None:
    packed = gzip.compress(json.dumps(WHOAMI).encode())
    assert (await house.post(packed, headers={"Content-Encoding": "gzip"})).status == 415


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_256_kib_is_refused(house: House, chunked: bool) -> None:
    async def pieces() -> Any:
        for _ in range(5):
            yield b" " * 64 * 1024

    body: Any = pieces() if chunked else b" " * (256 * 1024 + 1)
    headers = {"Content-Type": "application/json", "Authorization": "Bearer alice"}
    response = await house.client.post(f"{house.server.url}/rpc", data=body, headers=headers)
    assert response.status == 413
    assert (await response.json())["error"]["data"] == "the body is too large: expected at most 262144 bytes"


async def test_a_body_of_256_kib_is_read(house: House) -> None:
    text = json.dumps(WHOAMI)
    assert (await house.post(text + " " * (256 * 1024 - len(text)))).status == 200


async def test_a_notification_is_answered_with_204(house: House) -> None:
    response = await house.post({"jsonrpc": "2.0", "method": "carapace.gateway.whoami"})
    assert response.status == 204
    assert await response.read() == b""


async def test_hostile_json_is_a_parse_error_and_not_a_failure(house: House) -> None:
    for text in [b"[" * 100_000, b"\xff", b'{"a": NaN}', b'{"a":1,"a":2}']:
        answer = await (await house.post(text)).json()
        assert answer["error"]["code"] == -32700
        assert answer["id"] is None


@pytest.mark.parametrize("path", ["/", "/healthz", "/rpc", "/nothing", "/public"])
async def test_every_answer_carries_the_security_headers(open_house: OpenHouse, path: str) -> None:
    house = await open_house(plugins={"routes": Routes(Route("GET", "/public", says("hello"), None))})
    headers = (await house.get(path)).headers
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Server"] == "carapace"
    assert "Access-Control-Allow-Origin" not in headers


async def test_a_get_of_rpc_says_what_would_do(house: House) -> None:
    response = await house.get("/rpc", headers={"Authorization": "Bearer alice"})
    assert response.status == 426
    assert "POST" in (await response.json())["error"]["data"]


async def test_a_wrong_method_names_the_right_ones(house: House) -> None:
    response = await house.client.delete(f"{house.server.url}/rpc")
    assert response.status == 405
    assert response.headers["Allow"] == "GET, POST"


async def test_health_is_ok_once_every_plugin_says_so(open_house: OpenHouse) -> None:
    class Slow:
        state: str | None = "still reading 10,000 jobs"

        @hookimpl
        def ready(self) -> str | None:
            return self.state

    slow = Slow()
    house = await open_house(plugins={"slow": slow})
    for path in ("/healthz", "/readyz"):
        response = await house.get(path)
        assert response.status == 503
        assert await response.json() == {"status": "unavailable", "reason": "slow: still reading 10,000 jobs"}
    slow.state = None
    response = await house.get("/healthz")
    assert (response.status, await response.json()) == (200, {"status": "ok"})


async def test_it_is_not_ready_without_a_required_plugin(open_house: OpenHouse) -> None:
    house = await open_house(settings={"required_plugins": ["carapace-cron"]})
    response = await house.get("/healthz")
    assert response.status == 503
    assert (await response.json())["reason"] == "the required plugin carapace-cron is not loaded"


async def test_the_page_says_what_this_is_without_a_script(open_house: OpenHouse) -> None:
    house = await open_house(plugins={"<b>bold</b>": Methods({})})
    response = await house.get("/")
    text = await response.text()
    assert response.content_type == "text/html"
    assert "/rpc" in text
    assert "docs/reference/gateway.md" in text
    assert "&lt;b&gt;bold&lt;/b&gt;" in text
    assert "<b>bold" not in text
    assert "<script" not in text
    style = text.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}';" in response.headers["Content-Security-Policy"]
    assert "http://" not in text
    assert "https://" not in text


async def test_a_plugin_may_bring_the_page(open_house: OpenHouse) -> None:
    house = await open_house(plugins={"console": Routes(Route("GET", "/", says("the console"), None))})
    assert await (await house.get("/")).text() == "the console"


async def test_a_route_with_a_scope_asks_for_it_and_knows_who_asks(open_house: OpenHouse) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(text=f"{request[ACTOR].user}: {await request.text()}")

    house = await open_house(plugins={"routes": Routes(Route("POST", "/pings", handler, "monitors"))})
    url = f"{house.server.url}/pings"
    assert (await house.client.post(url, data=b"hi")).status == 401
    refused = await house.client.post(url, data=b"hi", headers={"X-Api-Key": "alice"})
    assert refused.status == 403
    assert await refused.json() == {
        "success": False, "error": 'this needs a token with the scope "monitors"', "code": "forbidden",
    }
    admitted = await house.client.post(url, data=b"hi", headers={"X-Api-Key": "bob"})
    assert await admitted.text() == "bob: hi"


async def test_what_a_route_raises_is_answered_without_its_inside(
    open_house: OpenHouse, caplog: pytest.LogCaptureFixture
) -> None:
    async def breaks(request: web.Request) -> web.StreamResponse:
        raise RuntimeError("hunter2")

    async def misses(request: web.Request) -> web.StreamResponse:
        raise NotFound("no such monitor")

    routes = Routes(Route("GET", "/breaks", breaks, None), Route("GET", "/misses", misses, None))
    house = await open_house(plugins={"routes": routes})
    with caplog.at_level(logging.ERROR):
        broken = await house.get("/breaks")
    assert broken.status == 500
    assert "hunter2" not in await broken.text()
    assert "hunter2" in caplog.text
    missing = await house.get("/misses")
    assert (missing.status, (await missing.json())["error"]) == (404, "no such monitor")


async def test_a_redirect_of_a_route_goes_through(open_house: OpenHouse) -> None:
    async def moved(request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("/elsewhere")

    house = await open_house(plugins={"routes": Routes(Route("GET", "/moved", moved, None))})
    response = await house.client.get(f"{house.server.url}/moved", allow_redirects=False)
    assert (response.status, response.headers["Location"]) == (302, "/elsewhere")


async def test_the_access_log_holds_patterns_and_no_secrets(
    open_house: OpenHouse, caplog: pytest.LogCaptureFixture
) -> None:
    house = await open_house(plugins={"routes": Routes(Route("GET", "/ping/{secret}", says("ok"), None))})
    with caplog.at_level(logging.INFO):
        await house.get("/ping/hunter2?token=hunter3", headers={"Authorization": "Bearer hunter4"})
        await house.get("/hunter5")
        await house.call("carapace.gateway.whoami")
        await asyncio.sleep(0.01)
    assert "GET /ping/{secret} 200" in caplog.text
    assert "GET (no route) 404" in caplog.text
    assert "POST /rpc 200" in caplog.text
    assert "hunter" not in caplog.text
    assert "alice" not in caplog.text


async def test_it_stays_on_loopback_without_anyone_to_identify_callers() -> None:
    settings = GatewaySettings(host="0.0.0.0", port=0)
    gateway = Gateway(settings, outbound=Wire(), clock=SystemClock(), installed=no_plugins)
    with pytest.raises(ConfigurationError, match=r"host 0\.0\.0\.0 .* no plugin identifies tokens"):
        await serve(gateway, clock=SystemClock())


async def test_another_address_is_said_in_the_log(
    open_house: OpenHouse, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        await open_house(settings={"host": "0.0.0.0"})
    assert "listening on 0.0.0.0, which other machines may reach" in caplog.text


async def test_a_taken_port_is_a_sentence(open_house: OpenHouse) -> None:
    house = await open_house()
    with pytest.raises(ConfigurationError, match=r"cannot listen on 127\.0\.0\.1:"):
        await open_house(settings={"port": house.server.port})


async def test_a_client_is_refused_beyond_the_connection_limit(open_house: OpenHouse) -> None:
    house = await open_house(limits=Limits(connections=2))
    port = house.server.port
    first = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
    await asyncio.sleep(0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert (await reader.read()).startswith(b"HTTP/1.1 503")
    writer.close()
    for _, open_writer in first:
        open_writer.close()
    await asyncio.sleep(0.05)
    assert (await house.get("/healthz")).status == 200


async def test_clients_that_went_away_take_no_others_place(
    open_house: OpenHouse, caplog: pytest.LogCaptureFixture
) -> None:
    """Their requests work on; there is an end to how many of them."""
    begun, goes_on = asyncio.Semaphore(0), asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        begun.release()
        await goes_on.wait()
        return web.Response()

    route = Route("GET", "/slow", slow, None)
    house = await open_house(plugins={"slow": Routes(route)}, limits=Limits(connections=2))
    for _ in range(2 * LEFT_BEHIND):
        assert await status_of(house, "/healthz") == 200
        _, writer = await asyncio.open_connection("127.0.0.1", house.server.port)
        writer.write(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await begun.acquire()
        writer.close()
        await writer.wait_closed()
    for _ in range(3):
        assert await status_of(house, "/healthz") == 503
    assert caplog.text.count("connections are refused, 1 since this was last said") == 1
    goes_on.set()
    async with asyncio.timeout(10):
        while await status_of(house, "/healthz") == 503:
            await asyncio.sleep(0.01)


async def status_of(house: House, path: str) -> int:
    """As a client that has no connection yet is answered, and that keeps none."""
    reader, writer = await asyncio.open_connection("127.0.0.1", house.server.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return int(answer.split()[1])


async def test_requests_under_way_end_when_the_server_stops(open_house: OpenHouse) -> None:
    begun = asyncio.Event()

    async def slow(actor: Actor, params: Params) -> str:
        begun.set()
        await asyncio.sleep(0.1)
        return "done"

    house = await open_house(plugins={"slow": Methods({"slow": slow})})
    asking = asyncio.create_task(house.call("slow"))
    await begun.wait()
    await house.server.stop()
    assert (await asking)["result"] == "done"
