"""The addresses of badges: ``/b/…`` of one monitor, ``/badge/…`` of a tag. Public, for READMEs and walls."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any
from urllib.parse import quote

from aiohttp import web

from carapace_cron.api.badge_drawing import badge_json, badge_shields, badge_svg
from carapace_cron.gateway.hookspecs import Handler, Route
from carapace_cron.gateway.strict_json import dump_json
from carapace_cron.services.badges import ALL, BadgeDesk, TagBadge, Tally

_ANY_ORIGIN = {"Access-Control-Allow-Origin": "*"}
_TWO_STATES = "-2"  # behind the signature: late counts as up


class BadgeDoor:
    def __init__(self, desk: BadgeDesk) -> None:
        self._desk = desk

    def routes(self) -> Sequence[Route]:
        signed = "/badge/{key:[0-9a-z]+}/{signature:[A-Za-z0-9_-]+}"
        return [
            _public("/b/{states:[23]}/{key:[0-9a-f]{40}}.{form:svg|json|shields}", self.of_monitor),
            _public(signed + ".{form:svg|json|shields}", self.of_tag),
            _public(signed + "/{tag:.+}.{form:svg|json|shields}", self.of_tag),
        ]

    async def of_monitor(self, request: web.Request) -> web.StreamResponse:
        named = request.match_info
        return await _drawn(self._desk.of_monitor(named["key"]), named["form"], named["states"] == "3")

    async def of_tag(self, request: web.Request) -> web.StreamResponse:
        named = request.match_info
        signature = named["signature"]
        badge = TagBadge(named["key"], signature.removesuffix(_TWO_STATES), named.get("tag", ALL))
        return await _drawn(self._desk.of_tag(badge), named["form"], not signature.endswith(_TWO_STATES))


def badge_addresses(badge: TagBadge, root: str) -> dict[str, str]:
    """Six of them: two states and three, as a picture, JSON and for shields.io.

    >>> badge_addresses(TagBadge("k", "abcdefgh", "a/b"), "https://cron.example")["svg"]
    'https://cron.example/badge/k/abcdefgh-2/a%2Fb.svg'
    """
    tag = "" if badge.tag == ALL else f"/{quote(badge.tag, safe='')}"
    addresses = {}
    for form in ("svg", "json", "shields"):
        for states, ending in (("", _TWO_STATES), ("3", "")):
            addresses[f"{form}{states}"] = f"{root}/badge/{badge.key}/{badge.signature}{ending}{tag}.{form}"
    return addresses


async def _drawn(asked: Awaitable[Tally | None], form: str, with_late: bool) -> web.StreamResponse:
    tally = await asked
    if tally is None:
        return web.Response(status=404, text="not found", headers=_ANY_ORIGIN)
    if form == "svg":
        picture = badge_svg(tally, with_late=with_late)
        return web.Response(text=picture, content_type="image/svg+xml", headers=_ANY_ORIGIN)
    told = badge_json if form == "json" else badge_shields
    return _json(told(tally, with_late=with_late))


def _json(value: dict[str, Any]) -> web.Response:
    return web.Response(text=dump_json(value), content_type="application/json", headers=_ANY_ORIGIN)


def _public(path: str, handler: Handler) -> Route:
    return Route("GET", path, handler, None, from_anywhere=True)
