"""The job: what to do and when. A definition; what became of its runs is in the ledger."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, field_validator

from carapace_cron.model.calendar import CalendarPolicy
from carapace_cron.model.monitor import JobMonitor
from carapace_cron.model.record import DAY_SECONDS, Instant, Record
from carapace_cron.model.text import Line

Overlap = Literal[
    "skip",  # the new instant is recorded as skipped while a run of the job is alive
    "queue",  # it waits until the run before has ended
    "allow",  # it runs beside it
    "cancelPrevious",  # the run before is cancelled, then the new one starts
]
CatchUp = Literal[
    "latest",  # of the missed instants within the window, the newest runs
    "all",  # each runs, one after another
    "none",  # none runs
]
CatchUpOrder = Literal["newestFirst", "oldestFirst"]
After = Literal[  # the end of another job's run that starts one of this job
    "success",  # success or degraded
    "failure",  # failure or timeout
    "end",  # either; a run that was cancelled, skipped or missed starts nothing
]
Notify = Literal[  # which ends of runs are told; misses are told by all but never
    "always",
    "failure",  # each end that is not good: failure, timeout, cancelled
    "change",  # from good to not good and back, and the first end
    "never",
]
HttpMethod = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]

_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")


def _one_tag(text: str) -> str:
    if not _TAG.fullmatch(text):
        raise ValueError("expected letters, digits, . _ : or -, a letter or digit first")
    return text


_RETRY_ON = re.compile(r"failure|timeout|lost|[1-5]xx|[1-5][0-9][0-9]")


def _one_error(text: str) -> str:
    if not _RETRY_ON.fullmatch(text):
        raise ValueError("expected failure, timeout, lost, an HTTP status such as 503, or 5xx for a class")
    return text


Tag = Annotated[str, StringConstraints(max_length=50), AfterValidator(_one_tag)]


class RetryPolicy(Record):
    """How often a failed attempt is tried again, and how long between.

    The wait after attempt n is ``min(initialSeconds · factor^(n-1), maxSeconds)``, less a random part of
    at most ``jitter`` of it. The default is three retries after 5, 10 and 20 seconds.
    """

    max_attempts: int = Field(4, ge=1, le=20)  # the first one included; 1 = no retry
    initial_seconds: float = Field(5.0, ge=0, le=3600)
    factor: float = Field(2.0, ge=1, le=10)
    max_seconds: float = Field(3600.0, ge=0, le=DAY_SECONDS)
    jitter: float = Field(0.0, ge=0, le=1)  # 0 = exactly the wait above, 1 = anything from 0 to it
    # Which errors are worth another try; empty = all. "failure" is every failure, "503" and "5xx" those of
    # a URL that answered so.
    on: tuple[Annotated[str, AfterValidator(_one_error)], ...] = Field((), max_length=20)

    def is_for(self, status: str, http_status: object) -> bool:
        """Whether an attempt that ended as `status` is tried again. `http_status`: the answer's, or None.

        >>> policy = RetryPolicy(on=("timeout", "5xx"))
        >>> [policy.is_for(*end) for end in (("timeout", None), ("failure", 503), ("failure", 404))]
        [True, True, False]
        """
        if not self.on or status in self.on:
            return True
        return status == "failure" and not {str(http_status), f"{str(http_status)[:1]}xx"}.isdisjoint(self.on)

    def wait_seconds(self, attempt: int, fraction: float = 0.0) -> float:
        """Seconds between the end of `attempt` (from 1) and the next; `fraction` in [0, 1) is the dice.

        >>> [RetryPolicy().wait_seconds(n) for n in (1, 2, 3)]
        [5.0, 10.0, 20.0]
        """
        wait = min(self.initial_seconds * self.factor ** (attempt - 1), self.max_seconds)
        return wait * (1 - self.jitter * fraction)


class HttpRequest(Record):
    """What the `http` runner sends besides the URL. Without it: GET, and any 2xx is a success."""

    method: HttpMethod = "GET"
    headers: dict[str, str] = Field(default_factory=dict, max_length=32)
    body: str | None = Field(None, max_length=65_536)
    expect_status: tuple[Annotated[int, Field(ge=100, le=599)], ...] = ()  # empty = any 2xx


class Upstream(Record):
    """Another job whose ends start a run of this one; its output comes along as data."""

    job_id: Annotated[str, Field(max_length=60)]
    when: After = "success"


class JobPolicy(CalendarPolicy):
    """The settings of a job that have a default: shared by draft, patch and job."""

    description: str | None = Field(None, max_length=2_000)
    timezone: str = Field("UTC", max_length=64)
    timeout_seconds: float = Field(300.0, gt=0, le=DAY_SECONDS)  # of one attempt
    deadline_seconds: float | None = Field(None, gt=0, le=30 * DAY_SECONDS)  # of a run, from its instant
    retry: RetryPolicy = RetryPolicy()
    overlap: Overlap = "skip"
    catch_up: CatchUp = "latest"
    catch_up_window_seconds: float = Field(3600.0, ge=0, le=30 * DAY_SECONDS)
    catch_up_limit: int = Field(100, ge=1, le=1_000)  # runs that one catch-up starts at most, the newest ones
    catch_up_order: CatchUpOrder = "newestFirst"
    jitter_seconds: float = Field(0.0, ge=0, le=3600)
    start_at: Instant | None = None  # no instant before it
    end_at: Instant | None = None  # no instant after it
    max_runs: int | None = Field(None, ge=1, le=1_000_000_000)  # scheduled runs; then the job is disabled
    delete_after_run: bool = False  # deleted once a run that nobody asked for has ended, however it ended
    pause_after_failures: int | None = Field(None, ge=1, le=1_000)  # in a row; then the job is paused
    after: tuple[Upstream, ...] = Field((), max_length=10)  # runs whose end starts one of this job
    tags: tuple[Tag, ...] = Field((), max_length=20)
    notify: Notify = "always"
    monitor: JobMonitor | None = None  # watches that it runs, apart from what runs it
    http: HttpRequest | None = None

    @field_validator("tags")
    @classmethod
    def _once_each(cls, tags: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(tags))


class JobDraft(JobPolicy):
    """What a caller gives to create a job."""

    name: Line
    schedule: Annotated[str, Field(max_length=1_000)]
    command: Annotated[str, Field(min_length=1, max_length=4_096)]
    channel_id: Line
    enabled: bool = True
    idempotency_key: Line | None = None


class Job(JobPolicy):
    """A job as it is kept: one JSON document at ``cron/jobs/{id}.json``."""

    id: str
    tenant: str
    user_id: str
    name: str
    schedule: str
    command: str
    channel_id: str
    enabled: bool = True
    paused_reason: str | None = None  # why it is not enabled; None while it is
    paused_until: Instant | None = None  # from then on it is due again, by itself; None = until resumed
    origin: str = "api"
    idempotency_key: str | None = None
    revision: int = 1  # grows with each change of the definition
    created_at: Instant
    updated_at: Instant
    updated_by: str | None = None  # a user, or what of the gateway; None: not known
    scheduled_since: Instant  # only instants after it count: set by create, resume and a new schedule
    deleted_at: Instant | None = None  # a tombstone: kept a while for undo, then removed
    restored_at: Instant | None = None  # brought back after a deletion; no run before it is a reason for one
    write_id: str = ""  # random, new with each write: tells our own write from another's
    earlier_write_ids: tuple[str, ...] = ()  # of the last writes before it: shows that a lost answer was yes
    # A checkpoint of what the ledger knows better; written on a change of status, now and then, and at stop.
    execution_count: int = 0
    failure_count: int = 0
    last_executed_at: Instant | None = None
    last_status: str | None = None
    last_error: str | None = None
    next_execution_at: Instant | None = None

    @property
    def is_scheduled(self) -> bool:
        """Whether instants of it come due, now or from `paused_until` on."""
        return (self.enabled or self.paused_until is not None) and self.deleted_at is None
