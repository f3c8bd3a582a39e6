"""docs/howto/watch-a-cron-job.md, done with a gateway: a key, a wrapped command, one request, a script."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from support.programs import ended

from carapace_cron.clock import SystemClock
from carapace_cron.gateway.testing import BOB, House, running_gateway
from carapace_cron.ledger.watch_history import KeptPing, WatchHistory
from carapace_cron.model.monitor import Monitor
from carapace_cron.plugin import PLUGIN_ID, CronPlugin

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/howto/watch-a-cron-job.md").read_text()
GATEWAY = "https://cron.example.com"
COMMAND = "/usr/local/bin/backup --full"
NIGHTLY = ("0 3 * * *", "Europe/Berlin")
PROGRAM = f"{sys.executable} -m carapace_cron"


class Watch:
    """A gateway, a ping key of Bob's, and what became of the pings."""

    def __init__(self, house: House, cron: CronPlugin, key: str) -> None:
        assert cron._house is not None
        self._url = house.server.url
        self._monitors = cron._house.watch.monitors
        self._history = WatchHistory(cron._house._database)
        self._key = key

    def typed(self, text: str, command: str) -> str:
        """What the page shows, with our gateway, key and job."""
        text = text.replace(GATEWAY, self._url).replace("<key>", self._key).replace("$KEY", self._key)
        return text.replace(COMMAND, command).replace("/opt/carapace/bin/carapace-cron", PROGRAM)

    async def monitor(self) -> Monitor:
        """The only one."""
        (watched,) = await self._monitors.list(BOB)
        return watched.monitor

    async def pings(self) -> list[KeptPing]:
        """Oldest first."""
        return list(await self._history.pings((await self.monitor()).id))[::-1]


@pytest.fixture
async def watch(tmp_path: Path) -> AsyncIterator[Watch]:
    cron = CronPlugin(SystemClock())
    async with (
        aiohttp.ClientSession() as client,
        running_gateway(tmp_path, client, plugins={PLUGIN_ID: cron}) as house,
    ):
        (create,) = re.findall(r"^carapace-cron (tokens create .*)$", PAGE, re.MULTILINE)
        variables = {"CARAPACE_CRON_URL": house.server.url, "CARAPACE_CRON_TOKEN": "bob"}
        made = await ended(*shlex.split(f"{PROGRAM} {create}"), env={**os.environ, **variables})
        yield Watch(house, cron, made.stdout.decode().strip())


def lines_of_crontabs() -> list[str]:
    """The commands, without their times."""
    return [found.strip() for found in re.findall(r"^0 3 \* \* \*(.*)$", PAGE, re.MULTILINE)]


async def test_a_wrapped_command_makes_its_monitor_and_reports(watch: Watch) -> None:
    wrapped, _ = lines_of_crontabs()
    line = watch.typed(wrapped, "sh -c 'echo disk full; exit 3'")
    assert await ended("sh", "-c", line) == (3, b"disk full\n", "")
    start, end = await watch.pings()
    assert (start.kind, end.kind, end.exit_status) == ("start", "fail", 3)
    assert start.rid == end.rid != ""
    assert end.duration_ms is not None
    monitor = await watch.monitor()
    assert (monitor.slug, monitor.schedule, monitor.timezone) == ("nightly-backup", *NIGHTLY)


async def test_one_request_is_enough(watch: Watch) -> None:
    wrapped, requested = lines_of_crontabs()
    await ended("sh", "-c", watch.typed(wrapped, "true"))
    assert await ended("sh", "-c", watch.typed(requested, "sh -c 'exit 4'")) == (0, b"", "")
    assert [ping.exit_status for ping in await watch.pings()] == [None, 0, 4]


async def test_a_script_reports_what_it_has_to_say(watch: Watch) -> None:
    wrapped, _ = lines_of_crontabs()
    await ended("sh", "-c", watch.typed(wrapped, "true"))
    (script,) = re.findall(r"^(report=.*?)```", PAGE, re.MULTILINE | re.DOTALL)
    backup = "backup() { echo 'no \"space\" left'; return 1; }\n"
    told = await ended("sh", "-c", backup + watch.typed(script, ""), cwd=ROOT / "examples")
    assert told == (0, b"", "")
    running, failed = (await watch.pings())[2:]
    assert (running.kind, failed.kind) == ("start", "fail")
    assert failed.duration_ms is not None
