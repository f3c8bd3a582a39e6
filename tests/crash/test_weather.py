"""A bucket behind a bad network: the gateway runs its jobs, loses nothing, doubles nothing, and recovers."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from crash.weather import SQUALLS, Server, bad_weather
from support.s3_servers import moto_server, seaweedfs


@pytest.mark.parametrize("server", [seaweedfs, moto_server])
async def test_it_keeps_its_promises_while_its_bucket_is_hard_to_reach(
    tmp_path: Path, server: Server
) -> None:
    seed = random.randrange(10**6)
    report = await bad_weather(tmp_path, seed, server, SQUALLS, seconds=5, outage_seconds=8)
    print(report)
    assert report.broken == []
    assert report.runs["success"] >= 50
    assert report.orders.total() >= 20
    assert report.befell["error_500"] + report.befell["slow_down"] >= 2
    assert report.befell["lost_answer"] + report.befell["done_500"] >= 2
