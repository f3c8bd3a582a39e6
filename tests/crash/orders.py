"""Orders to a gateway that may die at any moment, and what must hold of them afterwards.

One order at a time. An order whose answer is lost is given again until it is answered, as a caller would;
so it took force once, somewhere between its first sending and its answer. What was answered is in force.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
from crash.ordered import (
    MAX_ATTEMPTS,
    NEVER,
    Asked,
    Backfill,
    Change,
    OrderedJob,
    Terms,
    judge_orders,
    made,
)
from support.checker import Evidence, JobMade
from support.gateway_process import GatewayProcess, NotNow
from support.workload import RETRY

MOST_JOBS = 5
PAUSE_SECONDS = 0.06  # between two orders, on average
LEAP_DAYS = "0 0 29 2 *"
STEPS = (1, 2, 3)
BACKFILLED = (timedelta(seconds=12), timedelta(seconds=3))  # before now

Order = Callable[[GatewayProcess], Awaitable[None]]


class Unanswered(Exception):
    """Whether the order is in force is not known."""


class Refusal(Exception):
    def __init__(self, said: dict[str, Any]) -> None:
        super().__init__(said["error"])
        self.code = said["code"]


class Orders:
    """Makes up orders by the seeded `dice`, gives them, and judges by the evidence what became of them."""

    def __init__(self, dice: random.Random, url: str) -> None:
        self.acknowledged: Counter[str] = Counter()
        self._faults: list[str] = []
        self._dice = dice
        self._url = url
        self._jobs: list[OrderedJob] = []
        self._on_demand: list[OrderedJob] = []
        self._open: tuple[str, Order] | None = None
        self._bag: list[str] = []
        self._numbers = 0
        self._kinds: Mapping[str, Callable[[], Order]] = {
            "create": self._create,
            "pause": self._pause,
            "resume": self._resume,
            "update": self._update,
            "delete": self._delete,
            "restore": self._restore,
            "run": self._run,
            "cancel": self._cancel,
            "backfill": self._backfill,
            "resend": self._resend,
        }

    async def give(self, gateway: GatewayProcess) -> None:
        """One order after the other, for as long as the gateway lives."""
        while gateway.alive:
            try:
                await self.give_one(gateway)
            except Unanswered:
                await asyncio.sleep(PAUSE_SECONDS)
            await asyncio.sleep(self._dice.uniform(0, 2 * PAUSE_SECONDS))

    async def give_one(self, gateway: GatewayProcess) -> None:
        """The open order, or else a new one. Raises `Unanswered`; then it stays open."""
        if self._open is None:
            kind = self._draw()
            self._open = kind, self._kinds[kind]()
        kind, order = self._open
        await order(gateway)
        self.acknowledged[kind] += 1
        self._open = None

    async def demand(self, gateway: GatewayProcess, key: str, command: str) -> Asked:
        """One run of a new job that has no schedule, at once."""
        await self._creating_on_demand(key, command)(gateway)
        job = self._on_demand[-1]
        await self._asking(job)(gateway)
        return job.asked[-1]

    async def cancel(self, gateway: GatewayProcess, asked: Asked) -> None:
        await self._cancelling(asked)(gateway)

    async def settle(self, gateway: GatewayProcess) -> None:
        """Until no order is open and every notice that was refused for good has been sent again."""
        while self._open is not None:
            await self.give_one(gateway)
        while (await _undeliverable(gateway)) is not None:
            await _resend_one(gateway)

    async def check(self, gateway: GatewayProcess) -> None:
        """Whether the jobs are as they must be by now. Raises `Unanswered` when the gateway dies of it."""
        for job in self._jobs:
            expected = job.possible(time.time())
            found = await self._found(gateway, job)
            if not any(_alike(found, terms) for terms in expected):
                self._faults.append(f"{job.key} ({job.id}) is {found} after a restart, not one of {expected}")

    def made(self, seen: Evidence) -> list[JobMade]:
        """The jobs, for the checker."""
        return [made(job, seen) for job in self._all()]

    def judge(self, seen: Evidence) -> list[str]:
        """What is not as it was ordered, a sentence each."""
        return [*self._faults, *judge_orders(self._all(), seen)]

    # The kinds of orders. Each is made up first, and the same however often it is given.

    def _create(self) -> Order:
        job = OrderedJob(f"ordered {self._number()}")
        terms = Terms(self._dice.choice(STEPS), self._number())
        return self._creation(job, terms, {"schedule": _schedule(terms), "command": self._command(terms)})

    def _creation(self, job: OrderedJob, terms: Terms, data: dict[str, Any]) -> Order:
        retry = {**RETRY, "maxAttempts": MAX_ATTEMPTS}
        own = {"name": job.key, "idempotencyKey": job.key, "channelId": "gateway", "overlap": "allow"}

        async def order(gateway: GatewayProcess) -> None:
            said = await _ask(gateway, "carapace.cron.create", data={**own, "retry": retry, **data})
            job.id, job.created = said["id"], datetime.fromisoformat(said["createdAt"])
            at = job.created.timestamp()
            job.changes.append(Change(terms, at, at))
            (self._jobs if job.scheduled else self._on_demand).append(job)

        return order

    def _pause(self) -> Order:
        job = self._pick()
        return self._change(job, replace(job.terms, enabled=False), "carapace.cron.pause")

    def _resume(self) -> Order:
        job = self._pick(enabled=False)
        return self._change(job, replace(job.terms, enabled=True), "carapace.cron.resume")

    def _update(self) -> Order:
        job = self._pick()
        terms = replace(job.terms, step=self._dice.choice(STEPS), version=self._number())
        updates = {"schedule": _schedule(terms), "command": self._command(terms)}
        return self._change(job, terms, "carapace.cron.update", updates=updates)

    def _delete(self) -> Order:
        job = self._pick()
        return self._change(job, replace(job.terms, deleted=True), "carapace.cron.delete")

    def _restore(self) -> Order:
        """The last that was deleted, if it is still there to be restored; else nothing."""
        deleted = [job for job in self._jobs if job.terms.deleted]
        if not deleted:
            return _nothing
        job = max(deleted, key=lambda job: job.changes[-1].sure)
        gone, there = job.terms, replace(job.terms, deleted=False)
        restoring = self._change(job, there, "carapace.cron.restore")
        change = job.changes[-1]

        async def order(gateway: GatewayProcess) -> None:
            try:
                await restoring(gateway)
            except Refusal as refusal:
                if refusal.code != "not_found":  # its object is removed by now
                    raise
                change.terms, change.sure = gone, time.time()

        return order

    def _change(self, job: OrderedJob, terms: Terms, method: str, **params: Any) -> Order:
        change = Change(terms, time.time())
        job.changes.append(change)
        given = 0

        async def order(gateway: GatewayProcess) -> None:
            nonlocal given
            given += 1
            try:
                await _ask(gateway, method, jobId=job.id, **params)
            except Refusal as refusal:
                if not (terms.deleted and refusal.code == "not_found" and given > 1):
                    raise
            change.sure = time.time()

        return order

    def _run(self) -> Order:
        return self._asking(self._pick())

    def _backfill(self) -> Order:
        job = self._pick()
        now = datetime.now(UTC).replace(microsecond=0)
        backfill = Backfill(job.terms, now - BACKFILLED[0], now - BACKFILLED[1])
        job.backfills.append(backfill)
        window = {"since": backfill.since.isoformat(), "until": backfill.until.isoformat()}

        async def order(gateway: GatewayProcess) -> None:
            await _ask(gateway, "carapace.cron.backfill", jobId=job.id, **window, dryRun=False)
            backfill.acknowledged = True

        return order

    def _cancel(self) -> Order:
        """Of a job that takes its time: the run that was asked for last, or else ask for one."""
        slow = next((job for job in self._on_demand if job.key == "slow"), None)
        if slow is None:
            return self._creating_on_demand("slow", f"{self._url}/slow?seconds=2")
        if not slow.asked or slow.asked[-1].cancelled_at < NEVER:
            return self._asking(slow)
        return self._cancelling(slow.asked[-1])

    def _creating_on_demand(self, key: str, command: str) -> Order:
        job = OrderedJob(key, scheduled=False, watched=command.startswith("http"))
        return self._creation(job, Terms(1, 0), {"schedule": LEAP_DAYS, "command": command})

    def _cancelling(self, asked: Asked) -> Order:
        async def order(gateway: GatewayProcess) -> None:
            try:
                await _ask(gateway, "carapace.cron.cancel", runId=asked.run_id)
            except Refusal as refusal:
                if refusal.code != "conflict":  # it has ended already
                    raise
            asked.cancelled_at = time.time()

        return order

    def _asking(self, job: OrderedJob) -> Order:
        key, asked = f"key {self._number()}", Asked(job.terms.version)

        async def order(gateway: GatewayProcess) -> None:
            run = await _ask(gateway, "carapace.cron.run", jobId=job.id, idempotencyKey=key)
            asked.run_id = run["id"]
            job.asked.append(asked)

        return order

    def _resend(self) -> Order:
        return _resend_one

    # How it is done.

    def _draw(self) -> str:
        """Every kind comes as often as any other; at least one job is there."""
        live = [job for job in self._jobs if not job.terms.deleted]
        if not live:
            return "create"
        if not self._bag:
            self._bag = [*self._kinds, "cancel"]  # each second of these first asks for what it cancels
            self._dice.shuffle(self._bag)
        kind = self._bag.pop()
        return "delete" if kind == "create" and len(live) >= MOST_JOBS else kind

    def _pick(self, *, enabled: bool = True) -> OrderedJob:
        """A job that is not deleted; one that is enabled, or paused, if there is one."""
        live = [job for job in self._jobs if not job.terms.deleted]
        fitting = [job for job in live if job.terms.enabled == enabled]
        return self._dice.choice(fitting or live)

    def _all(self) -> list[OrderedJob]:
        return [*self._jobs, *self._on_demand]

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _command(self, terms: Terms) -> str:
        return f"{self._url}/quick?v={terms.version}"

    async def _found(self, gateway: GatewayProcess, job: OrderedJob) -> Terms:
        try:
            said = await _ask(gateway, "carapace.cron.get", jobId=job.id)
        except Refusal as refusal:
            if refusal.code != "not_found":
                raise
            return replace(job.terms, deleted=True)
        step = next((step for step in STEPS if _schedule(Terms(step, 0)) == said["schedule"]), 0)
        return Terms(step, int(said["command"].rpartition("=")[2]), said["enabled"])


def _schedule(terms: Terms) -> str:
    return f"*/{terms.step} * * * * *"


def _alike(found: Terms, expected: Terms) -> bool:
    return found == expected or (found.deleted and expected.deleted)


async def _nothing(gateway: GatewayProcess) -> None:
    """An order that asks for nothing."""


async def _resend_one(gateway: GatewayProcess) -> None:
    delivery = await _undeliverable(gateway)
    if delivery is not None:
        with suppress(Refusal):  # it waits already: this was asked before, and not answered
            await _ask(gateway, "carapace.cron.deliveries.resend", deliveryId=delivery)


async def _undeliverable(gateway: GatewayProcess) -> int | None:
    page = await _ask(gateway, "carapace.cron.deliveries", state="undeliverable", limit=1)
    return next((int(one["id"]) for one in page["items"]), None)


async def _ask(gateway: GatewayProcess, method: str, **params: Any) -> Any:
    try:
        said = await gateway.ask(method, **params)
    except (aiohttp.ClientError, TimeoutError, NotNow) as error:
        raise Unanswered(str(error)) from error
    if not said["success"]:
        if said["code"] == "unavailable":
            raise Unanswered(said["error"])
        raise Refusal(said)
    return said.get("data")
