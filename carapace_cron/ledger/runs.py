"""The run queue and the record of runs: the one door through which scheduler, executor and services go.

The scheduler records what is due, the executor claims it and records how it ended; they meet only here,
so either could live in another process. `changed` is set whenever something may have become claimable, for
whoever lives in this one; `ended` whenever a notice may be waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

import sqlalchemy as sa

from carapace_cron.database import Database
from carapace_cron.failpoints import failpoint
from carapace_cron.ledger import asked, claiming, ending, history, holding, planning
from carapace_cron.ledger.aftermath import Aftermath, gathered
from carapace_cron.ledger.asked import Backfilled
from carapace_cron.ledger.chaining import Finished, start_followers
from carapace_cron.ledger.claiming import Claim, Claimed, Renewal
from carapace_cron.ledger.ending import AttemptEnd, Ended
from carapace_cron.ledger.events import Event, insert_events
from carapace_cron.ledger.history import Progress, RunFilter, RunPage
from carapace_cron.ledger.planning import JobPlan, Planned
from carapace_cron.ledger.turns import Turns
from carapace_cron.metrics import Metrics
from carapace_cron.model.limits import NO_LIMITS, Limits
from carapace_cron.model.run import Run, manual_run_key

T = TypeVar("T")


class Runs:
    """All methods raise `Unavailable` when the database cannot be used; then nothing was changed."""

    def __init__(
        self,
        database: Database,
        limits: Limits = NO_LIMITS,
        metrics: Metrics | None = None,
        *,
        on_committed: Callable[[Aftermath], None] = lambda aftermath: None,
    ) -> None:
        """`on_committed` hears after each commit what it did besides. It must not wait."""
        self._database = database
        self._on_committed = on_committed
        self._metrics = metrics or Metrics()
        self._limits = limits
        self._turns = Turns()
        self.changed = asyncio.Event()
        self.ended = asyncio.Event()

    @failpoint("ledger.record_due")
    async def record_due(self, plans: Sequence[JobPlan], now: datetime) -> list[Planned]:
        """One record for each instant of `plans`, all in one transaction; see `planning`."""
        answers = await self._write(lambda c, aftermath: planning.record_plans(c, plans, now, aftermath))
        self._count_due(answers)
        self.changed.set()
        if any(answer.missed for answer in answers):
            self.ended.set()
        return answers

    @failpoint("ledger.start_now")
    async def start_now(
        self, plan: JobPlan, idempotency_key: str, now: datetime, event: Event | None = None
    ) -> Run:
        """Record a run that somebody asked for; the same key again answers the same run.

        `plan` has no instants. Raises Conflict when a run of the job is alive and its overlap is skip, and
        when the job has another definition by now. `event` is written with it.
        """
        key = manual_run_key(plan.job_id, idempotency_key)

        def start(connection: sa.Connection, aftermath: Aftermath) -> Run:
            is_news = asked.recorded(connection, key) is None
            run = asked.record_asked(connection, plan, key, now, aftermath)
            if event is not None and is_news:
                insert_events(connection, [replace(event, subject=run.id)])
            return run

        run = await self._write(start)
        self.changed.set()
        return run

    @failpoint("ledger.backfill")
    async def backfill(
        self, plan: JobPlan, instants: Sequence[datetime], now: datetime, event: Event | None
    ) -> list[Backfilled]:
        """Runs for past instants; see `asked.backfill`. No `event` is a dry run: nothing is written.

        `event` is written with the runs, if there are any, and says how many.
        """
        if event is None:
            return await self._database.read(
                lambda c: asked.backfill(c, plan, instants, now, actor="", dry_run=True)
            )

        def fill(connection: sa.Connection) -> list[Backfilled]:
            filled = asked.backfill(connection, plan, instants, now, actor=event.actor, dry_run=False)
            if made := sum(one.fate != "leave" for one in filled):
                insert_events(connection, [replace(event, after={**(event.after or {}), "runs": made})])
            return filled

        answers = await self._database.write(fill)
        self.changed.set()
        return answers

    @failpoint("ledger.claim")
    async def claim(self, *, owner: str, slots: int, now: datetime, lease_until: datetime) -> Claimed:
        """Take up to `slots` due runs, each with a new attempt; see `claiming.claim`."""

        def claim(connection: sa.Connection, aftermath: Aftermath) -> Claimed:
            claimed = claiming.claim(
                connection,
                owner=owner,
                slots=slots,
                now=now,
                lease_until=lease_until,
                aftermath=aftermath,
                limits=self._limits,
                turns=self._turns,
            )
            start_followers(
                connection,
                [Finished(one.run_id, one.job_id, one.status, now) for one in claimed.expired],
                aftermath,
            )
            return claimed

        claimed = await self._write(claim)
        for one in claimed.claims:
            self._turns.note(one.lane)
            if one.attempt == 1:
                late = (one.started_at - one.scheduled_for).total_seconds()
                self._metrics.run_lateness.observe(late, one.trigger)
        for run in claimed.expired:
            self._metrics.runs_ended.add(run.status)
        if claimed.expired:
            self.ended.set()
        return claimed

    @failpoint("ledger.release_held")
    async def release_held(self, now: datetime) -> None:
        """Let every run go that waits for a limit, or for a wrong clock. For a start: the limits, and the
        clock, may be others since."""

        def release(connection: sa.Connection) -> None:
            holding.release_all(connection, now)
            holding.release_far(connection, now)

        await self._database.write(release)

    @failpoint("ledger.release_far")
    async def release_far(self, now: datetime) -> None:
        """Let every run go that a wrong clock has put off for longer than any wait; see `holding`."""
        if await self._database.write(lambda c: holding.release_far(c, now)):
            self.changed.set()

    @failpoint("ledger.renew")
    async def renew(self, *, owner: str, run_ids: Sequence[str], until: datetime) -> Renewal:
        """Hold the leases of `run_ids` until then; tells which are lost, and which are to be stopped."""
        return await self._database.write(
            lambda c: claiming.renew(c, owner=owner, run_ids=run_ids, until=until)
        )

    @failpoint("ledger.abandoned")
    async def abandoned(self, *, now: datetime, owner: str) -> list[Claim]:
        """Attempts that nobody works on any more if `owner` is the only one who can; see `claiming`."""
        return await self._database.read(lambda c: claiming.abandoned(c, now=now, owner=owner))

    async def leases(self) -> dict[str, datetime]:
        """run id → until when its lease is said to hold, of all runs that are worked on."""
        return await self._database.read(claiming.leases)

    async def claims_of(self, held: Mapping[str, datetime]) -> list[Claim]:
        """The attempts under way by these leases, as `leases` told them; see `claiming.claims_of`."""
        return await self._database.read(lambda c: claiming.claims_of(c, held))

    @failpoint("ledger.record_ends")
    async def record_ends(self, ends: Sequence[AttemptEnd]) -> list[Ended]:
        """Record how attempts ended, all in one transaction; see `ending.record_ends`."""

        def record(connection: sa.Connection, aftermath: Aftermath) -> list[Ended]:
            answers = ending.record_ends(connection, ends, aftermath, self._turns)
            start_followers(
                connection,
                [
                    Finished(end.run_id, end.job_id, answer.status, end.finished_at)
                    for end, answer in zip(ends, answers, strict=True)
                    if answer.status is not None and answer.status != "queued"
                ],
                aftermath,
            )
            return answers

        answers = await self._write(record)
        self._count_ends(ends, answers)
        self.changed.set()
        self.ended.set()
        return answers

    @failpoint("ledger.cancel")
    async def cancel(
        self, run_id: str, reason: str, now: datetime, event: Event | None = None
    ) -> str | None:
        """Cancel one run; its status afterwards, "running" when it was asked to stop. None = no such run.

        `event` is written with it, with the state before, unless it was cancelled already, or has ended.
        """

        def cancel(connection: sa.Connection, aftermath: Aftermath) -> str | None:
            before = ending.cancellable(connection, run_id)
            if event is not None and before is not None:
                insert_events(connection, [replace(event, before={"status": before})])
            return ending.cancel_run(connection, run_id, reason, now, aftermath)

        status = await self._write(cancel)
        self.changed.set()
        self.ended.set()
        return status

    @failpoint("ledger.cancel_all")
    async def cancel_all(self, job_id: str, reason: str, now: datetime) -> list[str]:
        """Cancel all live runs of a job; the ids of those that were asked to stop."""
        running = await self._write(
            lambda c, aftermath: ending.cancel_runs(c, job_id, reason, now, aftermath)
        )
        self.changed.set()
        self.ended.set()
        return running

    async def page(self, wanted: RunFilter, *, limit: int, cursor: str | None = None) -> RunPage:
        """Newest first. Raises InvalidValue for an unknown status or a cursor that is not ours."""
        return await self._database.read(lambda c: history.run_page(c, wanted, limit, cursor))

    async def get(self, run_id: str) -> Run | None:
        """The run; None when there is none, or retention removed it."""
        return await self._database.read(lambda c: history.one_run(c, run_id))

    async def attempts(self, run_id: str) -> list[dict[str, Any]]:
        """The rows of a run's attempts, the first one first; empty when there is no such run."""
        return await self._database.read(lambda c: history.attempts_of(c, run_id))

    async def progress(self) -> dict[str, Progress]:
        """job id → how far it has come, of all jobs that ever came due."""
        return await self._database.read(history.all_progress)

    async def progress_of(self, job_ids: Sequence[str]) -> dict[str, Progress]:
        """The same of these jobs; those that never came due are left out."""
        return await self._database.read(lambda c: history.progress_of(c, job_ids))

    async def count_alive(self, tenant: str, user_id: str | None = None) -> Mapping[str, int]:
        """How many runs are queued and running, by state; a state without any is left out."""
        return await self._database.read(lambda c: history.count_alive(c, tenant, user_id))

    @failpoint("ledger.prune")
    async def prune(self, before: datetime, now: datetime) -> int:
        """Remove what ended before `before`, in batches that let others write between; how many runs."""
        removed = 0
        after: int | None = 0
        while after is not None:
            batch = await self._database.write(partial(history.prune, before=before, now=now, after=after))
            removed, after = removed + batch.runs, batch.after
        await self._database.write(history.drop_unused_definitions)
        return removed

    async def _write(self, work: Callable[[sa.Connection, Aftermath], T]) -> T:
        result, aftermath = await self._database.write(partial(gathered, work=work))
        self._on_committed(aftermath)
        return result

    def _count_due(self, answers: Sequence[Planned]) -> None:
        counted = self._metrics.due_instants
        counted.add_many(sum(one.runs for one in answers), "run")
        counted.add_many(sum(one.skipped for one in answers), "skipped")
        counted.add_many(sum(one.missed for one in answers), "missed")

    def _count_ends(self, ends: Sequence[AttemptEnd], answers: Sequence[Ended]) -> None:
        for end, answer in zip(ends, answers, strict=True):
            if answer.status is None:
                continue
            self._metrics.attempts_ended.add(end.outcome.status)
            self._metrics.attempt_duration.observe(end.duration_ms / 1000)
            if answer.status != "queued":
                self._metrics.runs_ended.add(answer.status)
