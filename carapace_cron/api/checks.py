"""Healthchecks' management API at ``/api/v1``, ``v2`` and ``v3``: its clients need another base address only.

The key comes in ``X-Api-Key``, as a bearer token, or as ``api_key`` in the JSON of a POST: never by itself
from a browser, so pages from everywhere may call. A token with the scope ``monitors`` is a read-write key,
one with ``monitors:read`` a read-only one.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from aiohttp import web

from carapace_cron.api.badges import badge_addresses
from carapace_cron.api.check_shapes import (
    DEFAULT_TIMEOUT,
    CheckSpec,
    check_view,
    flip_view,
    monitor_fields,
    ping_view,
    read_spec,
    told_as,
)
from carapace_cron.errors import Conflict, Forbidden, InvalidValue, NotFound, QuotaExceeded, Unavailable
from carapace_cron.gateway.credentials import Identify, holder_of, token_in
from carapace_cron.gateway.faults import RETRY_AFTER_SECONDS
from carapace_cron.gateway.forwarded import client_of
from carapace_cron.gateway.hookspecs import Handler, Route
from carapace_cron.gateway.strict_json import InvalidJson, dump_json, parse_json
from carapace_cron.ledger.monitors import Watched
from carapace_cron.model.actor import Actor
from carapace_cron.model.monitor import MOST_CHANNELS, Flip
from carapace_cron.services.badges import BadgeDesk
from carapace_cron.services.monitors import MAX_PINGS, MonitorDesk

log = logging.getLogger(__name__)

LONGEST_LOOK_BACK = 365 * 86_400  # seconds
LATEST_TIMESTAMP = 10_000_000_000  # in the year 2286
_EVERYWHERE = "*"  # in `channels`: all of them

READ, WRITE = "monitors:read", "monitors"
_CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Headers": "X-Api-Key, Authorization, Content-Type",
    "Access-Control-Allow-Methods": "GET, POST, DELETE, OPTIONS",
    "Access-Control-Max-Age": "600",
}


class ChannelList(Protocol):
    """The channels that a tenant may name."""

    def ids_for(self, tenant: str) -> list[str]: ...

    def kind_of(self, channel_id: str) -> str: ...


@dataclass(frozen=True, slots=True)
class Call:
    """A request with a good key. `root`: where the caller reaches the gateway; `given`: a POST's JSON."""

    request: web.Request
    actor: Actor
    version: int
    root: str
    given: Mapping[str, Any]

    @property
    def check_id(self) -> str:
        """A UUID, or the unique key of read-only answers."""
        return self.request.match_info["check"].lower()

    @property
    def is_read_only(self) -> bool:
        return not self.actor.may(WRITE)

    def view(self, one: Watched, now: datetime) -> dict[str, Any]:
        return check_view(one, now, root=self.root, version=self.version, read_only=self.is_read_only)


class BadKey(Exception):
    """The key is missing or wrong; in Healthchecks' words."""


Work = Callable[[Call], Awaitable[web.Response]]


