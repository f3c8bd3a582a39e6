"""The ping doors: ``/ping/…`` as the clients of Healthchecks use it, ``/webhook/ping/…`` for reports in JSON.

Whoever has the address may ping, from any machine and any page: Host and Origin are not looked at, and no
token is asked for beside the one in the address. A 2xx means that the ping is on the disk.
docs/reference/pings.md has each behaviour beside that of Healthchecks.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from aiohttp import web

from carapace_cron.api.envelope import failure
from carapace_cron.api.ping_address import PingAddress, read_address, read_run_id
from carapace_cron.api.ping_body import Body, read_body
from carapace_cron.api.report import REPORT_BYTES, read_report
from carapace_cron.clock import Clock
from carapace_cron.errors import InvalidValue, QuotaExceeded, Unavailable
from carapace_cron.gateway.credentials import Identify, holder_of
from carapace_cron.gateway.faults import RETRY_AFTER_SECONDS
from carapace_cron.gateway.forwarded import client_of
from carapace_cron.gateway.hookspecs import Handler, Route
from carapace_cron.gateway.strict_json import dump_json
from carapace_cron.ids import token_hash
from carapace_cron.ledger.ping_names import PING_KEY_SCOPE, Name
from carapace_cron.ledger.pings import USER_AGENT_LIMIT, Answer, Arrival, Unsigned
from carapace_cron.model.actor import Actor
from carapace_cron.model.monitor import BODY_LIMIT, MOST_CHANNELS, Ping, PingKind
from carapace_cron.model.ping_proof import SIGNATURE_HEADER, TIMESTAMP_HEADER, Proof
from carapace_cron.monitors.ping_book import ANSWER_SECONDS, Busy
from carapace_cron.services.monitors import Target

T = TypeVar("T")

log = logging.getLogger(__name__)

WARN_EVERY_SECONDS = 60.0
ALL_CHANNELS = "*"

_HEADERS = {"Access-Control-Allow-Origin": "*", "Ping-Body-Limit": str(BODY_LIMIT)}
_PREFLIGHT = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, HEAD, POST",
    "Access-Control-Allow-Headers": "*",
    "Access-Control-Max-Age": "86400",
}
_BAD_ADDRESS = "invalid url format"  # Healthchecks' words, which its clients look for
_BAD_RUN_ID = "invalid uuid format"
_NOT_FOUND = "not found"
_CODES = {400: "invalid", 403: "forbidden", 404: "not_found", 503: "unavailable"}  # of a refused report
_UNSIGNED = "this monitor takes signed pings only, and this one is not signed, or not well, or not now"


class PingBook(Protocol):
    """Raises `Busy` and `Unavailable`; None: there is no such monitor."""

    async def record(self, arrival: Arrival) -> Answer: ...


class Desk(Protocol):
    """The use cases of monitors that a ping needs."""

    async def exists(self, monitor_id: str) -> bool: ...

    async def ping_target(
        self, actor: Actor, slug: str, *, create: bool = False, asked: Mapping[str, str] | None = None
    ) -> Target | None: ...


class ChannelIds(Protocol):
    """The ids of the channels that a tenant may name."""

    def ids_for(self, tenant: str) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class Asked:
    """What the address of a ping says, and its query. `fault`: why it is no ping; it may still be unknown."""

    address: PingAddress
    query: Mapping[str, str]
    run_id: str
    fault: str | None
    proof: Proof | None

    @property
    def creates(self) -> bool:
        return self.query.get("create") == "1"


class Refusal(Exception):
    """What came is no ping: the status and the text of the answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class PingDoor:
    """Its handlers read, record, answer; in that order, so that nobody is told of a ping that is not kept."""

    def __init__(
        self, book: PingBook, desk: Desk, channels: ChannelIds, clock: Clock, identify: Identify
    ) -> None:
        self._book = book
        self._desk = desk
        self._channels = channels
        self._clock = clock
        self._identify = identify
        self._warned_at = -math.inf

    def routes(self) -> Sequence[Route]:
        ping, report = "/ping/{address:.*}", "/webhook/ping/{address:.*}"
        return [
            *(_open(method, ping, self.ping) for method in ("GET", "HEAD", "POST")),
            _open("OPTIONS", ping, answer_preflight),
            _open("POST", report, self.report),
            _open("OPTIONS", report, answer_preflight),
        ]

    async def ping(self, request: web.Request) -> web.StreamResponse:
        """A signal in the address. The body is the sender's own text, whatever it is."""
        body = await _body_of(request, BODY_LIMIT)
        try:
            asked = _asked(request, body)
            ping = self._ping(request, asked, asked.address.said, body)
            created = await self._keep(asked, ping)
        except Refusal as refusal:
            return _finished(_text(refusal.status, refusal.text), body)
        return _finished(_text(201, "Created") if created else _text(200, "OK"), body)

    async def report(self, request: web.Request) -> web.StreamResponse:
        """A signal in JSON. A report that cannot be read is refused, and its arrival kept as a note."""
        body = await _body_of(request, REPORT_BYTES)
        try:
            asked = _asked(request, body)
            if asked.address.has_suffix:
                raise _not_found()
            try:
                report = read_report(body)
            except InvalidValue as error:
                if not await self._kept_at_once(asked, self._ping(request, asked, "log", body)):
                    await self._found_or_made(replace(asked, fault=asked.fault or str(error)))
                raise Refusal(400, str(error)) from error
            ping = self._ping(request, asked, report.said, body, took_ms=report.took_ms)
            created = await self._keep(asked, ping)
        except Refusal as refusal:
            answer = failure(refusal.text, _CODES[refusal.status], None)
            return _finished(_json(refusal.status, answer), body)
        return _finished(_json(201 if created else 200, {"success": True}), body)

    def _ping(
        self,
        request: web.Request,
        asked: Asked,
        said: PingKind,
        body: Body,
        *,
        took_ms: int | None = None,
    ) -> Ping:
        client = client_of(request)
        return Ping(
            at=self._clock.now(),
            said=said,
            rid=asked.run_id,
            exit_status=asked.address.exit_status,
            took_ms=took_ms,
            scheme=client.scheme,
            method=request.method,
            remote_address=client.address,
            user_agent=_storable(request.headers.get("User-Agent", "")[:USER_AGENT_LIMIT]),
            body=body.kept[:BODY_LIMIT],
        )

    async def _keep(self, asked: Asked, ping: Ping) -> bool:
        """Until it is on the disk; whether its monitor was made for it."""
        if await self._kept_at_once(asked, ping):
            return False
        target = await self._found_or_made(asked)
        if not await self._recorded(Arrival(target.monitor_id, ping, asked.proof)):
            raise _not_found()
        return target.created

    async def _kept_at_once(self, asked: Asked, ping: Ping) -> bool:
        """The way of nearly all pings: one write, which finds the monitor itself. False when there is none,
        or the ping is wrong."""
        if asked.fault is not None:
            return False
        address = asked.address
        to = address.monitor_id or Name(token_hash(address.key), address.slug)
        return await self._recorded(Arrival(to, ping, asked.proof))

    async def _recorded(self, arrival: Arrival) -> bool:
        """False when there is no such monitor."""
        try:
            answer = await self._book.record(arrival)
        except (Busy, Unavailable) as error:
            raise self._refusal(error) from error
        if isinstance(answer, Unsigned):
            raise Refusal(403, _UNSIGNED)
        return answer is not None

    async def _found_or_made(self, asked: Asked) -> Target:
        """The monitor that is meant, for what could not simply be recorded.

        As with Healthchecks, what is not there is answered before what is wrong. Unlike there, nothing is
        made for a ping that is wrong.
        """
        if asked.address.monitor_id:
            known = asked.fault is not None and await self._reached(
                self._desk.exists(asked.address.monitor_id)
            )
            raise Refusal(400, str(asked.fault)) if known else _not_found()
        actor = await self._reached(holder_of(asked.address.key, self._identify))
        if actor is None or actor.scopes != {PING_KEY_SCOPE}:
            raise _not_found()
        target = await self._by_slug(actor, asked)
        if asked.fault is not None and (asked.creates or target is not None):
            raise Refusal(400, asked.fault)
        if target is None:
            raise _not_found()
        return target

    async def _by_slug(self, actor: Actor, asked: Asked) -> Target | None:
        creates = asked.creates and asked.fault is None
        fields = self._fields(actor, asked.query) if creates else None
        slug = asked.address.slug
        try:
            return await self._reached(self._desk.ping_target(actor, slug, create=creates, asked=fields))
        except QuotaExceeded as error:
            raise _not_found() from error
        except InvalidValue as error:
            raise Refusal(400, str(error)) from error

    def _fields(self, actor: Actor, query: Mapping[str, str]) -> dict[str, str]:
        """What a monitor is made with. As with Healthchecks, it tells everybody unless the ping says whom."""
        fields = {name: text for name, text in query.items() if name not in ("create", "rid")}
        if fields.get("channels", ALL_CHANNELS) == ALL_CHANNELS:
            fields["channels"] = " ".join(self._channels.ids_for(actor.tenant)[:MOST_CHANNELS])
        return fields

    async def _reached(self, answer: Awaitable[T]) -> T:
        """What the ledger answers; a `Refusal` when it cannot, or not in time."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await answer
        except (Unavailable, TimeoutError) as error:
            raise self._refusal(error) from error

    def _refusal(self, error: Exception) -> Refusal:
        """The operator hears why, now and then: in a storm of pings, each line would say the same."""
        now = self._clock.monotonic()
        if now - self._warned_at >= WARN_EVERY_SECONDS:
            self._warned_at = now
            log.warning("pings are refused: %s", str(error) or "the ledger hangs", extra={"action": "ping"})
        return Refusal(503, "busy: try again in a few seconds")


async def answer_preflight(request: web.Request) -> web.StreamResponse:
    """A browser asks whether its page may ping: it may. The question is no ping."""
    return web.Response(status=204, headers=_PREFLIGHT)


async def _body_of(request: web.Request, limit: int) -> Body:
    return await read_body(request, limit, digest=SIGNATURE_HEADER in request.headers)


def _proof_in(request: web.Request, body: Body) -> Proof | None:
    signature = request.headers.get(SIGNATURE_HEADER)
    if signature is None:
        return None
    timestamp = request.headers.get(TIMESTAMP_HEADER, "")
    return Proof(timestamp, request.raw_path, body.digest, signature)


def _asked(request: web.Request, body: Body) -> Asked:
    """Raises `Refusal` for an address at which nothing can be."""
    address = read_address(request.match_info["address"])
    if address is None:
        raise _not_found()
    if address.slug != address.slug.lower():
        raise Refusal(400, _BAD_ADDRESS)
    query = request.query if request.query_string else {}
    rid = query.get("rid")
    run_id = "" if rid is None else read_run_id(rid)
    fault = _BAD_ADDRESS if address.is_out_of_range else _BAD_RUN_ID if run_id is None else None
    return Asked(address, query, run_id or "", fault, _proof_in(request, body))


def _not_found() -> Refusal:
    return Refusal(404, _NOT_FOUND)


def _open(method: str, path: str, handler: Handler) -> Route:
    return Route(method, path, handler, None, from_anywhere=True, reads_body=True, often=True)


def _text(status: int, text: str) -> web.Response:
    return web.Response(status=status, body=text.encode(), content_type="text/plain", headers=_HEADERS)


def _json(status: int, value: Mapping[str, Any]) -> web.Response:
    text = dump_json(value)
    return web.Response(status=status, text=text, content_type="application/json", headers=_HEADERS)


def _finished(response: web.Response, body: Body) -> web.Response:
    if response.status == 503:
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    if not body.ended:
        response.force_close()  # the rest of the body would be taken for the next request
    return response


def _storable(header: str) -> str:
    """What a database can hold: bytes that are no UTF-8 became lone surrogates on their way here."""
    return header if header.isascii() else header.encode("utf-8", "replace").decode()
