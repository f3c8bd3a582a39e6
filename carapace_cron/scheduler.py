"""The loop that knows what is due. It records each due instant in the ledger, once, and runs nothing.

Jobs that share a schedule share one entry of a heap (a *group*), so a pass over 100,000 jobs of a few
hundred schedules costs a few hundred steps. A job whose records end before its group's next instant (it
was added late, the process slept, the clock jumped, a write failed) is *behind*, and is looked at alone.
One that cannot be planned or recorded is *faulty*: a while later it is tried again, and meanwhile the
others go on. What came due of a job before it was paused, changed or deleted is *settled*.

No instant is lost by a failure here: the ledger's own mark (`accounted_until`) moves in the same
transaction as the records, and what was not recorded is due again a moment later.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import math
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol

from carapace_cron.clock import Clock
from carapace_cron.errors import Unavailable
from carapace_cron.ids import run_id, stable_fraction
from carapace_cron.ledger.planning import FAR_AHEAD, JobPlan, Planned, PlannedInstant
from carapace_cron.model.job import CatchUpOrder, Job, Overlap
from carapace_cron.model.notice import Notice
from carapace_cron.model.record import instant_text
from carapace_cron.model.run import run_key
from carapace_cron.occurrences import ON_TIME_SECONDS, Instants, LatePolicy, Occurrence, occurrences
from carapace_cron.schedule.never import is_never

log = logging.getLogger(__name__)

MAX_SLEEP_SECONDS = 1.0  # the wall clock is looked at again this often, however far the next instant
PLANS_PER_WRITE = 100  # jobs a transaction: the first of a burst start while the rest is being recorded
PLANS_IN_FIRST_WRITE = 20  # of a pass: a tenant with few jobs hardly notices another's burst
INSTANTS_PER_WRITE = 500  # the same bound where jobs have many instants to catch up
CATCH_UP_PER_SECOND = 10.0  # late runs are spread, so that a restart is not a stampede
RETRY_SECONDS = 1.0  # after the ledger refused a write
OUTDATED_SECONDS = 0.1  # after it refused a definition: a newer one is on its way, often by milliseconds
FAULTY_SECONDS = 60.0  # a job that cannot be scheduled, by a fault of ours, is tried again after it
FAR_AHEAD_SECONDS = FAR_AHEAD.total_seconds()
SPARE_ENTRIES = 64  # of the heap, before it is rid of those that mean nothing any more


class DueLedger(Protocol):
    """The part of the ledger that the scheduler needs."""

    async def record_due(self, plans: Sequence[JobPlan], now: datetime) -> list[Planned]:
        """All or nothing, one answer a plan. Raises `Unavailable` when the ledger is away."""
        ...


class GroupSchedule(Instants, Hashable, Protocol):
    """A parsed schedule; jobs with equal ones are one group."""


@dataclass(slots=True)
class _Group:
    schedule: GroupSchedule
    next_at: int | None = None  # the next instant at which one of the members may be due
    members: dict[str, _Member] = field(default_factory=dict)


@dataclass(slots=True)
class _Member:
    """A scheduled job, as little of it as the loop needs. Times are whole seconds since 1970."""

    job_id: str
    tenant: str
    user_id: str
    revision: int
    group: _Group
    known: _Known  # shared by all definitions that the job had
    opened: int  # when its instants began to count, as scheduledSince says
    closed_until: int  # no instant up to it counts: by startAt, and by the end of a pause
    end_at: int | None
    jitter_seconds: float
    overlap: Overlap
    late: LatePolicy
    catch_up_order: CatchUpOrder
    max_runs: int | None

    @property
    def since(self) -> int:
        """The instants after it are those that may come due."""
        return max(self.known.mark, self.begins_after)

    @property
    def begins_after(self) -> int:
        """The instants after it are those of this definition."""
        return max(self.opened, self.closed_until)

    def next_after(self, at: int) -> int | None:
        """The job's next instant after both `at` and `since`; None = it has no more."""
        if self.max_runs is not None and self.known.runs_created >= self.max_runs:
            return None
        next_at = self.group.schedule.next_after_timestamp(max(at, self.since))
        return None if next_at is None or (self.end_at is not None and next_at > self.end_at) else next_at


@dataclass(slots=True)
class _Known:
    """What stays true of a job whatever its definition, so that no instant comes due twice."""

    mark: int = 0  # each instant up to it has its record
    runs_created: int = 0


