"""The door on real sockets: what it reaches, what it never connects to, and what it survives."""

from __future__ import annotations

import asyncio
import gzip
import logging
import socket
import tracemalloc
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from importlib.metadata import version

import aiohttp
import pytest
from aiohttp import web

from carapace_cron.errors import AddressNotAllowed, InvalidValue, Unavailable
from carapace_cron.outbound.address import AllowList
from carapace_cron.outbound.client import MAX_BODY, CallFailed, Outbound
from carapace_cron.outbound.guard import CheckedResolver, Guard, NotCalled

Serving = Callable[..., AbstractAsyncContextManager[str]]


async def _hello(request: web.Request) -> web.Response:
    return web.Response(text=f"{request.method} {request.path_qs}", headers={"X-Reply": "yes"})


async def test_it_answers_with_status_headers_and_body(
    serving: Serving, allowing: Callable[..., Outbound]
) -> None:
    async with serving(_hello) as origin:
        answer = await allowing(origin).request("GET", f"{origin}/a?b=c", timeout_seconds=5)
    assert (answer.status, answer.text(), answer.truncated, answer.redirects) == (200, "GET /a?b=c", False, 0)
    assert answer.headers["x-reply"] == "yes"
    assert answer.url == f"{origin}/a"


async def test_the_name_localhost_is_the_allowed_loopback_address(serving: Serving, allowing) -> None:
    async with serving(_hello) as origin:
        port = origin.rpartition(":")[2]
        answer = await allowing(origin).request("GET", f"http://localhost:{port}/", timeout_seconds=5)
    assert answer.status == 200


async def test_it_never_connects_where_it_must_not(listening) -> None:
    async with listening(b"HTTP/1.1 200 OK\r\n\r\n") as inside:
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]"):
            with pytest.raises(AddressNotAllowed, match=r"^address not allowed$"):
                await Outbound(AllowList()).request("GET", f"http://{host}:{inside.port}/", timeout_seconds=5)
        assert inside.connections == 0


@pytest.mark.parametrize(
    "answers", [["127.0.0.1"], ["1.1.1.1", "127.0.0.1"], ["::1"], ["fe80::1%lo"], ["0x7f.1"]]
)
async def test_a_name_is_refused_if_any_of_its_addresses_is(answers: list[str], listening, caplog) -> None:
    async def lookup(host: str, port: int) -> list[str]:
        return answers

    async with listening(b"HTTP/1.1 200 OK\r\n\r\n") as inside:
        with pytest.raises(AddressNotAllowed, match=r"^address not allowed$"):
            door = Outbound(AllowList(), lookup=lookup)
            await door.request("GET", f"http://inner.example.com:{inside.port}/", timeout_seconds=5)
        assert inside.connections == 0
    record = next(record for record in caplog.records if record.levelno == logging.WARNING)
    assert record.__dict__["action"] == "outbound_refused"
    assert record.__dict__["host"] == "inner.example.com" and answers[-1] in record.getMessage()


async def test_a_name_that_turns_inward_between_two_looks_is_not_followed(listening) -> None:
    """DNS rebinding: the first answer may be called, the second, for the same name, is the loopback."""
    looked: list[str] = []

    async def lookup(host: str, port: int) -> list[str]:
        looked.append(host)
        return ["127.0.0.2"] if len(looked) == 1 else ["127.0.0.1"]

    moved = b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n"
    welcome = b"HTTP/1.1 200 OK\r\n\r\n"
    async with listening(moved, host="127.0.0.2") as outside, listening(welcome, port=outside.port) as inside:
        door = Outbound(AllowList.parse(f"127.0.0.2:{outside.port}"), lookup=lookup)
        with pytest.raises(AddressNotAllowed):
            await door.request("GET", f"http://rebind.example.com:{outside.port}/", timeout_seconds=5)
        assert (outside.connections, inside.connections, len(looked)) == (1, 0, 2)


async def test_the_guard_on_the_socket_holds_when_the_resolver_lies(listening) -> None:
    class Lying(CheckedResolver):
        async def resolve(self, host, port=0, family=socket.AF_INET):
            return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": socket.AF_INET,
                     "proto": 0, "flags": socket.AI_NUMERICHOST}]  # fmt: skip

    async with listening(b"HTTP/1.1 200 OK\r\n\r\n") as inside:
        guard = Guard(AllowList(), host="public.example.com")

        async def never(host: str, port: int) -> list[str]:
            raise AssertionError("the lying resolver answers by itself")

        connector = aiohttp.TCPConnector(resolver=Lying(guard, never), socket_factory=guard.open_socket)
        async with aiohttp.ClientSession(connector=connector) as session:
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.get(f"http://public.example.com:{inside.port}/")
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.get(f"http://127.0.0.1:{inside.port}/")
        assert guard.refused and inside.connections == 0


