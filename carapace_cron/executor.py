"""The loop that does runs: claim, attempt, record. It knows no schedule; the ledger hands it the work.

An attempt is claimed durably before it starts and recorded before its slot is free again, so a run is
started at most once per attempt and retries never overlap. What stops the work early (timeout, cancel,
lost lease, shutdown) cancels the runner's task and waits until it has really ended.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Literal, Protocol, get_args

from pydantic import ValidationError

from carapace_cron.clock import Clock
from carapace_cron.errors import Refused, Unavailable, WorkStopped
from carapace_cron.ledger.claiming import Claim, Claimed, Renewal
from carapace_cron.ledger.ending import AttemptEnd, Ended, Expired
from carapace_cron.ledger.leases import LeaseWatch
from carapace_cron.model.job import HttpRequest, Job, RetryPolicy
from carapace_cron.model.notice import Notice
from carapace_cron.model.record import explain
from carapace_cron.model.run import (
    ERROR_LIMIT,
    OUTPUT_LIMIT,
    Outcome,
    OutcomeStatus,
    RunState,
    bounded,
)
from carapace_cron.model.untrusted import clean
from carapace_cron.ports.runner import Runner, Work

log = logging.getLogger(__name__)

LEASE = timedelta(seconds=60)
HEARTBEAT_SECONDS = 15.0  # four chances to renew before a lease runs out
TAKEOVER_SECONDS = 75.0  # without a renewal: the lease, and time to stop the work when it has run out
LATEST_CLAIM_SECONDS = 30.0  # an answer that took longer may tell of a claim that others take for abandoned
POLL_SECONDS = 5.0  # how long a change made by another process can stay unseen
RETRY_SECONDS = 1.0  # after the ledger refused a call
CLAIMS_AT_ONCE = 64  # runs started, or ends recorded, before the loop serves others: a few milliseconds
LAST_WORDS_SECONDS = 10.0  # after the grace: for stopped work to let go, and for the last records

Stop = Literal["cancelled", "lost", "shutdown"]


class RunQueue(Protocol):
    """The part of the ledger that the executor needs."""

    changed: asyncio.Event

    async def claim(self, *, owner: str, slots: int, now: datetime, lease_until: datetime) -> Claimed: ...

    async def renew(self, *, owner: str, run_ids: Sequence[str], until: datetime) -> Renewal: ...

    async def abandoned(self, *, now: datetime, owner: str) -> list[Claim]: ...

    async def leases(self) -> Mapping[str, datetime]: ...

    async def claims_of(self, held: Mapping[str, datetime]) -> list[Claim]: ...

    async def record_ends(self, ends: Sequence[AttemptEnd]) -> list[Ended]: ...


class RunnerChoice(Protocol):
    """The runners by the kind of command; both raise `Refused` for a command that is not run."""

    def for_command(self, command: str) -> Runner: ...

    def check(self, command: str, http: HttpRequest | None) -> None: ...


@dataclass(slots=True)
class _Active:
    """An attempt that works, and why it was told to stop, if it was."""

    claim: Claim
    held_since: float  # monotonic: when its lease was asked for last
    task: asyncio.Task[None] | None = None  # None until it took its first step: it can't be cancelled before
    stop: Stop | None = None
    reason: str = ""


class Executor:
    """`run` is the loop; `stop` lets it end. `owner` names this process in leases, new at each start.

    `alone`: no other process works on this ledger, so what others had claimed is abandoned. `on_ended` is
    told of each attempt whose end was recorded, with the state of its run; `on_failing` of a job that is to
    be paused, and why; `on_expired` of a run that came to its deadline in the queue; `on_refused` of an end
    that was not recorded: it had been before, and the answer was lost, or the lease is another's. They must
    not wait.
    """

    def __init__(
        self,
        queue: RunQueue,
        runners: RunnerChoice,
        clock: Clock,
        *,
        owner: str,
        slots: int,
        alone: bool = True,
        on_ended: Callable[[AttemptEnd, str], None] = lambda end, status: None,
        on_failing: Callable[[str, str], None] = lambda job_id, reason: None,
        on_expired: Callable[[Expired], None] = lambda expired: None,
        on_refused: Callable[[AttemptEnd], None] = lambda end: None,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._queue = queue
        self._runners = runners
        self._clock = clock
        self._owner = owner
        self._slots = slots
        self._alone = alone
        self._on_ended = on_ended
        self._on_failing = on_failing
        self._on_expired = on_expired
        self._on_refused = on_refused
        self._dice = dice
        self._active: dict[str, _Active] = {}
        self._ends: list[AttemptEnd] = []
        self._ends_ready = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping = asyncio.Event()
        self._claims_over = asyncio.Event()
        self._claiming = False  # what a claim under way takes is in the ledger already, and not here yet
        self._gave_up = False
        self._watch: LeaseWatch[datetime] = LeaseWatch(TAKEOVER_SECONDS)

    @property
    def active(self) -> int:
        """How many attempts work now."""
        return len(self._active)

    async def run(self) -> None:
        """Until `stop` was called and every attempt's end is recorded."""
        async with asyncio.TaskGroup() as tasks:
            recorder = tasks.create_task(self._record_loop())
            heart = tasks.create_task(self._heartbeat_loop())
            guard = tasks.create_task(self._guard_loop())
            await self._claim_loop()
            await self._idle.wait()
            recorder.cancel()
            heart.cancel()
            guard.cancel()

    async def stop(self, grace_seconds: float) -> None:
        """Claim nothing more, let attempts end for `grace_seconds`, then stop them: they are tried again
        at the next start, as their retries allow. What cannot be recorded within `LAST_WORDS_SECONDS`
        after that is found by the next start, too."""
        self._stopping.set()
        self._queue.changed.set()
        await self._claims_over.wait()  # what a claim under way still brings must hear of the stop
        await self._clock.wait(self._idle, grace_seconds)
        for active in list(self._active.values()):
            self._tell(active, "shutdown", "the gateway was stopped while this attempt worked")
        if not await self._clock.wait(self._idle, LAST_WORDS_SECONDS):
            log.error("%d attempts are left to the next start", len(self._active), extra={"action": "stop"})
            self._gave_up = True
            for task in self._tasks:
                task.cancel()
            self._idle.set()

    async def _claim_loop(self) -> None:
        try:
            while not self._stopping.is_set():
                await self._claim_or_wait()
        finally:
            self._claims_over.set()

    async def _claim_or_wait(self) -> None:
        self._queue.changed.clear()
        try:
            seconds = await self._claim()
        except Unavailable as error:
            log.warning("runs wait for the ledger: %s", error, extra={"action": "claim"})
            seconds = RETRY_SECONDS
        except Exception:
            log.exception("claiming failed; it is tried again", extra={"action": "claim"})
            seconds = RETRY_SECONDS
        if seconds > 0:
            await self._clock.wait(self._queue.changed, seconds)

    async def _claim(self) -> float:
        """Start what there is room for; seconds until it is worth asking again."""
        now, asked_at = self._clock.now(), self._clock.monotonic()
        free = min(self._slots - len(self._active), CLAIMS_AT_ONCE)
        self._claiming = True
        try:
            claimed = await self._queue.claim(
                owner=self._owner, slots=free, now=now, lease_until=now + LEASE
            )
            self._start_all(claimed.claims, asked_at)
        finally:
            self._claiming = False
        for run_id, reason in claimed.cancelled.items():
            self._cancel(run_id, reason)
        for expired in claimed.expired:
            self._on_expired(expired)
            if expired.pause is not None:
                self._on_failing(expired.job_id, expired.pause)
        if claimed.more and len(self._active) < self._slots:
            return 0.0
        if claimed.next_at is None or len(self._active) >= self._slots:
            return POLL_SECONDS
        return min(max((claimed.next_at - self._clock.now()).total_seconds(), 0.001), POLL_SECONDS)

    def _start_all(self, claims: Sequence[Claim], asked_at: float) -> None:
        if not self._alone and claims and self._clock.monotonic() - asked_at > LATEST_CLAIM_SECONDS:
            log.warning("%d claims came too late to be used", len(claims), extra={"action": "claim"})
            return  # nobody renews their leases, so they are found
        for claim in claims:
            self._start(claim, asked_at)

    def _start(self, claim: Claim, asked_at: float) -> None:
        active = _Active(claim, asked_at)
        self._active[claim.run_id] = active
        self._idle.clear()
        task = asyncio.create_task(self._attempt(active), name=f"attempt {claim.run_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _attempt(self, active: _Active) -> None:
        claim = active.claim
        began = self._clock.monotonic()
        job = _job(claim.definition)
        outcome = _UNREADABLE if job is None else await self._outcome(active, job)
        duration_ms = max(round((self._clock.monotonic() - began) * 1000), 0)
        self._ends.append(self._end(claim, job, outcome, duration_ms))
        self._ends_ready.set()

    async def _outcome(self, active: _Active, job: Job) -> Outcome:
        if active.stop is not None:
            return _stopped(active, _NEVER_BEGAN)
        active.task = asyncio.current_task()
        seconds, name = self._seconds_left(active.claim, job)
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                return _checked(await self._do(active.claim, job))
        except (TimeoutError, asyncio.CancelledError, WorkStopped) as end:
            if active.stop is not None:
                return _stopped(active, end)
            if limit.expired():
                return _cut_short("timeout", f"stopped after {seconds:g} s, {name}", end)
            if _is_cancelled():
                raise asyncio.CancelledError from end
            return Outcome("failure", error=_broken_off(end))
        except Refused as error:
            return Outcome("failure", error=str(error), permanent=True)
        except Exception:
            run_id = active.claim.run_id
            log.exception("the runner of %s failed unexpectedly", run_id, extra={"action": "run"})
            sentence = f"the runner failed unexpectedly; look for {run_id} in the gateway's log"
            return Outcome("failure", error=sentence)
        finally:
            active.task = None

    def _seconds_left(self, claim: Claim, job: Job) -> tuple[float, str]:
        """How long the attempt may work, and what says so."""
        if claim.deadline_at is not None:
            left = (claim.deadline_at - self._clock.now()).total_seconds()
            if left < job.timeout_seconds:
                return max(left, 0.0), f"the rest of the job's deadlineSeconds {job.deadline_seconds:g}"
        return job.timeout_seconds, "the job's timeoutSeconds"

    async def _do(self, claim: Claim, job: Job) -> Outcome:
        runner = self._runners.for_command(job.command)
        self._runners.check(job.command, job.http)  # what is kept may be older than today's rules
        return await runner.run(_work(claim, job))

    def _end(self, claim: Claim, job: Job | None, outcome: Outcome, duration_ms: int) -> AttemptEnd:
        """The record of an attempt's end, and what becomes of its run."""
        now = self._clock.now()
        outcome = _within_limits(outcome)
        retry = RetryPolicy() if job is None else job.retry
        status, retry_at = what_next(retry, claim.attempt, outcome, now, self._dice())
        if retry_at is not None and claim.deadline_at is not None and retry_at >= claim.deadline_at:
            retry_at = None
        return AttemptEnd(
            run_id=claim.run_id,
            job_id=claim.job_id,
            owner=claim.owner,
            trigger=claim.trigger,
            attempt=claim.attempt,
            outcome=outcome,
            started_at=claim.started_at,
            finished_at=now,
            duration_ms=duration_ms,
            status=status,
            retry_at=retry_at,
            notify="never" if job is None else job.notify,
            notice=None if job is None else _notice(claim, job, outcome, status, now, duration_ms),
            pause_after=None if job is None else job.pause_after_failures,
        )

    async def _record_loop(self) -> None:
        while True:
            await self._ends_ready.wait()
            self._ends_ready.clear()
            while batch := self._ends[:CLAIMS_AT_ONCE]:
                del self._ends[: len(batch)]
                await asyncio.shield(self._record(batch))

    async def _record(self, batch: list[AttemptEnd]) -> None:
        """Record the ends, however long the ledger is away: a slot is free only after that.

        Ends that the ledger cannot take at all are tried alone, then left: their leases run out, and then
        they are recorded as lost.
        """
        try:
            answers = await self._answers(batch)
        except Unavailable:  # the executor gave up; the next start finds them
            return
        except Exception:
            if len(batch) > 1:
                for end in batch:
                    await self._record([end])
                return
            run_id = batch[0].run_id
            log.exception("the end of run %s cannot be recorded", run_id, extra={"action": "record"})
            self._let_go(batch)
            return
        self._let_go(batch)
        for end, answer in zip(batch, answers, strict=True):
            self._report(end, answer)

    async def _answers(self, batch: list[AttemptEnd]) -> list[Ended]:
        """What the ledger made of the ends, as soon as it can be reached. `Unavailable` after giving up."""
        while True:
            try:
                return await self._queue.record_ends(batch)
            except Unavailable as error:
                if self._gave_up:
                    raise
                log.warning("ends of runs wait for the ledger: %s", error, extra={"action": "record"})
                await self._clock.wait(asyncio.Event(), RETRY_SECONDS)

    def _report(self, end: AttemptEnd, answer: Ended) -> None:
        if answer.accepted and answer.status is not None:
            self._on_ended(end, answer.status)
            if answer.pause is not None:
                self._on_failing(end.job_id, answer.pause)
        else:
            log.warning("run %s ended after its lease was lost", end.run_id, extra={"action": "fence"})
            self._on_refused(end)

    def _let_go(self, batch: list[AttemptEnd]) -> None:
        """Free the slots of attempts that are over."""
        for end in batch:
            active = self._active.get(end.run_id)
            # The answer to an end can be lost, and the run be tried again before that is known.
            if active is not None and active.claim.attempt == end.attempt:
                del self._active[end.run_id]
        if not self._active:
            self._idle.set()
        self._queue.changed.set()

    async def _heartbeat_loop(self) -> None:
        never = asyncio.Event()
        while True:
            try:
                await self._beat()
            except Unavailable as error:
                log.warning("leases wait for the ledger: %s", error, extra={"action": "renew"})
            except Exception:
                log.exception("a heartbeat failed; the next one follows", extra={"action": "renew"})
            await self._clock.wait(never, HEARTBEAT_SECONDS)

    async def _beat(self) -> None:
        """Renew what is ours, stop what is not, and end what others left behind."""
        now, asked_at = self._clock.now(), self._clock.monotonic()
        if held := dict(self._active):
            renewal = await self._queue.renew(owner=self._owner, run_ids=list(held), until=now + LEASE)
            for run_id in renewal.lost:
                self._stop(run_id, "lost", "another process took the run over")
            for run_id, reason in renewal.cancelled.items():
                self._cancel(run_id, reason)
            for active in held.values():
                active.held_since = asked_at
        if gone := [claim for claim in await self._abandoned(now) if not self._is_ours(claim)]:
            await self._record([self._lost(claim, now) for claim in gone])

    def _is_ours(self, claim: Claim) -> bool:
        """Whether we work on it, or are about to."""
        return claim.run_id in self._active or (self._claiming and claim.owner == self._owner)

    def _lost(self, claim: Claim, now: datetime) -> AttemptEnd:
        error = "the gateway stopped while this attempt worked, so what became of it is not known"
        lived_ms = max(round((now - claim.started_at).total_seconds() * 1000), 0)
        return self._end(claim, _job(claim.definition), Outcome("lost", error=error), lived_ms)

    async def _abandoned(self, now: datetime) -> list[Claim]:
        if self._alone:
            return await self._queue.abandoned(now=now, owner=self._owner)
        asked_at = self._clock.monotonic()
        held = await self._queue.leases()
        gone = self._watch.run_out(held, asked_at=asked_at, answered_at=self._clock.monotonic())
        return await self._queue.claims_of({run_id: held[run_id] for run_id in gone}) if gone else []

    async def _guard_loop(self) -> None:
        """Stop each work when its lease has run out, whatever keeps the heartbeat from renewing it.

        One that was claimed by a slow answer has less of its lease left than those beside it.
        """
        never = asyncio.Event()
        while not self._alone:
            now, seconds = self._clock.monotonic(), HEARTBEAT_SECONDS
            for active in list(self._active.values()):
                left = active.held_since + LEASE.total_seconds() - now
                if left < 1:  # better a moment early than late
                    self._tell(active, "lost", "the lease ran out while the ledger could not be reached")
                else:
                    seconds = min(seconds, left)
            await self._clock.wait(never, seconds)

    def _cancel(self, run_id: str, reason: str) -> None:
        self._stop(run_id, "cancelled", reason)

    def _stop(self, run_id: str, stop: Stop, reason: str) -> None:
        active = self._active.get(run_id)
        if active is not None:
            self._tell(active, stop, reason)

    def _tell(self, active: _Active, stop: Stop, reason: str) -> None:
        """Cancel the work, once. It ends when the runner has let go of everything."""
        if active.stop is not None:
            return
        active.stop, active.reason = stop, reason
        if active.task is not None:
            active.task.cancel()


_UNREADABLE = Outcome("failure", error="the job's definition cannot be read by this version", permanent=True)


@lru_cache(maxsize=256)
def _job(definition: bytes) -> Job | None:
    """The definition that a run does, parsed once; None when it is not one that this version can read."""
    try:
        return Job.model_validate_json(definition)
    except ValidationError as error:
        log.error("a definition cannot be read: %s", explain(error), extra={"action": "run"})
        return None


def _checked(outcome: object) -> Outcome:
    """What a runner answered, if the ledger can keep it; else a failure that says so."""
    if not isinstance(outcome, Outcome) or outcome.status not in get_args(OutcomeStatus):
        return _NO_OUTCOME
    if not isinstance(outcome.output, str) or not isinstance(outcome.error, str | None):
        return _NO_OUTCOME
    if not isinstance(outcome.metadata, dict):
        return _NO_OUTCOME
    try:
        json.dumps(outcome.metadata, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):
        return _NO_OUTCOME
    error = None if outcome.error is None else clean(outcome.error)
    return replace(outcome, output=clean(outcome.output), error=error)


_NO_OUTCOME = Outcome("failure", error="the runner answered with what is no outcome", permanent=True)


_NEVER_BEGAN = WorkStopped({"work": "never began"})


def _stopped(active: _Active, end: BaseException) -> Outcome:
    return _cut_short("cancelled" if active.stop == "cancelled" else "lost", active.reason, end)


def _cut_short(status: OutcomeStatus, error: str, end: BaseException) -> Outcome:
    """The end of work that was told to stop, and has; the metadata has how, as far as its runner shows it."""
    told = end if isinstance(end, WorkStopped) else WorkStopped({"work": "ended"})
    outcome = _checked(Outcome(status, output=told.output, error=error, metadata={"stopped": told.how}))
    return outcome if outcome is not _NO_OUTCOME else Outcome(status, error=error)


def _is_cancelled() -> bool:
    """Whether this very task is to end, as the executor gave up waiting for it."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _broken_off(end: BaseException) -> str:
    if isinstance(end, TimeoutError):
        return "the work gave up waiting for something"
    return "the runner broke off its work"


def what_next(
    retry: RetryPolicy, attempt: int, outcome: Outcome, now: datetime, fraction: float
) -> tuple[RunState, datetime | None]:
    """The state that the run ends in, and when it is tried again instead (None = it ends).

    >>> what_next(RetryPolicy(), 4, Outcome("failure", error="no"), datetime(2026, 1, 1), 0.0)
    ('failure', None)
    """
    if outcome.status in ("success", "degraded", "cancelled"):
        return outcome.status, None
    final: RunState = "timeout" if outcome.status == "timeout" else "failure"
    worth_it = retry.is_for(outcome.status, outcome.metadata.get("httpStatus"))
    if outcome.permanent or not worth_it or attempt >= retry.max_attempts:
        return final, None
    return final, now + timedelta(seconds=retry.wait_seconds(attempt, fraction))


def _within_limits(outcome: Outcome) -> Outcome:
    error = outcome.error if outcome.error is None else bounded(outcome.error, ERROR_LIMIT)
    output = bounded(outcome.output, OUTPUT_LIMIT)
    return Outcome(outcome.status, output, error, outcome.metadata, outcome.permanent)


def _work(claim: Claim, job: Job) -> Work:
    return Work(
        job_id=claim.job_id,
        job_name=job.name,
        tenant=claim.tenant,
        user_id=claim.user_id,
        command=job.command,
        http=job.http,
        channel_id=job.channel_id,
        run_id=claim.run_id,
        attempt=claim.attempt,
        scheduled_for=claim.scheduled_for,
        timeout_seconds=job.timeout_seconds,
        trigger=claim.trigger,
        upstream=claim.upstream,
    )


def _notice(
    claim: Claim, job: Job, outcome: Outcome, status: RunState, now: datetime, duration_ms: int
) -> Notice:
    return Notice.model_construct(
        id=f"{claim.run_id}.ended",
        tenant=claim.tenant,
        user_id=claim.user_id,
        channel_id=job.channel_id,
        event="run.completed",
        job_id=claim.job_id,
        job_name=job.name,
        run_id=claim.run_id,
        status=status,
        success=outcome.succeeded,
        scheduled_for=claim.scheduled_for,
        finished_at=now,
        attempt=claim.attempt,
        duration_ms=duration_ms,
        output=outcome.output,
        error=outcome.error,
    )
