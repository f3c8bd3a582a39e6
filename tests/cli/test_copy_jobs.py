"""``carapace-cron copy-jobs``: between data directories here; the stores' own tests copy to real buckets."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from carapace_cron.cli.main import cli
from carapace_cron.clock import SystemClock
from carapace_cron.data_dir import DataDir
from carapace_cron.database import Database
from carapace_cron.engines import sqlite_engine
from carapace_cron.errors import ConfigurationError
from carapace_cron.ids import new_job_id
from carapace_cron.job_store import JobStore
from carapace_cron.ledger.migrations.upgrade import upgrade
from carapace_cron.model.job import Job
from carapace_cron.objects.database import DatabaseObjects

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def a_job(name: str) -> Job:
    return Job(
        id=new_job_id(NOW),
        tenant="acme",
        user_id="alice",
        name=name,
        schedule="0 9 * * *",
        command="echo hello",
        channel_id="gateway",
        created_at=NOW,
        updated_at=NOW,
        scheduled_since=NOW,
    )


async def keep(folder: Path, *jobs: Job) -> list[Job]:
    """Keep jobs in a data directory; all that are there then."""
    folder.mkdir(exist_ok=True)
    database = Database(sqlite_engine(DataDir(folder).database), upgrade)
    await database.open()
    store = JobStore(DatabaseObjects(database, SystemClock()), SystemClock())
    await store.load()
    for job in jobs:
        await store.create(job)
    kept = list(store.all())
    await database.close()
    return kept


def copy(*arguments: str) -> str:
    done = CliRunner().invoke(cli, ["copy-jobs", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_it_copies_jobs_and_says_how_many(tmp_path: Path) -> None:
    asyncio.run(keep(tmp_path / "a", a_job("one"), a_job("two")))
    addresses = (f"sqlite:{tmp_path / 'a'}", f"sqlite:{tmp_path / 'b'}")
    assert json.loads(copy(*addresses, "--json")) == {"copied": 2, "same": 0, "kept": []}
    assert {job.name for job in asyncio.run(keep(tmp_path / "b"))} == {"one", "two"}
    assert "0 copied, 2 were there already" in copy(*addresses)


def test_it_does_not_touch_a_data_directory_in_use(tmp_path: Path) -> None:
    used = DataDir(tmp_path / "a")
    used.claim()
    with pytest.raises(ConfigurationError, match="in use by another gateway"):
        copy(f"sqlite:{tmp_path / 'a'}", f"sqlite:{tmp_path / 'b'}")
    used.release()


def test_it_refuses_an_address_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="expected sqlite:"):
        copy("ftp://somewhere", f"sqlite:{tmp_path / 'b'}")


def test_it_refuses_a_source_that_is_not_there_and_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there are no jobs in"):
        copy(f"sqlite:{tmp_path / 'typo'}", f"sqlite:{tmp_path / 'b'}")
    assert not (tmp_path / "typo").exists()