def test_the_guard_refuses_addresses_of_this_very_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A public address of the gateway's own leads to what listens on all its interfaces."""
    monkeypatch.setattr("carapace_cron.outbound.guard.why_refused", lambda address: None)
    with pytest.raises(NotCalled):
        Guard(AllowList(), host="me.example.com").check("127.0.0.1", 80)
    Guard(AllowList(), host="other.example.com").check("192.0.2.1", 80)


# Redirects


def _redirecting(status: int, location: str, seen: list[web.Request] | None = None):
    async def handler(request: web.Request) -> web.Response:
        if seen is not None:
            seen.append(request)
        return web.Response(status=status, headers={"Location": location})

    return handler


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "inner", ["http://127.0.0.1:{port}/", "http://localhost:{port}/", "http://[::1]:{port}/"]
)
async def test_a_redirect_inward_is_not_followed(
    status: int, inner: str, serving, listening, allowing
) -> None:
    async with listening(b"HTTP/1.1 200 OK\r\n\r\n") as inside:
        async with serving(_redirecting(status, inner.format(port=inside.port))) as origin:
            with pytest.raises(AddressNotAllowed, match=r"^address not allowed$"):
                await allowing(origin).request("GET", origin, timeout_seconds=5)
        assert inside.connections == 0


@pytest.mark.parametrize(
    "location", ["ftp://example.com/", "http://user:pw@/", "http://[::1/", "http://a b/",
    "file:///etc/passwd",
                 "http://example.com:99999/", "http://\\evil/"],
)  # fmt: skip
async def test_a_redirect_to_what_is_no_url_is_a_failure(location: str, serving, allowing) -> None:
    async with serving(_redirecting(302, location)) as origin:
        with pytest.raises(CallFailed, match="was redirected to what is no URL that can be called"):
            await allowing(origin).request("GET", origin, timeout_seconds=5)


async def test_it_follows_three_redirects_and_not_four(serving, allowing) -> None:
    async def countdown(request: web.Request) -> web.Response:
        left = int(request.path[1:])
        return (
            web.Response(status=302, headers={"Location": f"/{left - 1}"})
            if left
            else web.Response(text="here")
        )

    async with serving(countdown) as origin:
        answer = await allowing(origin).request("GET", f"{origin}/3", timeout_seconds=5)
        assert (answer.text(), answer.redirects, answer.url) == ("here", 3, f"{origin}/0")
        with pytest.raises(CallFailed, match="redirected more than 3 times"):
            await allowing(origin).request("GET", f"{origin}/4", timeout_seconds=5)


async def test_a_redirect_is_the_answer_when_it_is_not_to_be_followed(serving, allowing) -> None:
    async with serving(_redirecting(302, "http://127.0.0.1:1/")) as origin:
        answer = await allowing(origin).request("GET", origin, timeout_seconds=5, follow_redirects=False)
    assert (answer.status, answer.headers["Location"]) == (302, "http://127.0.0.1:1/")


@pytest.mark.parametrize(
    ("status", "method", "then", "body"),
    [(301, "POST", "GET", ""), (302, "PUT", "GET", ""), (303, "DELETE", "GET", ""), (303, "HEAD", "HEAD", ""),
     (307, "POST", "POST", "payload"), (308, "PUT", "PUT", "payload")],
)  # fmt: skip
async def test_a_redirect_keeps_or_drops_method_and_body_as_http_says(
    status: int, method: str, then: str, body: str, serving, allowing
) -> None:
    seen: list[tuple[str, str, str | None]] = []

    async def handler(request: web.Request) -> web.Response:
        if request.path == "/":
            return web.Response(status=status, headers={"Location": "/next"})
        seen.append((request.method, await request.text(), request.headers.get("Content-Language")))
        return web.Response()

    async with serving(handler) as origin:
        headers = {"Content-Type": "text/plain", "Content-Language": "en"}
        given = b"payload" if method != "HEAD" else None
        await allowing(origin).request(method, f"{origin}/", headers=headers, body=given, timeout_seconds=5)
    kept = "en" if then == method else None
    assert seen == [(then, body, kept)]


