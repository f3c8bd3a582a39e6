"""The doors of the gateway: HTTP and WebSocket by aiohttp, with every limit and check in front.

A request passes, in this order: the doorkeeper (connections), Host and Origin, its route, the token and
its scope, the body under a deadline; only then a method or a handler sees it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket

from aiohttp import web
from aiohttp.typedefs import Middleware

from carapace_cron.clock import Clock
from carapace_cron.errors import ConfigurationError
from carapace_cron.gateway.access_log import AccessLog
from carapace_cron.gateway.connection import Connection, add_headers
from carapace_cron.gateway.credentials import actor_of, check_scope, token_of
from carapace_cron.gateway.doorkeeper import Doorkeeper, Refusals, make_room_for
from carapace_cron.gateway.faults import RPC_PATH, HttpFault, answer_faults
from carapace_cron.gateway.forwarded import PROXIES, Proxies
from carapace_cron.gateway.gateway import Gateway
from carapace_cron.gateway.hookspecs import ACTOR, ROUTE, Handler, Route
from carapace_cron.gateway.limits import Limits
from carapace_cron.gateway.origins import Origins
from carapace_cron.gateway.page import PAGE_POLICY, home_page
from carapace_cron.gateway.plugins import GATEWAY
from carapace_cron.gateway.rpc import Rpc
from carapace_cron.gateway.strict_json import dump_json
from carapace_cron.gateway.websocket import SocketClient
from carapace_cron.model.actor import Actor

log = logging.getLogger(__name__)

_JSON = "application/json"
_BACKLOG = 128


async def serve(gateway: Gateway, *, clock: Clock, limits: Limits | None = None) -> GatewayServer:
    """Load and start the gateway and open its doors at ``settings.host``:``settings.port``.

    Raises `ConfigurationError` when the address cannot be had, or is open to others without anything that
    identifies them, or when the main plugin fails. Nothing of the gateway is left running then.
    """
    listening = await _bound_socket(gateway.settings.host, gateway.settings.port)
    server = GatewayServer(gateway, listening, clock=clock, limits=limits or Limits())
    try:
        await server.start()
    except BaseException:
        await server.stop()
        raise
    return server


class GatewayServer:
    """A running server; made by `serve`."""

    def __init__(self, gateway: Gateway, listening: socket.socket, *, clock: Clock, limits: Limits) -> None:
        self.gateway = gateway
        self.host: str = listening.getsockname()[0]
        self.port: int = listening.getsockname()[1]
        self._listening = listening
        self._clock = clock
        self._limits = limits
        self._rpc = Rpc(gateway.methods)
        self._sockets: set[SocketClient] = set()
        self._from_anywhere: set[object] = set()  # handlers of routes that any Host and Origin may reach
        self._acceptor: asyncio.Server | None = None
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """``http://127.0.0.1:8787``: where this machine reaches it."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    async def start(self) -> None:
        gateway = self.gateway
        for route in self._own_routes():
            gateway.routes.add(GATEWAY, f"{route.method} {route.path}", route)
        gateway.load()
        self._check_exposure()
        await gateway.start()
        gateway.routes.add(GATEWAY, "GET /", Route("GET", "/", self._home, None))  # unless a plugin has one
        await self._accept()
        log.info("the gateway listens on %s", self.url, extra={"action": "gateway_listening"})

    async def stop(self) -> None:
        """Stop accepting, stop the plugins, say goodbye to WebSockets, end what is left."""
        if self._acceptor is not None:
            self._acceptor.close()
        self._listening.close()
        await self.gateway.stop()
        await asyncio.gather(*(client.close() for client in tuple(self._sockets)))
        if self._runner is not None:
            await self._runner.cleanup()
        await self.gateway.close()

    # Opening

    def _check_exposure(self) -> None:
        if ipaddress.ip_address(self.host.partition("%")[0]).is_loopback:
            return
        if not self.gateway.can_identify:
            raise ConfigurationError(
                f"host {self.host} is reachable from other machines, but no plugin identifies tokens: "
                "expected 127.0.0.1, or a plugin with the hook identify"
            )
        log.warning(
            "listening on %s, which other machines may reach; only tokens protect it, and they travel in "
            "the clear unless a proxy adds TLS", self.host, extra={"action": "gateway_exposed"},
        )

    async def _accept(self) -> None:
        make_room_for(self._limits.connections)
        app = web.Application(
            middlewares=[answer_faults, self._checked_origin()], client_max_size=self._limits.body_bytes
        )
        app.on_response_prepare.append(_add_headers)
        for route in self.gateway.routes.values():
            self._add_route(app, route)
        app[PROXIES] = Proxies(self.gateway.settings.trusted_proxies)
        self._runner = web.AppRunner(app, shutdown_timeout=self._limits.stop_seconds)
        await self._runner.setup()
        server = self._runner.server
        assert server is not None, "setup() makes it"
        refusals = Refusals()
        self._acceptor = await asyncio.get_running_loop().create_server(
            lambda: Doorkeeper(server, self._connection, self._limits, refusals),
            sock=self._listening,
            backlog=_BACKLOG,
        )

    def _connection(self, server: web.Server) -> Connection:
        return Connection(
            server,
            loop=asyncio.get_running_loop(),
            access_log_class=AccessLog,
            auto_decompress=False,
            keepalive_timeout=self._limits.keepalive_seconds,
            lingering_time=self._limits.linger_seconds,
        )

    def _add_route(self, app: web.Application, route: Route) -> None:
        handler = self._guarded(route)
        app.router.add_route(route.method, route.path, handler)
        if route.from_anywhere:
            self._from_anywhere.add(handler)

    # Checks

    def _checked_origin(self) -> Middleware:
        settings = self.gateway.settings
        origins = Origins(
            host=settings.host,
            port=self.port,
            allowed_hosts=settings.allowed_hosts,
            allowed_origins=settings.allowed_origins,
        )

        @web.middleware
        async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.match_info.handler not in self._from_anywhere:
                headers = request.headers
                fault = origins.fault_of(headers.getall("Host", []), headers.getall("Origin", []))
                if fault is not None:
                    raise HttpFault(403, fault)
            return await handler(request)

        return middleware

    def _guarded(self, route: Route) -> Handler:
        async def handler(request: web.Request) -> web.StreamResponse:
            request[ROUTE] = route
            if route.scope is not None:
                request[ACTOR] = await self._actor_of(request)
                check_scope(request[ACTOR], route.scope)
            if not route.reads_body and request.can_read_body:
                await read_body(request, self._limits)
            return await route.handler(request)

        return handler

    async def _actor_of(self, request: web.Request) -> Actor:
        return await actor_of(token_of(request.headers), self.gateway.identify)

    # The gateway's own routes

    def _own_routes(self) -> tuple[Route, ...]:
        return (
            # /rpc looks at the token itself: any known one may ask, each method decides on scopes.
            Route("POST", RPC_PATH, self._answer_post, None, reads_body=True),
            Route("GET", RPC_PATH, self._answer_socket, None, reads_body=True),
            Route("GET", "/healthz", self._health, None, often=True),
            Route("GET", "/readyz", self._health, None, often=True),
        )

    async def _answer_post(self, request: web.Request) -> web.StreamResponse:
        if request.content_type != _JSON:
            raise HttpFault(415, f"content type {request.content_type[:80]!r}: expected {_JSON}", closes=True)
        actor = await self._actor_of(request)
        text = await self._rpc.answer(await read_body(request, self._limits), actor)
        if text is None:
            return web.Response(status=204)
        return web.Response(text=text, content_type=_JSON)

    async def _answer_socket(self, request: web.Request) -> web.StreamResponse:
        token = token_of(request.headers)
        actor = await actor_of(token, self.gateway.identify)
        if not web.WebSocketResponse().can_prepare(request):
            raise HttpFault(426, "expected a POST of JSON, or a WebSocket handshake")
        client = SocketClient(
            request, token, actor,
            rpc=self._rpc, identify=self.gateway.identify, clock=self._clock, limits=self._limits,
        )
        response = await client.open()
        self._sockets.add(client)
        self.gateway.audience.join(client)
        try:
            await client.converse()
        finally:
            self.gateway.audience.leave(client)
            self._sockets.discard(client)
        return response

    async def _health(self, request: web.Request) -> web.StreamResponse:
        reason = self.gateway.why_not_ready()
        if reason is None:
            return web.Response(text=dump_json({"status": "ok"}), content_type=_JSON)
        body = {"status": "unavailable", "reason": reason}
        return web.Response(status=503, text=dump_json(body), content_type=_JSON)

    async def _home(self, request: web.Request) -> web.StreamResponse:
        page = home_page(self.gateway.plugins(), self.gateway.why_not_ready())
        return web.Response(
            text=page, content_type="text/html", headers={"Content-Security-Policy": PAGE_POLICY}
        )


