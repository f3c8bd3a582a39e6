"""What the end of a run starts: runs of the jobs that are chained to it, written with that end.

Plain functions on a connection, inside the writer's transaction; `ledger/runs.py` is the door to them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from pydantic import ValidationError

from carapace_cron.ledger.aftermath import Aftermath
from carapace_cron.ledger.asked import record_asked
from carapace_cron.ledger.planning import empty_plan
from carapace_cron.ledger.statements import AnyRow, one_of
from carapace_cron.ledger.tables import chains, definitions, progress
from carapace_cron.model.job import Job
from carapace_cron.model.run import chained_run_key

log = logging.getLogger(__name__)

_WHEN = {
    "success": ("success", "end"),
    "degraded": ("success", "end"),
    "failure": ("failure", "end"),
    "timeout": ("failure", "end"),
}
"""The end of a run → the conditions that it meets. What was cancelled, skipped or missed starts nothing."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that has ended, as far as chains are concerned."""

    run_id: str
    job_id: str
    status: str
    finished_at: datetime


def start_followers(connection: sa.Connection, finished: Sequence[Finished], aftermath: Aftermath) -> None:
    """Record a run of each job whose condition one of these ends meets; exactly one per end."""
    if not finished:
        return
    followers: dict[str, list[AnyRow]] = {}
    for row in connection.execute(_FOLLOWERS, {"ids": list({one.job_id for one in finished})}):
        followers.setdefault(row.upstream_id, []).append(row)
    for one in finished:
        for row in followers.get(one.job_id, ()):
            if row.condition in _WHEN.get(one.status, ()):
                _start(connection, row.job_id, row.body, one, aftermath)


def _start(
    connection: sa.Connection, job_id: str, definition: bytes, cause: Finished, aftermath: Aftermath
) -> None:
    try:
        job = Job.model_validate_json(definition)
    except ValidationError:
        # Another version's. The end that is being recorded must not fail for it.
        log.error("job %s was not started by %s: its definition cannot be read", job_id, cause.run_id)
        return
    key = chained_run_key(job_id, cause.run_id)
    plan = empty_plan(job)
    record_asked(connection, plan, key, cause.finished_at, aftermath, trigger="chain", caused_by=cause.run_id)


_FOLLOWERS = (
    sa.select(chains.c.upstream_id, chains.c.job_id, chains.c.condition, definitions.c.body)
    .join(progress, progress.c.job_id == chains.c.job_id)
    .join(
        definitions,
        (definitions.c.job_id == progress.c.job_id) & (definitions.c.revision == progress.c.revision),
    )
    .where(one_of(chains.c.upstream_id, "ids"))
)