async def test_secrets_do_not_cross_to_another_origin(serving, allowing) -> None:
    seen: list[dict[str, str]] = []

    async def target(request: web.Request) -> web.Response:
        seen.append(dict(request.headers))
        return web.Response(headers={"Set-Cookie": "a=b"})

    secret = {
        "Authorization": "Bearer s3cret",
        "Cookie": "s3cret",
        "X-Api-Key": "s3cret",
        "Private-Token": "s3cret",
    }
    async with serving(target) as there, serving(_redirecting(307, there)) as here:
        await allowing(here, there).request(
            "GET", here, headers={**secret, "Accept": "text/plain"}, timeout_seconds=5
        )
        assert seen[0]["Accept"] == "text/plain"
        assert "s3cret" not in str(seen)
        await allowing(there).request("GET", there, headers=secret, timeout_seconds=5)
        assert str(seen[1]).count("s3cret") == 4


# What the operator configured


async def test_a_trusted_origin_is_called_without_an_allow_list(serving) -> None:
    async with serving(_hello) as origin:
        answer = await Outbound(AllowList()).request("POST", origin, timeout_seconds=5, trusted_origin=True)
    assert answer.status == 200


async def test_trust_ends_at_the_origin(serving, listening) -> None:
    async with listening(b"HTTP/1.1 200 OK\r\n\r\n") as inside:
        async with serving(_redirecting(307, f"http://127.0.0.1:{inside.port}/")) as origin:
            with pytest.raises(CallFailed, match="redirected to another origin"):
                await Outbound(AllowList()).request("GET", origin, timeout_seconds=5, trusted_origin=True)
        assert inside.connections == 0


async def test_trust_does_not_reach_metadata() -> None:
    async def lookup(host: str, port: int) -> list[str]:
        return ["169.254.169.254"]

    for url in ("http://metadata/", "http://169.254.169.254/", "http://[::ffff:a9fe:a9fe]/"):
        with pytest.raises(AddressNotAllowed):
            await Outbound(AllowList(), lookup=lookup).request(
                "GET", url, timeout_seconds=5, trusted_origin=True
            )


# Hostile answers


async def test_a_gzip_bomb_costs_no_more_than_its_cap(serving, allowing) -> None:
    bomb = gzip.compress(bytes(200 * MAX_BODY))

    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    async with serving(handler) as origin:
        tracemalloc.start()
        try:
            answer = await allowing(origin).request("GET", origin, timeout_seconds=10)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert (len(answer.body), answer.truncated) == (MAX_BODY, True)
    assert peak < 32 * MAX_BODY


async def test_an_endless_body_is_cut(serving, allowing) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(65_536))

    async with serving(handler) as origin:
        answer = await allowing(origin).request("GET", origin, timeout_seconds=10)
    assert (len(answer.body), answer.truncated) == (MAX_BODY, True)


async def test_a_body_of_exactly_the_cap_is_whole(serving, allowing) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=bytes(MAX_BODY))

    async with serving(handler) as origin:
        answer = await allowing(origin).request("GET", origin, timeout_seconds=10)
    assert (len(answer.body), answer.truncated) == (MAX_BODY, False)


@pytest.mark.parametrize("answer", [None, b"HTTP/1.1 200 OK\r\nX: "], ids=["silent", "half a header"])
async def test_a_slow_server_is_left_at_the_time_limit(answer: bytes | None, listening) -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer or b"")
        await reader.read()
        writer.close()
        hung_up.set()

    hung_up = asyncio.Event()
    server = await asyncio.start_server(slow, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        with pytest.raises(CallFailed, match=r"gave no whole answer within 0\.2 s"):
            await Outbound(AllowList.parse("127.0.0.1")).request("GET", url, timeout_seconds=0.2)
        async with asyncio.timeout(5):
            await hung_up.wait()


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (b"", "the connection was closed before there was an answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "the answer was no valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 20_000 + b"\r\n\r\n", "the answer was no valid HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 500 + b"\r\n", "the answer was no valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", "the body of the answer was cut off"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
            "could not be decoded",
        ),
    ],
    ids=["nothing", "not http", "long header", "many headers", "cut body", "bad gzip"],
)
async def test_each_broken_answer_is_one_sentence(answer: bytes, sentence: str, listening) -> None:
    async with listening(answer) as server:
        door = Outbound(AllowList.parse("127.0.0.1"))
        with pytest.raises(CallFailed, match=sentence) as failure:
            await door.request("GET", f"http://127.0.0.1:{server.port}/x?token=s3cret", timeout_seconds=5)
    assert str(failure.value).startswith(f"GET http://127.0.0.1:{server.port}/x failed: ")
    assert "s3cret" not in str(failure.value) and "\n" not in str(failure.value)


