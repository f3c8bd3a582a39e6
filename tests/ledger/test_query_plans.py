"""The statements of every claim, end and plan find their rows by an index, however long the history."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from carapace_cron.database import Database
from carapace_cron.engines import sqlite_engine
from carapace_cron.ledger import claiming, ending, events, history, holding, planning
from carapace_cron.ledger.aftermath import Aftermath
from carapace_cron.ledger.history import RunFilter
from carapace_cron.ledger.migrations.upgrade import upgrade

NOW = datetime(2026, 11, 21, tzinfo=UTC)

CALLS: dict[str, Callable[[sa.Connection], Any]] = {
    "claim": lambda c: claiming.claim(c, owner="o", slots=5, now=NOW, lease_until=NOW, aftermath=Aftermath()),
    "next deadline": lambda c: c.execute(claiming._NEXT_DEADLINE).all(),
    "late": lambda c: c.execute(claiming._LATE, {"now": NOW, "most": 100}).all(),
    "held": lambda c: c.execute(holding._HELD_LABELS).all(),
    "next of a limit": lambda c: c.execute(holding._FIRST_OF_EACH_LANE, {"label": "tag:db"}).all(),
    "renew": lambda c: claiming.renew(c, owner="o", run_ids=["run_1"], until=NOW),
    "abandoned": lambda c: claiming.abandoned(c, now=NOW, owner="o"),
    "what is in the way": lambda c: planning.alive_runs(c, ["job_1", "job_2"]),
    "set free": lambda c: ending.set_next_free(c, ["job_1"], NOW),
    "cancel all": lambda c: ending.cancel_runs(c, "job_1", "why", NOW, Aftermath()),
    "fence": lambda c: ending._held(c, ["run_1"]),
    "runs of a job": lambda c: history.run_page(c, RunFilter("t", "u", "job_1"), 50, None),
    "runs of a user": lambda c: history.run_page(c, RunFilter("t", "u"), 50, None),
    "runs of a tenant": lambda c: history.run_page(c, RunFilter("t"), 50, None),
    "alive": lambda c: history.count_alive(c, "t", "u"),
    "prune": lambda c: history.prune(c, NOW, NOW),
    "put off": lambda c: holding.release_far(c, NOW),
    "events of a user": lambda c: events.event_page(c, "t", "u", None, events.ACTIONS, None, 50),
    "events of a tenant": lambda c: events.event_page(c, "t", None, None, events.ACTIONS, 9, 50),
    "events of a job": lambda c: events.event_page(c, "t", "u", "job_1", ["job.paused"], None, 50),
    "prune events": lambda c: events.prune_batch(c, NOW),
}
# Looked through from end to end are the tables' few live rows only, never what has ended.
FINE = (
    "SCAN runs USING INDEX runs_alive",
    "SCAN runs USING INDEX runs_running",
    "SCAN runs USING COVERING INDEX runs_running",
    "SCAN runs USING COVERING INDEX runs_held",
    "SCAN runs USING INDEX runs_claimable",
)
TABLES = ("SCAN runs", "SCAN attempts", "SCAN deliveries", "SCAN progress", "SCAN events")


@pytest.mark.parametrize("name", CALLS)
async def test_it_looks_through_no_history(tmp_path: Path, name: str) -> None:
    database = Database(sqlite_engine(tmp_path / "ledger.sqlite"), upgrade)
    await database.open()

    def explained(connection: sa.Connection) -> list[str]:
        statements: list[tuple[str, Any]] = []

        @sa.event.listens_for(connection, "before_cursor_execute")
        def note(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
            if not statement.startswith(("EXPLAIN", "SAVEPOINT")):
                statements.append((statement, parameters[0] if isinstance(parameters, list) else parameters))

        CALLS[name](connection)
        asked = list(statements)
        steps: list[str] = []
        for statement, parameters in asked:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            steps += [row[3] for row in plan]
        assert asked and steps
        return steps

    steps = await database.write(explained)
    await database.close()
    assert [step for step in steps if step.startswith(TABLES) and not step.startswith(FINE)] == []
