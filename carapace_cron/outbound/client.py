"""The one door to other machines over HTTP: nothing else in this package makes a client session.

Each call has a session, a resolver and sockets of its own, guarded for that call alone. Connections are
not kept: one that the operator's call opened must never be found by a tenant's, and a name is looked up
and checked anew each time. What that costs is in ``docs/why/outbound-calls.md``.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version

import aiohttp
from yarl import URL

from carapace_cron.errors import AddressNotAllowed, InvalidValue, Unavailable
from carapace_cron.outbound.address import AllowList
from carapace_cron.outbound.guard import CheckedResolver, Guard, Lookup, SystemLookup
from carapace_cron.outbound.headers import check_headers, for_other_origin, without_body
from carapace_cron.outbound.url import NOT_ALLOWED, check_url, shown

USER_AGENT = f"carapace-cron/{version('carapace-cron')}"  # unless the caller sends one
CONNECT_SECONDS = 5.0  # look-up, TCP and TLS together
MAX_REDIRECTS = 3
MAX_BODY = 1_048_576  # bytes of an answer after decompression
MAX_ANSWER_HEADERS = 64
MAX_HEADER_LINE = 8_190  # bytes

_REDIRECTS = frozenset((301, 302, 303, 307, 308))
# Codecs that are quick on hostile input; idna and punycode take quadratic time, zip is no text.
_CHARSET = re.compile(
    r"utf-?(8|16|16le|16be|32)|us-ascii|iso-?8859-\d+|windows-125\d|koi8-[ru]|shift_jis|euc-(jp|kr)|gb2312|gbk"
    r"|gb18030|big5",
    re.IGNORECASE | re.ASCII,
)


class CallFailed(Unavailable):
    """The other side did not answer as HTTP asks; the sentence says what, where, and how far it came."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, from the last address in the chain of redirects."""

    status: int
    reason: str  # the server's words for the status; often empty
    headers: Mapping[str, str]  # looked up without regard to case
    body: bytes  # decompressed; at most MAX_BODY bytes
    truncated: bool  # there was more, which was not read
    url: str  # where it came from, without the query; see `redirects`
    redirects: int = 0

    def text(self) -> str:
        """The body as text, by the charset of Content-Type (UTF-8 otherwise); bad bytes become U+FFFD."""
        match = re.search(r"charset=\"?([A-Za-z0-9_-]{1,20})", self.headers.get("Content-Type", ""))
        charset = match[1] if match and _CHARSET.fullmatch(match[1]) else "utf-8"
        try:
            return self.body.decode(charset, "replace")
        except LookupError:  # iso-8859-99
            return self.body.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class _Hop:
    """One request in a chain of redirects."""

    method: str
    url: URL
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(repr=False)

    def __str__(self) -> str:
        return f"{self.method} {shown(self.url)}"


class Outbound:
    """Calls other machines over HTTP, guarded."""

    def __init__(self, allow: AllowList, *, lookup: Lookup | None = None) -> None:
        self.allow = allow
        self._system = SystemLookup()
        self._lookup = lookup or self._system

    async def close(self) -> None:
        """No name is looked up after this. Calls under way end by themselves or by being cancelled."""
        self._system.close()

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_seconds: float,
        trusted_origin: bool = False,
        follow_redirects: bool = True,
    ) -> Answer:
        """Do one request, redirects included, within `timeout_seconds`.

        `trusted_origin`: the operator configured this URL, so its own origin (host and port) is called
        even on an inner network; redirects away from it are not followed, and metadata addresses are
        refused all the same. Without `follow_redirects` a redirect is the answer.

        Raises `InvalidValue` (what was asked), `AddressNotAllowed` (where it leads), `CallFailed` (the
        network, the other side or the time). Any status is an answer. Cancelling closes the connection.
        """
        hop = _Hop(method, check_url(url, self.allow, trusted=trusted_origin), headers or {}, body)
        check_headers(hop.headers)
        guard = Guard(self.allow, trusted=_place(hop.url) if trusted_origin else None)
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self._follow(hop, guard, MAX_REDIRECTS if follow_redirects else None)
        except TimeoutError as error:
            raise CallFailed(f"{hop} gave no whole answer within {timeout_seconds:g} s") from error

    async def _follow(self, hop: _Hop, guard: Guard, most: int | None) -> Answer:
        """The last answer after at most `most` redirects; None: the first answer, whatever it is."""
        async with self._session(guard) as session:
            for redirects in range((most or 0) + 1):
                answer, location = await _exchange(session, hop, guard, follow=most is not None)
                if location is None:
                    return replace(answer, redirects=redirects)
                hop = self._redirected(hop, answer.status, location, trusted=guard.trusted is not None)
        raise CallFailed(f"redirected more than {most} times, at last to {shown(hop.url)}")

    def _session(self, guard: Guard) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            resolver=CheckedResolver(guard, self._lookup),
            socket_factory=guard.open_socket,
            use_dns_cache=False,
            force_close=True,
        )
        session = aiohttp.ClientSession(
            connector=connector,
            headers={"User-Agent": USER_AGENT},
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS),
            max_line_size=MAX_HEADER_LINE,
            max_field_size=MAX_HEADER_LINE,
            max_headers=MAX_ANSWER_HEADERS,
            read_bufsize=65_536,
        )
        # aiohttp sends GET, PUT and DELETE a second time by itself when the server closes without an answer.
        # It means connections that were kept (RFC 9112, 9.3.1) and does it on new ones, too; whether there
        # is a second try is the caller's to say. aiohttp's own test client has no other way to switch it off.
        session._retry_connection = False
        return session

    def _redirected(self, hop: _Hop, status: int, location: str, *, trusted: bool) -> _Hop:
        """The next request: where to, with which method, headers and body."""
        url = self._target(hop, location, trusted=trusted)
        method, headers, body = hop.method, hop.headers, hop.body
        if status in (301, 302, 303) and method not in ("GET", "HEAD"):
            method, headers, body = "GET", without_body(headers), None
        if url.origin() != hop.url.origin():
            headers = for_other_origin(headers)
        return _Hop(method, url, headers, body)

    def _target(self, hop: _Hop, location: str, *, trusted: bool) -> URL:
        try:
            url = check_url(str(hop.url.join(URL(location))), self.allow, trusted=trusted)
        except ValueError as error:
            raise CallFailed(f"{hop} was redirected to what is no URL that can be called") from error
        if hop.url.scheme == "https" and url.scheme == "http":
            raise CallFailed(f"{hop} was redirected from https to http, which is not followed")
        if trusted and url.origin() != hop.url.origin():
            raise CallFailed(f"{hop} was redirected to another origin; configure the final URL")
        return url


