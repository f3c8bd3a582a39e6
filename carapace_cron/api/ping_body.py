"""The body of a ping: its first bytes are kept, whatever they are, and a ping is never lost for its body."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256

from aiohttp import web

READ_ON_BYTES = 16 * 1024 * 1024  # of a body, to let its sender come to an end; then it is cut off
BODY_SECONDS = 6.0  # from the end of the headers to the end of the body


@dataclass(frozen=True, slots=True)
class Body:
    """`kept`: its first bytes; `size`: how many came. Not `ended`: broken off, too slow or too large.

    `digest`: SHA-256 of what came, hex, where somebody asked for it.
    """

    kept: bytes
    size: int
    ended: bool
    digest: str = ""


async def read_body(request: web.Request, limit: int, *, digest: bool = False) -> Body:
    """The first `limit` bytes; the rest is read and let go. What does not come in time is missing."""
    content = request.content
    if content.is_eof():  # the usual case: it came along with the headers
        whole = content.read_nowait(-1)
        return Body(whole[:limit], len(whole), True, sha256(whole).hexdigest() if digest else "")
    kept, size, hashed = bytearray(), 0, sha256()
    with suppress(TimeoutError, web.RequestPayloadError, ConnectionError):
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in content.iter_any():
                kept += chunk[: limit - len(kept)]
                size += len(chunk)
                if digest:
                    hashed.update(chunk)
                if size > READ_ON_BYTES:
                    break
    return Body(bytes(kept), size, content.is_eof(), hashed.hexdigest() if digest else "")
