"""A bucket that another gateway was told to adopt: the one before notices, and runs nothing more."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from carapace_cron.clock import ManualClock
from carapace_cron.objects.binding import bind_to_ledger
from carapace_cron.objects.memory import MemoryObjects
from carapace_cron.services.ownership import LOOK_SECONDS, Ownership

START = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)


async def test_the_gateway_before_hears_of_it_once() -> None:
    clock = ManualClock(START)
    objects = MemoryObjects()
    heard: list[str] = []

    async def lost(sentence: str) -> None:
        heard.append(sentence)

    await bind_to_ledger(objects, "old", "first", START, adopt=False)
    ownership = Ownership(objects, "old", clock, on_lost=lost)
    loop = asyncio.create_task(ownership.run())
    await clock.advance(3 * LOOK_SECONDS)
    assert heard == []
    await bind_to_ledger(objects, "new", "second", START, adopt=True)
    await clock.advance(3 * LOOK_SECONDS)
    assert heard == ["the gateway on second has taken over the jobs of this bucket: stop this one"]
    ownership.stop()
    await loop


async def test_it_runs_nothing_more_and_says_so(api: Any) -> None:
    job = await api.create(cronExpression="* * * * *")
    await api.clock.advance(61)
    house = api.cron._house
    ran = await api.runs(jobId=job["id"])
    assert len(ran) == 1
    await house._yield_bucket("the gateway on second has taken over the jobs of this bucket: stop this one")
    await api.clock.advance(300)
    assert await api.runs(jobId=job["id"]) == ran
    assert "taken over" in house.why_not_ready()
    assert "taken over" in house._warnings()[0]
