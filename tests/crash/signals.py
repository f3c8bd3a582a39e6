"""Signals that a gateway survives: SIGSTOP for longer than its lease, and SIGTERM with work under way."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from signal import SIGCONT, SIGSTOP

import psutil
from crash.ordered import Asked
from crash.story import HASTY, Report, Story, story
from support.closing import evidence
from support.gateway_process import until

GRACE_SECONDS = 3.0
BETWEEN_STOPS_SECONDS = 2.0
BEGIN_SECONDS = 10.0


async def stopped(
    folder: Path, seed: int, *, seconds: float, times: int, program: tuple[str, ...] = HASTY
) -> Report:
    """Stopped `times` times for `seconds`, in the middle of its work and of an order."""
    async with story(f"stopped for {seconds:g} s", folder, seed, program=program) as told:
        async with told.ordering():
            for _ in range(times):
                await asyncio.sleep(BETWEEN_STOPS_SECONDS)
                told.gateway.send_signal(SIGSTOP)
                await asyncio.sleep(seconds)
                told.gateway.send_signal(SIGCONT)
                told.befell["stop"] += 1
            await asyncio.sleep(BETWEEN_STOPS_SECONDS)
        return await told.end()


@dataclass
class Drain:
    """What a gateway left behind that was told to stop. Attempts: the state of the first of each run."""

    seconds: float
    brief: str
    endless: str
    stubborn: str
    open_requests: int
    processes: int


async def drained(folder: Path, seed: int) -> tuple[Drain, Report]:
    """SIGTERM while one run needs less than the grace, one never ends, and one ignores SIGTERM itself."""
    pids = folder / "pids.txt"
    settings = {"SHUTDOWN_GRACE_SECONDS": f"{GRACE_SECONDS:g}"}
    async with story("terminated", folder, seed, settings=settings) as told:
        url = told.world.url
        async with told.ordering():
            await asyncio.sleep(1)
        await told.orders.settle(told.gateway)
        brief = await told.orders.demand(told.gateway, "brief", f"{url}/slow?seconds=2")
        endless = await told.orders.demand(told.gateway, "endless", f"{url}/hang")
        stubborn = await told.orders.demand(told.gateway, "stubborn", f"stubborn {pids}")
        await _begun(told, 1, brief, endless)
        await _written(pids, 1)

        async with told.ordering():
            began = time.monotonic()
            await told.gateway.terminate()
            seconds = time.monotonic() - began
        told.befell["SIGTERM"] += 1
        drain = Drain(
            seconds=seconds,
            brief=_first_attempt(told, brief),
            endless=_first_attempt(told, endless),
            stubborn=_first_attempt(told, stubborn),
            open_requests=_open(told),
            processes=_alive(pids),
        )

        await told.live_again()
        await _begun(told, 2, endless)
        await _written(pids, 2)
        for asked in (endless, stubborn):
            await told.orders.cancel(told.gateway, asked)
        report = await told.end()
        drain.processes += _alive(pids)
        return drain, report


async def _begun(told: Story, attempt: int, *runs: Asked) -> None:
    wanted = {(one.run_id, attempt) for one in runs}

    async def have_begun() -> bool:
        seen = told.world.requests.lines()
        return wanted <= {(line["run"], line["attempt"]) for line in seen if line["what"] == "begin"}

    await until(have_begun, f"attempts {attempt} begin", BEGIN_SECONDS)


async def _written(pids: Path, count: int) -> None:
    async def has_begun() -> bool:
        return pids.exists() and len(pids.read_text().split()) >= count

    await until(has_begun, f"the program is started {count} times", BEGIN_SECONDS)


def _first_attempt(told: Story, asked: Asked) -> str:
    rows = evidence(told.gateway, told.world).attempts
    return next(str(row["state"]) for row in rows if (row["run_id"], row["number"]) == (asked.run_id, 1))


def _open(told: Story) -> int:
    """Requests that the witness still works on."""
    lines = told.world.requests.lines()
    return sum(1 if line["what"] == "begin" else -1 for line in lines)


def _alive(pids: Path) -> int:
    """How many of the program's processes live, with those that they started."""
    programs = {int(pid) for pid in pids.read_text().split()}
    alive = psutil.process_iter(["pid", "ppid"])
    return sum(one.info["pid"] in programs or one.info["ppid"] in programs for one in alive)
