"""What somebody outside sees of a story: commands and answers, works, arrivals, and what was done to it all.

Plain values; the judge reads these and nothing else. `at` is true time in seconds since the story began,
which no step of a wall clock moves.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

Result = Literal[
    "done",
    "refused",  # it was told why, and nothing was changed
    "unsure",  # the store was away, or its answer was lost: it may be in force
    "unanswered",  # the gateway died first: as unsure
    "broken",  # an error that is no answer
]

START = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)  # what the clock on the wall shows when a story begins


@dataclass
class Command:
    """One call of a user. `data`: what it asked for, as on the wire."""

    at: float
    kind: str
    job: str  # the job's name: the id is not known before the answer
    gateway: str
    data: dict[str, Any] = field(default_factory=dict)
    answered_at: float | None = None
    result: Result = "unanswered"
    answer: Any = None  # what a call that was done came back with

@dataclass(frozen=True)
class WorkLine:
    """A line that the work itself wrote. `how`, of an end: success, failure, stopped, killed."""

    at: float
    what: Literal["begin", "end"]
    how: str
    gateway: str
    process: str  # the gateway's life, counted: "a.2"
    job_id: str
    run_id: str
    attempt: int
    scheduled_for: float  # wall clock, seconds since the story began
    trigger: str
    command: str


@dataclass(frozen=True)
class Arrival:
    """What a channel was handed. `taken`: it said so; else it failed, perhaps after it had it."""

    at: float
    gateway: str
    channel: str
    notice: str
    run_id: str
    event: str
    status: str
    has_it: bool
    failure: str = ""  # what the sender was told instead of "taken"


@dataclass
class Trouble:
    """What was done to the world, from then until then. `gateway` None: to all of them."""

    what: str
    since: float
    until: float
    gateway: str | None = None


@dataclass
class Evidence:
    """All that was seen, in its order; `runs`, `deliveries`, `jobs` are the last answers of the API."""

    commands: list[Command] = field(default_factory=list)
    works: list[WorkLine] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    clock: list[tuple[float, float]] = field(default_factory=lambda: [(0.0, 0.0)])  # since when which offset
    gateways: list[str] = field(default_factory=list)
    limits: dict[str, int] = field(default_factory=dict)  # "channel:<id>" and "tenant": how many at work
    calm_since: float = 0.0  # from here on nothing is done to the world any more
    quiet_since: float = 0.0  # from here on every job is paused
    ended_at: float = 0.0
    jobs: list[dict[str, Any]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    deliveries: list[dict[str, Any]] = field(default_factory=list)
    uncaught: list[str] = field(default_factory=list)
    is_whole: bool = False  # the story came to its end
