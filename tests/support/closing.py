"""The end of a story: no more comes due, what is due ends and arrives, and all that was seen is gathered."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from support.checker import Evidence, JobMade, count_in_ledger, read_ledger
from support.gateway_process import GatewayProcess, until
from support.outside import Outside

DRAIN_SECONDS = 60.0  # many, for a machine that has much else to do
PASS_SECONDS = 30.0


async def finish(gateway: GatewayProcess, jobs: Iterable[JobMade]) -> datetime:
    """Let nothing more come due and all that is due end and arrive; the moment up to which all was due."""
    horizon = await last_whole_pass(gateway)
    for job in jobs:
        await gateway.ask("carapace.cron.pause", jobId=job.id)  # one that is deleted already is fine

    async def is_quiet() -> bool:
        status = await gateway.call("carapace.cron.status")
        waiting = "SELECT count(*) FROM deliveries WHERE state = 'waiting'"
        return (
            status["activeExecutions"] + status["queuedRuns"] == 0
            and count_in_ledger(gateway.ledger, waiting) == 0
        )

    await until(is_quiet, "all runs end and all notices arrive", DRAIN_SECONDS)
    return horizon


async def last_whole_pass(gateway: GatewayProcess) -> datetime:
    """When a pass of the scheduler began that is over by now."""
    first = (await gateway.call("carapace.cron.status"))["lastPassAt"]

    async def is_later() -> bool:
        return bool((await gateway.call("carapace.cron.status"))["lastPassAt"] > first)

    await until(is_later, "the scheduler makes another pass", PASS_SECONDS)
    return datetime.fromisoformat(first)


async def all_runs(gateway: GatewayProcess) -> list[dict[str, Any]]:
    """Every page of ``carapace.cron.runs``."""
    items: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = await gateway.call("carapace.cron.runs", limit=37, cursor=cursor)
        items += page["items"]
        assert len({one["id"] for one in items}) == len(items), "a page repeats what was on one before"
        cursor = page["nextCursor"]
        if cursor is None:
            return items


def evidence(gateway: GatewayProcess, world: Outside) -> Evidence:
    seen = read_ledger(gateway.ledger)
    seen.requests, seen.arrivals = world.requests.lines(), world.arrivals.lines()
    return seen
