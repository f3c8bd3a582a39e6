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
from typing import Any, Protocol, TypeVar

from aiohttp import web

from carapace_cron.api.keys import Identify, holder_of
from carapace_cron.api.ping_address import PingAddress, read_address, read_run_id
from carapace_cron.api.ping_body import Body, read_body
from carapace_cron.api.report import REPORT_BYTES, read_report
from carapace_cron.clock import Clock
from carapace_cron.errors import InvalidValue, QuotaExceeded, Unavailable
from carapace_cron.gateway.forwarded import client_of
from carapace_cron.gateway.hookspecs import Handler, Route
from carapace_cron.gateway.strict_json import dump_json
from carapace_cron.ledger.pings import USER_AGENT_LIMIT, Arrival, Busy, Recorded
from carapace_cron.model.actor import Actor
from carapace_cron.model.monitor import BODY_LIMIT, Ping, PingKind
from carapace_cron.services.monitors import Target

T = TypeVar("T")

log = logging.getLogger(__name__)

ANSWER_SECONDS = 30.0  # a ledger that hangs must not keep the caller, who can come again
RETRY_AFTER_SECONDS = 5
WARN_EVERY_SECONDS = 60.0

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

class PingBook(Protocol):
    """Raises `Busy` and `Unavailable`; None: there is no such monitor."""

    async def record(self, arrival: Arrival) -> Recorded | None: ...


class Desk(Protocol):
    """The use cases of monitors that a ping needs."""

    async def exists(self, monitor_id: str) -> bool: ...

    async def ping_target(
        self, actor: Actor, slug: str, *, create: bool = False, asked: Mapping[str, str] | None = None
    ) -> Target | None: ...


class Refusal(Exception):
    """What came is no ping: the status and the text of the answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class PingDoor:
    """Its handlers read, record, answer; in that order, so that nobody is told of a ping that is not kept."""

    def __init__(self, book: PingBook, desk: Desk, clock: Clock, identify: Identify) -> None:
        self._book = book
        self._desk = desk
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
        body = await read_body(request, BODY_LIMIT)
        try:
            address = _address_of(request)
            target, rid = await self._target(request, address)
            await self._record(
                target,
                self._ping(request, address.said, rid, body, exit_status=address.exit_status),
            )
        except Refusal as refusal:
            return _finished(_text(refusal.status, refusal.text), body)
        return _finished(_text(201, "Created") if target.created else _text(200, "OK"), body)

    async def report(self, request: web.Request) -> web.StreamResponse:
        """A signal in JSON. A report that cannot be read is refused, and its arrival kept as a note."""
        body = await read_body(request, REPORT_BYTES)
        try:
            address = _address_of(request)
            if address.has_suffix:
                raise Refusal(404, _NOT_FOUND)
            target, rid = await self._target(request, address)
            try:
                report = read_report(body)
            except InvalidValue as error:
                await self._record(target, self._ping(request, "log", rid, body))
                raise Refusal(400, str(error)) from error
            ping = self._ping(request, report.said, rid, body, took_ms=report.took_ms)
            await self._record(target, ping)
        except Refusal as refusal:
            answer = _json(refusal.status, {"success": False, "error": refusal.text})
            return _finished(answer, body)
        return _finished(_json(201 if target.created else 200, {"success": True}), body)

    async def _target(self, request: web.Request, address: PingAddress) -> tuple[Target, str]:
        """The monitor that is meant, and the run id.

        As with Healthchecks, what is not there is answered before what is wrong. Unlike there, nothing is
        made for a ping that is wrong.
        """
        query = request.query if request.query_string else {}
        rid = query.get("rid")
        run_id = "" if rid is None else read_run_id(rid)
        fault = _BAD_ADDRESS if address.is_out_of_range else None if run_id is not None else _BAD_RUN_ID
        if address.monitor_id:
            target = await self._by_id(address.monitor_id, fault)
        else:
            target = await self._by_slug(address, query, fault)
        return target, run_id or ""

    async def _by_id(self, monitor_id: str, fault: str | None) -> Target:
        """Whether it is there is left to the recording, unless there is nothing to record."""
        if fault is None:
            return Target(monitor_id)
        raise Refusal(400, fault) if await self._reached(self._desk.exists(monitor_id)) else _not_found()

    async def _by_slug(self, address: PingAddress, query: Mapping[str, str], fault: str | None) -> Target:
        if address.slug != address.slug.lower():
            raise Refusal(400, _BAD_ADDRESS)
        actor = await self._reached(holder_of(address.key, self._identify))
        # A token that may do more is no ping key: what stands in addresses ends in the logs of others.
        if actor is None or actor.scopes != {"ping"}:
            raise _not_found()
        creates = query.get("create") == "1"
        asked = query if creates and fault is None else None
        try:
            target = await self._reached(
                self._desk.ping_target(actor, address.slug, create=asked is not None, asked=asked)
            )
        except QuotaExceeded as error:
            raise _not_found() from error
        except InvalidValue as error:
            raise Refusal(400, str(error)) from error
        if fault is not None and (creates or target is not None):
            raise Refusal(400, fault)
        if target is None:
            raise _not_found()
        return target

    def _ping(
        self,
        request: web.Request,
        said: PingKind,
        rid: str,
        body: Body,
        *,
        exit_status: int | None = None,
        took_ms: int | None = None,
    ) -> Ping:
        client = client_of(request)
        return Ping(
            at=self._clock.now(),
            said=said,
            rid=rid,
            exit_status=exit_status,
            took_ms=took_ms,
            scheme=client.scheme,
            method=request.method,
            remote_address=client.address,
            user_agent=_storable(request.headers.get("User-Agent", "")[:USER_AGENT_LIMIT]),
            body=body.kept[:BODY_LIMIT],
        )

    async def _record(self, target: Target, ping: Ping) -> None:
        """Until it is on the disk."""
        if await self._reached(self._book.record(Arrival(target.monitor_id, ping))) is None:
            raise _not_found()

    async def _reached(self, answer: Awaitable[T]) -> T:
        """What the ledger answers; a `Refusal` when it cannot, or not in time."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await answer
        except (Busy, Unavailable, TimeoutError) as error:
            self._warn(error)
            raise Refusal(503, "busy: try again in a few seconds") from error

    def _warn(self, error: BaseException) -> None:
        """Now and then: in a storm of pings, each line would say the same."""
        now = self._clock.monotonic()
        if now - self._warned_at >= WARN_EVERY_SECONDS:
            self._warned_at = now
            log.warning("pings are refused: %s", error or "the ledger hangs", extra={"action": "ping"})


async def answer_preflight(request: web.Request) -> web.StreamResponse:
    """A browser asks whether its page may ping: it may. The question is no ping."""
    return web.Response(status=204, headers=_PREFLIGHT)


def _address_of(request: web.Request) -> PingAddress:
    address = read_address(request.match_info["address"])
    if address is None:
        raise _not_found()
    return address


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
