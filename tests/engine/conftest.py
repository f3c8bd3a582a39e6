"""The engine on a real SQLite ledger and a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from support.databases import Place, engine_at

from carapace_cron.clock import ManualClock
from carapace_cron.database import Database
from carapace_cron.errors import InvalidValue, Unavailable
from carapace_cron.executor import Executor
from carapace_cron.ids import new_job_id
from carapace_cron.ledger.ending import AttemptEnd, Expired
from carapace_cron.ledger.events import Event
from carapace_cron.ledger.history import RunFilter
from carapace_cron.ledger.in_force import InForce
from carapace_cron.ledger.migrations.upgrade import upgrade
from carapace_cron.ledger.planning import JobPlan, Planned
from carapace_cron.ledger.runs import Runs
from carapace_cron.model.job import HttpRequest, Job
from carapace_cron.model.limits import NO_LIMITS, Limits
from carapace_cron.model.run import Outcome, Run
from carapace_cron.ports.runner import Runner, Work
from carapace_cron.schedule import parse
from carapace_cron.scheduler import CATCH_UP_PER_SECOND, Scheduler

START = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)


ODD_OUTCOMES: dict[str, Any] = {
    "none": None,
    "number": Outcome("success", output=5),  # type: ignore[arg-type]  # what a plugin may do
    "status": Outcome("fine"),  # type: ignore[arg-type]  # as above
    "metadata": Outcome("success", metadata={"when": START}),
    "infinite": Outcome("success", metadata={"n": float("inf")}),
    "surrogate": Outcome("success", output="a\ud800b"),
}


class TestRunner:
    """Does what the command says: ``ok``, ``say <text>``, ``fail``, ``failtimes <attempts>``,
    ``answered <HTTP status>``, ``hang`` until it is told, ``raise``, ``stray`` (cancelled by nobody),
    ``odd <one of ODD_OUTCOMES>``. Nothing runs ``unknown``, and ``forbidden`` is refused."""

    __test__ = False
    kind = "test"

    def __init__(self) -> None:
        self.began: list[Work] = []
        self.stopped: list[str] = []
        self.let_go = asyncio.Event()
        self.working = 0
        self.most_working = 0

    def claims(self, command: str) -> bool:
        return not command.startswith("unknown")

    def check(self, command: str, http: HttpRequest | None) -> None:
        if command == "forbidden":
            raise InvalidValue("command forbidden is not run here", field="command")

    async def run(self, work: Work) -> Outcome:
        self.began.append(work)
        self.working += 1
        self.most_working = max(self.most_working, self.working)
        try:
            return await self._do(work)
        except asyncio.CancelledError:
            self.stopped.append(work.run_id)
            raise
        finally:
            self.working -= 1

    async def _do(self, work: Work) -> Outcome:
        word, _, rest = work.command.partition(" ")
        if word == "hang":
            await self.let_go.wait()
        if word == "raise":
            raise RuntimeError("secret detail")
        if word == "stray":
            raise asyncio.CancelledError
        if word == "answered":
            return Outcome("failure", error=f"answered {rest}", metadata={"httpStatus": int(rest)})
        if word == "odd":
            return ODD_OUTCOMES[rest]
        if word == "fail" or (word == "failtimes" and work.attempt <= int(rest)):
            return Outcome("failure", error="it said no")
        return Outcome("success", output=rest)


class OneRunner:
    """The runners' registry with a single runner."""

    def __init__(self, runner: TestRunner) -> None:
        self.runner = runner

    def for_command(self, command: str) -> Runner:
        if not self.runner.claims(command):
            raise InvalidValue(f'nothing runs "{command}"', field="command")
        return self.runner

    def check(self, command: str, http: HttpRequest | None) -> None:
        self.for_command(command).check(command, http)


class EngineRuns(Runs):
    """A ledger in which each job is in force by the time at which it is due, as services see to it.

    `by_hand`: only once the test has put it there. `is_away`: it takes nothing that is due."""

    def __init__(self, database: Database, jobs: dict[str, Job], limits: Limits) -> None:
        super().__init__(database, limits)
        self.jobs = jobs
        self.in_force = InForce(database)
        self.by_hand = False
        self.is_away = False

    async def _put(self, *jobs: Job) -> None:
        await self.in_force.put([] if self.by_hand else jobs)

    async def record_due(self, plans: Sequence[JobPlan], now: datetime) -> list[Planned]:
        if self.is_away:
            raise Unavailable("the ledger is away")
        due = [plan for plan in plans if plan.job_id in self.jobs]
        await self._put(*(self.jobs[plan.job_id].evolve(revision=plan.revision) for plan in due))
        return await super().record_due(plans, now)

    async def start_now(
        self, plan: JobPlan, idempotency_key: str, now: datetime, event: Event | None = None
    ) -> Run:
        await self._put(self.jobs[plan.job_id])
        return await super().start_now(plan, idempotency_key, now, event)


