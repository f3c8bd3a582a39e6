"""A disk without room: for one process, by a limit on its files; or really, on a small file system."""

from __future__ import annotations

import asyncio
import errno
import resource
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from crash.story import Report, Story, story
from support.gateway_process import NotNow, until

BEFORE_SECONDS = 6.0  # until the files are longer than `SHORT`
FULL_SECONDS = 6.0
RECOVERY_SECONDS = 30.0
SHORT = 256 * 1024  # bytes
TMPFS_MEGABYTES = 32


class Disk(Protocol):
    """Where a gateway has its data. `fill`: from now on nothing more fits, until `free`."""

    name: str
    data_dir: Path

    def fill(self, told: Story) -> None: ...

    def free(self, told: Story) -> None: ...


class ShortFiles:
    """No file of the process may grow over a length that its database has by then. Needs no rights."""

    name = "limit of file sizes"

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir

    def fill(self, told: Story) -> None:
        log = self.data_dir / "carapace.sqlite-wal"
        assert log.stat().st_size > SHORT, f"{log.stat().st_size} bytes would still fit"
        self._limit(told, SHORT)

    def free(self, told: Story) -> None:
        self._limit(told, resource.RLIM_INFINITY)

    def _limit(self, told: Story, size: int) -> None:
        if told.gateway.alive:
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.prlimit(told.gateway.pid, resource.RLIMIT_FSIZE, (size, hard))


class Tmpfs:
    """A file system of its own, and a file in it that takes all the room there is. Made by `mounted`."""

    name = "tmpfs"

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._ballast = data_dir / "ballast"

    def fill(self, told: Story) -> None:
        with self._ballast.open("ab", buffering=0) as file:
            for size in (1 << 20, 1 << 12):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def free(self, told: Story) -> None:
        self._ballast.unlink()


@contextmanager
def mounted(folder: Path) -> Iterator[Tmpfs]:
    """Needs the right to mount; says so where it is not there."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={TMPFS_MEGABYTES}m", "tmpfs", folder], check=True)
    try:
        yield Tmpfs(folder)
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


async def full(folder: Path, seed: int, disk: Disk) -> Report:
    """Twice there is no room for a while; the second time the gateway is killed."""
    settings = {"DATA_DIR": str(disk.data_dir)}
    async with story(f"full disk ({disk.name})", folder, seed, settings=settings) as told:
        await told.live(BEFORE_SECONDS)
        _fill(told, disk)
        said = await _refused(told)
        disk.free(told)
        await _takes_orders_again(told)
        await told.live(BEFORE_SECONDS)

        _fill(told, disk)
        await told.live(FULL_SECONDS)
        await told.die()
        disk.free(told)
        await told.live_again()
        await told.live(BEFORE_SECONDS)
        told.notes.append(f'said "{said}"')
        return await told.end()


def _fill(told: Story, disk: Disk) -> None:
    disk.fill(told)
    told.befell["full disk"] += 1


async def _refused(told: Story) -> str:
    """Orders for a while, of which none can be kept; what is said to one that needs to be."""
    async with told.ordering():
        await asyncio.sleep(FULL_SECONDS)
        draft = {"name": "too much", "schedule": "0 0 29 2 *", "command": "whoami", "channelId": "gateway"}
        try:
            said = await told.gateway.ask("carapace.cron.create", data=draft)
        except NotNow as refusal:
            return str(refusal)
        assert said["success"] is False, f"{said} was kept on a full disk"
        assert said["code"] == "unavailable", said
        assert await told.gateway.health() == 503
    return str(said["error"])


async def _takes_orders_again(told: Story) -> None:
    acknowledged, began = told.orders.acknowledged.total(), time.monotonic()

    async def is_well() -> bool:
        return told.orders.acknowledged.total() > acknowledged and await told.gateway.health() == 200

    async with told.ordering():
        await until(is_well, "orders are acknowledged when there is room again", RECOVERY_SECONDS)
    told.notes.append(f"well again after {time.monotonic() - began:.1f} s")