def _place(url: URL) -> tuple[str, int]:
    return url.raw_host or "", url.port or 0


async def _exchange(
    session: aiohttp.ClientSession, hop: _Hop, guard: Guard, *, follow: bool
) -> tuple[Answer, str | None]:
    """One request and its answer; the second is where it redirects to, or None when this is the end."""
    guard.host = hop.url.raw_host or ""
    with _in_our_words(hop, guard):
        async with session.request(
            hop.method, hop.url, headers=hop.headers, data=hop.body, allow_redirects=False
        ) as response:
            moved = follow and response.status in _REDIRECTS
            location = response.headers.get("Location") or None if moved else None
            body, truncated = (b"", False) if location else await _read(response)
            answer = Answer(
                response.status, response.reason or "", response.headers, body, truncated, shown(hop.url)
            )
            return answer, location


async def _read(response: aiohttp.ClientResponse) -> tuple[bytes, bool]:
    """The body up to the cap, and whether there was more; the rest is never read."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_BODY:
            response.close()
            return bytes(body[:MAX_BODY]), True
    return bytes(body), False


@contextlib.contextmanager
def _in_our_words(hop: _Hop, guard: Guard) -> Iterator[None]:
    """Turn what aiohttp raises into one sentence of ours, without its details of names and addresses."""
    try:
        yield
    except (aiohttp.ClientError, OSError, ValueError) as error:
        if guard.refused:
            raise AddressNotAllowed(NOT_ALLOWED, field="command") from error
        if isinstance(error, aiohttp.InvalidURL):
            raise InvalidValue(f"bad URL in {hop}", field="command") from error
        raise CallFailed(f"{hop} {_what_failed(error, hop.url)}") from error


def _what_failed(error: Exception, url: URL) -> str:
    """What went wrong, as the rest of the sentence that begins with the request. First match wins."""
    place = f"{url.host} port {url.port}"
    words: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
        (aiohttp.ClientConnectorDNSError, f'failed: the name "{url.host}" has no address'),
        (aiohttp.ClientConnectorCertificateError, f"failed: the certificate of {url.host} is not trusted"),
        (aiohttp.ClientSSLError, f"failed: no TLS connection to {place}"),
        (aiohttp.ConnectionTimeoutError, f"failed: no connection to {place} within {CONNECT_SECONDS:g} s"),
        (aiohttp.ClientConnectorError, f"failed: no connection to {place}{_why(error)}"),
        (aiohttp.ClientPayloadError, "failed: the body of the answer was cut off or could not be decoded"),
        (aiohttp.ServerDisconnectedError, "failed: the connection was closed before there was an answer"),
        (aiohttp.ClientResponseError, "failed: the answer was no valid HTTP, or its headers were too large"),
    )
    return next((text for kind, text in words if isinstance(error, kind)), "failed: the connection broke")


def _why(error: Exception) -> str:
    code = error.errno if isinstance(error, OSError) else None
    if code == errno.ECONNREFUSED:
        return ": it was refused"
    return ": it cannot be reached" if code in (errno.ENETUNREACH, errno.EHOSTUNREACH) else ""
