"""The judge of a story: it reads what an outside witness saw and the last answers of the API, and no code of
ours. What is due when is worked out here, by plain arithmetic on the simple schedules that stories use.

Every check answers a list of sentences, one a fault; an empty list is what the promises ask for. Times are
true time, in seconds since the story began, unless a name says `wall`.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from itertools import pairwise
from typing import Any

from .witness import START, Command, Evidence, Trouble, WorkLine

GOOD = frozenset({"success", "degraded"})
ENDED = GOOD | {"failure", "timeout", "cancelled"}
NOT_RUN = frozenset({"skipped", "missed"})

SOON = 12.0  # a start this late is on time: the product's 10 s, and a little for the way
HEARD_WITHIN = 8.0  # by then a gateway has heard of what another one changed
LEASE = 60.0
LOOK = 2.0  # a gateway looks at the clock each second
LATENCY = 2.0  # of a call that goes well, there and back, and of a step after it
LEAST_BEGINS = 2  # in any story
STOPPED_WITHIN = 30.0  # from the answer to a cancel until the work has stopped
REASON_RUN = re.compile(r"run_[0-9a-v]{26}")
REACH = re.compile(r"like every instant from then until (?P<last>\S+Z):")
SUPERSEDED = re.compile(r"superseded by the instant at (?P<by>\S+Z),")
TOO_LATE = re.compile(r"(?P<late>\d+) s late, outside the catch-up window of (?P<window>[0-9.e+]+) s")


@dataclass(frozen=True)
class Definition:
    """As much of a job as decides what is due and what is done."""

    enabled: bool
    schedule: str
    command: str


@dataclass(frozen=True)
class Period:
    """From then until then one of these definitions was in force; None = there was no such job."""

    since: float
    until: float
    may_be: frozenset[Definition | None]


@dataclass
class Wall:
    """The clock on the wall, which steps."""

    steps: Sequence[tuple[float, float]]  # (since when, which offset)

    def shows(self, at: float) -> float:
        return at + next(offset for since, offset in reversed(self.steps) if since <= at)

    def furthest(self, at: float) -> float:
        """The latest that it has shown up to `at`."""
        ends = [*(since for since, _ in self.steps[1:] if since <= at), at]
        starts = [since for since, _ in self.steps if since <= at]
        offsets = [offset for since, offset in self.steps if since <= at]
        return max(
            max(start, end) + offset for start, end, offset in zip(starts, ends, offsets, strict=True)
        )

    @property
    def earliest(self) -> float:
        return min(since + offset for since, offset in self.steps)

    def passes(self, wall: float) -> list[float]:
        """When it came to show `wall`, in its run or in a jump; the first time comes first."""
        times = []
        before = self.steps[0][1]
        ends = [*(since for since, _ in self.steps[1:]), float("inf")]
        for (since, offset), end in zip(self.steps, ends, strict=True):
            if before < wall <= since + offset:
                times.append(since)
            elif since + offset < wall <= end + offset:
                times.append(wall - offset)
            before = end + offset
        return times

    def steps_within(self, since: float, until: float) -> bool:
        return any(since <= at <= until for at, _ in self.steps[1:])

    @property
    def goes_on_a_day(self) -> bool:
        return any(after - before > 80_000 for (_, before), (_, after) in pairwise(self.steps))


def instants(schedule: str, created: float, since: float, until: float) -> Iterator[float]:
    """The instants of a schedule in (since, until], in wall clock seconds; `created` is the job's anchor."""
    if schedule.startswith("every "):
        period = int(schedule.removeprefix("every ").removesuffix("s"))
        at = created + max((since - created) // period + 1, 1) * period
        while at <= until:
            yield at
            at += period
        return
    seconds, minutes = _fields(schedule)
    minute = since // 60 * 60
    while minute <= until:
        if int(minute // 60) % 60 in minutes:
            yield from (minute + second for second in seconds if since < minute + second <= until)
        minute += 60


def _fields(schedule: str) -> tuple[Sequence[int], frozenset[int]]:
    """The seconds and the minutes of a cron line whose other fields are stars."""
    fields = schedule.split()
    seconds = _values(fields.pop(0)) if len(fields) == 6 else (0,)
    assert fields[1:] == ["*"] * 4, f"the judge does not know {schedule}"
    return sorted(seconds), frozenset(_values(fields[0]))


def _values(text: str) -> Sequence[int]:
    if text == "*":
        return range(60)
    if text.startswith("*/"):
        return range(0, 60, int(text.removeprefix("*/")))
    return [int(value) for value in text.split(",")]


@dataclass
class Job:
    """A job as its user knows it: what was asked of it, and what the API says of it."""

    name: str
    policy: Mapping[str, Any]  # as asked for at its creation
    commands: list[Command]
    id: str | None = None
    created: float = 0.0  # wall clock, whole seconds
    runs: list[Mapping[str, Any]] = field(default_factory=list)

    @cached_property
    def periods(self) -> list[Period]:
        return list(_periods(self.commands))

    def definitions(self, since: float, until: float) -> set[Definition | None]:
        """All that may have been in force at some time in between."""
        found = (one.may_be for one in self.periods if one.since <= until and since <= one.until)
        return set().union(*found)

    def schedules(self) -> set[str]:
        return {one.schedule for period in self.periods for one in period.may_be if one is not None}


_DEFINING = ("create", "update", "pause", "resume", "delete")


def _periods(commands: Sequence[Command]) -> Iterator[Period]:
    may_be: frozenset[Definition | None] = frozenset({None})
    at = 0.0
    for command in commands:
        if command.kind not in _DEFINING or command.result == "refused":
            continue
        after = frozenset(_after(command, before) for before in may_be)
        yield Period(at, command.at, may_be)
        if command.result == "done":
            assert command.answered_at is not None
            yield Period(command.at, command.answered_at, may_be | after)
            may_be, at = _known_after(command, after), command.answered_at
        else:
            may_be, at = may_be | after, command.at
    yield Period(at, float("inf"), may_be)


def _after(command: Command, before: Definition | None) -> Definition | None:
    """What a command makes of a definition, if it is done."""
    if command.kind == "create":
        return Definition(True, command.data["schedule"], command.data["command"])
    if before is None or command.kind == "delete":
        return None
    changed = {name: command.data[name] for name in ("schedule", "command") if name in command.data}
    enabled = {"pause": False, "resume": True}.get(command.kind, before.enabled)
    return Definition(enabled, **{"schedule": before.schedule, "command": before.command, **changed})


def _known_after(command: Command, after: frozenset[Definition | None]) -> frozenset[Definition | None]:
    """What is in force once a command was answered: there was a job, and an update tells all of it."""
    if command.kind == "delete":
        return frozenset({None})
    if command.kind == "update":
        answer = command.answer
        return frozenset({Definition(answer["enabled"], answer["cronExpression"], answer["command"])})
    return after - {None}


class Case:
    """A evidence, sorted for the judge."""

    def __init__(self, seen: Evidence) -> None:
        self.seen = seen
        self.wall = Wall(seen.clock)
        self.jobs = _jobs(seen)
        self.by_id = {job.id: job for job in self.jobs.values() if job.id is not None}
        for run in seen.runs:
            if run["jobId"] in self.by_id:
                self.by_id[run["jobId"]].runs.append(run)
        self.runs = {run["id"]: run for run in seen.runs}
        self.works: dict[str, list[WorkLine]] = {}
        for line in seen.works:
            self.works.setdefault(line.run_id, []).append(line)

    def troubled(self, since: float, until: float, job: Job | None = None) -> bool:
        """Whether each gateway was in trouble at some time in between, or had not heard of `job`."""
        return all(
            any(True for _ in self.troubles(since, until, name))
            or (job is not None and not self._has_heard(name, job, since))
            for name in self.seen.gateways
        )

    def was_seen(self, wall: float, at: float) -> bool:
        """Whether the clock, having come to `wall` at `at`, stayed beyond it until somebody could look."""
        later = ((since, since + offset) for since, offset in self.wall.steps if since > at)
        back = next((since for since, shown in later if shown < wall), None)
        if back is None:
            return True
        ends = [one.until + LOOK + 0.1 for one in self.seen.troubles if at < one.until < back]
        return any(one < back and not self.troubled(one - LOOK, one) for one in [at + LOOK, *ends])

    def is_news(self, job: Job, wall: float, at: float) -> bool:
        """Whether the instant `wall`, come at `at`, lies after each change of the job. Where a clock was set
        back, a job that was made before takes nothing that was over when it was made."""
        shown = [self.wall.shows(0)]
        for command in job.commands:
            if command.kind in _DEFINING and command.at <= at:
                shown += [self.wall.shows(command.at), self.wall.shows(command.answered_at or command.at)]
        return wall > max(shown)

    def any_trouble(self, since: float, until: float) -> bool:
        return any(any(True for _ in self.troubles(since, until, name)) for name in self.seen.gateways)

    def troubles(self, since: float, until: float, gateway: str) -> Iterator[Trouble]:
        for one in self.seen.troubles:
            if one.gateway in (None, gateway) and one.since <= until and since <= one.until:
                yield one

    def _has_heard(self, gateway: str, job: Job, at: float) -> bool:
        """Whether a gateway knows the newest definition of a job: it made it, or had the time to look."""
        for command in job.commands:
            if command.kind not in _DEFINING or command.at > at or command.result == "refused":
                continue
            answered = command.answered_at or command.at
            heard = answered + HEARD_WITHIN
            if command.gateway != gateway and heard > at:
                return False
            looking = (one for one in self.troubles(answered, at, gateway) if "store" in one.what)
            if command.gateway != gateway and any(one.until + HEARD_WITHIN > at for one in looking):
                return False
        return True


def _jobs(seen: Evidence) -> dict[str, Job]:
    jobs: dict[str, Job] = {}
    for command in seen.commands:
        if command.kind == "create":
            jobs[command.job] = Job(command.job, command.data, [])
        if command.job in jobs:
            jobs[command.job].commands.append(command)
            if command.kind == "create" and command.result == "done":
                _introduce(jobs[command.job], command.answer)
    for view in seen.jobs:
        if view["name"] in jobs:
            _introduce(jobs[view["name"]], view)
    return jobs


def _introduce(job: Job, view: Mapping[str, Any]) -> None:
    job.id = view["id"]
    job.created = seconds_of(view["createdAt"]) // 1


def seconds_of(instant: str) -> float:
    """An instant of the API in wall clock seconds since the story began."""
    return (datetime.fromisoformat(instant) - START).total_seconds()


def judge(seen: Evidence) -> list[str]:
    """Every fault against the promises."""
    case = Case(seen)
    return [
        *(f"nobody caught: {trouble}" for trouble in seen.uncaught),
        *broken_answers(case),
        *instants_without_one_record(case),
        *ill_explained_runs(case),
        *ill_witnessed_works(case),
        *overlapping_works(case),
        *disobeyed_commands(case),
        *ill_delivered_notices(case),
        *too_little_work(case),
    ]


def broken_answers(case: Case) -> Iterator[str]:
    for command in case.seen.commands:
        if command.result == "broken":
            yield f"{command.kind} of {command.job} at {command.at:.3f} was answered with {command.answer}"


# Promise 1: each due instant of an enabled job has exactly one record.


def instants_without_one_record(case: Case) -> Iterator[str]:
    known = {job.id for job in case.jobs.values()}
    for run in case.seen.runs:
        if run["jobId"] not in known:
            yield f"run {run['id']} is of an unknown job {run['jobId']}"
    for job in case.jobs.values():
        yield from _records_of(case, job)


def _records_of(case: Case, job: Job) -> Iterator[str]:
    scheduled = [run for run in job.runs if run["trigger"] in ("schedule", "catchUp")]
    records = Counter(seconds_of(run["scheduledFor"]) for run in scheduled)
    stand_for = [_reach(run) for run in scheduled if _reach(run) is not None]
    until = case.wall.furthest(case.seen.ended_at)
    must, may = _due(case, job, until)
    for at in sorted(must):
        if at not in records and not any(first <= at < last for first, last in filter(None, stand_for)):
            yield f"{job.name}: no record for {_text(at)}"
    for at, count in records.items():
        if count > 1:
            yield f"{job.name}: {count} records for {_text(at)}"
        if at not in may:
            yield f"{job.name}: a record for {_text(at)}, which was not due"


def _reach(run: Mapping[str, Any]) -> tuple[float, float] | None:
    """The instants that a record stands for, from the first until before the last."""
    found = REACH.search(run["reason"] or "")
    return None if found is None else (seconds_of(run["scheduledFor"]), seconds_of(found["last"]))


def _due(case: Case, job: Job, until: float) -> tuple[set[float], set[float]]:
    """The instants that were due for sure, and those that may have been, by what was in force when."""
    must: set[float] = set()
    may: set[float] = set()
    for schedule in job.schedules():
        for at in instants(schedule, job.created, case.wall.earliest - 1, until):
            passes = [one for one in case.wall.passes(at) if one <= case.seen.ended_at]
            seen = next((one for one in passes if case.was_seen(at, one)), None)
            if seen is not None and case.is_news(job, at, seen) and _is_due_for_sure(job, at, seen):
                must.add(at)
            if any(_may_be_due(job, at, one) for one in passes):
                may.add(at)
    return must, may


def _is_due_for_sure(job: Job, wall: float, at: float) -> bool:
    found = [one.may_be for one in job.periods if one.since <= at <= one.until]
    return all(_due_under(definition, job, wall) for may_be in found for definition in may_be)


def _may_be_due(job: Job, wall: float, at: float) -> bool:
    return any(_due_under(definition, job, wall) for definition in job.definitions(at - 1, at + 1))


def _due_under(definition: Definition | None, job: Job, wall: float) -> bool:
    if definition is None or not definition.enabled:
        return False
    return any(True for _ in instants(definition.schedule, job.created, wall - 1, wall))


# Each record has an end, and a reason that can be checked.


def ill_explained_runs(case: Case) -> Iterator[str]:
    for job in case.jobs.values():
        for run in job.runs:
            for fault in _ill_explained(case, job, run):
                yield f"{_name(job, run)} {fault}"


def _name(job: Job, run: Mapping[str, Any]) -> str:
    return f"{job.name}: {run['id']} for {_text(seconds_of(run['scheduledFor']))}"


def _ill_explained(case: Case, job: Job, run: Mapping[str, Any]) -> Iterator[str]:
    status, reason = run["status"], run["reason"]
    if status not in ENDED | NOT_RUN:
        yield f"has not ended: {status}"
        return
    if run["finishedAt"] is None:
        yield f"is {status} without an end"
    if status in NOT_RUN and (not reason or run["attempt"] or case.works.get(run["id"], [])):
        yield f"is {status} with reason {reason!r} after {run['attempt']} attempts"
    elif status == "skipped":
        yield from _ill_skipped(case, job, run)
    elif status == "missed":
        yield from _ill_missed(case, job, run)
    if status == "cancelled" and not reason:
        yield "is cancelled, and nobody says why"


def _ill_skipped(case: Case, job: Job, run: Mapping[str, Any]) -> Iterator[str]:
    if job.policy["overlap"] != "skip":
        yield f"is skipped although overlap is {job.policy['overlap']}"
    named = REASON_RUN.search(run["reason"])
    other = None if named is None else case.runs.get(named[0])
    if other is None or other["jobId"] != run["jobId"] or other["status"] in NOT_RUN:
        yield f"is skipped for what is no run of the job: {run['reason']}"
        return
    ended, skipped = (case.wall.passes(seconds_of(one["finishedAt"])) for one in (other, run))
    if ended and skipped and ended[-1] < skipped[0] - LATENCY and not case.any_trouble(ended[-1], skipped[0]):
        yield f"is skipped for a run that had ended: {run['reason']}"


def _ill_missed(case: Case, job: Job, run: Mapping[str, Any]) -> Iterator[str]:
    due = seconds_of(run["scheduledFor"])
    passes = case.wall.passes(due)
    if passes and not any(_is_excused(case, job, at) for at in passes):
        yield f"is missed although nothing was wrong: {run['reason']}"
    superseded = SUPERSEDED.search(run["reason"])
    if superseded is not None:
        by = seconds_of(superseded["by"])
        newer = [one for one in job.runs if seconds_of(one["scheduledFor"]) == by]
        if by <= due or not newer:
            yield f"is missed for an instant that is none: {run['reason']}"
    late = TOO_LATE.search(run["reason"])
    if late is not None and (
        float(late["late"]) <= float(late["window"])
        or float(late["window"]) != job.policy["catchUpWindowSeconds"]
    ):
        yield f"is missed by an odd reckoning: {run['reason']}"


def _is_excused(case: Case, job: Job, at: float) -> bool:
    """Whether an instant that was due at `at` may have come to nothing: nobody could see to it in time."""
    return case.troubled(at - 1, at + SOON, job)


# Promises 1 and 3, as the works saw it.


def ill_witnessed_works(case: Case) -> Iterator[str]:
    begun = Counter((line.run_id, line.attempt) for line in case.seen.works if line.what == "begin")
    for (run_id, attempt), count in begun.items():
        if count > 1:
            yield f"attempt {attempt} of {run_id} was begun {count} times"
    for run_id, lines in case.works.items():
        run = case.runs.get(run_id)
        job = None if run is None else case.by_id.get(run["jobId"])
        if run is None or job is None:
            yield f"{run_id} was begun, and is in no record"
            continue
        for fault in _ill_worked(case, job, run, lines):
            yield f"{_name(job, run)} {fault}"
    for job in case.jobs.values():
        for each in job.runs:
            for fault in _ill_ended(case, each):
                yield f"{_name(job, each)} {fault}"


def _ill_worked(case: Case, job: Job, run: Mapping[str, Any], lines: Sequence[WorkLine]) -> Iterator[str]:
    retry = job.policy["retry"]
    begins = [line for line in lines if line.what == "begin"]
    ends = {line.attempt: line for line in lines if line.what == "end"}
    if max(line.attempt for line in begins) > run["attempt"]:
        yield f"has {run['attempt']} attempts, and another was begun"
    if run["attempt"] > retry["maxAttempts"]:
        yield f"has {run['attempt']} attempts, {retry['maxAttempts']} are allowed"
    for line in begins:
        if case.wall.furthest(line.at) < line.scheduled_for - 0.001:
            yield f"began early, at {line.at:.3f}"
    if len({line.command for line in begins}) > 1:
        yield "did one command, then another"
    for before, after in pairwise(begins):
        end = ends.get(before.attempt)
        if end is None or case.wall.steps_within(end.at, end.at + LEASE):
            continue
        gap = case.wall.shows(after.at) - case.wall.shows(end.at)
        least = min(retry["initialSeconds"] * retry["factor"] ** (before.attempt - 1), 3600)
        if after.attempt == before.attempt + 1 and gap < least - 0.001 and end.at <= after.at:
            yield f"was tried again after {gap:.3f} s, {least} s are asked for"


def _ill_ended(case: Case, run: Mapping[str, Any]) -> Iterator[str]:
    """The result on record is that of its last attempt, and of no earlier one."""
    ends = {line.attempt: line for line in case.works.get(run["id"], []) if line.what == "end"}
    last = ends.get(run["attempt"])
    if run["status"] in GOOD and (last is None or last.how != run["status"]):
        yield f"is a {run['status']}, and its last attempt was not"
    if run["output"] and run["output"].split()[:2] != [run["id"], str(run["attempt"])]:
        yield f"shows the output of another attempt: {run['output']}"
    for line in ends.values():
        overruled = line.how in GOOD and (run["status"] not in GOOD or line.attempt != run["attempt"])
        excused = any(case.troubles(line.at - LEASE, line.at + LEASE, line.gateway))
        if overruled and not excused and run["status"] != "cancelled":
            yield f"is a {run['status']} although attempt {line.attempt} went well"


def overlapping_works(case: Case) -> Iterator[str]:
    """No attempt overlaps another of its run, no run another of a job whose overlap is not allow."""
    under_way: dict[str, list[WorkLine]] = defaultdict(list)
    for line in case.seen.works:
        job = case.by_id.get(line.job_id)
        if job is None:
            continue
        if line.what == "end":
            same = line.run_id, line.attempt, line.process
            under_way[job.name] = [
                one for one in under_way[job.name] if (one.run_id, one.attempt, one.process) != same
            ]
            continue
        for other in under_way[job.name]:
            serial = job.policy["overlap"] != "allow" or other.run_id == line.run_id
            if serial and not _was_out_of_reach(case, other, line.at):
                yield (
                    f"{job.name}: attempt {line.attempt} of {line.run_id} began at {line.at:.3f} "
                    f"during attempt {other.attempt} of {other.run_id}, begun at {other.at:.3f}"
                )
        under_way[job.name].append(line)


def _was_out_of_reach(case: Case, work: WorkLine, at: float) -> bool:
    """Whether a work's gateway was frozen for so long that its lease ran out, and nobody could stop it."""
    frozen = (one for one in case.troubles(work.at, at, work.gateway) if one.what == "frozen")
    return any(one.until - one.since > LEASE - 20 for one in frozen)


# Promise 2: what was answered is in force.


def disobeyed_commands(case: Case) -> Iterator[str]:
    yield from _odd_commands(case)
    yield from _odd_manual_runs(case)
    for command in case.seen.commands:
        if command.result == "done" and command.kind == "cancel":
            yield from _not_cancelled(case, command)
        if command.result == "done" and command.kind == "delete":
            yield from _not_deleted(case, command)


def _odd_commands(case: Case) -> Iterator[str]:
    """Each work does what was in force for its instant, or what came later."""
    for line in case.seen.works:
        job = case.by_id.get(line.job_id)
        if job is None or line.what != "begin":
            continue
        passes = case.wall.passes(line.scheduled_for)
        since = passes[0] if passes and line.trigger != "manual" else 0.0
        known = {one.command for one in job.definitions(since, line.at) if one is not None}
        if line.command not in known:
            yield f"{job.name}: {line.run_id} did {line.command} at {line.at:.3f}, not one of {sorted(known)}"


def _odd_manual_runs(case: Case) -> Iterator[str]:
    keys: dict[tuple[str, str], str] = {}
    asked: Counter[str] = Counter()
    for command in case.seen.commands:
        if command.kind != "run" or command.result == "refused":
            continue
        key = command.job, command.data["key"]
        if key not in keys:
            asked[command.job] += 1
            keys[key] = ""
        if command.result == "done":
            if command.answer["id"] not in case.runs:
                yield f"{command.job}: the run {command.answer['id']} that was asked for is in no record"
            if keys[key] not in ("", command.answer["id"]):
                yield f"{command.job}: {key[1]} made two runs"
            keys[key] = command.answer["id"]
    for job in case.jobs.values():
        manual = sum(run["trigger"] == "manual" for run in job.runs)
        if manual > asked[job.name]:
            yield f"{job.name}: {manual} runs by hand, {asked[job.name]} were asked for"


def _not_cancelled(case: Case, command: Command) -> Iterator[str]:
    assert command.answered_at is not None
    run = case.runs.get(command.job)
    if run is None:
        yield f"{command.job} was cancelled, and is in no record"
        return
    lines = case.works.get(command.job, [])
    for line in lines:
        late = line.what == "begin" and line.at > command.answered_at + LATENCY
        if late and not any(case.troubles(command.answered_at, line.at, line.gateway)):
            yield f"{command.job} was cancelled at {command.answered_at:.3f}, and begun at {line.at:.3f}"
    ends = [line.at for line in lines if line.what == "end"]
    went_on = ends and max(ends) > command.answered_at + STOPPED_WITHIN
    if run["status"] != "cancelled" and went_on and not case.troubled(command.answered_at, max(ends)):
        yield f"{command.job} was cancelled at {command.answered_at:.3f}, and went on as {run['status']}"


def _not_deleted(case: Case, command: Command) -> Iterator[str]:
    assert command.answered_at is not None
    job = case.jobs[command.job]
    for line in case.seen.works:
        late = line.job_id == job.id and line.what == "begin" and line.at > command.answered_at + LATENCY
        if late and not any(case.troubles(command.answered_at, line.at, line.gateway)):
            yield f"{job.name} was deleted at {command.answered_at:.3f}, and begun at {line.at:.3f}"


# Promise 4: each result arrives, in order, or is shown as undeliverable.


def ill_delivered_notices(case: Case) -> Iterator[str]:
    notices = {_notice(one): one for one in case.seen.deliveries}
    arrived: dict[str, list[str]] = defaultdict(list)
    refused = {one.notice for one in case.seen.arrivals if one.failure == "permanent"}
    for one in case.seen.arrivals:
        if one.notice not in notices:
            yield f"{one.channel}: {one.notice} arrived, and is in no record"
        if one.has_it:
            arrived[one.channel].append(one.notice)
    for notice, delivery in notices.items():
        channel = delivery["channelId"]
        if delivery["state"] == "waiting":
            yield f"{channel}: {notice} still waits: {delivery.get('error')}"
        if delivery["state"] == "delivered" and notice not in arrived[channel]:
            yield f"{channel}: {notice} is said to be delivered, and never came"
        too_old = case.wall.goes_on_a_day and "24 hours" in (delivery.get("error") or "")
        if delivery["state"] == "undeliverable" and notice not in refused and not too_old:
            yield f"{channel}: {notice} was given up: {delivery.get('error')}"
    yield from _out_of_order(case, arrived)
    for job in case.jobs.values():
        yield from _untold(job, notices)


def _notice(delivery: Mapping[str, Any]) -> str:
    return f"{delivery['runId']}.{'missed' if delivery['event'] == 'run.missed' else 'ended'}"


def _out_of_order(case: Case, arrived: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for channel, notices in arrived.items():
        first = list(dict.fromkeys(notices))
        in_order = sorted(case.seen.deliveries, key=lambda one: one["id"])
        sent = [_notice(one) for one in in_order if one["channelId"] == channel and _notice(one) in first]
        for got, expected in zip(first, sent, strict=False):
            if got != expected:
                yield f"{channel}: {got} came before {expected}"
                break


def _untold(job: Job, notices: Mapping[str, Any]) -> Iterator[str]:
    notify = job.policy["notify"]
    for run in job.runs:
        told = f"{run['id']}.ended" in notices
        good = run["status"] in GOOD
        ended = run["status"] in ENDED - {"cancelled"}
        if ended and not told and (notify == "always" or (notify == "failure" and not good)):
            yield f"{_name(job, run)} ended as {run['status']}, and nobody is told"
        if told and (notify == "never" or (notify == "failure" and good)):
            yield f"{_name(job, run)} is told although notify is {notify}"
    missed = [run for run in job.runs if run["status"] == "missed" and "busy" not in (run["reason"] or "")]
    settled = [run for run in missed if "paused, changed or deleted" in (run["reason"] or "")]
    is_told = any(f"{run['id']}.missed" in notices for run in missed)
    if len(missed) > len(settled) and notify != "never" and not is_told:
        yield f"{job.name}: nobody is told of {len(missed)} missed instants"


# A story in which nothing happens proves nothing.


def too_little_work(case: Case) -> Iterator[str]:
    """Of the runs that were not skipped, missed or cancelled nearly each has begun; and there are some."""
    done = sum(line.what == "begin" for line in case.seen.works)
    due = sum(run["status"] in ENDED - {"cancelled"} for job in case.jobs.values() for run in job.runs)
    if done < max(LEAST_BEGINS, due * 0.8):
        yield f"only {done} attempts of {due} runs in {case.seen.quiet_since / 60:.0f} minutes"


def _text(wall: float) -> str:
    hours, rest = divmod(wall + 9 * 3600, 3600)
    return f"{int(hours):02d}:{int(rest // 60):02d}:{rest % 60:06.3f}".removesuffix(".000")
