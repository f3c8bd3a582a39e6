"""The monitor: what is watched, what is expected of it, and who hears when it does not come.

Its health (`Health`) is what its pings and the clock made of it; the rules are in ``monitors/status.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, field_validator, model_validator

from carapace_cron.model.calendar import Blackout, CalendarPolicy
from carapace_cron.model.record import DAY_SECONDS, Instant, Record
from carapace_cron.model.text import Line, one_line_only

Status = Literal[
    "new",  # no ping came yet, or none since it was resumed
    "up",
    "down",
    "paused",  # somebody asked; nothing is expected
]
Shown = Literal["new", "up", "late", "down", "paused"]
"""As `Status`; late: its time is over and its grace is not; it was up, or it is a job's and new."""

PingKind = Literal["success", "fail", "start", "log", "ign"]
"""What a ping says: ``ign`` is kept and means nothing (a filter, or a pause that only a person ends)."""

FlipReason = Literal["ping", "fail", "timeout", "run", "pause", "resume"]
"""Why a status changed. timeout: no ping came in time; run: one that had begun did not end in time."""

MonitorEvent = Literal[
    "down",  # the alert condition is met
    "late",  # its time is over and its grace is not
    "up",  # well again, after a down or a late that was told
    "failure",  # each failure, the first as well as those after it
    "tooOften",  # an end came sooner after the one before than `min_interval_seconds`
]

YEAR_SECONDS = 365 * DAY_SECONDS
LONGEST_NAME = 100
LONGEST_SLUG = 100
MOST_CHANNELS = 50  # of one monitor, or one reminder
BODY_LIMIT = 10_000  # bytes of a ping's body that are kept; clients are told in Ping-Body-Limit

_KEYWORDS = StringConstraints(max_length=200)
_IN_A_SLUG = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_")


def _one_slug(text: str) -> str:
    if not _IN_A_SLUG.issuperset(text):
        raise ValueError("expected lower-case letters, digits, - and _")
    return text


def _one_word(text: str) -> str:
    if not text or len(text.split()) != 1 or not text.isprintable():
        raise ValueError("expected one word without blanks or control characters")
    return text


Slug = Annotated[str, StringConstraints(max_length=LONGEST_SLUG), AfterValidator(_one_slug)]
Name = Annotated[
    str, StringConstraints(strip_whitespace=True, max_length=LONGEST_NAME), AfterValidator(one_line_only)
]
MonitorTag = Annotated[str, StringConstraints(max_length=100), AfterValidator(_one_word)]


class Rate(Record):
    """Of the last `of` ends, at least `failures` failed."""

    failures: int = Field(ge=1, le=50)
    of: int = Field(ge=2, le=50)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.failures > self.of:
            raise ValueError(f"expected at most {self.of} failures of {self.of}")
        return self


class Reminder(Record):
    """While an incident lasts and nobody acknowledged it, say so again. `channels`: empty = the monitor's."""

    every_seconds: float = Field(ge=300, le=30 * DAY_SECONDS)
    channels: tuple[Line, ...] = Field((), max_length=MOST_CHANNELS)


class AlarmPolicy(Record):
    """Who is told what of a monitor."""

    channels: tuple[Line, ...] = Field((), max_length=MOST_CHANNELS)  # who is told; empty: nobody
    notify: tuple[MonitorEvent, ...] = Field(("down", "up"), max_length=5)  # what they are told
    reminders: tuple[Reminder, ...] = Field((), max_length=5)
    failures_before_alert: int = Field(1, ge=1, le=50)  # in a row
    failure_rate: Rate | None = None  # an alert by rate instead of by a row
    min_interval_seconds: float | None = Field(None, ge=1, le=YEAR_SECONDS)  # an end sooner is one too many
    maintenance: tuple[Blackout, ...] = Field((), max_length=20)  # nobody is told anything
    quiet: tuple[Blackout, ...] = Field((), max_length=20)  # late and reminders wait for its end

    @field_validator("channels", "notify")
    @classmethod
    def _no_repeats(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(names))


class JobMonitor(AlarmPolicy):
    """The monitor that a job has by its switch. What is left out, the job says."""

    grace_seconds: float | None = Field(None, ge=60, le=YEAR_SECONDS)  # for a late start
    max_run_seconds: float | None = Field(None, ge=1, le=YEAR_SECONDS)  # of a run, with all its attempts


