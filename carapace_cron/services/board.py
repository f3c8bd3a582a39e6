"""What became of each job's runs, in memory for every list, in step with the ledger's `progress`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from carapace_cron.ledger.ending import AttemptEnd
from carapace_cron.ledger.history import Progress


@dataclass(frozen=True, slots=True)
class Standing:
    """The execution metadata of a job, as the original extension's job record has it."""

    execution_count: int = 0
    failure_count: int = 0
    last_executed_at: datetime | None = None
    last_status: str | None = None
    last_error: str | None = None


_NEW = Standing()


class Board:
    """Standings by job id. The ledger is the truth; this is loaded from it and follows each recorded end."""

    def __init__(self) -> None:
        self._standings: dict[str, Standing] = {}

    def load(self, progress: Mapping[str, Progress]) -> None:
        """Take over what the ledger says of these jobs; of others nothing changes."""
        self._standings.update(
            (job_id, standing_of(one)) for job_id, one in progress.items() if one.execution_count
        )

    def of(self, job_id: str) -> Standing:
        return self._standings.get(job_id, _NEW)

    def note(self, end: AttemptEnd, status: str) -> Standing:
        """A run has ended; its job's standing from now on."""
        before = self.of(end.job_id)
        after = Standing(
            before.execution_count + 1,
            before.failure_count + (status in ("failure", "timeout")),
            end.started_at,
            status,
            end.outcome.error,
        )
        self._standings[end.job_id] = after
        return after

    def forget(self, job_id: str) -> None:
        self._standings.pop(job_id, None)


def standing_of(one: Progress | None) -> Standing:
    """What the ledger says of a job; None = it never came due."""
    if one is None:
        return _NEW
    return Standing(
        one.execution_count, one.failure_count, one.last_executed_at, one.last_status, one.last_error
    )
