"""All faults, for longer than a test can take: ``python -m crash.soak`` in ``tests``, or ``make soak``.

    python -m crash.soak                      everything, in about 25 minutes on two processors
    python -m crash.soak --seed 7             the same dice again
    python -m crash.soak --only weather       one kind of fault

It tells each report as it comes, then a table; its exit status is 1 if any promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path

from crash.clock_steps import clock_set
from crash.full_disk import ShortFiles, full, mounted
from crash.kills import EMBEDDED, ON_S3, killed_on_s3, killed_on_sqlite
from crash.ping_kills import POINTS, killed_under_pings
from crash.signals import drained, stopped
from crash.story import Report
from crash.weather import WEATHER, Server, bad_weather
from support.gateway_process import OURS
from support.s3_servers import moto_server, seaweedfs

KILL_STORIES = 3  # on SQLite: each with all failpoints and `MOMENTS` more
MOMENTS = 25
MOMENTS_ON_S3 = 12
PING_MOMENTS = 100
WEATHER_SECONDS = 60.0
OUTAGE_SECONDS = 60.0
STOP_SECONDS = 75.0  # the lease is 60

Scenario = Callable[[Path, int], Awaitable[Report]]


def scenarios() -> Iterator[tuple[str, Scenario]]:
    """name → what to do in a folder with a seed."""
    for _ in range(KILL_STORIES):
        yield "kills", partial(killed_on_sqlite, names=EMBEDDED, moments=MOMENTS)
    yield "kills", partial(killed_on_s3, names=ON_S3, moments=MOMENTS_ON_S3)
    yield "pings", partial(killed_under_pings, names=POINTS, moments=PING_MOMENTS)
    for server in (seaweedfs, moto_server):
        yield "weather", partial(_weather, server=server)
    yield "stops", partial(stopped, seconds=STOP_SECONDS, times=2, program=OURS)
    yield "terms", _drained
    yield "clock", clock_set
    yield "disk", _short_files
    yield "disk", _tmpfs


async def _weather(folder: Path, seed: int, *, server: Server) -> Report:
    return await bad_weather(
        folder, seed, server, WEATHER, seconds=WEATHER_SECONDS, outage_seconds=OUTAGE_SECONDS
    )


async def _drained(folder: Path, seed: int) -> Report:
    drain, report = await drained(folder, seed)
    report.notes.append(f"drained in {drain.seconds:.1f} s")
    return report


async def _short_files(folder: Path, seed: int) -> Report:
    return await full(folder, seed, ShortFiles(folder / "data"))


async def _tmpfs(folder: Path, seed: int) -> Report:
    with mounted(folder / "disk") as disk:
        return await full(folder, seed, disk)


async def soak(seed: int, only: str | None) -> Sequence[Report]:
    """The reports of all scenarios, or of those of one name; each is told as it comes."""
    dice = random.Random(seed)
    reports = []
    for name, scenario in scenarios():
        own_seed = dice.randrange(10**6)
        if only in (None, name):
            reports.append(await _told(name, scenario, own_seed))
            print(reports[-1], *reports[-1].broken, sep="\n", flush=True)
    return reports


async def _told(name: str, scenario: Scenario, seed: int) -> Report:
    """What a story prints, the logs of its gateway, is of interest only if it cannot be told to its end."""
    with tempfile.TemporaryDirectory(prefix=f"soak-{name}-") as folder:
        Path(folder, "story").mkdir()
        printed = Path(folder, "printed.txt")
        try:
            with printed.open("w") as file, redirect_stdout(file):
                return await scenario(Path(folder, "story"), seed)
        except Exception as error:  # noqa: BLE001  # the others are told all the same
            print(printed.read_text())
            return Report.of_failure(f"{name}, seed {seed}", error)


def table(reports: Sequence[Report]) -> str:
    lines = [f"{'fault':<32}{'times':>7}{'runs':>8}{'lost':>6}{'orders':>8}{'seconds':>9}{'broken':>8}"]
    for one in reports:
        lines.append(
            f"{one.title:<32}{one.befell.total():>7}{one.runs.total():>8}{one.attempts['lost']:>6}"
            f"{one.orders.total():>8}{one.seconds:>9.0f}{len(one.broken):>8}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser("python -m crash.soak", description="Do a gateway harm, and judge it.")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--only", choices=sorted({name for name, _ in scenarios()}))
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    began = time.monotonic()
    reports = asyncio.run(soak(given.seed, given.only))
    kills = sum(n for one in reports for name, n in one.befell.items() if name.startswith("kill"))
    print(table(reports))
    print(f"{kills} kills, {time.monotonic() - began:.0f} s in all")
    sys.exit(any(one.broken for one in reports))


if __name__ == "__main__":
    main()
