"""What a plugin can add to the gateway. See ``docs/howto/write-a-plugin.md`` for each with an example.

A plugin implements the hooks it wants, marked with `carapace_cron.hookspecs.hookimpl`. The order in which
they are asked:

1. `register_hookspecs` of all plugins, so that each may implement the hooks of any other;
2. `register_agents` and `register_host_channels`: what others may rely on when they start;
3. `start`, in order; plugins that offer hooks start after those that may implement them;
4. `register_methods` and `register_routes`: the doors, opened once all stand;
5. `identify`, `ready`, `on_event` while the gateway runs; `stop` in the reverse order of `start`.

Only `start`, `stop` and `identify` may be async: they are awaited.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from carapace_cron.hookspecs import hookspec
from carapace_cron.model.actor import Actor
from carapace_cron.ports.host import AgentCall, AgentReply, Host, HostMessage

Params = list[Any] | dict[str, Any]
"""The `params` of a JSON-RPC request: positional or named; an absent one is the empty list."""

Method = Callable[[Actor, Params], Awaitable[Any]]
"""Answers one request: (who asks, params) → a JSON value. Raises `Refused` for what the asker can mend."""

Agent = Callable[[AgentCall], Awaitable[AgentReply | str]]
"""Does one call to its end; a plain text is a success. Cancelling it stops the agent."""

HostChannel = Callable[[HostMessage], Awaitable[None]]
"""Carries one message; returns when the channel has it for good, raises `DeliveryFailed`."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

ACTOR = web.RequestKey("actor", Actor)
"""In a handler of a route with a scope: ``request[ACTOR]`` is who asks."""


@dataclass(frozen=True, slots=True)
class Route:
    """One HTTP address. Its body is read, with limits, before the handler is called.

    `scope`: what the caller's token must carry; None opens the route to everyone who can reach the gateway.
    `from_anywhere`: Host and Origin may be any. Only for a route whose credential is in its address or in a
    header that no browser adds by itself: then a page that can use it holds that credential already.
    `reads_body`: the handler reads ``request.content`` itself, in its own bounds.
    `often`: it is asked so often that its lines in the log are for debugging only.
    """

    method: str  # GET, POST, …
    path: str  # as aiohttp's router reads it: "/ping/{uuid}"
    handler: Handler
    scope: str | None
    from_anywhere: bool = False
    reads_body: bool = False
    often: bool = False


ROUTE = web.RequestKey("route", Route)
"""Which of the registered routes a request came by."""


class HostHooks:
    """Signatures only; none has to be implemented."""

    @hookspec
    def register_hookspecs(self) -> Sequence[type]:  # type: ignore[empty-body]  # a pluggy spec has no body
        """Classes of hook specifications that this plugin offers to others (project ``carapace``)."""

    @hookspec
    def register_agents(self) -> Mapping[str, Agent]:  # type: ignore[empty-body]  # as above
        """Agents by name. Asked before `start`, called after it."""

    @hookspec
    def register_host_channels(self) -> Mapping[str, HostChannel]:  # type: ignore[empty-body]  # as above
        """Channels by id. Asked before `start`, called after it."""

    @hookspec
    def start(self, host: Host) -> Awaitable[None] | None:
        """Begin to work. A plugin whose start raises, or is not done in 30 s, is set aside."""

    @hookspec
    def stop(self) -> Awaitable[None] | None:
        """End what `start` began. Given 10 s; agents and channels of the others still answer meanwhile,
        unless they were started later."""

    @hookspec
    def register_methods(self) -> Mapping[str, Method]:  # type: ignore[empty-body]  # as above
        """JSON-RPC methods by name. Asked after `start`."""

    @hookspec
    def register_routes(self) -> Sequence[Route]:  # type: ignore[empty-body]  # as above
        """HTTP routes. Asked after `start`."""

    @hookspec
    def identify(self, token: str) -> Awaitable[Actor | None] | Actor | None:
        """Who holds this token; None when it is not known here. Every plugin is asked, the first that
        knows it decides."""

    @hookspec
    def on_event(self, event: str, payload: Mapping[str, Any], tenant: str, user_id: str) -> None:
        """Something happened. Must return at once; what it raises is logged and goes no further."""

    @hookspec
    def ready(self) -> str | None:
        """None when this plugin does its work, else a sentence that says what is missing."""
