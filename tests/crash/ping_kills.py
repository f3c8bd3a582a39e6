"""SIGKILL of a gateway under pings, at each call that keeps them and at any moment; and the judge of that.

What was answered with 2xx must be there, in its order; the flips must be those that the pings make; and of
each flip people must have heard, once.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from crash.kills import failpoints
from crash.story import Report
from support.gateway_process import GatewayProcess, until, watched
from support.workload import ADMIN_TOKEN

from carapace_cron.failpoints import NAMES
from carapace_cron.ids import unique_key

POINTS = tuple(name for name in NAMES if name.startswith(("pings.", "watchlist.")))
FAILPOINT_SECONDS = 30.0  # within which a life comes to its failpoint; mostly it takes one
TOLD_SECONDS = 30.0


@dataclass
class Told:
    """What the gateway has acknowledged: pings by monitor and number, and monitors with their names."""

    pings: dict[str, list[int]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    unsure: set[str] = field(default_factory=set)  # of those an order got no answer


class PingStory:
    """One gateway over its lives, and those who ping it."""

    def __init__(self, gateway: GatewayProcess, client: aiohttp.ClientSession, dice: random.Random) -> None:
        self.gateway = gateway
        self.befell: Counter[str] = Counter()
        self.told = Told()
        self._client = client
        self._dice = dice
        self._numbers = itertools.count(1)
        self._messages: dict[str, dict[str, Any]] = {}  # as they were written → what they say
        self.flips = 0
        self.steady = ""
        self.hanging = ""

    async def begin(self) -> None:
        await self.gateway.start()
        self.steady = await self._make(name="Steady", periodSeconds=3600)
        self.hanging = await self._make(name="Hanging", maxRunSeconds=1, periodSeconds=86_400)
        await self.gateway.kill()

    async def die_at(self, failpoint: str) -> None:
        self.gateway.configure(FAILPOINT=failpoint)
        if await self.gateway.start_or_die():
            await self._live(FAILPOINT_SECONDS)
        assert await self.gateway.ended(1) is not None, f"a life never came to {failpoint}"
        self.gateway.configure(FAILPOINT="")
        self._listen()
        self.befell["kill at a failpoint"] += 1

    async def die_within(self, seconds: float) -> None:
        await self.gateway.start()
        await self._live(seconds)
        await self.gateway.kill()
        self._listen()
        self.befell["kill at any moment"] += 1

    async def end(self) -> list[str]:
        """The last life, in which all that waits is told; the promises that were broken."""
        await self.gateway.start()
        await self._ping(self.hanging, "", rid=str(uuid.uuid4()))
        await until(self._all_told, "all that waits is told", TOLD_SECONDS)
        self._listen()
        broken = [*await self._lost_pings(), *await self._lost_orders()]
        for monitor_id in (self.steady, self.hanging):
            broken += await self._badly_told(monitor_id)
        await self.gateway.terminate()
        return broken

    async def _live(self, seconds: float) -> None:
        work = [self._keep_pinging(), self._keep_hanging(), self._keep_ordering()]
        tasks = [asyncio.create_task(one) for one in work]
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.gateway.alive:
                    await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep_pinging(self) -> None:
        """Successes and failures, numbered, one after the other."""
        while True:
            number = next(self._numbers)
            suffix = self._dice.choice(["", "", "/fail"])
            if await self._ping(self.steady, suffix, rid=str(uuid.UUID(int=number))):
                self.told.pings.setdefault(self.steady, []).append(number)

    async def _keep_hanging(self) -> None:
        """Runs that begin and are late to end, so that the watchman has something to find."""
        while True:
            rid = str(uuid.uuid4())
            if await self._ping(self.hanging, "/start", rid=rid):
                await asyncio.sleep(1.3)
                await self._ping(self.hanging, "", rid=rid)
            await asyncio.sleep(0.05)

    async def _keep_ordering(self) -> None:
        while True:
            monitor_id = await self._make(name="Passing")
            await self._order("update", monitor_id, updates={"name": "Renamed"})
            self.told.names[monitor_id] = "Renamed"
            if self._dice.random() < 0.5:
                self.told.unsure.add(monitor_id)
                await self._order("delete", monitor_id)
                self.told.gone.add(monitor_id)

    async def _make(self, **fields: Any) -> str:
        data = {"channels": ["gateway"], **fields}
        made = await self.gateway.call("carapace.cron.monitors.create", data=data)
        self.told.names[made["id"]] = fields["name"]
        return str(made["id"])

    async def _order(self, method: str, monitor_id: str, **params: Any) -> None:
        self.told.unsure.add(monitor_id)
        await self.gateway.call(f"carapace.cron.monitors.{method}", monitorId=monitor_id, **params)
        self.told.unsure.discard(monitor_id)

    async def _ping(self, monitor_id: str, suffix: str, *, rid: str) -> bool:
        """Whether it was answered with 2xx."""
        url = f"{self.gateway.url}/ping/{monitor_id}{suffix}?rid={rid}"
        try:
            async with self._client.post(url, data=b"output") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            await asyncio.sleep(0.02)
            return False

    async def _pings(self, monitor_id: str) -> list[dict[str, Any]]:
        """Those that are kept, oldest first."""
        page = await self.gateway.call("carapace.cron.monitors.pings", monitorId=monitor_id, limit=1_000)
        return list(reversed(page["items"]))

    async def _lost_pings(self) -> list[str]:
        kept = await self._pings(self.steady)
        numbers = [uuid.UUID(one["rid"]).int for one in kept]
        oldest = min(numbers)  # only the newest thousand are kept
        acknowledged = [number for number in self.told.pings[self.steady] if number >= oldest]
        counted = [one["n"] for one in kept]
        lost = sorted(set(acknowledged) - set(numbers))
        broken = [f"ping {number} was answered and is gone" for number in lost]
        if counted != list(range(counted[0], counted[0] + len(counted))):
            broken.append(f"the numbers of the pings have gaps: {counted}")
        if [number for number in numbers if number in set(acknowledged)] != sorted(acknowledged):
            broken.append("the pings are not in the order in which they were answered")
        return broken

    async def _lost_orders(self) -> list[str]:
        there = {one["id"]: one["name"] async for one in self._monitors()}
        sure = {one: name for one, name in self.told.names.items() if one not in self.told.unsure}
        broken = [f"{one} was deleted and is there" for one in self.told.gone if one in there]
        return broken + [
            f"{one} was to be {name} and is {there.get(one)}"
            for one, name in sure.items()
            if one not in self.told.gone and there.get(one) != name
        ]

    async def _monitors(self) -> AsyncIterator[dict[str, Any]]:
        """All of them, page by page."""
        cursor: dict[str, str] = {}
        while True:
            said = await self.gateway.ask("carapace.cron.monitors.list", **cursor)
            for one in said["data"]:
                yield one
            if said["nextCursor"] is None:
                return
            cursor = {"cursor": said["nextCursor"]}

    async def _badly_told(self, monitor_id: str) -> list[str]:
        found = await self.gateway.call("carapace.cron.monitors.flips", monitorId=monitor_id)
        flips = [one for one in found if "down" in (one["before"], one["after"])]
        self.flips += len(flips)
        wanted = Counter((one["at"], "down" if one["after"] == "down" else "up") for one in flips)
        heard = Counter(
            (data["at"], data["event"].removeprefix("monitor."))
            for data in self._messages.values()
            if data["monitorId"] == unique_key(monitor_id)
        )
        if len(found) == 1_000 or wanted == heard:  # only the newest thousand are shown
            return []
        return [f"told of {monitor_id}: {heard - wanted} too much, {wanted - heard} never"]

    def _listen(self) -> None:
        """Hear what the channel has, each message as often as it was written; it keeps only the newest."""
        for line in (self.gateway.data_dir / "gateway-messages.jsonl").read_text().splitlines():
            with suppress(json.JSONDecodeError):  # the last line, cut off by a kill
                self._messages.setdefault(line, json.loads(line)["data"])

    async def _all_told(self) -> bool:
        waiting = await self.gateway.call("carapace.cron.deliveries", state="waiting", limit=1)
        return not waiting["items"]


async def killed_under_pings(folder: Path, seed: int, names: Iterable[str], moments: int) -> Report:
    """At each of the failpoints `names`, and at so many other moments."""
    began, dice = time.monotonic(), random.Random(seed)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as client:
        settings = {"DATA_DIR": str(folder / "data")}
        gateway = GatewayProcess(folder, client, token=ADMIN_TOKEN, settings=settings)
        async with watched(gateway):
            story = PingStory(gateway, client, dice)
            await story.begin()
            for failpoint in failpoints(names, dice):
                await story.die_at(failpoint)
            for _ in range(moments):
                await story.die_within(dice.uniform(0.05, 2.0))
            broken = await story.end()
    return Report(
        title=f"killed under pings, seed {seed}",
        befell=story.befell,
        orders=Counter(
            monitors=len(story.told.names), pings=len(story.told.pings[story.steady]), flips=story.flips
        ),
        runs=Counter(),
        attempts=Counter(),
        seconds=time.monotonic() - began,
        notes=[f"{story.flips} flips", f"{len(story.told.pings[story.steady])} pings answered"],
        broken=broken,
    )
