"""Whatever happens in whatever order: each due instant of an enabled job has exactly one record.

A seed decides on jobs, crashes, pauses, changes, cancellations and steps of the clock. In the end the
expected instants are computed from what was in force when, and held against the ledger.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from carapace_cron.clock import ManualClock
from carapace_cron.ledger.history import RunFilter
from carapace_cron.model.job import Job
from carapace_cron.schedule import parse

from .conftest import START, Engine

SCHEDULES = ("* * * * *", "*/2 * * * *", "*/5 * * * *", "0,7,30 * * * *", "*/20 * * * * *", "every 90s")
COMMANDS = ("ok", "fail", "failtimes 1", "hang", "raise")
STEPS = 40
LEAST_ATTEMPTS = 10  # a story in which less happens proves nothing


@dataclass
class InForce:
    """A schedule and the time during which it was in force."""

    job: Job
    since: datetime
    until: datetime | None = None


@dataclass
class Story:
    """One engine after the other on the same ledger, and what was in force when."""

    dice: random.Random
    engine: Engine
    periods: list[InForce] = field(default_factory=list)
    attempts: Counter[tuple[str, int]] = field(default_factory=Counter)

    def add(self) -> None:
        job = self.engine.add(
            self.dice.choice(SCHEDULES),
            self.dice.choice(COMMANDS),
            overlap=self.dice.choice(("skip", "queue", "allow", "cancelPrevious")),
            catchUp=self.dice.choice(("latest", "all", "none")),
            retry={"maxAttempts": self.dice.randint(1, 3), "initialSeconds": self.dice.choice((0, 5, 70))},
            jitterSeconds=self.dice.choice((0, 0, 20)),
            userId=self.dice.choice(("alice", "bob")),
        )
        self.periods.append(InForce(job, self.engine.clock.now()))

    async def wait(self) -> None:
        await self.engine.clock.advance(self.dice.choice((1, 7, 30, 61, 130)))

    async def crash(self) -> None:
        self.count_attempts()
        await self.engine.crash()
        self.engine.clock.busy.clear()
        if self.dice.random() < 0.6:
            self.engine.clock.step(timedelta(seconds=self.dice.choice((1, 20, 200, 2000))))
        self.engine = await self.engine.restarted()
        self.engine.start()

    async def step(self) -> None:
        self.engine.clock.step(timedelta(seconds=self.dice.choice((5, 15, 400))))

    async def let_go(self) -> None:
        self.engine.runner.let_go.set()
        await self.engine.clock.advance(0.1)
        self.engine.runner.let_go.clear()

    async def change(self) -> None:
        """Pause, resume, or give another schedule."""
        job = self.dice.choice(list(self.engine.jobs.values()))
        now = self.engine.clock.now()
        if not job.enabled:
            changed = job.evolve(enabled=True, revision=job.revision + 1, scheduled_since=now)
        elif self.dice.random() < 0.5:
            changed = job.evolve(enabled=False, revision=job.revision + 1)
        else:
            schedule = self.dice.choice(SCHEDULES)
            changed = job.evolve(schedule=schedule, revision=job.revision + 1, scheduled_since=now)
        await self.put_in_force(changed)

    async def put_in_force(self, job: Job) -> None:
        for period in self.periods:
            if period.job.id == job.id and period.until is None:
                period.until = self.engine.clock.now()
        job = job.evolve(updated_at=self.engine.clock.now())
        if job.enabled:
            self.periods.append(InForce(job, self.engine.clock.now()))
        self.engine.jobs[job.id] = job
        self.engine.scheduler.put(job)
        await self.engine.clock.advance(0)

    async def cancel(self) -> None:
        page = await self.engine.runs.page(RunFilter("acme"), limit=50)
        if page.items:
            run = self.dice.choice(page.items)
            await self.engine.runs.cancel(run.id, "somebody asked", self.engine.clock.now())

    async def happen(self) -> None:
        ways = (self.wait, self.crash, self.step, self.let_go, self.change, self.cancel)
        for _ in range(STEPS):
            await self.dice.choices(ways, weights=(6, 1, 1, 1, 3, 1))[0]()

    async def end(self) -> None:
        """Let all work end, switch every job off, and wait until nothing is alive."""
        self.engine.runner.let_go.set()
        await self.engine.clock.advance(65)
        for job in list(self.engine.jobs.values()):
            await self.put_in_force(job.evolve(enabled=False))
        for _ in range(60):
            alive = await self.engine.runs.page(RunFilter("acme", statuses=("queued", "running")), limit=1)
            if not alive.items:
                break
            await self.engine.clock.advance(300)
        self.count_attempts()

    def count_attempts(self) -> None:
        self.attempts.update((work.run_id, work.attempt) for work in self.engine.runner.began)

    def due(self, job_id: str) -> Counter[datetime]:
        """Each instant at which the job was due, by what was in force."""
        expected: Counter[datetime] = Counter()
        for period in self.periods:
            if period.job.id == job_id and period.until is not None:
                schedule = parse(period.job.schedule, "UTC", anchor=period.job.created_at)
                expected.update(schedule.between(period.since, period.until))
        return expected


@pytest.mark.parametrize("seed", range(8))
async def test_each_due_instant_has_exactly_one_record(seed: int, tmp_path: Path) -> None:
    dice = random.Random(seed)
    engine = Engine(tmp_path / "ledger.sqlite", ManualClock(START), slots=dice.choice((1, 3, 5)))
    await engine.open()
    engine.start()
    story = Story(dice, engine)
    for _ in range(4):
        story.add()
    await story.happen()
    await story.end()
    for job_id in story.engine.jobs:
        page = await story.engine.runs.page(RunFilter("acme", job_id=job_id), limit=10_000)
        assert Counter(run.scheduled_for for run in page.items) == story.due(job_id)
        assert not [run for run in page.items if run.status in ("queued", "running")]
        unexplained = [run for run in page.items if run.status in ("skipped", "missed", "cancelled")]
        assert all(run.reason for run in unexplained)
    assert max(story.attempts.values()) == 1, "an attempt was started twice"
    assert len(story.attempts) >= LEAST_ATTEMPTS
    await story.engine.stop()
