"""Programs that a test starts, and what they print and end with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

PATIENCE_SECONDS = 30


class Ended(NamedTuple):
    status: int
    stdout: bytes
    stderr: str


@asynccontextmanager
async def begun(*words: str, **options: Any) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program in a session of its own, so without a terminal, as under cron. It is gone afterwards."""
    streams = {name: asyncio.subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
    process = await asyncio.create_subprocess_exec(
        *words, **{**streams, "start_new_session": True, **options}
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def end_of(process: asyncio.subprocess.Process, given: bytes = b"") -> Ended:
    async with asyncio.timeout(PATIENCE_SECONDS):
        stdout, stderr = await process.communicate(given if process.stdin else None)
    assert process.returncode is not None
    return Ended(process.returncode, stdout or b"", (stderr or b"").decode())


async def ended(*words: str, given: bytes = b"", **options: Any) -> Ended:
    async with begun(*words, **options) as process:
        return await end_of(process, given)
