"""Which instants of a schedule are due, and what becomes of each: decided here, done elsewhere.

    after                                   now
      │   t1      t2      t3      t4      t5 │
      │ missed  missed  missed  missed   run │   catchUp latest
      │ missed   run     run     run     run │   catchUp all, t1 outside the window
      │ missed  missed  missed  missed   run │   catchUp none, t5 at most ON_TIME_SECONDS late
      │ missed  missed  missed  missed missed│   catchUp none, t5 later than that
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Literal, Protocol

from carapace_cron.model.job import CatchUp
from carapace_cron.model.record import instant_text
from carapace_cron.model.run import Trigger

ON_TIME_SECONDS = 10  # a start this late is an ordinary start: a loaded machine, a restart, a takeover
LISTED_MISSES = 1_000  # misses of one catch-up that get a record each; older ones share one


class Instants(Protocol):
    """The part of a schedule that this needs. Whole seconds since 1970, in and out."""

    def next_after_timestamp(self, seconds: int) -> int | None: ...

    def previous_timestamp(self, seconds: int) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One due instant and its fate. `at` is in whole seconds since 1970."""

    at: int
    verdict: Literal["run", "missed"]
    trigger: Trigger = "schedule"
    reason: str | None = None
    stands_for_more: bool = False  # for all instants from it until the next in the list


@dataclass(frozen=True, slots=True)
class LatePolicy:
    """What a job wants of late instants: see `catch_up`, its window and limit, and `deadline_seconds` in
    `model/job.py`."""

    catch_up: CatchUp = "latest"
    window_seconds: float = 3600.0
    limit: int = 100  # that run at most where `catch_up` is all, the newest ones
    deadline_seconds: float | None = None  # an instant that is as late as that is missed


def occurrences(schedule: Instants, policy: LatePolicy, *, after: int, now: int) -> list[Occurrence]:
    """The fate of each instant in (`after`, `now`], oldest first; empty when none is due.

    Bounded whatever the distance: of more than `LISTED_MISSES` instants the oldest ones are recorded
    together, at the first of them, and the reason says how far that record reaches.
    """
    instants = list(islice(_forward(schedule, after, now), LISTED_MISSES + 1))
    if len(instants) <= LISTED_MISSES:
        return _judge(instants, now, policy)
    newest = sorted(islice(_backward(schedule, after, now), LISTED_MISSES))
    reach = f"missed, like every instant from then until {_text(newest[0])}: {_WAS_DOWN}"
    oldest = Occurrence(instants[0], "missed", reason=reach, stands_for_more=True)
    return [oldest, *_judge(newest, now, policy)]


_WAS_DOWN = "no gateway was running, its ledger was away, or its clock was moved"
_WAS_BUSY = "the gateway was busy for some seconds"


def _forward(schedule: Instants, after: int, now: int) -> Iterator[int]:
    at = schedule.next_after_timestamp(after)
    while at is not None and at <= now:
        yield at
        at = schedule.next_after_timestamp(at)


def _backward(schedule: Instants, after: int, now: int) -> Iterator[int]:
    at = schedule.previous_timestamp(now + 1)
    while at is not None and at > after:
        yield at
        at = schedule.previous_timestamp(at)


def _judge(instants: list[int], now: int, policy: LatePolicy) -> list[Occurrence]:
    if not instants:
        return []
    newest = instants[-1]
    cap = policy.limit if policy.catch_up == "all" else 1
    first_to_run = instants[-min(cap, len(instants))]
    # However short the gap was: as ordinary starts they would skip each other as overlaps.
    one_by_one = cap > 1 and len(instants) > 1

    def fate(at: int) -> Occurrence:
        if reason := _too_late(now - at, policy):
            return Occurrence(at, "missed", reason=reason)
        if at < first_to_run:
            return Occurrence(at, "missed", reason=_superseded(newest, now - at, policy))
        is_late = one_by_one or now - at > ON_TIME_SECONDS
        return Occurrence(at, "run", "catchUp" if is_late else "schedule")

    return [fate(at) for at in instants]


def _too_late(late: int, policy: LatePolicy) -> str | None:
    """Why an instant is not run so late; None = it may be. Up to `ON_TIME_SECONDS` it always may."""
    if late <= ON_TIME_SECONDS:
        return None
    if policy.deadline_seconds is not None and late >= policy.deadline_seconds:
        return f"{late} s late; its deadline, {policy.deadline_seconds:g} s after it, had passed: {_WAS_DOWN}"
    if policy.catch_up == "none":
        return f"{late} s late, and the job's catchUp is none: {_WAS_DOWN}"
    if late > policy.window_seconds:
        window = f"outside the catch-up window of {policy.window_seconds:g} s"
        return f"{late} s late, {window}: {_WAS_DOWN}"
    return None


def _superseded(newest: int, late: int, policy: LatePolicy) -> str:
    why = _WAS_DOWN if late > ON_TIME_SECONDS else _WAS_BUSY
    if policy.catch_up == "all":
        most = policy.limit
        return f"more than {most} instants to catch up; the newest {most} run, as catchUpLimit asks: {why}"
    asks = f"as the job's catchUp {policy.catch_up} asks"
    return f"superseded by the instant at {_text(newest)}, {asks}: {why}"


def _text(at: int) -> str:
    return instant_text(datetime.fromtimestamp(at, UTC))
