"""Pages of runs: each run once, newest first, and an end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from carapace_cron.database import Database
from carapace_cron.engines import sqlite_engine
from carapace_cron.ledger.history import RunFilter
from carapace_cron.ledger.in_force import InForce
from carapace_cron.ledger.migrations.upgrade import upgrade
from carapace_cron.ledger.planning import JobPlan, PlannedInstant
from carapace_cron.ledger.runs import Runs
from carapace_cron.model.job import Job

START = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)


def due_each_minute(job_id: str, count: int) -> JobPlan:
    instants = [START + timedelta(minutes=number) for number in range(count)]
    return JobPlan(
        job_id=job_id,
        tenant="acme",
        user_id="alice",
        revision=1,
        overlap="allow",
        accounted_until=instants[-1],
        instants=tuple(PlannedInstant(at, "run", at) for at in instants),
    )


def a_job(job_id: str) -> Job:
    return Job(
        id=job_id,
        tenant="acme",
        user_id="alice",
        name="a job",
        schedule="* * * * *",
        command="echo",
        channel_id="gateway",
        created_at=START,
        updated_at=START,
        scheduled_since=START,
    )


async def test_pages_show_each_run_once_and_come_to_an_end(tmp_path: Path) -> None:
    """Two jobs are due at the same instants, so pages also part in the middle of one instant."""
    database = Database(sqlite_engine(tmp_path / "ledger.sqlite"), upgrade)
    await database.open()
    runs = Runs(database)
    await InForce(database).put([a_job("one"), a_job("two")])
    await runs.record_due([due_each_minute("one", 4), due_each_minute("two", 3)], START)
    pages = []
    cursor = None
    for _ in range(3):
        page = await runs.page(RunFilter("acme"), limit=3, cursor=cursor)
        pages.append([(run.scheduled_for.minute, run.job_id) for run in page.items])
        cursor = page.next_cursor
    await database.close()
    assert pages == [
        [(3, "one"), (2, "two"), (2, "one")],
        [(1, "two"), (1, "one"), (0, "two")],
        [(0, "one")],
    ]
    assert cursor is None
