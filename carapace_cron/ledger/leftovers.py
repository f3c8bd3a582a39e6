"""What a deletion may have left behind: found at a start, and when the last trace of a job is removed.

A job goes in two steps, its object first and its runs after that, and the process can end between the
two. The functions work on a connection; `Leftovers` is the door to them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from pydantic import ValidationError

from carapace_cron.database import Database
from carapace_cron.ledger.statements import SAME_DEFINITION
from carapace_cron.ledger.tables import ALIVE, chains, definitions, progress, runs
from carapace_cron.model.job import Job
from carapace_cron.model.run import ASKED_FOR


@dataclass(frozen=True, slots=True)
class LastEnd:
    """The end of the newest run of a job that began and ended, and that nobody had asked for."""

    started_at: datetime
    finished_at: datetime
    delete_after_run: bool  # as the definition said that the run did; the job may say otherwise by now


class Leftovers:
    """All methods raise `Unavailable` when the database cannot be used."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def jobs_with_live_runs(self) -> list[str]:
        """Ids of the jobs that have a run which is queued or running."""
        return await self._database.read(jobs_with_live_runs)

    async def last_ends(self, job_ids: Collection[str]) -> dict[str, LastEnd]:
        """job id → its last end; a job without one is left out."""
        if not job_ids:
            return {}
        return await self._database.read(lambda c: last_ends(c, job_ids))

    async def forget(self, job_ids: Collection[str]) -> None:
        """Remove how far jobs had come that no store knows any more."""
        if job_ids:
            await self._database.write(lambda c: forget(c, job_ids))


def jobs_with_live_runs(connection: sa.Connection) -> list[str]:
    return list(connection.execute(_WITH_LIVE_RUNS).scalars())


def last_ends(connection: sa.Connection, job_ids: Collection[str]) -> dict[str, LastEnd]:
    """A run that was asked for, was skipped or missed, or was cancelled before it began: no end."""
    rows = (connection.execute(_NEWEST_END, {"job": job_id}).first() for job_id in job_ids)
    return {
        row.job_id: LastEnd(row.started_at, row.finished_at, _deletes_after_run(row.body))
        for row in rows
        if row is not None
    }


def _deletes_after_run(definition: bytes) -> bool:
    try:
        return Job.model_validate_json(definition).delete_after_run
    except ValidationError:
        return False  # another version's: what it asked for is not known, so nothing is deleted for it


def forget(connection: sa.Connection, job_ids: Collection[str]) -> None:
    gone = [{"job": job_id} for job_id in job_ids]
    connection.execute(_FORGET, gone)
    connection.execute(_UNCHAIN, gone)


_WITH_LIVE_RUNS = sa.select(runs.c.job_id).where(ALIVE).distinct()
_NEWEST_END = (
    sa.select(runs.c.job_id, runs.c.started_at, runs.c.finished_at, definitions.c.body)
    .join(definitions, SAME_DEFINITION)
    .where(
        runs.c.job_id == sa.bindparam("job"),
        runs.c.attempt > 0,
        runs.c.finished_at.is_not(None),
        runs.c.trigger.not_in(ASKED_FOR),
    )
    .order_by(runs.c.sequence.desc())
    .limit(1)
)
_UNCHAIN = sa.delete(chains).where(chains.c.job_id == sa.bindparam("job"))
_FORGET = sa.delete(progress).where(progress.c.job_id == sa.bindparam("job"))
