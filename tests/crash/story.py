"""A gateway under orders, to which a test may do its worst; and the judge of what it made of that.

Every scenario is told with one of these: it begins, lives and dies as the scenario wants, ends, and is judged
by the ledger, the witnesses outside, and the answers to the orders.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from crash import hasty_gateway
from crash.chain import Follower, follow, ill_followed, made
from crash.orders import Orders, Unanswered
from support.checker import Evidence, JobMade, each_elapsed, judge, unlike_the_answers
from support.closing import all_runs, evidence, finish
from support.gateway_process import OURS, GatewayProcess, watched
from support.outside import Outside, outside
from support.workload import ADMIN_TOKEN, SIGNING_SECRET, Kind, create, every_kind, settings_for

HASTY = (*OURS[:1], hasty_gateway.__file__)
FAILPOINT_SECONDS = 60.0  # within which a life comes to its failpoint; mostly it takes two
LAST_LIFE_SECONDS = 2.0
ANSWER_SECONDS = 150.0  # an order may wait as long as a gateway is stopped or a store is away


@dataclass
class Report:
    """What befell a gateway and what it did all the same. `broken`: promises that it did not keep."""

    title: str
    befell: Counter[str]
    orders: Counter[str]
    runs: Counter[str]
    attempts: Counter[str]
    seconds: float
    notes: list[str]
    broken: list[str]

    @classmethod
    def of_failure(cls, title: str, error: Exception) -> Report:
        """Of a story that could not be told to its end."""
        nothing: Counter[str] = Counter()
        return cls(title, nothing, nothing, nothing, nothing, 0.0, [], [f"{type(error).__name__}: {error}"])

    def __str__(self) -> str:
        verdict = f"{len(self.broken)} BROKEN" if self.broken else "all promises kept"
        return (
            f"{self.title}: {_counts(self.befell)}; {self.runs.total()} runs ({_counts(self.runs)}), "
            f"{self.attempts['lost']} attempts lost, {self.orders.total()} orders acknowledged; "
            f"{''.join(f'{note}; ' for note in self.notes)}{self.seconds:.0f} s; {verdict}"
        )


@dataclass
class Story:
    """One gateway over its lives, the world around it, and the orders that it is given."""

    title: str
    gateway: GatewayProcess
    world: Outside
    orders: Orders
    dice: random.Random
    began: float = field(default_factory=time.monotonic)
    jobs: dict[str, JobMade] = field(default_factory=dict)
    followers: list[Follower] = field(default_factory=list)
    befell: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    async def begin(self, kinds: Mapping[str, Kind]) -> None:
        """The first life, in which the jobs are made; it goes on."""
        await self.gateway.start()
        self.jobs = await create(self.gateway, kinds)
        if "get" in self.jobs:
            self.followers = [await follow(self.gateway, self.jobs["get"], self.world.url)]

    async def live(self, seconds: float) -> None:
        """Orders for a while."""
        async with self.ordering():
            await asyncio.sleep(seconds)

    async def die(self) -> None:
        await self.gateway.kill()
        self.befell["kill"] += 1

    async def live_and_die_at(self, failpoint: str) -> None:
        """A life that ends at that failpoint, as ``CARAPACE_CRON_FAILPOINT`` names it."""
        self.gateway.configure(FAILPOINT=failpoint)
        status = await self._live(FAILPOINT_SECONDS)
        assert status == -signal.SIGKILL, f"a life never came to {failpoint}, and ended with {status}"
        self.gateway.configure(FAILPOINT="")
        self.befell["kill at a failpoint"] += 1

    async def live_and_die_within(self, seconds: float) -> None:
        """A life that ends wherever it is by then, be it still starting."""
        status = await self._live(seconds)
        assert status is None, f"the gateway ended by itself, with status {status}"
        await self.gateway.kill()
        self.befell["kill at any moment"] += 1

    async def live_again(self) -> None:
        """Start, and see that all orders that were acknowledged before are in force."""
        await self.gateway.start()
        await self.orders.check(self.gateway)

    async def end(self) -> Report:
        """Everything comes to its end; then the gateway is stopped, and judged."""
        if not self.gateway.alive:
            await self.live_again()
            await self.live(LAST_LIFE_SECONDS)
        await self.orders.settle(self.gateway)
        scheduled = [*self.jobs.values(), *self.orders.made(evidence(self.gateway, self.world))]
        horizon = await finish(self.gateway, scheduled)
        await self.orders.settle(self.gateway)  # what was refused for good while the last things ended
        await finish(self.gateway, [])
        answers = await all_runs(self.gateway)
        await self.gateway.terminate()
        seen = evidence(self.gateway, self.world)
        followers = [made(one, seen) for one in self.followers]
        jobs = [*self.jobs.values(), *self.orders.made(seen), *followers]
        broken = [*judge(jobs, seen, horizon), *unlike_the_answers(answers, seen), *self.orders.judge(seen)]
        broken += [fault for one in self.followers for fault in ill_followed(one, seen)]
        return self._report(seen, broken)

    @asynccontextmanager
    async def ordering(self) -> AsyncIterator[None]:
        """Orders are given for as long as the block runs and the gateway lives."""
        giving = asyncio.create_task(self.orders.give(self.gateway))
        try:
            yield
        finally:
            giving.cancel()
            await asyncio.wait((giving,))
            if not giving.cancelled():
                giving.result()  # raises what nobody expected

    async def _live(self, seconds: float) -> int | None:
        """A life under orders; its exit status, or None when it lives on after `seconds`."""
        until = time.monotonic() + seconds
        try:
            async with asyncio.timeout(seconds):
                is_ready = await self.gateway.start_or_die()
        except TimeoutError:
            return None
        if not is_ready:
            return await self.gateway.ended(1)
        with suppress(Unanswered):
            await self.orders.check(self.gateway)
        async with self.ordering():
            return await self.gateway.ended(max(until - time.monotonic(), 0))

    def _report(self, seen: Evidence, broken: list[str]) -> Report:
        return Report(
            title=self.title,
            befell=self.befell,
            orders=self.orders.acknowledged,
            runs=Counter(row["status"] for row in seen.runs),
            attempts=Counter(row["state"] for row in seen.attempts),
            seconds=time.monotonic() - self.began,
            notes=self.notes,
            broken=broken,
        )


@asynccontextmanager
async def story(
    title: str,
    folder: Path,
    seed: int,
    *,
    settings: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    program: tuple[str, ...] = HASTY,
    kinds: Callable[[Outside], Mapping[str, Kind]] | None = None,
) -> AsyncIterator[Story]:
    """A story that has begun. `settings` and `environment`: what its gateway needs besides the usual.
    `kinds`: the jobs, by name; without it some of every kind."""
    print(f"{title}, seed {seed}")
    dice = random.Random(seed)
    # Each request on a connection of its own: a kept one may belong to a gateway that is dead by now.
    connector, timeout = aiohttp.TCPConnector(force_close=True), aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    async with (
        outside(folder / "outside", SIGNING_SECRET) as world,
        aiohttp.ClientSession(connector=connector, timeout=timeout) as client,
    ):
        gateway = GatewayProcess(
            folder / "gateway",
            client,
            token=ADMIN_TOKEN,
            settings={**settings_for(folder / "gateway", world), **(settings or {})},
            environment=environment,
            program=program,
        )
        async with watched(gateway):
            told = Story(title, gateway, world, Orders(dice, world.url), dice)
            fickle = Kind("every 1s", each_elapsed(1), "whoami", "fickle")
            usual = {**every_kind(world, folder / "tally.txt"), "fickle": fickle}
            await told.begin(usual if kinds is None else kinds(world))
            yield told


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counter.most_common())
