"""The example plugin as a third party ships it: as a wheel beside ours, and as a folder."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.gateway_process import OURS, GatewayProcess, until, watched

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "plugin-hello"
TOKEN = "an-admin-token-of-tests"

CONFIG = """\
[channels.reports]
kind = "file"
path = "reports.txt"

[plugins.hello]
greeting = "Good morning"
"""

FAILING_MANIFEST = """\
id = "grumpy"
name = "Grumpy"
version = "0.1.0"
description = "Fails whenever it is started"
entry = "grumpy_plugin:GrumpyPlugin"
"""

FAILING_PLUGIN = """\
from carapace_cron.hookspecs import hookimpl


class GrumpyPlugin:
    @hookimpl
    def start(self, host):
        raise RuntimeError("not before my coffee")

    @hookimpl
    def register_agents(self):
        return {"coffee": None}
"""


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        yield session


async def test_its_wheel_works_beside_ours_in_a_fresh_environment(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    wheels = await asyncio.to_thread(build_wheels, tmp_path)
    scripts = await asyncio.to_thread(fresh_environment, tmp_path / "environment", wheels)
    gateway = gateway_in(tmp_path / "gateway", client, program=(str(scripts / "carapace-cron"),))
    async with watched(gateway):
        await gateway.start()
        plugins = await records(gateway)
        assert set(plugins) == {"carapace-cron", "hello"}
        assert plugins["hello"]["source"] == "package carapace_hello"
        assert_brought_its_agent(plugins["hello"])
        await assert_a_job_runs_through_both(gateway)
        await gateway.terminate()


async def test_it_works_from_a_folder_and_beside_a_plugin_that_fails(
    tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    folder = tmp_path / "plugins"
    shutil.copytree(EXAMPLE / "src" / "carapace_hello", folder / "hello" / "carapace_hello")
    (folder / "hello" / "carapace_hello" / "plugin.toml").rename(folder / "hello" / "plugin.toml")
    (folder / "grumpy").mkdir()
    (folder / "grumpy" / "plugin.toml").write_text(FAILING_MANIFEST)
    (folder / "grumpy" / "grumpy_plugin.py").write_text(FAILING_PLUGIN)
    gateway = gateway_in(tmp_path / "gateway", client, PLUGINS_DIR=str(folder))
    async with watched(gateway):
        await gateway.start()
        plugins = await records(gateway)
        assert plugins["hello"]["source"] == f"folder {folder / 'hello'}"
        assert_brought_its_agent(plugins["hello"])
        assert plugins["grumpy"]["status"] == "failed"
        assert plugins["grumpy"]["error"] == "start() raised RuntimeError: not before my coffee"
        assert plugins["grumpy"]["registered"]["agents"] == []
        await assert_a_job_runs_through_both(gateway)
        await gateway.terminate()


def build_wheels(folder: Path) -> list[Path]:
    """Both wheels, from copies, so that nothing is left in the sources."""
    ours, example = folder / "ours", folder / "example"
    shutil.copytree(ROOT / "carapace_cron", ours / "carapace_cron")
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, ours / name)
    shutil.copytree(EXAMPLE, example)
    pip("wheel", "--no-deps", "--wheel-dir", str(folder / "wheels"), str(ours), str(example))
    return sorted((folder / "wheels").glob("*.whl"))


def fresh_environment(folder: Path, wheels: list[Path]) -> Path:
    """An environment with these wheels alone, and what they depend on by a path; its folder of scripts."""
    run([sys.executable, "-m", "venv", "--without-pip", str(folder)])
    python = folder / "bin" / "python"
    site = run([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).strip()
    Path(site, "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip("--python", str(python), "install", "--no-deps", "--no-index", *map(str, wheels))
    where = "import carapace_cron, carapace_hello; print(carapace_cron.__file__, carapace_hello.__file__)"
    files = run([str(python), "-I", "-c", where]).split()  # -I: not from the current folder
    assert [Path(file).is_relative_to(site) for file in files] == [True, True]
    return folder / "bin"


def pip(*arguments: str) -> None:
    run([sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments])


def run(command: list[str]) -> str:
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, f"{command} failed:\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout


def gateway_in(
    folder: Path, client: aiohttp.ClientSession, *, program: tuple[str, ...] = OURS, **settings: str
) -> GatewayProcess:
    folder.mkdir()
    (folder / "carapace.toml").write_text(CONFIG)
    settings |= {"DATA_DIR": str(folder / "data"), "MIN_INTERVAL_SECONDS": "1"}
    return GatewayProcess(folder, client, token=TOKEN, settings=settings, program=program)


async def records(gateway: GatewayProcess) -> dict[str, dict[str, Any]]:
    """plugin id → what the gateway says of it."""
    return {one["id"]: one for one in (await gateway.ask("carapace.gateway.plugins"))["items"]}


def assert_brought_its_agent(record: dict[str, Any]) -> None:
    assert (record["status"], record["error"], record["version"]) == ("loaded", None, "1.0.0")
    assert record["registered"]["agents"] == ["generate-report"]
    assert "register_channel_kinds" in record["registered"]["hooks"]


async def assert_a_job_runs_through_both(gateway: GatewayProcess) -> None:
    """The agent writes the report, the channel keeps it: each run's notice once, in order."""
    job = await gateway.call(
        "carapace.cron.create",
        data={
            "name": "Daily report",
            "schedule": "every 1s",
            "command": "agent: generate-report --daily",
            "channelId": "reports",
        },
    )
    file = gateway.folder / "reports.txt"

    async def has_two() -> bool:
        return file.exists() and len(file.read_text().splitlines()) >= 2

    await until(has_two, "two reports are in the channel", 10)
    lines = [line.split("\t") for line in file.read_text().splitlines()]
    runs = (await gateway.call("carapace.cron.runs", jobId=job["id"], status="success"))["items"]
    assert [line[0] for line in lines] == [f"{run['id']}.ended" for run in reversed(runs)][: len(lines)]
    assert {(title, output) for _, title, output in lines} == {
        ("Daily report: success", "'Good morning (daily) for admin'")
    }