class MonitorPolicy(AlarmPolicy):
    """What of a monitor has a default. With neither `period_seconds` nor `schedule`: every day."""

    name: Name = ""
    slug: Slug = ""  # its name in ping URLs, no other monitor of the user has it; empty: it has none
    tags: tuple[MonitorTag, ...] = Field((), max_length=50)
    description: str = Field("", max_length=10_000)
    period_seconds: float | None = Field(None, ge=60, le=YEAR_SECONDS)  # between two pings; or a schedule
    schedule: Annotated[str, Field(max_length=1_000)] | None = None
    timezone: str = Field("UTC", max_length=64)
    grace_seconds: float = Field(3_600, ge=60, le=YEAR_SECONDS)  # patience after the time is over
    max_run_seconds: float | None = Field(None, ge=1, le=YEAR_SECONDS)  # of a run; None: the grace
    heartbeat_seconds: float | None = Field(None, ge=1, le=YEAR_SECONDS)  # between signs of a run; None: none
    post_only: bool = False  # only POST counts
    manual_resume: bool = False  # pings do not end a pause
    filter_body: bool = False  # the keywords decide what a ping says
    start_keywords: Annotated[str, _KEYWORDS] = ""  # separated by commas, as they stand in the body
    success_keywords: Annotated[str, _KEYWORDS] = ""
    failure_keywords: Annotated[str, _KEYWORDS] = ""
    fail_by_default: bool = False  # a body without any keyword is a failure; False: it is ignored
    depends_on: tuple[str, ...] = Field((), max_length=10)  # while one of these is down, nobody is told

    @field_validator("tags", "depends_on")
    @classmethod
    def _once_each(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(names))

    @model_validator(mode="after")
    def _one_rhythm(self) -> Self:
        if self.period_seconds is not None and self.schedule is not None:
            raise ValueError("expected periodSeconds or schedule, not both")
        return self


class Monitor(MonitorPolicy):
    """A monitor as it is kept. Whoever knows `id` may ping it."""

    id: str  # a UUID, lower case, with dashes
    tenant: str
    user_id: str
    job_id: str | None = None  # our own job that it watches, and whose wishes it follows
    calendar: CalendarPolicy | None = None  # of that job, what is no instant of its schedule
    start_at: Instant | None = None  # of that job: no instant before it
    end_at: Instant | None = None  # no instant after it
    revision: int = 1
    created_at: Instant
    updated_at: Instant
    updated_by: str | None = None
    ping_secret: str | None = Field(None, repr=False)  # signs its pings; None: they need no signature
    snoozed_until: Instant | None = None  # nobody is told before it


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run that has begun and not ended. `rid`: its id; empty: the pings named none."""

    rid: str
    started_at: datetime
    sign_at: datetime  # the last that was heard of it: its start, or a note
    overdue: bool = False  # its time is over and was told; its end is still welcome


@dataclass(frozen=True, slots=True)
class Health:
    """What pings and the clock made of a monitor. Instants are aware UTC; None = there was none."""

    status: Status = "new"
    pings: int = 0
    last_ping_at: datetime | None = None  # the last success or failure
    last_duration_ms: int | None = None  # of the run that ended with it
    expected_after: datetime | None = None  # the next ping is due a period after it, or the schedule's next
    runs: tuple[OpenRun, ...] = ()
    failures_in_row: int = 0
    ends: str = ""  # the newest ends, oldest first: "s" success, "f" failure or timeout
    deadline: datetime | None = None  # silence until then makes it down

    @property
    def started(self) -> bool:
        """Whether a run is at work, as far as anybody knows."""
        return any(not run.overdue for run in self.runs)


@dataclass(frozen=True, slots=True)
class Ping:
    """One signal as it arrived. `said`: what its URL says; the monitor's filters may see it otherwise."""

    at: datetime
    said: PingKind
    rid: str = ""
    exit_status: int | None = None
    took_ms: int | None = None  # as the job says; None: its start tells
    due_at: datetime | None = None  # the instant of our own job that it answers; None: it answers none
    gives_up: bool = False  # the run has ended, and neither well nor badly: it was cancelled
    scheme: str = "http"
    method: str = "GET"
    remote_address: str = ""
    user_agent: str = ""
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Flip:
    """A change of status, dated when it happened: a timeout at its deadline, however late it was noticed."""

    at: datetime
    before: Status
    after: Status
    reason: FlipReason
