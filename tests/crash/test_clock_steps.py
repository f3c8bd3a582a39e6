"""The wall clock is set under a running gateway: no instant runs twice, and what was missed is on record."""

from __future__ import annotations

import random
from pathlib import Path

from crash.clock_steps import clock_set


async def test_it_survives_its_clock_being_set_back_and_ahead(tmp_path: Path) -> None:
    report = await clock_set(tmp_path, random.randrange(10**6))
    print(report, *report.broken[:20], sep="\n")
    assert report.broken == []
    assert report.befell.total() == 4
    assert report.runs["success"] >= 100
    assert report.runs["missed"] >= 3000
