"""SIGKILL before and after each call of a store, and at any moment."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from pathlib import Path

from crash.story import Report, Story, story
from support.s3_servers import aws_environment, seaweedfs

from carapace_cron.failpoints import NAMES

# Failpoints that lie on the way of a start only.
ONCE_A_LIFE = ("objects.get", "objects.list", "ledger.release_held")
ON_S3 = tuple(name for name in NAMES if name.startswith("objects."))
EMBEDDED = tuple(
    name
    for name in NAMES
    if name.startswith(("objects.", "ledger.", "in_force.", "outbox."))  # a story has no monitors
    and not name.startswith(("objects.get", "outbox.take"))  # calls of a store or ledger that is shared
)

LONGEST_LIFE_SECONDS = 3.0


async def killed_on_sqlite(folder: Path, seed: int, names: Iterable[str], moments: int) -> Report:
    """At each of the failpoints `names`, and at so many other moments."""
    async with story("killed, on SQLite", folder, seed) as told:
        await _kill(told, names, moments)
        return await told.end()


async def killed_on_s3(folder: Path, seed: int, names: Iterable[str], moments: int) -> Report:
    """The same, with the jobs in a bucket."""
    with seaweedfs(folder) as endpoint:
        bucket = {"JOB_STORE": "s3://crash/house", "S3_ENDPOINT_URL": endpoint}
        environment = aws_environment()
        async with story("killed, on S3", folder, seed, settings=bucket, environment=environment) as told:
            await _kill(told, names, moments)
            return await told.end()


async def _kill(told: Story, names: Iterable[str], moments: int) -> None:
    await told.live(1)
    await told.die()
    for failpoint in failpoints(names, told.dice):
        await told.live_and_die_at(failpoint)
    for _ in range(moments):
        await told.live_and_die_within(told.dice.uniform(0.1, LONGEST_LIFE_SECONDS))


def failpoints(names: Iterable[str], dice: random.Random) -> Sequence[str]:
    """Each name once, in any order; at the first or second time, where a life comes there so often."""
    points = [name if name.startswith(ONCE_A_LIFE) else f"{name}:{dice.randint(1, 2)}" for name in names]
    dice.shuffle(points)
    return points
