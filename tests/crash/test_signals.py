"""A gateway that is stopped in the middle of its work and goes on, and one that is told to end."""

from __future__ import annotations

import random
from pathlib import Path

from crash.hasty_gateway import LEASE_SECONDS
from crash.signals import GRACE_SECONDS, drained, stopped


async def test_it_starts_nothing_twice_after_it_was_stopped_for_longer_than_its_lease(tmp_path: Path) -> None:
    report = await stopped(tmp_path, random.randrange(10**6), seconds=2.5 * LEASE_SECONDS, times=3)
    print(report)
    assert report.broken == []
    assert report.attempts["lost"] == 0  # it was late, but it was there
    assert report.attempts["success"] >= 50
    assert report.orders.total() >= 20


async def test_it_drains_within_its_grace_and_leaves_the_rest_to_the_next_start(tmp_path: Path) -> None:
    drain, report = await drained(tmp_path, random.randrange(10**6))
    print(report)
    assert GRACE_SECONDS <= drain.seconds <= GRACE_SECONDS + 10
    assert drain.brief == "success"
    assert (drain.endless, drain.open_requests) == ("lost", 0)
    assert (drain.stubborn, drain.processes) == ("lost", 0)
    assert report.broken == []
