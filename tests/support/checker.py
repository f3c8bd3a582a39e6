"""The judge of what a gateway did. It reads witnesses, answers and the ledger's tables, and no code of ours:
what is due when is worked out here, by plain arithmetic on the simple schedules that the tests use.

Every check answers a list of sentences, one a fault; an empty list is what the promises ask for.
"""

from __future__ import annotations

import re
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

ENDED = frozenset({"success", "degraded", "failure", "timeout", "cancelled"})
_BUSY = "the gateway was busy for some seconds"  # on record, but nobody is told of seconds
_NO_CONNECTION = "failed: no connection to"  # as when the gateway was stopped while it was made
NOT_RUN = frozenset({"skipped", "missed"})

SECOND = timedelta(seconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_MISSES = re.compile(
    r"Cron job (?P<job>\S+) did not run\.\s+(?:more than )?\d+ missed \((?:\S+ to )?(?P<last>\S+)\):"
)

Due = Callable[[datetime, datetime], Iterator[datetime]]
"""(created, until) → the instants after the first, up to and with the second."""


def each_second(step: int) -> Due:
    """``*/step * * * * *``: the seconds of every minute that `step` divides."""

    def due(created: datetime, until: datetime) -> Iterator[datetime]:
        at = created.replace(microsecond=0) + SECOND
        while at <= until:
            if at.second % step == 0:
                yield at
            at += SECOND

    return due


def each_elapsed(step: int) -> Due:
    """``every <step>s``, counted from the second in which the job was made."""

    def due(created: datetime, until: datetime) -> Iterator[datetime]:
        at = created.replace(microsecond=0) + step * SECOND
        while at <= until:
            yield at
            at += step * SECOND

    return due


def once_after(seconds: int) -> Due:
    """``in <seconds>s``, counted from the second in which the job was made."""

    def due(created: datetime, until: datetime) -> Iterator[datetime]:
        at = created.replace(microsecond=0) + seconds * SECOND
        if at <= until:
            yield at

    return due


def once_at(instant: datetime) -> Due:
    """``at <instant>``."""

    def due(created: datetime, until: datetime) -> Iterator[datetime]:
        if created < instant <= until:
            yield instant

    return due


@dataclass(frozen=True)
class JobMade:
    """A job as the test asked for it, and when the gateway said that it was made."""

    id: str
    created: datetime
    due: Due
    channel: str
    path: str | None = None  # where its attempts are witnessed; None: nowhere
    notify: str = "always"
    overlap: str = "skip"
    catch_up: str = "latest"
    max_attempts: int = 4


@dataclass
class Evidence:
    """All that was seen. Rows of the ledger are plain dictionaries, in the order of their making."""

    runs: list[dict[str, Any]]
    attempts: list[dict[str, Any]]
    deliveries: list[dict[str, Any]]
    requests: list[dict[str, Any]] = field(default_factory=list)
    arrivals: list[dict[str, Any]] = field(default_factory=list)


def read_ledger(place: Path | str) -> Evidence:
    """The ledger's tables, straight from its file or from PostgreSQL."""
    with _opened(place) as rows:
        return Evidence(
            runs=rows("SELECT * FROM runs ORDER BY sequence"),
            attempts=rows("SELECT * FROM attempts ORDER BY run_id, number"),
            deliveries=rows("SELECT * FROM deliveries ORDER BY sequence"),
        )


def count_in_ledger(place: Path | str, query: str) -> int:
    """The one number that `query` answers."""
    with _opened(place) as rows:
        (row,) = rows(query)
    (count,) = row.values()
    return int(count)


@contextmanager
def _opened(place: Path | str) -> Iterator[Callable[[str], list[dict[str, Any]]]]:
    if isinstance(place, str):
        with psycopg.connect(place, row_factory=dict_row) as connection:
            yield lambda query: connection.execute(query.encode()).fetchall()
        return
    with closing(sqlite3.connect(f"file:{place}?mode=ro", uri=True)) as file:
        file.row_factory = sqlite3.Row
        yield lambda query: [dict(row) for row in file.execute(query)]


def judge(jobs: Sequence[JobMade], seen: Evidence, until: datetime) -> list[str]:
    """Every fault against the promises. `until`: each instant up to it must have its record."""
    return [
        *instants_without_one_record(jobs, seen, until),
        *ill_recorded_attempts(jobs, seen),
        *ill_witnessed_attempts(jobs, seen),
        *ill_delivered_notices(jobs, seen),
    ]


def instants_without_one_record(jobs: Sequence[JobMade], seen: Evidence, until: datetime) -> list[str]:
    faults = []
    by_job = _grouped(seen.runs, "job_id")
    faults += [f"runs of an unknown job {job_id}" for job_id in by_job.keys() - {job.id for job in jobs}]
    for job in jobs:
        rows = by_job.get(job.id, [])
        records = Counter(instant_of(row["scheduled_for"]) for row in rows)
        last = max([until, *records])
        due = list(job.due(job.created, last))
        faults += [f"{job.id}: {count} records for {at}" for at, count in records.items() if count > 1]
        faults += [f"{job.id}: no record for {at}" for at in due if at <= until and at not in records]
        faults += [f"{job.id}: a record for {at}, which is not due" for at in records.keys() - set(due)]
        faults += [fault for row in rows for fault in _ill_recorded_run(job, row)]
    return faults


def _ill_recorded_run(job: JobMade, row: Mapping[str, Any]) -> Iterator[str]:
    what = f"run {row['id']} of {job.id} for {instant_of(row['scheduled_for'])}"
    if row["status"] not in ENDED | NOT_RUN:
        yield f"{what} has not ended: {row['status']}"
    if row["finished_at"] is None:
        yield f"{what} is {row['status']} without an end"
    if row["status"] in NOT_RUN and (not row["reason"] or row["attempt"]):
        yield f"{what} is {row['status']} with reason {row['reason']!r} after {row['attempt']} attempts"
    if row["status"] == "skipped" and job.overlap != "skip":
        yield f"{what} is skipped although overlap is {job.overlap}"
    if row["status"] in NOT_RUN and job.catch_up == "all" and job.overlap != "skip":
        yield f"{what} is {row['status']} although catchUp is all"


def ill_recorded_attempts(jobs: Sequence[JobMade], seen: Evidence) -> list[str]:
    """Attempts are numbered without a hole, one after the other, as many as the job allows."""
    faults = []
    by_run = _grouped(seen.attempts, "run_id")
    most = {job.id: job.max_attempts for job in jobs}
    for run in seen.runs:
        attempts = by_run.get(run["id"], [])
        if [row["number"] for row in attempts] != list(range(1, run["attempt"] + 1)):
            faults.append(f"run {run['id']}: attempts {[row['number'] for row in attempts]}")
        if len(attempts) > most.get(run["job_id"], 0):
            faults.append(f"run {run['id']}: {len(attempts)} attempts are more than its job allows")
        for before, after in pairwise(attempts):
            if before["finished_at"] is None or before["finished_at"] > after["started_at"]:
                faults.append(f"run {run['id']}: attempt {after['number']} began before the last had ended")
        faults += [fault for row in attempts for fault in _ill_ended_attempt(run, row)]
    return faults


def _ill_ended_attempt(run: Mapping[str, Any], row: Mapping[str, Any]) -> Iterator[str]:
    if row["state"] == "running":
        yield f"run {run['id']}: attempt {row['number']} has no end"
    succeeded = row["state"] in ("success", "degraded")
    if succeeded and (row["number"] != run["attempt"] or run["status"] != row["state"]):
        yield f"run {run['id']} is {run['status']} although attempt {row['number']} was a {row['state']}"


def ill_witnessed_attempts(jobs: Sequence[JobMade], seen: Evidence) -> list[str]:
    """Each attempt starts at most once, is in the ledger, and has the run for itself; so has the job."""
    begun = Counter((one["run"], one["attempt"]) for one in seen.requests if one["what"] == "begin")
    recorded = {(row["run_id"], row["number"]): _what_was_done(row) for row in seen.attempts}
    job_of = {run["id"]: run["job_id"] for run in seen.runs}
    watched = {job.id for job in jobs if job.path is not None}
    serial = {job.id for job in jobs if job.overlap != "allow"}
    faults = [f"attempt {key} was started {count} times" for key, count in begun.items() if count > 1]
    faults += [f"attempt {key} was started, and is in no record" for key in begun if key not in recorded]
    faults += [
        f"attempt {key} is recorded as {state}, and nobody saw it"
        for key, state in recorded.items()
        if state in ("success", "failure") and job_of.get(key[0]) in watched and key not in begun
    ]
    lines = [one for one in seen.requests if one["run"] in job_of]
    faults += _overlapping(lines, lambda one: f"run {one['run']}")
    in_order = [one for one in lines if job_of[one["run"]] in serial]
    faults += _overlapping(in_order, lambda one: f"job {job_of[one['run']]}")
    return faults


def _what_was_done(attempt: Mapping[str, Any]) -> str:
    """The attempt's state; one that got nowhere is a failure that nobody can have seen."""
    unseen = attempt["state"] == "failure" and _NO_CONNECTION in (attempt.get("error") or "")
    return "no connection" if unseen else str(attempt["state"])


def _overlapping(lines: Iterable[Mapping[str, Any]], key: Callable[[Mapping[str, Any]], str]) -> list[str]:
    """Where a second one begins before the first has ended, by the order of the witness's lines."""
    under_way: dict[str, Counter[tuple[str, int]]] = defaultdict(Counter)
    faults = []
    for one in lines:
        now, attempt = under_way[key(one)], (one["run"], one["attempt"])
        if one["what"] == "end":
            now[attempt] -= 1
        else:
            faults += [f"{key(one)}: {attempt} began during {other}" for other, n in now.items() if n > 0]
            now[attempt] += 1
    return faults


def ill_delivered_notices(jobs: Sequence[JobMade], seen: Evidence) -> list[str]:
    """What was to be told has arrived, in the order of the outbox, signed, under one key a notice."""
    arrived: dict[str, list[str]] = defaultdict(list)
    run_for = {(run["job_id"], instant_text(run["scheduled_for"])): run["id"] for run in seen.runs}
    for one in seen.arrivals:
        arrived[one["channel"]].append(run_told_of(one, run_for))
    faults = _ill_signed(seen.arrivals)
    for channel in arrived:
        first = list(dict.fromkeys(arrived[channel]))
        sent = [row["subject"] for row in seen.deliveries if row["channel_id"] == channel]
        if first != sent:
            faults.append(f"{channel}: first arrivals {_difference(first, sent)}")
    by_job = {job.id: job for job in jobs}
    states = {(row["run_id"], row["number"]): row["state"] for row in seen.attempts}
    for run in seen.runs:
        job = by_job.get(run["job_id"])
        if job is None or job.channel not in arrived:
            continue
        is_told = run["id"] in arrived[job.channel]
        if _must_be_told(job, run, states.get((run["id"], run["attempt"]))) and not is_told:
            faults.append(f"{job.channel}: nothing arrived of {run['id']}, which ended as {run['status']}")
        if is_told and (job.notify == "never" or (job.notify == "failure" and run["status"] == "success")):
            faults.append(f"{job.channel}: told of run {run['id']} although notify is {job.notify}")
    faults += _untold_misses(jobs, seen, arrived)
    undelivered = [row for row in seen.deliveries if row["state"] != "delivered"]
    return faults + [f"delivery {row['id']} is {row['state']}" for row in undelivered]


def _must_be_told(job: JobMade, run: Mapping[str, Any], last_attempt: str | None) -> bool:
    """Whether a run's end is news. One that was cancelled while it waited, for its start or for another
    try, ended without doing anything more, and is not told."""
    ended = run["status"] in ENDED and (run["status"] != "cancelled" or last_attempt == "cancelled")
    return ended and (job.notify == "always" or (job.notify == "failure" and run["status"] != "success"))


def _ill_signed(arrivals: Iterable[Mapping[str, Any]]) -> list[str]:
    faults = []
    keys: dict[str, set[str]] = defaultdict(set)
    for one in arrivals:
        if one["channel"] == "hook":
            keys[one["body"]["runId"]].add(one["key"])
            if not one["signed"] or one["key"] != one["body"]["id"]:
                faults.append(f"hook: the notice {one['key']} is not signed, or not under its own id")
    return faults + [f"hook: run {run} came under {sorted(ids)}" for run, ids in keys.items() if len(ids) > 1]


def _untold_misses(jobs: Sequence[JobMade], seen: Evidence, arrived: Mapping[str, list[str]]) -> list[str]:
    """Of what a job missed in one go its owner hears once, in the name of the last; so at least once."""
    missed: dict[str, list[str]] = defaultdict(list)
    for run in seen.runs:
        if run["status"] == "missed" and _BUSY not in (run["reason"] or ""):
            missed[run["job_id"]].append(run["id"])
    return [
        f"{job.channel}: nothing arrived of all that {job.id} missed"
        for job in jobs
        if missed[job.id] and job.channel in arrived and job.notify != "never"
        and not set(missed[job.id]) & set(arrived[job.channel])
    ]


def run_told_of(arrival: Mapping[str, Any], run_for: Mapping[tuple[str, str], str]) -> str:
    """The run that an arrival tells of. A plain text names it where the target answered the run's id; one
    about misses names the job and the last instant. `run_for`: (job id, instant) → run id."""
    body = arrival["body"]
    if "runId" in body:
        return str(body["runId"])
    text = str(body["message"])
    misses = _MISSES.search(text)
    if misses is not None:
        return run_for.get((misses["job"], misses["last"]), text)
    return next((word for word in text.split() if word.startswith("run_")), text)


def _difference(first: Sequence[str], second: Sequence[str]) -> str:
    """Where two orders part."""
    at = next((n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), None)
    if at is None:
        return f"are {len(first)}, the outbox has {len(second)}"
    return f"part from the outbox at number {at + 1}: {first[at]} instead of {second[at]}"


def unlike_the_answers(answers: Sequence[Mapping[str, Any]], seen: Evidence) -> list[str]:
    """Whether what the gateway answers about runs is what its ledger holds."""
    told = {one["id"]: (one["jobId"], one["scheduledFor"], one["status"], one["attempt"]) for one in answers}
    held = {
        row["id"]: (row["job_id"], instant_text(row["scheduled_for"]), row["status"], row["attempt"])
        for row in seen.runs
    }
    faults = [] if len(told) == len(answers) else [f"{len(answers)} answers about {len(told)} runs"]
    order = [datetime.fromisoformat(one["scheduledFor"]) for one in answers]
    faults += [] if order == sorted(order, reverse=True) else ["the answers are not newest first"]
    faults += [
        f"run {key}: {told.get(key)} was told, {held.get(key)} is held"
        for key in told.keys() | held.keys()
        if told.get(key) != held.get(key)
    ]
    return faults


def instant_of(micros: int) -> datetime:
    return EPOCH + timedelta(microseconds=micros)


def instant_text(micros: int) -> str:
    """As on the wire: ``2026-11-21T09:00:00Z``."""
    return instant_of(micros).isoformat().replace("+00:00", "Z")


def _grouped(rows: Iterable[dict[str, Any]], name: str) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row[name]].append(row)
    return groups
