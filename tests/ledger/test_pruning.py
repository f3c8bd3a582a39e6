"""What is old goes, whatever stands before it in the table."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from support.databases import Place, engine_at

from carapace_cron.database import Database
from carapace_cron.ledger import history
from carapace_cron.ledger.deliveries import Deliveries
from carapace_cron.ledger.migrations.upgrade import upgrade
from carapace_cron.ledger.runs import Runs
from carapace_cron.ledger.tables import deliveries, runs

NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
OLD = NOW - timedelta(days=40)
MONTH_AGO = NOW - timedelta(days=30)


@pytest.fixture
async def database(ledger_place: Place) -> AsyncIterator[Database]:
    made = Database(engine_at(ledger_place), upgrade)
    await made.open()
    yield made
    await made.close()


def run(number: int, ended: datetime | None, *, status: str = "success") -> dict[str, Any]:
    due = OLD if ended is None else ended
    return {
        "id": f"run_{number}", "job_id": f"job_{number}", "tenant": "acme", "user_id": "alice",
        "lane": "acme/alice", "revision": 1, "scheduled_for": due, "status": status, "trigger": "schedule",
        "serial": True, "labels": "", "attempt": 1, "finished_at": ended,
    }  # fmt: skip


async def left(database: Database) -> list[str]:
    return await database.read(
        lambda c: list(c.execute(sa.select(runs.c.id).order_by(runs.c.sequence)).scalars())
    )


async def test_runs_that_must_stay_keep_no_old_one_behind_them(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than a batch that wait for ever, and one whose notice still waits; then what is old, and what is
    not."""
    monkeypatch.setattr(history, "PRUNE_BATCH", 5)
    rows = [run(number, None, status="queued") for number in range(7)]
    rows += [run(number, OLD) for number in range(7, 20)]
    rows += [run(number, NOW - timedelta(days=1)) for number in range(20, 26)]
    untold = {
        "id": "run_7.ended", "channel_id": "ops", "tenant": "acme", "user_id": "alice", "subject": "run_7",
        "body": b"{}", "state": "waiting", "tries": 0, "next_try_at": NOW, "created_at": OLD,
    }  # fmt: skip

    def fill(connection: sa.Connection) -> None:
        connection.execute(sa.insert(runs), rows)
        connection.execute(sa.insert(deliveries), [untold])

    await database.write(fill)
    assert await Runs(database).prune(MONTH_AGO, NOW) == 12
    assert await left(database) == [f"run_{number}" for number in [*range(8), *range(20, 26)]]
    assert len(await Deliveries(database).heads()) == 1


async def test_it_looks_no_further_than_the_first_batch_in_which_something_is_young(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "PRUNE_BATCH", 5)
    wrong_clock = [run(number, NOW + timedelta(days=300)) for number in range(5)]
    rows = [*wrong_clock, *[run(number, OLD) for number in range(5, 9)], run(9, NOW), run(10, OLD)]
    await database.write(lambda c: c.execute(sa.insert(runs), rows))
    assert await Runs(database).prune(MONTH_AGO, NOW) == 4
    assert await left(database) == ["run_0", "run_1", "run_2", "run_3", "run_4", "run_9", "run_10"]