class _Rota:
    """The members that are due, and when each was: the tenants take turns, so that none waits for all that
    another has due in the same second."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[tuple[_Member, int]]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def put(self, member: _Member, at: int) -> None:
        self._waiting.setdefault(member.tenant, deque()).append((member, at))

    def take(self) -> tuple[_Member, int]:
        tenant, waiting = self._waiting.popitem(last=False)
        first = waiting.popleft()
        if waiting:
            self._waiting[tenant] = waiting  # the last in turn now
        return first


Due = tuple[_Member, list[Occurrence]]
"""A job and the fate of each of its due instants, oldest first."""


class Scheduler:
    """Knows jobs by `put` and `drop`, which take effect for the next instant at once; `run` is the loop.

    `document` gives a job's definition as it is kept; `schedule_of` its parsed schedule. `on_finished`
    hears of a job that has no instant left, and why; `on_outdated` of one that has another definition in
    force by now. Both are called from the loop and must not wait.
    """

    def __init__(
        self,
        ledger: DueLedger,
        clock: Clock,
        *,
        document: Callable[[str], bytes],
        schedule_of: Callable[[Job], GroupSchedule],
        on_finished: Callable[[str, str], None],
        on_outdated: Callable[[str], None] = lambda job_id: None,
        catch_up_per_second: float = CATCH_UP_PER_SECOND,
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._document = document
        self._schedule_of = schedule_of
        self._on_finished = on_finished
        self._on_outdated = on_outdated
        self._catch_up_seconds = 1 / catch_up_per_second
        self._groups: dict[GroupSchedule, _Group] = {}
        self._members: dict[str, _Member] = {}
        self._known: dict[str, _Known] = {}
        self._heap: list[tuple[int, int, _Group]] = []
        self._tickets = itertools.count()
        self._due = _Rota()
        self._behind: dict[str, _Member] = {}
        self._outdated: dict[str, _Member] = {}
        self._faulty: dict[str, _Member] = {}
        self._faulty_until = 0.0  # monotonic
        self._settled: list[Due] = []
        self._catch_up_free_at = 0.0  # monotonic
        self._newest_now = 0  # the furthest that the wall clock has been since it was set back
        self._wake = asyncio.Event()
        self._stopping = False
        self.trouble: str | None = None  # why due instants cannot be recorded just now; None = they can
        self._stuck_since: float | None = None  # monotonic
        self.last_pass_at: datetime | None = None  # the heartbeat of the loop, for status and metrics

    def __len__(self) -> int:
        """How many jobs are scheduled."""
        return len(self._members)

    def put(self, job: Job, *, accounted_until: datetime | None = None, runs_created: int = 0) -> None:
        """Schedule a job, or replace its definition; one that is not enabled is dropped.

        `accounted_until` and `runs_created` are the ledger's, None and 0 for a job that never came due;
        what the scheduler itself knows of the job is never set back.
        """
        schedule = self._schedule_of(job)  # first of all: if it raises, nothing was changed
        old = self._detach(job.id)
        known = self._remember(job.id, accounted_until, runs_created)
        if not job.is_scheduled or is_never(job.schedule):
            self._settle(old, int(job.updated_at.timestamp()))
            return
        member = self._member(job, schedule, known)
        self._settle(old, member.begins_after)
        next_at = member.next_after(member.since)
        if next_at is None:
            self._on_finished(job.id, _why_finished(member))
            return
        self._members[job.id] = member
        self._groups[member.group.schedule] = member.group
        member.group.members[job.id] = member
        now = self._now()
        if next_at <= now:
            self._behind[job.id] = member
        upcoming = next_at if next_at > now else member.group.schedule.next_after_timestamp(now)
        self._arm(member.group, upcoming)
        self._wake.set()

    def remember(self, job_id: str, accounted_until: datetime | None, runs_created: int) -> None:
        """What the ledger has of a job that is not scheduled, and may be again, through any gateway."""
        self._remember(job_id, accounted_until, runs_created)

    def drop(self, job_id: str, deleted_at: datetime | None = None) -> None:
        """No longer schedule a job: it is paused, finished, or was deleted then. Unknown ids are fine.

        What came due until then gets its record, and what is known of the job stays.
        """
        until = self._now() if deleted_at is None else int(deleted_at.timestamp())
        self._settle(self._detach(job_id), until)

    def forget(self, job_id: str) -> None:
        """Drop a job of which there is no trace any more, with all that is known of it."""
        self.drop(job_id)
        self._known.pop(job_id, None)

    async def settle(self, job_id: str, *, before: int) -> None:
        """Record at once what came due of a job under its definitions before the revision `before`.

        Raises `Unavailable` when the ledger is away; then it is still to be done.
        """
        await self._record_settled(
            [one for one in self._settled if one[0].job_id == job_id and one[0].revision < before]
        )

    def next_at(self, job_id: str) -> datetime | None:
        """When the job is due next, strictly after now; None = it is not scheduled."""
        member = self._members.get(job_id)
        at = None if member is None else member.next_after(self._now())
        return None if at is None else datetime.fromtimestamp(at, UTC)

    def runs_left(self, job_id: str) -> int | None:
        """How many runs of a scheduled job its maxRuns leaves; None = as many as come due, or no such job."""
        member = self._members.get(job_id)
        if member is None or member.max_runs is None:
            return None
        return member.max_runs - member.known.runs_created

    def overdue_seconds(self) -> float:
        """How far the loop is behind the earliest instant that it knows; 0 when it keeps up."""
        top = self._heap[0][0] if self._heap else None
        behind = 0.0 if top is None else max(self._clock.now().timestamp() - top, 0.0)
        stuck = 0.0 if self._stuck_since is None else self._clock.monotonic() - self._stuck_since
        return max(behind, stuck)

    async def run(self) -> None:
        """Until `stop`. Survives whatever a pass raises: it is logged, and the pass is done again."""
        while not self._stopping:
            self._wake.clear()
            try:
                await self._pass()
                self._note_freed()
                seconds = self._idle_seconds()
            except Unavailable as error:
                self._note_stuck(str(error))
                seconds = RETRY_SECONDS
            except Exception:
                log.exception("a scheduling pass failed; it is done again", extra={"action": "schedule"})
                seconds = RETRY_SECONDS
            if seconds > 0:
                await self._clock.wait(self._wake, seconds)

    def stop(self) -> None:
        """Let `run` return after the pass it is in; nothing due is lost, the next start finds it."""
        self._stopping = True
        self._wake.set()

    async def _pass(self) -> None:
        """Record everything that is due now, a slice at a time, so that others get their turn between."""
        await self._record_settled(self._settled[:PLANS_PER_WRITE])
        self._fall_behind(self._outdated.values())
        self._outdated.clear()
        self._look_at_the_clock(self._now())
        most = PLANS_IN_FIRST_WRITE
        try:
            while not self._stopping:
                now = self._clock.now()
                if not self._due and not self._behind:
                    self.last_pass_at = now
                self._collect(int(now.timestamp()))
                if not (due := self._slice(int(now.timestamp()), most)):
                    break
                await self._record(due, now)
                most = PLANS_PER_WRITE
                await asyncio.sleep(0)
        finally:
            # What a failed write left over is looked at again, job by job, in the next pass.
            while self._due:
                self._fall_behind([self._due.take()[0]])

    async def _record_settled(self, settled: list[Due]) -> None:
        """What its definition is too early for is kept: that is not in force yet. Where a newer one is,
        whoever put that in force has seen to it."""
        now = self._clock.now()
        plans = [self._plan(member, instants, now, None) for member, instants in settled]
        answers = await self._write(plans, now)
        done = [answer is None or answer.in_force or answer.is_over for answer in answers]
        early = [one for one, is_done in zip(settled, done, strict=True) if not is_done]
        tried = {id(one) for one in settled}
        others = [one for one in self._settled if id(one) not in tried]
        self._settled = others + early  # so that the others have their turn first

    def _look_at_the_clock(self, now: int) -> None:
        """Give set-aside jobs another chance, and see to marks that a wrong clock has put far ahead."""
        if self._faulty and self._clock.monotonic() >= self._faulty_until:
            self._fall_behind(self._faulty.values())
            self._faulty.clear()
        if now < self._newest_now - FAR_AHEAD_SECONDS:
            log.warning("the clock was set back by more than a day", extra={"action": "clock"})
            for known in self._known.values():
                known.mark = _believed(known.mark, now)
            for member in self._members.values():
                member.opened = _believed(member.opened, now)
            for group in self._groups.values():
                self._arm(group, group.schedule.next_after_timestamp(now))
            self._newest_now = now
        self._newest_now = max(self._newest_now, now)

    def _collect(self, now: int) -> None:
        """Move the members of groups that are due to `_due`, or to `_behind` where it is not so simple."""
        while self._heap and self._heap[0][0] <= now:
            at, _, group = heapq.heappop(self._heap)
            if group.next_at != at or not group.members:
                continue
            following = group.schedule.next_after_timestamp(at)
            simple = now - at <= ON_TIME_SECONDS and (following is None or following > now)
            # More than one instant: for some members the first may be none of theirs, but a later one is.
            last = at if simple else now
            for member in group.members.values():
                if member.since < last and not self._waits(member):
                    if simple:
                        self._due.put(member, at)
                    else:
                        self._behind[member.job_id] = member
            group.next_at = None
            self._arm(group, following if simple else group.schedule.next_after_timestamp(now))

    def _slice(self, now: int, most: int) -> list[Due]:
        """The next jobs to be recorded in one write, with the fate of each of their due instants.

        Those that are on time come first: what a long outage left behind must not make them late.
        """
        due: list[Due] = []
        while self._due and len(due) < most:
            member, at = self._due.take()
            if self._is_current(member) and (member.end_at is None or at <= member.end_at):
                due.append((member, [Occurrence(at, "run")]))
        room = INSTANTS_PER_WRITE - len(due)
        while self._behind and room > 0:
            member = self._behind.pop(next(iter(self._behind)))
            with self._blaming(member):
                due.append((member, _catch_up(member, now)))
                room -= len(due[-1][1]) + 1
                if not due[-1][1]:  # the clock was set back since: its group may be past its next instant
                    self._arm(member.group, member.next_after(member.since))
        return due

    async def _record(self, due: list[Due], now: datetime) -> None:
        seconds = int(now.timestamp())
        slots_from = self._catch_up_free_at
        planned: list[tuple[_Member, JobPlan]] = []
        for member, instants in due:
            if instants:
                with self._blaming(member):
                    document = self._document(member.job_id)
                    planned.append((member, self._plan(member, instants, now, document)))
        try:
            answers = await self._write([plan for _, plan in planned], now)
        except BaseException:
            self._catch_up_free_at = slots_from
            self._fall_behind(member for member, _ in due if member.job_id not in self._faulty)
            raise
        for (member, plan), answer in zip(planned, answers, strict=True):
            if answer is None:
                self._blame(member)
            elif not answer.in_force:
                self._set_aside_outdated(member)
            else:
                member.known.mark = max(member.known.mark, int(plan.accounted_until.timestamp()))
                member.known.runs_created = answer.runs_created
        for member, _ in due:
            if self._is_current(member) and not self._waits(member) and member.next_after(seconds) is None:
                self.drop(member.job_id)
                self._on_finished(member.job_id, _why_finished(member))

    def _plan(
        self, member: _Member, instants: list[Occurrence], now: datetime, definition: bytes | None
    ) -> JobPlan:
        """`definition`: of the job, for what its owner is told of misses; None = nothing is told."""
        # Seconds in which the gateway was busy are on record, but nobody needs to be told of them.
        since = int(now.timestamp()) - ON_TIME_SECONDS
        missed = [one for one in instants if one.verdict == "missed" and one.at < since]
        return JobPlan(
            job_id=member.job_id,
            tenant=member.tenant,
            user_id=member.user_id,
            revision=member.revision,
            overlap=member.overlap,
            accounted_until=_instant(instants[-1].at),
            instants=tuple(self._planned(member, one, now) for one in _in_order(member, instants)),
            deadline_seconds=member.late.deadline_seconds,
            max_runs=member.max_runs,
            notice=_notice_of_misses(missed, definition, now) if missed and definition else None,
        )

    def _planned(self, member: _Member, one: Occurrence, now: datetime) -> PlannedInstant:
        at = _instant(one.at)
        if one.verdict == "missed":
            return PlannedInstant(at, "missed", at, one.trigger, one.reason)
        late = one.trigger == "catchUp"
        start = self._catch_up_slot(member, now) if late else one.at + _jitter(member, one.at)
        return PlannedInstant(at, "run", datetime.fromtimestamp(start, UTC), one.trigger)

    def _catch_up_slot(self, member: _Member, now: datetime) -> float:
        """The next of the evenly spread slots, and somewhere within it."""
        monotonic = self._clock.monotonic()
        slot = max(self._catch_up_free_at, monotonic)
        self._catch_up_free_at = slot + self._catch_up_seconds
        return now.timestamp() + slot - monotonic + self._catch_up_seconds * stable_fraction(member.job_id)

    async def _write(self, plans: list[JobPlan], now: datetime) -> list[Planned | None]:
        """Record plans; where the ledger cannot take one, it is None and the others are recorded alone.

        Raises `Unavailable` when the ledger goes away. Plans that were recorded alone before that keep their
        records; the next pass finds them there.
        """
        if not plans:
            return []
        try:
            return list(await self._ledger.record_due(plans, now))
        except Unavailable:
            raise
        except Exception:
            if len(plans) > 1:
                return [one for plan in plans for one in await self._write([plan], now)]
            log.exception("job %s cannot be recorded", plans[0].job_id, extra={"action": "schedule"})
            return [None]

    def _set_aside_outdated(self, member: _Member) -> None:
        """Another definition is in force; until it comes here, nothing is due by the one that we have."""
        if self._is_current(member):
            self._outdated[member.job_id] = member
            self._on_outdated(member.job_id)

    @contextmanager
    def _blaming(self, member: _Member) -> Iterator[None]:
        """A fault of one job is its own: it is logged, the job, if it is still scheduled, is set aside for a
        while, and the others go on."""
        try:
            yield
        except Exception:
            log.exception("job %s cannot be scheduled", member.job_id, extra={"action": "schedule"})
            self._blame(member)

    def _blame(self, member: _Member) -> None:
        if self._is_current(member):
            if not self._faulty:
                self._faulty_until = self._clock.monotonic() + FAULTY_SECONDS
            self._faulty[member.job_id] = member

    def _note_stuck(self, why: str) -> None:
        if self.trouble is None:
            log.error("due instants wait for the ledger: %s", why, extra={"action": "schedule"})
            self._stuck_since = self._clock.monotonic()
        self.trouble = why

    def _note_freed(self) -> None:
        if self.trouble is not None:
            log.warning("the ledger takes due instants again", extra={"action": "schedule"})
        self.trouble, self._stuck_since = None, None

    def _idle_seconds(self) -> float:
        if self._behind:
            return 0.0
        longest = OUTDATED_SECONDS if self._outdated or self._settled else MAX_SLEEP_SECONDS
        if not self._heap:
            return longest
        return min(max(self._heap[0][0] - self._clock.now().timestamp(), 0.0), longest)

    def _member(self, job: Job, schedule: GroupSchedule, known: _Known) -> _Member:
        now = self._now()
        opened = int(job.scheduled_since.timestamp())
        starts = [at for at in (job.start_at, None if job.enabled else job.paused_until) if at is not None]
        return _Member(
            job_id=job.id,
            tenant=job.tenant,
            user_id=job.user_id,
            revision=job.revision,
            group=self._groups.get(schedule) or _Group(schedule),
            known=known,
            # A wrong clock may have made the job: how far its instants have their records is known better.
            opened=opened if _believed(opened, now) == opened else known.mark or now,
            closed_until=max((math.ceil(at.timestamp()) - 1 for at in starts), default=0),
            end_at=None if job.end_at is None else int(job.end_at.timestamp()),
            jitter_seconds=job.jitter_seconds,
            overlap=job.overlap,
            late=_late_policy(
                job.catch_up, job.catch_up_window_seconds, job.catch_up_limit, job.deadline_seconds
            ),
            catch_up_order=job.catch_up_order,
            max_runs=job.max_runs,
        )

    def _remember(self, job_id: str, accounted_until: datetime | None, runs_created: int) -> _Known:
        known = self._known.setdefault(job_id, _Known())
        known.runs_created = max(known.runs_created, runs_created)
        if accounted_until is not None:
            known.mark = max(known.mark, int(accounted_until.timestamp()))
        known.mark = _believed(known.mark, self._now())
        return known

    def _detach(self, job_id: str) -> _Member | None:
        """Take a job out of its group; what is known of it stays."""
        member = self._members.pop(job_id, None)
        self._behind.pop(job_id, None)
        self._faulty.pop(job_id, None)
        self._outdated.pop(job_id, None)
        if member is None:
            return None
        del member.group.members[job_id]
        if not member.group.members:
            del self._groups[member.group.schedule]
        return member

    def _settle(self, member: _Member | None, until: int) -> None:
        """See to it that what came due of a detached member, up to `until`, gets its record.

        Nearly always nothing did. It can be something when the ledger was away, or between a start and the
        first pass: then it is recorded as missed, as the caller was told that the change is in force. Only
        where a fault of ours keeps it from being told at all, the log has it alone: nothing tries again.
        """
        if member is None:
            return
        with self._blaming(member):
            due = _catch_up(member, min(until, self._now()))
            if due:
                missed = [replace(one, verdict="missed", reason=_changed(one)) for one in due]
                self._settled.append((member, missed))
                self._wake.set()

    def _arm(self, group: _Group, at: int | None) -> None:
        """See to it that the group is looked at, at `at` or before."""
        if at is not None and (group.next_at is None or at < group.next_at):
            group.next_at = at
            heapq.heappush(self._heap, (at, next(self._tickets), group))
            if len(self._heap) > 2 * len(self._groups) + SPARE_ENTRIES:
                self._heap = [
                    (group.next_at, next(self._tickets), group)
                    for group in self._groups.values()
                    if group.next_at is not None
                ]
                heapq.heapify(self._heap)

    def _fall_behind(self, members: Iterable[_Member]) -> None:
        self._behind.update((member.job_id, member) for member in members if self._is_current(member))

    def _waits(self, member: _Member) -> bool:
        """Whether something that came due of a job is still to be recorded, alone."""
        return any(member.job_id in one for one in (self._behind, self._faulty, self._outdated))

    def _is_current(self, member: _Member) -> bool:
        return self._members.get(member.job_id) is member

    def _now(self) -> int:
        return int(self._clock.now().timestamp())


_late_policy = lru_cache(maxsize=1_024)(LatePolicy)  # nearly all jobs share one

_CHANGED = "the job was paused, changed or deleted before this instant could start"


def _changed(one: Occurrence) -> str:
    """One that stands for more says so all the same."""
    return f"{one.reason}; {_CHANGED}" if one.stands_for_more else _CHANGED


def _notice_of_misses(missed: Sequence[Occurrence], definition: bytes, now: datetime) -> Notice | None:
    """What the owner hears of instants that were missed: one notice for all of them; None = nothing."""
    job = Job.model_validate_json(definition)
    if job.notify == "never":
        return None
    first, last = _instant(missed[0].at), _instant(missed[-1].at)
    span = instant_text(last) if len(missed) == 1 else f"{instant_text(first)} to {instant_text(last)}"
    more = "more than " if any(one.stands_for_more for one in missed) else ""
    run = run_id(run_key(job.id, last))
    return Notice(
        id=f"{run}.missed",
        tenant=job.tenant,
        user_id=job.user_id,
        channel_id=job.channel_id,
        event="run.missed",
        job_id=job.id,
        job_name=job.name,
        run_id=run,
        status="missed",
        success=False,
        scheduled_for=last,
        finished_at=now,
        error=f"{more}{len(missed)} missed ({span}): {missed[-1].reason}",
    )


def _catch_up(member: _Member, now: int) -> list[Occurrence]:
    """The fate of all instants of a job between its mark and now, within its bounds."""
    due = occurrences(
        member.group.schedule,
        member.late,
        after=member.since,
        now=now if member.end_at is None else min(now, member.end_at),
    )
    if member.max_runs is None:
        return due
    return list(_at_most(due, member.max_runs - member.known.runs_created))


def _in_order(member: _Member, instants: list[Occurrence]) -> list[Occurrence]:
    """The order in which they are recorded, which is the order in which runs of a job take their turns."""
    if member.catch_up_order == "oldestFirst" or not any(one.trigger == "catchUp" for one in instants):
        return instants
    return instants[::-1]


def _at_most(due: list[Occurrence], runs: int) -> Iterator[Occurrence]:
    """The instants up to the one that uses up the last of `runs`; the job ends with it."""
    for one in due:
        if runs <= 0:
            return
        runs -= one.verdict == "run"
        yield one


def _jitter(member: _Member, at: int) -> float:
    """Seconds to wait, always the same for a job, and never past its next instant."""
    if member.jitter_seconds == 0:
        return 0.0
    following = member.group.schedule.next_after_timestamp(at)
    span = member.jitter_seconds if following is None else min(member.jitter_seconds, following - at)
    return span * stable_fraction(member.job_id)


def _why_finished(member: _Member) -> str:
    if member.max_runs is not None and member.known.runs_created >= member.max_runs:
        return f"completed: maxRuns {member.max_runs} is reached"
    if member.end_at is not None:
        return "completed: no instant is left before endAt"
    return "completed: the schedule has no instant left"


def _believed(at: int, now: int) -> int:
    """What is more than a day ahead was made by a clock that was wrong: go on from now.

    Whatever ran meanwhile has its record, and one instant never gets two.
    """
    return now if at > now + FAR_AHEAD_SECONDS else at


def _instant(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
