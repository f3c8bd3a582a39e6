"""What a version before kept is there after the upgrade, with what is new filled in."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from carapace_cron.database import Database
from carapace_cron.engines import sqlite_engine
from carapace_cron.ledger.deliveries import Deliveries
from carapace_cron.ledger.migrations import upgrade as migrations
from carapace_cron.ledger.migrations.upgrade import upgrade
from carapace_cron.model.notice import Notice

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def upgrade_to(revision: str, connection: sa.Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def a_notice(run_id: str) -> Notice:
    return Notice(
        id=f"{run_id}.ended",
        tenant="acme",
        user_id="alice",
        channel_id="ops",
        job_id="job_1",
        job_name="Report",
        run_id=run_id,
        status="success",
        success=True,
        scheduled_for=NOON,
        finished_at=NOON,
    )


def fill_version_2(connection: sa.Connection) -> None:
    """A run with its delivery, and a delivery whose run is gone."""
    upgrade_to("0002", connection)
    connection.exec_driver_sql(
        "INSERT INTO runs (id, job_id, tenant, user_id, lane, revision, scheduled_for, status, trigger, "
        "serial, labels, attempt) "
        "VALUES ('run_1', 'job_1', 'acme', 'alice', 'acme/alice', 1, 0, 'success', 'manual', 1, '', 1)"
    )
    for run_id in ("run_1", "run_2"):
        connection.exec_driver_sql(
            "INSERT INTO deliveries (id, channel_id, run_id, body, state, tries, next_try_at, created_at) "
            "VALUES (?, 'ops', ?, ?, 'waiting', 0, 0, 0)",
            (f"{run_id}.ended", run_id, a_notice(run_id).model_dump_json(by_alias=True).encode()),
        )


async def test_deliveries_of_version_2_are_still_sent_and_know_whose_they_are(tmp_path: Path) -> None:
    before = Database(sqlite_engine(tmp_path / "ledger.sqlite"), fill_version_2)
    await before.open()
    await before.close()
    database = Database(sqlite_engine(tmp_path / "ledger.sqlite"), upgrade)
    await database.open()
    deliveries = Deliveries(database)
    [of_alice] = await deliveries.page(tenant="acme", user_id="alice")
    assert of_alice.notice == a_notice("run_1")
    assert [one.notice for one in await deliveries.of_run("run_1")] == [a_notice("run_1")]
    [head] = await deliveries.heads()
    assert head.sequence == of_alice.sequence
    assert len(await deliveries.page(tenant=None)) == 2, "nothing was lost on the way"
    await database.close()
