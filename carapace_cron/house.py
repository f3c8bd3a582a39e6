"""The whole extension, put together and taken down again.

Read `House.open` from top to bottom to see what depends on what; nothing else wires anything, but
`watch_wing.py` for monitors.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, TypeVar

import sqlalchemy as sa

from carapace_cron.api.metrics import MetricsDoor
from carapace_cron.api.routes import cron_routes
from carapace_cron.channels.apprise import apprise_channel
from carapace_cron.channels.courier import Courier
from carapace_cron.channels.email import email_channel
from carapace_cron.channels.pagerduty import open_pagerduty
from carapace_cron.channels.registry import Channels
from carapace_cron.channels.slack import open_slack
from carapace_cron.channels.webhook import open_webhooks
from carapace_cron.clock import Clock
from carapace_cron.data_dir import DataDir
from carapace_cron.database import Database
from carapace_cron.engines import postgresql_engine, sqlite_engine
from carapace_cron.errors import ConfigurationError, InvalidValue, NotFound
from carapace_cron.executor import Executor
from carapace_cron.gateway.hookspecs import Route
from carapace_cron.hookspecs import ChannelFactory, StoreFactory
from carapace_cron.job_store import JobStore
from carapace_cron.ledger.aftermath import Aftermath
from carapace_cron.ledger.deliveries import Deliveries
from carapace_cron.ledger.events import Events
from carapace_cron.ledger.facts import ledger_id
from carapace_cron.ledger.history import Progress
from carapace_cron.ledger.in_force import InForce
from carapace_cron.ledger.leftovers import Leftovers
from carapace_cron.ledger.migrations.upgrade import upgrade
from carapace_cron.ledger.runs import Runs
from carapace_cron.ledger.tokens import FIRST_ADMIN, OPERATOR_TENANT, Tokens
from carapace_cron.metrics import Metrics
from carapace_cron.model.actor import GATEWAY
from carapace_cron.model.job import Job
from carapace_cron.model.text import counted
from carapace_cron.objects.binding import bind_to_ledger
from carapace_cron.objects.counted import CountedObjects
from carapace_cron.objects.database import DatabaseObjects
from carapace_cron.outbound.address import AllowList
from carapace_cron.outbound.client import Outbound
from carapace_cron.ports.host import Host
from carapace_cron.ports.object_store import ObjectStore
from carapace_cron.ports.runner import Runner
from carapace_cron.runners.agent_command import AgentCommandRunner
from carapace_cron.runners.http import HttpRunner
from carapace_cron.runners.registry import Runners
from carapace_cron.runners.shell import ShellRunner
from carapace_cron.scheduler import Scheduler
from carapace_cron.services.backfilling import BackfillDesk
from carapace_cron.services.board import Board
from carapace_cron.services.channels import ChannelDesk
from carapace_cron.services.deliveries import DeliveryDesk
from carapace_cron.services.events import EventDesk
from carapace_cron.services.jobs import Jobs
from carapace_cron.services.metrics import Loops, MetricsReport
from carapace_cron.services.monitors import MonitorDesk
from carapace_cron.services.neighbours import Neighbours
from carapace_cron.services.ownership import Ownership
from carapace_cron.services.register import Register
from carapace_cron.services.removals import Removals
from carapace_cron.services.runs import RunHistory
from carapace_cron.services.schedules import Schedules
from carapace_cron.services.status import StatusReport
from carapace_cron.services.tokens import TokenDesk
from carapace_cron.services.upkeep import Upkeep
from carapace_cron.settings import CronSettings
from carapace_cron.watch_wing import WatchWing

T = TypeVar("T")

log = logging.getLogger(__name__)


class House:
    """All rooms and how they are joined. The services are public: the doors need them."""

    jobs: Jobs
    removals: Removals
    runs: RunHistory
    backfills: BackfillDesk
    events: EventDesk
    deliveries: DeliveryDesk
    channels: ChannelDesk
    status: StatusReport
    metrics: MetricsReport
    tokens: TokenDesk
    watch: WatchWing
    monitors: MonitorDesk
    token_store: Tokens

    def __init__(
        self, host: Host, settings: CronSettings, clock: Clock, *, database: Database | None = None
    ) -> None:
        """`database`: not open yet; None: the one that `settings.ledger` names."""
        self._host = host
        self._settings = settings
        self._clock = clock
        self._data_dir = DataDir(host.data_dir)
        self._database = database or Database(self._ledger_engine(), upgrade)
        self._metrics = Metrics()
        self._database.on_commit = self._metrics.committed
        self._owner = f"{socket.gethostname()}:{uuid.uuid4().hex}"  # of what this gateway claims
        self._closers: list[Callable[[], Awaitable[None]]] = []
        self._loops: list[asyncio.Task[None]] = []
        self._board = Board()
        self._neighbours: Neighbours | None = None
        self._ownership: Ownership | None = None
        self._displaced: str | None = None  # why this gateway runs no jobs any more

    async def open(self) -> str | None:
        """Open the stores, load what is kept, start the loops; the admin token if one was made.

        Raises `ConfigurationError` or `Unavailable`; then `close` takes down what stood already.
        """
        await self._open_keepers()
        await self._open_hands()
        self._open_engine()
        await self._load_jobs()
        self._start_loops()
        return await self._first_token()

    async def close(self) -> None:
        """Drain within the grace, write down what is left, let go of everything. Safe at any stage."""
        while self._closers:
            try:
                await self._closers.pop()()
            except Exception:
                log.exception("closing went on after a failure", extra={"action": "close"})
        self._data_dir.release()

    def routes(self) -> Sequence[Route]:
        identify = self._host.identify
        return [
            *cron_routes(self.watch, self._channels, self._clock, identify),
            *MetricsDoor(self.metrics, self.watch.monitors, identify).routes(),
        ]

    def why_not_ready(self) -> str | None:
        """None while all loops live and due instants can be recorded."""
        if self._displaced is not None:
            return self._displaced
        dead = [task.get_name() for task in self._loops if task.done()]
        if dead:
            return f"the {dead[0]} has stopped"
        if self._scheduler.trouble is not None:
            return "due jobs wait: the ledger cannot be written"
        return None if self.watch.watchman.trouble is None else "monitors wait: the ledger cannot be used"

    async def _open_keepers(self) -> None:
        """Floor 4: the ledger and the job store."""
        self._data_dir.claim()
        await self._database.open()
        self._closers.append(self._database.close)
        self._ledger = Runs(
            self._database,
            self._settings.limits,
            self._metrics,
            on_committed=self._note_aftermath,
        )
        self._deliveries = Deliveries(self._database)
        self.token_store = Tokens(self._database)
        self._objects = objects = CountedObjects(await self._open_objects(), self._metrics)
        self._closers.append(objects.close)
        if self._settings.on_s3:
            own_id = await ledger_id(self._database)
            await bind_to_ledger(
                objects, own_id, socket.gethostname(), self._clock.now(), adopt=self._settings.adopt_bucket
            )
            self._ownership = Ownership(objects, own_id, self._clock, on_lost=self._yield_bucket)
        self._store = JobStore(objects, self._clock)
        self._closers.append(self._store.finish_writes)

    async def _open_objects(self) -> ObjectStore:
        address = self._settings.job_store
        stores = _joined(self._own_stores(), self._host.plugin_manager.hook.register_stores(), "store")
        scheme = address.partition(":")[0]
        if scheme not in stores:
            expected = " or ".join(f"{name}:" for name in sorted(stores))
            beside = " beside a LEDGER in PostgreSQL" if self._database.shared else ""
            message = f'unknown JOB_STORE "{address}"{beside}: expected one that begins with {expected}'
            raise ConfigurationError(message)
        opened: ObjectStore = await stores[scheme](address)
        return opened

    async def _open_hands(self) -> None:
        """Floor 4: runners and channels, ours and those of other plugins."""
        hook = self._host.plugin_manager.hook
        self._outbound = Outbound(AllowList.parse(self._settings.url_allow))
        self._closers.append(self._outbound.close)
        offered = [runner for runners in hook.register_runners() for runner in runners]
        self._runners = Runners([*self._own_runners(), *offered])
        kinds = _joined(self._own_channel_kinds(), hook.register_channel_kinds(), "channel kind")
        self._channels = Channels(self._host, kinds, self._settings.channels)
        self._metrics.expect_channels(self._channels.kinds)
        self._closers.append(self._channels.close)

    def _open_engine(self) -> None:
        """Floors 5 and 6: the loops and the services, which know each other through the ledger."""
        clock = self._clock
        schedules = Schedules(self._settings.min_interval)
        self._scheduler = Scheduler(
            self._ledger,
            clock,
            document=self._store.document,
            schedule_of=schedules.of,
            on_finished=lambda job_id, reason: self._upkeep.note_finished(job_id, reason),
            on_outdated=lambda job_id: self._note_outdated(job_id),
            catch_up_per_second=self._settings.catch_up_per_second,
        )
        self._register = Register(InForce(self._database, self._note_aftermath), self._scheduler)
        self._executor = Executor(
            self._ledger,
            self._runners,
            clock,
            owner=self._owner,
            slots=self._settings.max_concurrent_runs,
            alone=not self._database.shared,
            on_ended=lambda end, status: self._upkeep.note_end(end, status),
            on_failing=lambda job_id, reason: self._upkeep.note_finished(job_id, reason),
            on_expired=lambda expired: self._upkeep.note_expired(expired),
            on_refused=lambda end: self._upkeep.note_refused(end),
        )
        self._courier = Courier(
            self._deliveries,
            self._channels,
            clock,
            wake=self._ledger.ended,
            name=self._owner if self._database.shared else None,
            on_tried=lambda channel_id, result: self._metrics.delivery_tries.add(
                self._channels.kind_of(channel_id), result
            ),
        )
        self.jobs = Jobs(
            self._store,
            self._ledger,
            clock,
            schedules=schedules,
            commands=self._runners,
            channels=self._channels,
            board=self._board,
            next_at=self._scheduler.next_at,
            runs_left=self._scheduler.runs_left,
            max_jobs_per_tenant=self._settings.max_jobs_per_tenant,
        )
        self.removals = Removals(
            self.jobs, self._store, self._ledger, self._board, clock, on_restored=self._put_loaded
        )
        self.runs = RunHistory(self.jobs, self._ledger, clock)
        self.backfills = BackfillDesk(self.jobs, self._ledger, schedules, clock)
        events = Events(self._database)
        self.events = EventDesk(events)
        self.deliveries = DeliveryDesk(self._deliveries, clock, wake=self._ledger.ended.set)
        self.channels = ChannelDesk(self._channels, self._courier, clock)
        self.tokens = TokenDesk(self.token_store, clock)
        self.watch = WatchWing(
            self._database,
            clock,
            channels=self._channels,
            max_monitors_per_tenant=self._settings.max_monitors_per_tenant,
            notices_wait=self._ledger.ended,
            metrics=self._metrics,
        )
        self.monitors = self.watch.monitors
        self.status = StatusReport(
            self._store,
            self._ledger,
            self._scheduler,
            self._board,
            self.watch.watchlist,
            self.watch.watchman,
            warnings=self._warnings,
        )
        self.metrics = MetricsReport(
            self._metrics,
            self._database,
            clock,
            loops=Loops(self._scheduler, self._executor, self._courier, self.watch.watchman),
            channels=self._channels,
            slots=self._settings.max_concurrent_runs,
            why_not_ready=self.why_not_ready,
        )
        self._upkeep = Upkeep(
            self.jobs,
            self.removals,
            self._store,
            self._ledger,
            Leftovers(self._database),
            events,
            self._board,
            clock,
            register=self._register,
            emit=self._emit,
            next_at=self._scheduler.next_at,
            keep_runs=self._settings.keep_runs,
            keep_events=self._settings.keep_events,
            is_shared=self._database.shared,
        )

    async def _load_jobs(self) -> None:
        """Schedule every kept job from where the ledger says that it has come to.

        Jobs whose deletion a kill may have prevented come last, if they are still there then.
        """
        report = await self._store.load()
        jobs, objects = counted(report.jobs, "job"), counted(report.set_aside, "object")
        log.info("%s loaded, %s set aside", jobs, objects, extra={"action": "load"})
        self._store.confirm_with(self._register.confirm)
        progress = await self._ledger.progress()
        await self._complete_changes(progress)
        await self._ledger.release_held(self._clock.now())
        for job_id, _ in self._store.revisions():
            if (known := progress.get(job_id)) is not None:
                self._scheduler.remember(job_id, known.accounted_until, known.runs_created)
                self._board.load({job_id: known})
        ran_once: list[str] = []
        for number, job in enumerate(self._store.all()):
            known = progress.get(job.id)
            if job.delete_after_run and known is not None and known.execution_count > 0:
                ran_once.append(job.id)
            else:
                self._put_loaded(job, known)
            if number % 500 == 0:
                await asyncio.sleep(0)  # the host's other work goes on while a hundred thousand are loaded
        self._store.subscribe(self._job_changed)
        await self._upkeep.pick_up(ran_once)
        for job_id in ran_once:
            if (kept := self._store.get(job_id)) is not None:
                self._put_loaded(kept, progress[job_id])

    async def _complete_changes(self, progress: Mapping[str, Progress]) -> None:
        """Put in force what the store has and the ledger has not: changes that a kill cut in two."""
        new: list[str] = []
        for job_id, revision in self._store.revisions():
            known = progress.get(job_id)
            if known is None or known.revision is None:
                new.append(job_id)
            elif known.revision < revision:
                await self._complete_change(job_id, known)
            elif known.revision > revision:
                await self._renumber(job_id, known.revision)
        await self._register.take_over(new, self._any_job, progress)

    def _any_job(self, job_id: str) -> Job | None:
        return self._store.get(job_id) or self._store.buried(job_id)

    async def _complete_change(self, job_id: str, known: Progress) -> None:
        job = self._any_job(job_id)
        if job is None:
            return
        before = await self._register.definition_before(job_id)
        if before is not None:
            self._put(before, known.accounted_until, known.runs_created)
            self._put(job)  # what came due under the one before is settled by it
        await self._register.confirm(job, True)

    async def _renumber(self, job_id: str, revision: int) -> None:
        """The store has an older document than the ledger knew, as from a backup: it counts as the newest."""

        def change(newest: Job) -> Job:
            if newest.revision >= revision:  # another gateway has changed it since it was loaded
                return newest
            log.warning("job %s is older than the ledger knew it", job_id, extra={"action": "load"})
            renumbered: Job = newest.evolve(revision=revision, updated_by=GATEWAY)
            return renumbered

        with suppress(NotFound):  # another gateway has deleted it since, or it was deleted when it was loaded
            await self._store.update(job_id, change)

    def _put_loaded(self, job: Job, known: Progress | None) -> None:
        # A ledger that is new to a job adopted its bucket; the ledger before it had come at least here.
        until = job.last_executed_at if known is None else known.accounted_until
        self._put(job, until, 0 if known is None else known.runs_created)
        self._upkeep.note_loaded(job, known if known is not None and known.revision == job.revision else None)

    def _note_aftermath(self, aftermath: Aftermath) -> None:
        for run_id in aftermath.ended_between:
            self._upkeep.note_ended_between(run_id)
        self.watch.note(aftermath.settled)

    def _job_changed(self, job_id: str, job: Job | None) -> None:
        self._upkeep.note_change(job_id, job)
        if job is not None:
            self._put(job)
        elif (buried := self._store.buried(job_id)) is not None:
            self._scheduler.drop(job_id, buried.deleted_at)
        else:
            self._scheduler.forget(job_id)
            self._board.forget(job_id)

    def _note_outdated(self, job_id: str) -> None:
        """Another gateway has changed a job: look at it now, not at the next round."""
        if self._neighbours is not None:
            self._neighbours.wake.set()

    def _put(self, job: Job, accounted_until: datetime | None = None, runs_created: int = 0) -> None:
        """Schedule a job. One whose schedule this version cannot read is not scheduled, and says so."""
        try:
            self._scheduler.put(job, accounted_until=accounted_until, runs_created=runs_created)
        except InvalidValue as error:
            self._scheduler.drop(job.id)
            log.error("job %s is not scheduled: %s", job.id, error, extra={"action": "schedule"})

    async def _yield_bucket(self, why: str) -> None:
        """Run nothing more: another gateway runs these jobs now."""
        self._displaced = why
        self._scheduler.stop()
        await self._executor.stop(self._settings.shutdown_grace_seconds)

    def _start_loops(self) -> None:
        """In the opposite order of their ends: the scheduler starts last and ends first."""
        if self._database.shared:
            self._neighbours = neighbours = Neighbours(
                self._store, self._clock, on_changed=self._upkeep.note_elsewhere
            )
            self._start_loop("neighbours", neighbours.run(), neighbours.stop)
        if self._ownership is not None:
            self._start_loop("ownership", self._ownership.run(), self._ownership.stop)
        self._start_loop("upkeep", self._upkeep.run(), self._upkeep.stop)
        self._start_loop("courier", self._courier.run(), self._courier.stop)
        self._start_loop("watchman", self.watch.watchman.run(), self.watch.watchman.stop)
        self._start_loop("pings", self.watch.pings.run(), self.watch.pings.stop)
        grace = self._settings.shutdown_grace_seconds
        self._start_loop("executor", self._executor.run(), lambda: self._executor.stop(grace))
        self._start_loop("scheduler", self._scheduler.run(), self._scheduler.stop)

    def _start_loop(
        self, name: str, loop: Coroutine[Any, Any, None], stop: Callable[[], Awaitable[None] | None]
    ) -> None:
        task = asyncio.create_task(loop, name=name)
        self._loops.append(task)

        async def end() -> None:
            stopping = stop()
            if stopping is not None:
                await stopping
            await task

        self._closers.append(end)

    async def _first_token(self) -> str | None:
        """See to it that somebody can administer this gateway."""
        chosen = self._settings.admin_token.get_secret_value() or None
        await self.token_store.set_operator_token(chosen, self._clock.now())
        if chosen is not None or await self.token_store.any_admin():
            return None
        issued = await self.token_store.issue(
            tenant=OPERATOR_TENANT, user=FIRST_ADMIN, scopes=["admin"], now=self._clock.now()
        )
        return issued.secret

    def _emit(self, event: str, payload: Mapping[str, Any], tenant: str, user_id: str) -> None:
        self._host.emit(event, payload, tenant=tenant, user_id=user_id)

    def _warnings(self) -> list[str]:
        """What the operator should know: a store without compare-and-swap, jobs that cannot be read."""
        found = [f"{one.key} cannot be read: {one.reason}" for one in self._store.set_aside()]
        if self._displaced is not None:
            found.insert(0, self._displaced)
        if not self._objects.conditional_writes:
            found.insert(0, f"{self._settings.job_store} has no conditional writes: run one gateway only")
        if self.watch.watchman.trouble is not None:
            found.insert(0, f"monitors wait to be looked at: {self.watch.watchman.trouble}")
        resting = (item for item in self._courier.failing.items() if item[1].is_resting)
        found.extend(f"the channel {one} fails again and again: {trouble.error}" for one, trouble in resting)
        if self._scheduler.trouble is not None:
            found.insert(0, f"due jobs wait for the ledger: {self._scheduler.trouble}")
        return found

    def _ledger_engine(self) -> sa.Engine:
        address = self._settings.ledger.get_secret_value()
        return sqlite_engine(self._data_dir.database) if address == "sqlite:" else postgresql_engine(address)

    def _own_stores(self) -> dict[str, StoreFactory]:
        async def embedded(_address: str) -> ObjectStore:
            return DatabaseObjects(self._database, self._clock)

        async def s3(address: str) -> ObjectStore:
            # Imported here: its libraries cost 60 MB, which the embedded default need not pay.
            from carapace_cron.objects.s3 import S3Objects

            return await S3Objects.open(address, endpoint_url=self._settings.s3_endpoint_url or None)

        return {"postgresql" if self._database.shared else "sqlite": embedded, "s3": s3}

    def _own_channel_kinds(self) -> dict[str, ChannelFactory]:
        return {
            "webhook": open_webhooks(self._outbound, self._clock),
            "email": email_channel,
            "slack": open_slack(self._outbound, self._clock),
            "pagerduty": open_pagerduty(self._outbound, self._clock),
            "apprise": apprise_channel,
        }

    def _own_runners(self) -> list[Runner]:
        work_dir = self._data_dir.path / "work"
        return [
            HttpRunner(self._outbound),
            AgentCommandRunner(self._host),
            ShellRunner(self._settings.programs, work_dir=work_dir, clock=self._clock),
        ]


def _joined(own: Mapping[str, T], offered: Sequence[Mapping[str, T]], what: str) -> dict[str, T]:
    """Ours and the plugins' by name; a name that is taken is a `ConfigurationError`."""
    joined = dict(own)
    for more in offered:
        for name, one in more.items():
            if name in joined:
                raise ConfigurationError(f'two plugins offer the {what} "{name}": disable one of them')
            joined[name] = one
    return joined
