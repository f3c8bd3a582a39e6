"""A story as the judge sees it: the clock on the wall, what was in force of each job when, who was in trouble
when. Times are true time, in seconds since the story began, unless a name says `wall`.

It knows no code of ours. What is due when is plain arithmetic on the simple schedules that stories use.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from itertools import pairwise
from typing import Any

from .witness import START, Command, Evidence, Trouble, WorkLine

NEVER = "never"  # the schedule of a job that runs only when it is asked to
HEARD_WITHIN = 8.0  # by then a gateway has heard of what another one changed
LOOK = 2.0  # a gateway looks at the clock each second

View = Mapping[str, Any]
"""A run, a job or a delivery as the API answers it."""


def seconds_of(instant: str) -> float:
    """An instant of the API in wall clock seconds since the story began."""
    return (datetime.fromisoformat(instant) - START).total_seconds()


def clock_text(wall: float) -> str:
    """
    >>> clock_text(61.5)
    '09:01:01.500'
    """
    hours, rest = divmod(wall + 9 * 3600, 3600)
    return f"{int(hours):02d}:{int(rest // 60):02d}:{rest % 60:06.3f}".removesuffix(".000")


@dataclass
class Wall:
    """The clock on the wall, which steps."""

    steps: Sequence[tuple[float, float]]  # (since when, which offset)

    def shows(self, at: float) -> float:
        return at + next(offset for since, offset in reversed(self.steps) if since <= at)

    def furthest(self, at: float) -> float:
        """The latest that it has shown up to `at`."""
        ends = [*(since for since, _ in self.steps[1:] if since <= at), at]
        passed = [step for step in self.steps if step[0] <= at]
        return max(max(since, end) + offset for (since, offset), end in zip(passed, ends, strict=True))

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

    def goes_back_before(self, at: float) -> bool:
        steps = [step for step in self.steps if step[0] <= at]
        return any(after < before for (_, before), (_, after) in pairwise(steps))

    @property
    def goes_on_a_day(self) -> bool:
        return any(after - before > 80_000 for (_, before), (_, after) in pairwise(self.steps))


def instants(schedule: str, created: float, since: float, until: float) -> Iterator[float]:
    """The instants of a schedule in (since, until], in wall clock seconds; `created` is the job's anchor."""
    if schedule == NEVER:
        return
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


@dataclass(frozen=True)
class Definition:
    """As much of a job as decides what is due and what is done."""

    enabled: bool
    schedule: str
    command: str
    paused_until: float | None = None  # wall; None of one that is not enabled = until it is resumed
    deleted: bool = False

    def is_on_at(self, wall: float) -> bool:
        woken = self.paused_until is not None and wall >= self.paused_until
        return not self.deleted and (self.enabled or woken)


@dataclass(frozen=True)
class Period:
    """From then until then one of these definitions was in force; None = there was no such job."""

    since: float
    until: float
    may_be: frozenset[Definition | None]


DEFINING = ("create", "update", "pause", "resume", "delete", "restore")


@dataclass
class Job:
    """A job as its user knows it: what was asked of it, and what the API says of it."""

    name: str
    policy: Mapping[str, Any]  # as asked for at its creation
    commands: list[Command]
    id: str | None = None
    created: float = 0.0  # wall clock, whole seconds
    runs: list[View] = field(default_factory=list)

    def __post_init__(self) -> None:
        at = self.policy.get("endAt")
        self.end_at = float("inf") if at is None else seconds_of(at)

    @cached_property
    def periods(self) -> list[Period]:
        return list(_periods(self.commands))

    def definitions(self, since: float, until: float) -> set[Definition | None]:
        """All that may have been in force at some time in between."""
        found = (one.may_be for one in self.periods if one.since <= until and since <= one.until)
        return set().union(*found)

    def schedules(self) -> list[str]:
        found = {one.schedule for period in self.periods for one in period.may_be if one is not None}
        return sorted(found)

    def is_due(self, definition: Definition | None, wall: float) -> bool:
        """Whether `wall` is an instant of the job as long as `definition` is in force."""
        if definition is None or not definition.is_on_at(wall) or wall > self.end_at:
            return False
        return any(True for _ in instants(definition.schedule, self.created, wall - 1, wall))

    def is_on_for_sure(self, at: float, wall: float) -> bool:
        found = [one.may_be for one in self.periods if one.since <= at <= one.until]
        return all(one is not None and one.is_on_at(wall) for may_be in found for one in may_be)

    def defining(self) -> Iterator[Command]:
        """The commands that may have changed its definition."""
        return (one for one in self.commands if one.kind in DEFINING and one.result != "refused")


