"""The object stores, each real, and jobs to keep in them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from carapace_cron.clock import ManualClock
from carapace_cron.database import Database
from carapace_cron.ids import new_job_id
from carapace_cron.ledger.migrations.upgrade import upgrade
from carapace_cron.model.job import Job
from carapace_cron.objects.memory import MemoryObjects
from carapace_cron.objects.sqlite import SqliteObjects

START = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)

MakeJob = Callable[..., Job]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def memory() -> MemoryObjects:
    return MemoryObjects()


@pytest.fixture
async def sqlite(tmp_path: Path, clock: ManualClock) -> AsyncIterator[SqliteObjects]:
    database = Database(tmp_path / "carapace.db", upgrade)
    await database.open()
    yield SqliteObjects(database, clock)
    await database.close()


@pytest.fixture
def make_job() -> MakeJob:
    """Alice's jobs, each a millisecond younger than the one before."""
    made = 0

    def make(**values: Any) -> Job:
        nonlocal made
        made += 1
        at = START + timedelta(milliseconds=made)
        given = {
            "id": new_job_id(at),
            "tenant": "acme",
            "user_id": "alice",
            "name": f"job {made}",
            "schedule": "0 9 * * 1-5",
            "command": "echo good morning",
            "channel_id": "gateway",
            "created_at": at,
            "updated_at": at,
            "scheduled_since": at,
        }
        return Job(**(given | values))

    return make
