"""``kill -9`` around every call of a store, and at any moment: nothing is lost, nothing is doubled."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from crash.kills import EMBEDDED, ON_S3, killed_on_s3, killed_on_sqlite
from crash.story import Report

ANY_MOMENT = 3  # kills of each test


@pytest.mark.parametrize("side", ["before", "after"])
async def test_it_keeps_its_promises_killed_at_every_call_of_its_stores(tmp_path: Path, side: str) -> None:
    names = [name for name in EMBEDDED if name.endswith(side)]
    report = await killed_on_sqlite(tmp_path, random.randrange(10**6), names, ANY_MOMENT)
    assert_kept(report)
    assert report.befell["kill at a failpoint"] == len(names) >= 15


async def test_it_keeps_its_promises_killed_at_every_call_of_a_bucket(tmp_path: Path) -> None:
    report = await killed_on_s3(tmp_path, random.randrange(10**6), ON_S3, ANY_MOMENT)
    assert_kept(report)
    assert report.befell["kill at a failpoint"] == len(ON_S3) == 8


def assert_kept(report: Report) -> None:
    """No promise is broken, and not because nothing happened."""
    print(report)
    assert report.broken == []
    assert report.befell["kill at any moment"] == ANY_MOMENT
    assert report.runs["success"] >= 50
    assert report.runs["missed"] >= 1
    assert report.attempts["lost"] >= 10
    assert len(report.orders) == 10 and min(report.orders.values()) >= 2
