"""One WebSocket client at ``/rpc``: the same requests as over HTTP, and what is pushed to it.

Reading, answering and writing are apart, so that a slow request, a slow client or a flood of either hurts
nobody else: all that waits is counted, and who exceeds the count is refused or cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from aiohttp import WSCloseCode, WSMsgType, web

from carapace_cron.clock import Clock
from carapace_cron.gateway.credentials import Identify, actor_of
from carapace_cron.gateway.faults import HttpFault
from carapace_cron.gateway.limits import Limits
from carapace_cron.gateway.rpc import REFUSED, UNAUTHORIZED, UNAVAILABLE, Rpc, error_answer
from carapace_cron.gateway.strict_json import dump_json
from carapace_cron.model.actor import Actor

log = logging.getLogger(__name__)

_CLOSE_SECONDS = 2.0  # for the client's own close frame
_FLUSH_SECONDS = 1.0  # for the last texts when the server stops


class SocketClient:
    """A connected client. Its token is asked about again for each request, so a revoked one ends at once."""

    def __init__(
        self, request: web.Request, token: str, actor: Actor, *,
        rpc: Rpc, identify: Identify, clock: Clock, limits: Limits,
    ) -> None:
        self._request = request
        self._token = token
        self._actor = actor
        self._rpc = rpc
        self._identify = identify
        self._clock = clock
        self._limits = limits
        self._socket = web.WebSocketResponse(
            heartbeat=limits.socket_heartbeat_seconds,
            max_msg_size=limits.body_bytes,
            timeout=_CLOSE_SECONDS,
            compress=False,  # a compressed text may grow a thousandfold
        )
        self._queue: asyncio.Queue[str] = asyncio.Queue(limits.socket_queue)
        self._slots = asyncio.Semaphore(limits.socket_at_a_time)
        self._answering: set[asyncio.Task[None]] = set()
        self._checked_at = clock.monotonic()

    @property
    def actor(self) -> Actor:
        return self._actor

    def offer(self, text: str) -> None:
        """Send it when the client's turn comes; a client that reads too slowly is cut off."""
        try:
            self._queue.put_nowait(text)
        except asyncio.QueueFull:
            self._cut_off()

    async def open(self) -> web.WebSocketResponse:
        """The handshake. The client hears pushes from here on."""
        await self._socket.prepare(self._request)
        return self._socket

    async def converse(self) -> None:
        """Until either side ends it."""
        writer = asyncio.create_task(self._write())
        try:
            async for message in self._socket:
                if message.type is not WSMsgType.TEXT:
                    await self._close(WSCloseCode.UNSUPPORTED_DATA, "expected JSON texts")
                    break
                self._accept(message.data)
        finally:
            await self._finish(writer)

    async def close(self) -> None:
        """The server stops: send what waits, then say goodbye."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_SECONDS):
                await self._queue.join()
        await self._close(WSCloseCode.GOING_AWAY, "the gateway is stopping")

    def _accept(self, text: str) -> None:
        most = self._limits.socket_at_a_time + self._limits.socket_waiting
        if len(self._answering) >= most:
            self.offer(dump_json(error_answer(REFUSED, f"{most} requests are under way; wait for answers")))
            return
        task = asyncio.create_task(self._answer(text))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, text: str) -> None:
        async with self._slots:
            try:
                await self._check_token()
            except HttpFault as fault:
                await self._refuse(fault)
                return
            answer = await self._rpc.answer(text, self._actor)
        if answer is not None and not self._socket.closed:
            await self._queue.put(answer)

    async def _write(self) -> None:
        while True:
            text = await self._queue.get()
            try:
                if self._clock.monotonic() - self._checked_at > self._limits.socket_recheck_seconds:
                    await self._check_token()
                await self._socket.send_str(text)
            except ConnectionError:
                return
            except HttpFault as fault:
                await self._close_for(fault)
                return
            finally:
                self._queue.task_done()

    async def _check_token(self) -> None:
        self._actor = await actor_of(self._token, self._identify)
        self._checked_at = self._clock.monotonic()

    async def _refuse(self, fault: HttpFault) -> None:
        code = UNAUTHORIZED if fault.status == 401 else UNAVAILABLE
        with contextlib.suppress(ConnectionError):
            await self._socket.send_str(dump_json(error_answer(code, fault.sentence)))
        await self._close_for(fault)

    async def _close_for(self, fault: HttpFault) -> None:
        """A token that nobody can check now may be good: its holder may come again."""
        if fault.status == 401:
            await self._close(WSCloseCode.POLICY_VIOLATION, "the token is not valid any more")
        else:
            await self._close(WSCloseCode.TRY_AGAIN_LATER, fault.sentence)

    async def _close(self, code: int, reason: str) -> None:
        """Say goodbye; a client that does not take it in time is cut off."""
        try:
            async with asyncio.timeout(2 * _CLOSE_SECONDS):
                await self._socket.close(code=code, message=reason.encode())
        except TimeoutError:
            self._cut_off()

    def _cut_off(self) -> None:
        transport = self._request.transport
        if transport is not None:
            log.warning("a WebSocket client is too slow", extra={"action": "socket_cut_off"})
            transport.abort()

    async def _finish(self, writer: asyncio.Task[None]) -> None:
        """Requests under way may end in peace for a while: half of their work may be done."""
        writer.cancel()
        if self._answering:
            await asyncio.wait(self._answering, timeout=self._limits.stop_seconds)
        rest = [writer, *self._answering]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
