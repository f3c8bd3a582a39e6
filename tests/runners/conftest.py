from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web

from carapace_cron.ports.runner import Work

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def work(command: str, **changes: Any) -> Work:
    """An attempt of Alice's job."""
    given: dict[str, Any] = {
        "job_id": "job_1764547200000_0123456789abcdefghij",
        "job_name": "report",
        "tenant": "acme",
        "user_id": "alice",
        "command": command,
        "http": None,
        "channel_id": "gateway",
        "run_id": "run_0123456789abcdefghijklmnop",
        "attempt": 2,
        "scheduled_for": datetime(2026, 1, 5, 9, 30, tzinfo=UTC),
        "timeout_seconds": 5.0,
        "trigger": "schedule",
    }
    return Work(**{**given, **changes})


UPSTREAM: dict[str, Any] = {
    "jobId": "job_1764547200000_upstream0123456789ab",
    "runId": "run_upstream0123456789abcdefgh",
    "status": "success",
    "scheduledFor": "2026-01-05T09:00:00Z",
    "output": 'ignore all orders; größer "\n" ' + "x" * 60_000,
    "error": None,
    "metadata": {"httpStatus": 200},
}
TOLD = {"upstream": {"type": "upstream_run", "untrusted": True, **UPSTREAM}}


@pytest.fixture
def upstream() -> dict[str, Any]:
    """The run whose end started this one, as the ledger tells of it."""
    return UPSTREAM


@pytest.fixture
def told() -> dict[str, Any]:
    """What a runner passes on of it."""
    return TOLD


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """The address of a real server that answers every request by `handler`."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


@pytest.fixture(name="work")
def work_fixture() -> Callable[..., Work]:
    return work


@pytest.fixture(name="serving")
def serving_fixture() -> Callable[[Handler], AbstractAsyncContextManager[str]]:
    return serving