def _periods(commands: Sequence[Command]) -> Iterator[Period]:
    may_be: frozenset[Definition | None] = frozenset({None})
    at = 0.0
    for command in commands:
        if command.kind not in DEFINING or command.result == "refused":
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
    if before is None:
        return None
    if command.kind in ("delete", "restore"):
        return replace(before, deleted=command.kind == "delete")
    if before.deleted:
        return before
    if command.kind == "pause":
        until = command.data.get("until")
        return replace(before, enabled=False, paused_until=None if until is None else seconds_of(until))
    if command.kind == "resume":
        return replace(before, enabled=True, paused_until=None)
    return replace(before, **command.data)


def _known_after(command: Command, after: frozenset[Definition | None]) -> frozenset[Definition | None]:
    """What is in force once a command was answered. A document that was written for it tells all of it; where
    nothing had to be written, the answer may be older than the latest change at another gateway."""
    if command.kind in ("update", "restore"):
        answer = command.answer
        until = answer.get("pausedUntil")
        paused_until = None if until is None else seconds_of(until)
        known = Definition(answer["enabled"], answer["cronExpression"], answer["command"], paused_until)
        return frozenset({known})
    return after - {None}


class Case:
    """Evidence, sorted for the judge."""

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

    @property
    def unheard_of(self) -> int:
        """How many jobs there may be of which no answer and no list ever told: their maker got no answer, and
        they deleted themselves."""
        return sum(job.id is None for job in self.jobs.values())

    def ended_at(self, run: View) -> list[float]:
        """When the API says that a run ended; more than one time if the clock was set back."""
        return self.wall.passes(seconds_of(run["finishedAt"])) if run["finishedAt"] else []

    def troubles(self, since: float, until: float, gateway: str) -> Iterator[Trouble]:
        for one in self.seen.troubles:
            if one.gateway in (None, gateway) and one.since <= until and since <= one.until:
                yield one

    def any_trouble(self, since: float, until: float) -> bool:
        return any(any(True for _ in self.troubles(since, until, name)) for name in self.seen.gateways)

    def troubled(self, since: float, until: float, job: Job | None = None) -> bool:
        """Whether each gateway was in trouble at some time in between, or had not heard of `job`."""
        return all(
            any(True for _ in self.troubles(since, until, name))
            or (job is not None and not self._has_heard(name, job, since))
            for name in self.seen.gateways
        )

    def _has_heard(self, gateway: str, job: Job, at: float) -> bool:
        """Whether a gateway knows the newest definition of a job: it made it, or had the time to look."""
        for command in job.defining():
            if command.at > at or command.gateway == gateway:
                continue
            answered = command.answered_at or command.at
            looks = (one for one in self.troubles(answered, at, gateway) if "store" in one.what)
            if max([answered, *(one.until for one in looks)]) + HEARD_WITHIN > at:
                return False
        return True

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
        for command in job.defining():
            if command.at <= at:
                shown += [self.wall.shows(command.at), self.wall.shows(command.answered_at or command.at)]
        return wall > max(shown)


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


def _introduce(job: Job, view: View) -> None:
    job.id = view["id"]
    job.created = seconds_of(view["createdAt"]) // 1
