"""Runs and attempts: one doing of a job for one instant, and one try within it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

from pydantic import Field

from carapace_cron.model.record import Instant, Record

RunState = Literal[
    "queued",  # waits for its time, a slot, or the run before it
    "running",  # an attempt works under a lease
    "success",
    "degraded",  # it ended, and says itself that not all is well
    "failure",
    "timeout",  # the last attempt was stopped at its time limit
    "cancelled",  # somebody asked; the reason says who
    "skipped",  # did not start: overlap policy; the reason says which run was in the way
    "missed",  # did not start: too late, or superseded by a later instant; the reason says which
]
RUN_STATES: tuple[str, ...] = get_args(RunState)
OutcomeStatus = Literal[
    "success",
    "degraded",  # as of a run
    "failure",
    "timeout",  # stopped at the job's timeoutSeconds
    "cancelled",
    "lost",  # its gateway stopped, or its lease went to another: what became of the work is not known
]
Trigger = Literal[
    "schedule",
    "catchUp",  # of the schedule too, but late
    "manual",  # somebody asked
    "backfill",  # somebody asked for an instant of the past
    "chain",  # another job's run has ended
]

# Somebody wanted just this run: it is not the one after which `deleteAfterRun` deletes the job.
ASKED_FOR: tuple[Trigger, ...] = ("manual", "backfill")

OUTPUT_LIMIT = 65_536  # characters of an attempt's output that are kept, head and tail
ERROR_LIMIT = 2_000  # characters of its error, likewise


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended, as the runner says it.

    `output` is data of the job, bounded by `bounded`; `error` is one sentence (what, where, what would
    do) when `status` is not a success; `metadata` is small JSON (``{"httpStatus": 200}``). `permanent`:
    trying again cannot help (the command is refused), so the job's retries are not spent on it.
    """

    status: OutcomeStatus
    output: str = ""
    error: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    permanent: bool = False

    @property
    def succeeded(self) -> bool:
        return self.status in ("success", "degraded")


class Run(Record):
    """One doing of a job for one instant; output, error and duration are those of its last attempt."""

    id: str
    job_id: str
    tenant: str
    user_id: str
    revision: int  # of the definition it does
    scheduled_for: Instant
    available_at: Instant | None = None  # not started before it; None while it waits for the run before it
    status: RunState
    trigger: Trigger
    reason: str | None = None
    deadline_at: Instant | None = None  # it is stopped then, and never started after it
    caused_by: str | None = None  # the run whose end started this one
    held_by: str | None = None  # the limit that it waits for: "channel:ops", "tag:db"
    attempt: int = 0  # how many have begun
    started_at: Instant | None = None  # of the first attempt
    finished_at: Instant | None = None
    output: str | None = None
    error: str | None = None
    duration_ms: int | None = None  # of the last attempt
    metadata: dict[str, Any] = Field(default_factory=dict)


def bounded(text: str, limit: int = OUTPUT_LIMIT) -> str:
    """`text` with its middle cut out where it is longer than `limit` characters: head and tail are kept.

    >>> bounded("abcdefghij" * 20, 60)
    'abcdefghij\\n… 180 characters left out …\\nabcdefghij'
    """
    if len(text) <= limit:
        return text
    room = max((limit - 40) // 2, 1)
    return f"{text[:room]}\n… {len(text) - 2 * room} characters left out …\n{text[-room:]}"


def run_key(job_id: str, scheduled_for: datetime) -> str:
    """The identity of a scheduled run; there is at most one run per key, ever."""
    return f"{job_id}@{int(scheduled_for.timestamp() * 1_000_000)}"


def chained_run_key(job_id: str, caused_by: str) -> str:
    """The identity of a run that the end of another started: one per job and end."""
    return f"{job_id}<{caused_by}"


def manual_run_key(job_id: str, idempotency_key: str) -> str:
    """The identity of a run that somebody asked for: the same key is the same run."""
    return f"{job_id}#{idempotency_key}"