async def read_body(request: web.Request, limits: Limits) -> bytes:
    """The whole body, kept by aiohttp for the handler. Raises `HttpFault`: 400, 408 or 413."""
    if "Content-Encoding" in request.headers:
        raise HttpFault(415, "a compressed body: expected it as it is, without Content-Encoding", closes=True)
    if (request.content_length or 0) > limits.body_bytes:
        raise _too_large(limits)
    try:
        async with asyncio.timeout(limits.body_seconds):
            return await request.read()
    except TimeoutError as error:
        sentence = f"the body did not arrive within {limits.body_seconds:g} s"
        raise HttpFault(408, sentence, closes=True) from error
    except web.HTTPRequestEntityTooLarge as error:
        raise _too_large(limits) from error
    except web.RequestPayloadError as error:
        raise HttpFault(400, "the body is broken off or badly chunked", closes=True) from error


def _too_large(limits: Limits) -> HttpFault:
    return HttpFault(413, f"the body is too large: expected at most {limits.body_bytes} bytes", closes=True)


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    add_headers(response)


async def _bound_socket(host: str, port: int) -> socket.socket:
    """A socket that has the address but does not listen yet: the port is known before anything starts."""
    listening: socket.socket | None = None
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setblocking(False)
        listening.bind(address)
    except OSError as error:
        if listening is not None:
            listening.close()
        raise ConfigurationError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; expected a free port of this machine"
        ) from error
    return listening
