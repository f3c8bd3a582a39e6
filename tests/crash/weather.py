"""A bucket behind a bad network: calls fail, answers get lost, and for a while nothing gets through."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from crash.story import Report, Story, story
from support.fault_proxy import NONE, FaultProxy, Faults, fault_proxy
from support.gateway_process import until
from support.s3_servers import aws_environment

# One call in ten fails without having been done; one in a hundred is done, and nobody is told.
WEATHER = Faults(reset=0.04, error_500=0.03, slow_down=0.03, lost_answer=0.005, done_500=0.005)
SQUALLS = replace(WEATHER, lost_answer=0.04, done_500=0.04)  # for a story too short for rare things
OUTAGE = Faults(reset=1.0)
RECOVERY_SECONDS = 60.0  # after an outage, until an order is acknowledged again

Server = Callable[[Path], AbstractContextManager[str]]


async def bad_weather(
    folder: Path, seed: int, server: Server, weather: Faults, *, seconds: float, outage_seconds: float
) -> Report:
    """Bad weather, a kill and a start in it, an outage, and bad weather again; the end is in good weather."""
    title = f"bad weather before {server.__name__}"
    with server(folder) as endpoint:
        async with fault_proxy(endpoint, seed=seed) as proxy:
            bucket = {"JOB_STORE": "s3://crash/house", "S3_ENDPOINT_URL": proxy.url}
            environment = aws_environment()
            async with story(title, folder, seed, settings=bucket, environment=environment) as told:
                proxy.faults = weather
                await told.live(seconds)
                await told.die()
                await told.live_again()
                await _outage(told, proxy, outage_seconds)
                await told.live(seconds)
                proxy.faults = NONE
                await told.die()
                await told.live_again()
                told.befell += Counter({name: n for name, n in proxy.befell.items() if name != "none"})
                return await told.end()


async def _outage(told: Story, proxy: FaultProxy, seconds: float) -> None:
    """Nothing gets through for a while. Jobs run on all the same; then orders are taken again."""
    before, began = told.world.started("/quick"), time.monotonic()
    weather, proxy.faults = proxy.faults, OUTAGE
    await told.live(seconds)
    ran = told.world.started("/quick") - before
    assert ran >= (time.monotonic() - began) / 2, f"{ran} runs in an outage of {seconds:g} s"
    assert await told.gateway.health() == 200
    proxy.faults = weather
    acknowledged, over = told.orders.acknowledged.total(), time.monotonic()

    async def takes_orders() -> bool:
        return told.orders.acknowledged.total() > acknowledged

    async with told.ordering():
        await until(takes_orders, "an order is acknowledged after the outage", RECOVERY_SECONDS)
    told.notes.append(f"orders again {time.monotonic() - over:.1f} s after an outage of {seconds:g} s")
