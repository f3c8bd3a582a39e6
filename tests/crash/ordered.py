"""What was ordered, and whether it was done: plain records, judged by the evidence alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from support.checker import NOT_RUN, SECOND, Due, Evidence, JobMade, instant_of

NEVER = float("inf")
MAX_ATTEMPTS = 8


@dataclass(frozen=True)
class Terms:
    """What a job is to do: every `step` seconds, telling `version`, unless it is paused; or it is gone."""

    step: int
    version: int
    enabled: bool = True
    deleted: bool = False

    def is_due(self, at: datetime) -> bool:
        return self.enabled and not self.deleted and at.second % self.step == 0


@dataclass
class Change:
    """New terms, in force from some moment between `sent` and `sure` on, in seconds since 1970."""

    terms: Terms
    sent: float
    sure: float = NEVER  # until the order is answered


@dataclass
class Asked:
    """A run that was asked for, under what version, and when it was acknowledged that it is cancelled."""

    version: int
    run_id: str = ""
    cancelled_at: float = NEVER


@dataclass
class Backfill:
    """Runs of the past that were asked for: of each instant with `since` ≤ instant < `until`."""

    terms: Terms
    since: datetime
    until: datetime
    acknowledged: bool = False

    def covers(self, at: datetime) -> bool:
        return self.since <= at < self.until and at.second % self.terms.step == 0


@dataclass
class OrderedJob:
    """A job and all that it was told to be, in order. Not `scheduled`: it runs only when it is asked to.

    `watched`: each of its attempts is witnessed outside.
    """

    key: str
    scheduled: bool = True
    watched: bool = True
    id: str = ""
    created: datetime = datetime.min
    changes: list[Change] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    backfills: list[Backfill] = field(default_factory=list)

    @property
    def terms(self) -> Terms:
        return self.changes[-1].terms

    def possible(self, at: float) -> list[Terms]:
        """The terms that may have been in force at that moment: one, unless an order was on its way."""
        sure = max((n for n, one in enumerate(self.changes) if one.sure < at), default=0)
        return [one.terms for n, one in enumerate(self.changes) if n == sure or (n > sure and one.sent < at)]


def made(job: OrderedJob, seen: Evidence) -> JobMade:
    """For the checker. What may have been due, as an order was on its way, was due if it is on record."""
    return JobMade(
        id=job.id,
        created=job.created,
        due=_due(job, seen),
        channel="gateway",
        path="watched" if job.watched else None,
        overlap="allow",
        max_attempts=MAX_ATTEMPTS,
    )


def _due(job: OrderedJob, seen: Evidence) -> Due:
    by_hand = {asked.run_id for asked in job.asked}
    rows = [row for row in seen.runs if row["job_id"] == job.id]
    on_record = {instant_of(row["scheduled_for"]) for row in rows}

    def due(created: datetime, until: datetime) -> Iterator[datetime]:
        at = created.replace(microsecond=0) + SECOND
        while job.scheduled and at <= until:
            verdicts = {terms.is_due(at) for terms in job.possible(at.timestamp())}
            if verdicts == {True} or (len(verdicts) == 2 and at in on_record):
                yield at
            at += SECOND
        for row in rows:
            if row["id"] in by_hand or row["trigger"] == "backfill":
                yield instant_of(row["scheduled_for"])

    return due


def judge_orders(jobs: Sequence[OrderedJob], seen: Evidence) -> list[str]:
    """What is not as it was ordered, a sentence each."""
    return [
        *_of_another_version([job for job in jobs if job.scheduled], seen),
        *(fault for job in jobs for fault in _ill_asked(job, seen)),
        *(fault for job in jobs for fault in _ill_backfilled(job, seen)),
    ]


def _of_another_version(jobs: Iterable[OrderedJob], seen: Evidence) -> Iterator[str]:
    """Each attempt does the terms that were in force at its instant, or when it was asked for."""
    by_id = {job.id: job for job in jobs}
    by_hand = {asked.run_id: asked.version for job in by_id.values() for asked in job.asked}
    rows = {row["id"]: row for row in seen.runs if row["job_id"] in by_id}
    for line in seen.requests:
        if line["what"] != "begin" or line["run"] not in rows:
            continue
        row = rows[line["run"]]
        job, at = by_id[row["job_id"]], instant_of(row["scheduled_for"])
        if row["id"] in by_hand:
            right = {by_hand[row["id"]]}
        elif row["trigger"] == "backfill":
            right = {one.terms.version for one in job.backfills if one.covers(at)}
        else:
            right = {terms.version for terms in job.possible(at.timestamp())}
        if int(line["query"].partition("=")[2]) not in right:
            yield f"run {row['id']} for {at} did {line['query']}; in force was {sorted(right)}"


def _ill_asked(job: OrderedJob, seen: Evidence) -> Iterator[str]:
    """There is a run for each that was asked for, and no other, and what was cancelled has ended."""
    rows = {row["id"]: row for row in seen.runs if row["job_id"] == job.id and row["trigger"] == "manual"}
    asked = Counter(one.run_id for one in job.asked)
    yield from (f"{count} wishes led to run {run}" for run, count in asked.items() if count > 1)
    yield from (f"run {run} of {job.key} was promised and is not there" for run in asked.keys() - rows.keys())
    yield from (f"nobody asked for run {run} of {job.key}" for run in rows.keys() - asked.keys())
    for one in job.asked:
        if one.cancelled_at < NEVER and one.run_id in rows:
            yield from _ill_cancelled(one, rows[one.run_id], seen)


def _ill_backfilled(job: OrderedJob, seen: Evidence) -> Iterator[str]:
    """Each instant of a window has its run, and none has one by a backfill outside of all windows."""
    rows = {instant_of(row["scheduled_for"]): row for row in seen.runs if row["job_id"] == job.id}
    for one in job.backfills:
        at = one.since
        while one.acknowledged and at < one.until:
            if one.covers(at) and (at not in rows or rows[at]["status"] in NOT_RUN):
                yield f"{job.key}: {at} was to be backfilled, and has not run"
            at += SECOND
    for at, row in rows.items():
        if row["trigger"] == "backfill" and not any(one.covers(at) for one in job.backfills):
            yield f"{job.key}: nobody asked to backfill {at}"


def _ill_cancelled(asked: Asked, row: dict[str, Any], seen: Evidence) -> Iterator[str]:
    """It may have ended before, or have been done just then; but it does not go on."""
    if row["status"] not in ("cancelled", "success") and row["finished_at"] / 1e6 > asked.cancelled_at:
        yield f"run {asked.run_id} was cancelled, and ended as {row['status']}"
    for attempt in seen.attempts:
        if attempt["run_id"] == asked.run_id and attempt["started_at"] / 1e6 > asked.cancelled_at:
            yield f"attempt {attempt['number']} of run {asked.run_id} began after it was cancelled"
