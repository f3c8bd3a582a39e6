"""Each ping that was answered is there after a kill, and of each flip people have heard, once."""

from __future__ import annotations

import random
from pathlib import Path

from crash.ping_kills import POINTS, killed_under_pings

ANY_MOMENT = 4  # kills


async def test_it_keeps_its_promises_killed_under_pings(tmp_path: Path) -> None:
    report = await killed_under_pings(tmp_path, random.randrange(10**6), POINTS, ANY_MOMENT)
    print(report)
    assert report.broken == []
    assert report.befell == {"kill at a failpoint": len(POINTS), "kill at any moment": ANY_MOMENT}
    assert min(report.orders.values()) > len(POINTS) >= 10, "else nothing happened"