async def test_a_closed_port_and_an_unknown_name_are_told_apart() -> None:
    async def lookup(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: refuses
        door = Outbound(AllowList.parse("127.0.0.1"), lookup=lookup)
        with pytest.raises(CallFailed, match=r"no connection to 127\.0\.0\.1 port \d+: it was refused"):
            await door.request("GET", f"http://127.0.0.1:{taken.getsockname()[1]}/", timeout_seconds=5)
    with pytest.raises(CallFailed, match=r'the name "nowhere\.example\.com" has no address'):
        await door.request("GET", "http://nowhere.example.com/", timeout_seconds=5)


async def test_plain_http_on_an_https_port_is_a_tls_failure(serving, allowing) -> None:
    async with serving(_hello) as origin:
        with pytest.raises(CallFailed, match="no TLS connection to"):
            await allowing(origin).request("GET", origin.replace("http:", "https:"), timeout_seconds=5)


async def test_a_charset_that_is_no_plain_encoding_is_not_used(serving, allowing) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(
            body="é".encode(), headers={"Content-Type": f"text/plain; charset={request.query['c']}"}
        )

    async with serving(handler) as origin:
        for charset, text in (
            ("utf-8", "é"),
            ("iso-8859-1", "Ã©"),
            ("punycode", "é"),
            ("zip", "é"),
            ("idna", "é"),
        ):
            answer = await allowing(origin).request("GET", f"{origin}/?c={charset}", timeout_seconds=5)
            assert answer.text() == text


# Requests


@pytest.mark.parametrize(
    "headers",
    [{"X": "a\r\nY: b"}, {"X": "a\nb"}, {"X": "a\0"}, {"X": "é"}, {"X": " a"}, {"X\r\nY": "a"},
     {"X:": "a"}, {"": "a"},
     {"X Y": "a"}, {"Ⅹ": "a"}, {"Host": "127.0.0.1"}, {"host": "a"}, {"Content-Length": "1"},
     {"Transfer-Encoding": "chunked"}, {"Connection": "close"}, {"Proxy-Authorization": "a"},
     {"Upgrade": "h2c"},
     {"Expect": "100-continue"}, {"TE": "trailers"}, {"X-A": "1", "x-a": "2"}, {"X": "a" * 8001}],
    ids=ascii,
)  # fmt: skip
async def test_a_header_that_would_change_the_request_is_refused(headers: dict[str, str], listening) -> None:
    async with listening(b"HTTP/1.1 200 OK\r\n\r\n") as server:
        with pytest.raises(InvalidValue, match="header"):
            await Outbound(AllowList.parse("127.0.0.1")).request(
                "GET", f"http://127.0.0.1:{server.port}/", headers=headers, timeout_seconds=5
            )
        assert server.connections == 0


@pytest.mark.parametrize(
    ("headers", "sent"),
    [(None, f"carapace-cron/{version('carapace-cron')}"), ({"user-agent": "mine"}, "mine")],
)
async def test_it_says_who_calls_unless_the_caller_does(
    headers: dict[str, str] | None, sent: str, serving, allowing
) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(text=", ".join(request.headers.getall("User-Agent")))

    async with serving(handler) as origin:
        answer = await allowing(origin).request("GET", origin, headers=headers, timeout_seconds=5)
    assert answer.text() == sent


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "POST"])
async def test_a_request_that_gets_no_answer_is_sent_once(method: str, listening) -> None:
    async with listening(b"") as server:
        with pytest.raises(CallFailed):
            await Outbound(AllowList.parse("127.0.0.1")).request(
                method, f"http://127.0.0.1:{server.port}/", timeout_seconds=5
            )
        assert len(server.requests) == 1


async def test_cancelling_closes_the_connection(listening) -> None:
    async with listening(None) as server:
        door = Outbound(AllowList.parse("127.0.0.1"))
        call = asyncio.create_task(
            door.request("GET", f"http://127.0.0.1:{server.port}/", timeout_seconds=60)
        )
        async with asyncio.timeout(5):
            while not server.requests:
                await asyncio.sleep(0)
            call.cancel()
            await server.closed.wait()
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_proxy_settings_of_the_environment_do_not_count(
    serving, listening, allowing, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening(b"HTTP/1.1 200 OK\r\n\r\n") as proxy, serving(_hello) as origin:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        assert (await allowing(origin).request("GET", origin, timeout_seconds=5)).status == 200
        assert proxy.connections == 0


async def test_after_close_no_name_is_looked_up() -> None:
    door = Outbound(AllowList())
    await door.close()
    with pytest.raises(Unavailable, match="no name is looked up any more"):
        await door.request("GET", "http://example.com/", timeout_seconds=5)