class CheckDoor:
    """One function, one call of the API. `identify`: whose a token is."""

    def __init__(
        self, desk: MonitorDesk, badges: BadgeDesk, channels: ChannelList, identify: Identify
    ) -> None:
        self._desk = desk
        self._badges = badges
        self._channels = channels
        self._identify = identify

    def routes(self) -> Sequence[Route]:
        check = "checks/{check:[0-9A-Fa-f-]+}"
        calls: tuple[tuple[str, str, str, Work], ...] = (
            ("GET", "checks", READ, self.list_checks),
            ("POST", "checks", WRITE, self.create_check),
            ("GET", check, READ, self.get_check),
            ("POST", check, WRITE, self.update_check),
            ("DELETE", check, WRITE, self.delete_check),
            ("POST", f"{check}/pause", WRITE, self.pause_check),
            ("POST", f"{check}/resume", WRITE, self.resume_check),
            ("GET", f"{check}/pings", WRITE, self.list_pings),
            ("GET", f"{check}/pings/{{n:[0-9]+}}/body", WRITE, self.read_body),
            ("GET", f"{check}/flips", READ, self.list_flips),
            ("GET", "channels", WRITE, self.list_channels),
            ("GET", "badges", READ, self.list_badges),
        )
        found = [_route(method, path, self._answering(work, scope)) for method, path, scope, work in calls]
        paths = dict.fromkeys(path for _, path, _, _ in calls)
        return [
            *found,
            *(_route("OPTIONS", path, answer_preflight) for path in paths),
            _route("GET", "status", answer_status),
        ]

    async def list_checks(self, call: Call) -> web.Response:
        query = call.request.query
        found = await self._desk.list(
            call.actor, tags=query.getall("tag", []), slug=query.get("slug") or None
        )
        now = self._desk.now()
        return _json({"checks": [call.view(one, now) for one in found]})

    async def create_check(self, call: Call) -> web.Response:
        spec = read_spec(call.given)
        fields = self._fields(call, spec)
        default = {} if "schedule" in fields else {"periodSeconds": DEFAULT_TIMEOUT}
        made = await self._desk.create(
            call.actor, default | fields, unique=spec.lookup(), numbered=call.version < 3
        )
        if made.is_new:
            return self._shown(call, made.watched, status=201)
        return self._shown(call, await self._updated(call, made.watched, spec, fields))

    async def get_check(self, call: Call) -> web.Response:
        return self._shown(call, await self._desk.get(call.actor, call.check_id))

    async def update_check(self, call: Call) -> web.Response:
        spec = read_spec(call.given)
        fields = self._fields(call, spec)
        before = await self._desk.get(call.actor, call.check_id)
        return self._shown(call, await self._updated(call, before, spec, fields))

    async def delete_check(self, call: Call) -> web.Response:
        return self._shown(call, await self._desk.delete(call.actor, call.check_id))

    async def pause_check(self, call: Call) -> web.Response:
        return self._shown(call, await self._desk.pause(call.actor, call.check_id))

    async def resume_check(self, call: Call) -> web.Response:
        if (await self._desk.get(call.actor, call.check_id)).health.status != "paused":
            return web.Response(status=409, text="check is not paused")
        return self._shown(call, await self._desk.resume(call.actor, call.check_id))

    async def list_pings(self, call: Call) -> web.Response:
        one = await self._desk.get(call.actor, call.check_id)
        page = await self._desk.pings(call.actor, one.monitor.id, limit=MAX_PINGS)
        told = [ping_view(ping, one.monitor.id, root=call.root, version=call.version) for ping in page.items]
        return _json({"pings": told})

    async def read_body(self, call: Call) -> web.Response:
        n = int(call.request.match_info["n"][:12])
        body = await self._desk.ping_body(call.actor, call.check_id, n)
        return web.Response(body=body, content_type="text/plain")

    async def list_flips(self, call: Call) -> web.Response:
        """Those to up and to down: a pause is neither, so that time which is counted as down was down."""
        since, until = self._span(call.request.query)
        flips = await self._desk.flips(call.actor, call.check_id, since=since, until=until)
        return _json({"flips": [flip_view(flip) for flip in flips if _is_counted(flip)]})

    async def list_channels(self, call: Call) -> web.Response:
        ids = self._channels.ids_for(call.actor.tenant)
        told = [{"id": one, "name": one, "kind": self._channels.kind_of(one)} for one in ids]
        return _json({"channels": told})

    async def list_badges(self, call: Call) -> web.Response:
        badges = await self._badges.of_user(call.actor)
        return _json({"badges": {badge.tag: badge_addresses(badge, call.root) for badge in badges}})

    async def _updated(
        self, call: Call, before: Watched, spec: CheckSpec, fields: Mapping[str, Any]
    ) -> Watched:
        """With `fields`; what is not given stays. A slug that is made of the name changes only with the name,
        as with Healthchecks, and stays when another has it."""
        kept = {name: value for name, value in fields.items() if name != "slug" or spec.slug is not None}
        is_renamed = spec.name is not None and spec.name != before.monitor.name
        given = fields if is_renamed else kept
        if not given:
            return before
        try:
            return await self._desk.update(call.actor, before.monitor.id, given)
        except Conflict:
            if given == kept:
                raise
            return await self._desk.update(call.actor, before.monitor.id, kept)

    def _fields(self, call: Call, spec: CheckSpec) -> dict[str, Any]:
        fields = monitor_fields(spec, call.version)
        if spec.channels is not None:
            fields["channels"] = self._named_channels(call.actor.tenant, spec.channels)
        return fields

    def _named_channels(self, tenant: str, text: str) -> list[str]:
        usable = self._channels.ids_for(tenant)
        if text == _EVERYWHERE:
            return usable[:MOST_CHANNELS]
        named = text.split(",") if text else []
        for one in named:
            if one not in usable:
                fault = f"invalid channel identifier: {one}" if one else "empty channel identifier"
                raise InvalidValue(fault, field="channels")
        return named

    def _span(self, query: Mapping[str, str]) -> tuple[datetime | None, datetime | None]:
        """From when on, and before when, flips are asked for."""
        since, until = _timestamp(query, "start"), _timestamp(query, "end")
        seconds = _whole(query, "seconds", LONGEST_LOOK_BACK)
        if seconds is not None:
            back = self._desk.now() - timedelta(seconds=seconds)
            since = back if since is None else max(back, since)
        return since, until

    def _shown(self, call: Call, one: Watched, *, status: int = 200) -> web.Response:
        return _json(call.view(one, self._desk.now()), status)

    def _answering(self, work: Work, scope: str) -> Handler:
        async def handler(request: web.Request) -> web.StreamResponse:
            try:
                response = await work(await self._call(request, scope))
            except (BadKey, InvalidValue, NotFound, Conflict, QuotaExceeded, Forbidden, Unavailable) as error:
                response = _refused(error)
            response.headers.update(_CORS)
            return response

        return handler

    async def _call(self, request: web.Request, scope: str) -> Call:
        given = await _given(request) if request.method == "POST" else {}
        key = token_in(request.headers) or (str(given["api_key"]) if "api_key" in given else "")
        if not key:
            raise BadKey("missing api key")
        actor = await holder_of(key, self._identify)
        if actor is None or not actor.may(scope):
            raise BadKey("wrong api key")
        root = f"{client_of(request).scheme}://{request.host}"
        return Call(request, actor, int(request.match_info["version"]), root, given)