class Engine:
    """Scheduler and executor around one ledger, as in a gateway, with the jobs in a dict."""

    def __init__(self, path: Place, clock: ManualClock, *, slots: int = 5) -> None:
        self.path = path
        self.clock = clock
        self.slots = slots
        self.jobs: dict[str, Job] = {}
        self.limits = NO_LIMITS
        self.loops: list[asyncio.Task[None]] = []
        self.runner = TestRunner()
        self.catch_up_per_second = CATCH_UP_PER_SECOND
        self.finished: list[tuple[str, str]] = []
        self.outdated: list[str] = []
        self.successors: list[Engine] = []
        self.ended: list[tuple[AttemptEnd, str]] = []
        self.failing: list[tuple[str, str]] = []
        self.expired: list[Expired] = []

    async def open(self) -> None:
        self.database = Database(engine_at(self.path), upgrade)
        await self.database.open()
        self.clock.busy.append(lambda database=self.database: database.in_flight > 0)
        self.runs = EngineRuns(self.database, self.jobs, self.limits)
        self.scheduler = Scheduler(
            self.runs,
            self.clock,
            document=lambda job_id: self.jobs[job_id].model_dump_json(by_alias=True).encode(),
            schedule_of=lambda job: parse(job.schedule, job.timezone, anchor=job.created_at),
            on_finished=lambda job_id, reason: self.finished.append((job_id, reason)),
            on_outdated=self.outdated.append,
            catch_up_per_second=self.catch_up_per_second,
        )
        self.executor = Executor(
            self.runs,
            OneRunner(self.runner),
            self.clock,
            owner=f"test-{id(self.database)}",
            slots=self.slots,
            on_ended=lambda end, status: self.ended.append((end, status)),
            on_failing=lambda job_id, reason: self.failing.append((job_id, reason)),
            on_expired=self.expired.append,
        )
        await self.runs.release_held(self.clock.now())
        progress = await self.runs.progress()
        for job in self.jobs.values():
            known = progress.get(job.id)
            if known is None:
                self.scheduler.put(job)
            else:
                self.scheduler.put(
                    job, accounted_until=known.accounted_until, runs_created=known.runs_created
                )

    def start(self, *, scheduler: bool = True, executor: bool = True) -> None:
        self.loops = []
        if scheduler:
            self.loops.append(asyncio.create_task(self.scheduler.run()))
        if executor:
            self.loops.append(asyncio.create_task(self.executor.run()))

    async def crash(self) -> None:
        """What kill -9 leaves behind: the tasks are gone, nothing was recorded by them."""
        for task in [*self.loops, *self.executor._tasks]:
            task.cancel()
        await asyncio.gather(*self.loops, *self.executor._tasks, return_exceptions=True)
        await self.database.close()

    async def stop(self, grace: float = 0.0) -> None:
        self.scheduler.stop()
        stopping = asyncio.create_task(self.executor.stop(grace))
        while not stopping.done():
            await self.clock.advance(0.5)
            await asyncio.sleep(0.001)
        await stopping
        await asyncio.gather(*self.loops)
        await self.database.close()

    @contextmanager
    def ledger_away(self) -> Iterator[None]:
        """Meanwhile the ledger takes nothing that is due."""
        self.runs.is_away = True
        yield
        self.runs.is_away = False

    def add(self, schedule: str = "* * * * *", command: str = "ok", **settings: object) -> Job:
        now = self.clock.now()
        document = {
            "id": new_job_id(now),
            "tenant": "acme",
            "userId": "alice",
            "name": "a job",
            "schedule": schedule,
            "command": command,
            "channelId": "gateway",
            "createdAt": now,
            "updatedAt": now,
            "scheduledSince": now,
            **settings,
        }
        job = Job.model_validate(document)
        self.jobs[job.id] = job
        if hasattr(self, "scheduler"):
            self.scheduler.put(job)
        return job

    async def put_in_force(self, *jobs: Job) -> None:
        """As a service does when a job is made or changed: scheduled, then in force in the ledger."""
        for job in jobs:
            self.jobs[job.id] = job
            self.scheduler.put(job)
        await self.runs.in_force.put(jobs)

    async def change(self, job: Job, **fields: Any) -> Job:
        """The next revision of a job, in force."""
        changed: Job = job.evolve(revision=job.revision + 1, **fields)
        await self.put_in_force(changed)
        return changed

    async def restarted(self, *, slots: int | None = None, limits: Limits | None = None) -> Engine:
        """What the next start finds after a kill, or after whatever time has passed since; not started."""
        await self.crash()
        again = Engine(self.path, self.clock, slots=slots or self.slots)
        again.jobs = self.jobs
        again.limits = limits or self.limits
        again.catch_up_per_second = self.catch_up_per_second
        await again.open()
        self.successors.append(again)
        return again

    async def all_runs(self, job: Job) -> list[Run]:
        """Oldest first."""
        page = await self.runs.page(RunFilter(job.tenant, job_id=job.id), limit=10_000)
        return page.items[::-1]

    async def states(self, job: Job) -> list[str]:
        return [run.status for run in await self.all_runs(job)]


@pytest.fixture
async def engine(ledger_place: Place) -> AsyncIterator[Engine]:
    """An open engine whose loops are not started yet."""
    made = Engine(ledger_place, ManualClock(START))
    await made.open()
    yield made
    for one in _with_successors(made):
        one.runner.let_go.set()
        await one.crash()


def _with_successors(engine: Engine) -> Iterator[Engine]:
    yield engine
    for one in engine.successors:
        yield from _with_successors(one)


def minutes(instants: Sequence[datetime]) -> list[str]:
    return [instant.strftime("%H:%M") for instant in instants]
