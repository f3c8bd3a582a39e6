"""A bucket that another gateway was told to adopt: the one before notices, and runs nothing more."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from carapace_cron.clock import ManualClock
from carapace_cron.errors import ConfigurationError
from carapace_cron.objects.binding import bind_to_ledger, new_owner
from carapace_cron.objects.memory import MemoryObjects
from carapace_cron.ports.object_store import WriteOutcome
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


class Contested(MemoryObjects):
    """An empty bucket that others bind in the moment in which this gateway does."""

    def __init__(self, ledger_id: str) -> None:
        super().__init__()
        self._ledger_id = ledger_id

    async def put(
        self, key: str, body: bytes, *, if_match: str | None = None, if_absent: bool = False
    ) -> WriteOutcome:
        theirs = json.dumps({"ledgerId": self._ledger_id, "host": "first"}).encode()
        await super().put(key, theirs, if_match=if_match, if_absent=if_absent)
        return await super().put(key, body, if_match=if_match, if_absent=if_absent)


async def test_gateways_on_one_ledger_may_begin_a_bucket_in_the_same_moment() -> None:
    objects = Contested("shared")
    await bind_to_ledger(objects, "shared", "second", START, adopt=False)
    assert await new_owner(objects, "shared") is None


async def test_of_two_ledgers_that_begin_a_bucket_in_the_same_moment_one_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="another gateway took this bucket a moment ago"):
        await bind_to_ledger(Contested("theirs"), "ours", "second", START, adopt=False)


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