async def answer_preflight(request: web.Request) -> web.StreamResponse:
    return web.Response(status=204, headers=_CORS)


async def answer_status(request: web.Request) -> web.StreamResponse:
    """Somebody is there. Whether all is well, ``/healthz`` says."""
    return web.Response(text="OK", headers=_CORS)


async def _given(request: web.Request) -> Mapping[str, Any]:
    """The JSON of a POST, whatever its content type says: some clients send none."""
    body = await request.read()
    if not body:
        return {}
    try:
        value = parse_json(body)
    except InvalidJson as error:
        raise InvalidValue(f"could not parse request body: {error}") from error
    if not isinstance(value, dict):
        raise InvalidValue("json validation error: value is not an object")
    return value


def _refused(error: Exception) -> web.Response:
    status, sentence = _status_of(error), str(error)
    if isinstance(error, InvalidValue):
        sentence = told_as(error)
    elif isinstance(error, Forbidden):
        sentence = "wrong api key"
    elif isinstance(error, Unavailable):
        log.warning("a call of the checks API was refused: %s", error, extra={"action": "checks"})
        sentence = "the gateway's ledger cannot be reached now: try again in a few seconds"
    response = _json({"error": sentence}, status)
    if status == 503:
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


def _status_of(error: Exception) -> int:
    for kind, status in _STATUSES:
        if isinstance(error, kind):
            return status
    return 503


_STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (BadKey, 401),
    (Forbidden, 401),
    (NotFound, 404),
    (Conflict, 409),
    (QuotaExceeded, 403),
    (InvalidValue, 400),
)


def _is_counted(flip: Flip) -> bool:
    return flip.after in ("up", "down")


def _timestamp(query: Mapping[str, str], name: str) -> datetime | None:
    seconds = _whole(query, name, LATEST_TIMESTAMP)
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _whole(query: Mapping[str, str], name: str, most: int) -> int | None:
    """A whole number of the query; None when it is not given."""
    text = query.get(name, "")
    if not text:
        return None
    if text.isascii() and text.isdigit() and len(text) <= len(str(most)) and int(text) <= most:
        return int(text)
    raise InvalidValue(f'bad {name} "{text[:40]}": expected a whole number, 0–{most}', field=name)


def _json(value: Mapping[str, Any], status: int = 200) -> web.Response:
    return web.Response(status=status, text=dump_json(value), content_type="application/json")


def _route(method: str, path: str, handler: Handler) -> Route:
    address = f"/api/v{{version:[123]}}/{path}{{slash:/?}}"
    return Route(method, address, handler, None, from_anywhere=True)
