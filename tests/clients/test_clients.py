"""Clients of Healthchecks that others wrote run here unchanged: only their base address is ours."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from support.clients import Clients, installed
from support.gateway_process import GatewayProcess, watched

PROGRAMS = Path(__file__).parent / "programs"
ADMIN = "an-admin-token-for-these-tests"
PROGRAM_SECONDS = 60.0


class Bench:
    """A running gateway with keys of Alice's, and a way to run a program against it."""

    def __init__(self, gateway: GatewayProcess, client: aiohttp.ClientSession, clients: Clients) -> None:
        self.gateway = gateway
        self.clients = clients
        self._client = client
        self.key = self.read_only_key = self.ping_key = ""

    async def make_keys(self) -> None:
        self.key = await self._token("monitors")
        self.read_only_key = await self._token("monitors:read")
        self.ping_key = await self._token("ping")

    async def _token(self, scope: str) -> str:
        asked = {"tenant": "acme", "user": "alice", "scopes": [scope]}
        token: str = (await self.gateway.call("carapace.cron.tokens.create", **asked))["token"]
        return token

    async def api(self, path: str, *, method: str = "GET", **given: Any) -> Any:
        url = f"{self.gateway.url}/api/v3/{path}"
        headers = {"X-Api-Key": self.key}
        async with self._client.request(method, url, headers=headers, json=given or None) as response:
            assert response.status < 300, await response.text()
            return await response.json()

    async def check(self, slug: str) -> str:
        """The address of a new check."""
        address: str = (await self.api("checks/", method="POST", name=slug, slug=slug))["ping_url"]
        return address

    async def pings(self, slug: str) -> list[dict[str, Any]]:
        """What is on record for the check, oldest first."""
        (check,) = (await self.api(f"checks/?slug={slug}"))["checks"]
        pings: list[dict[str, Any]] = (await self.api(f"checks/{check['uuid']}/pings/"))["pings"]
        return pings[::-1]

    async def body(self, ping: dict[str, Any]) -> str:
        async with self._client.get(ping["body_url"], headers={"X-Api-Key": self.key}) as response:
            return await response.text()

    async def run(
        self, *command: str, folder: Path | None = None, status: int = 0, **environment: str
    ) -> str:
        """What a program printed; it must end with `status`. Its `PATH` begins with that of the clients."""
        env = {**self.clients.environment, **environment}
        if "PATH" in environment:
            env["PATH"] = f"{environment['PATH']}:{self.clients.environment['PATH']}"
        program = await asyncio.create_subprocess_exec(
            *command,
            cwd=folder,
            env=env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(PROGRAM_SECONDS):
            output = (await program.communicate())[0].decode()
        assert program.returncode == status, f"{command} ended with {program.returncode}:\n{output}"
        return output

    async def run_python(self, name: str, *arguments: str) -> str:
        return await self.run(self.clients.python, str(PROGRAMS / name), *arguments)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    clients = await asyncio.to_thread(installed)
    folder = tmp_path_factory.mktemp("clients")
    async with aiohttp.ClientSession() as client:
        settings = {"DATA_DIR": str(folder / "data")}
        gateway = GatewayProcess(folder, client, token=ADMIN, settings=settings)
        async with watched(gateway):
            await gateway.start()
            made = Bench(gateway, client, clients)
            await made.make_keys()
            yield made


pytestmark = pytest.mark.asyncio(loop_scope="module")


def kinds(pings: list[dict[str, Any]]) -> list[str]:
    return [ping["type"] for ping in pings]


async def test_healthchecks_io_manages_checks_and_pings_them(bench: Bench) -> None:
    await bench.check("backup")
    keys = (bench.key, bench.read_only_key, bench.ping_key)
    await bench.run_python("use_healthchecks_io.py", bench.gateway.url, *keys)
    pings = await bench.pings("backup")
    assert kinds(pings) == ["start", "success", "start", "fail", "start", "success"]
    assert await bench.body(pings[1]) == "copied"
    assert (await bench.body(pings[3])).startswith("no space left")
    assert {ping["ua"] for ping in pings} == {"py-healthchecks.io/0.4.4", "py-healthchecks.io-async/0.4.4"}


async def test_healthchecks_decorator_pings_around_a_function(bench: Bench) -> None:
    await bench.run_python("use_decorator.py", await bench.check("decorated"))
    pings = await bench.pings("decorated")
    assert kinds(pings) == ["start", "success", "fail"]
    assert await bench.body(pings[1]) == "copied=3"


async def test_healthchecks_wrapper_pings_around_a_block(bench: Bench) -> None:
    await bench.run_python("use_wrapper.py", await bench.check("wrapped"))
    pings = await bench.pings("wrapped")
    assert kinds(pings) == ["start", "success", "start", "fail", "start", "success"]
    assert "ValueError: no space left" in await bench.body(pings[3])


async def test_runchecked_is_content_with_the_first_answer(bench: Bench) -> None:
    address = await bench.check("runchecked")
    for ending in ("", "/"):
        await bench.run_python("use_runchecked.py", address + ending, "true")
        await bench.run_python("use_runchecked.py", address + ending, "false")
    assert kinds(await bench.pings("runchecked")) == ["success", "fail", "success", "fail"]


async def test_sch_registers_the_job_of_a_crontab_and_reports_its_runs(bench: Bench, tmp_path: Path) -> None:
    """``sch`` is the SHELL of a crontab. The crontab is read by the command of that name, here a stand-in."""
    job = "JOB_ID=nightly JOB_TAGS=prod,db JOB_GRACE=5m"
    _program(tmp_path / "crontab", f"echo '# copies everything'\necho '15 5 * * * {job} true'")
    api = f"healthchecks_api_url = {bench.gateway.url}/api/v1/\nhealthchecks_api_key = {bench.key}"
    (tmp_path / "sch.conf").write_text(f"[hc]\n{api}\n")
    sch = str(bench.clients.bin / "sch")
    where = str(tmp_path)
    for command in ("true", "true", "false"):
        await bench.run(
            sch, "-c", f"{job} {command}", folder=tmp_path, PATH=where, HOME=where, LOGNAME="alice"
        )
    (check,) = (await bench.api(f"checks/?tag=job_id%3Dnightly&tag=host%3D{socket.getfqdn()}"))["checks"]
    assert (check["schedule"], check["grace"], check["desc"]) == ("15 5 * * *", 300, "copies everything")
    assert check["channels"] == "gateway"
    pings = await bench.pings("nightly")
    assert kinds(pings) == ["start", "success", "start", "success", "start", "fail"]
    assert "exit code: 1" in await bench.body(pings[5])


async def test_borgmatic_provisions_its_check_and_sends_its_logs(bench: Bench, tmp_path: Path) -> None:
    """The program runs as a whole; in place of Borg it has a program that says much and keeps nothing."""
    (tmp_path / "source").mkdir()
    says = 'for n in $(seq 2000); do echo "file $n copied" >&2; done\necho borg 1.4.0'
    _program(tmp_path / "borg", f"{says}\nexit $BORG")
    (tmp_path / "borgmatic.yaml").write_text(
        f"""\
source_directories: [{tmp_path}/source]
repositories: [{{path: {tmp_path}/repository}}]
local_path: {tmp_path}/borg
user_state_directory: {tmp_path}/state
user_runtime_directory: {tmp_path}/runtime
healthchecks:
    ping_url: {bench.gateway.url}/ping/{bench.ping_key}/borgmatic
    create_slug: true
    send_logs: true
"""
    )
    borgmatic = (str(bench.clients.bin / "borgmatic"), "-c", str(tmp_path / "borgmatic.yaml"), "create")
    await bench.run(*borgmatic, HOME=str(tmp_path), BORG="0")
    await bench.run(*borgmatic, HOME=str(tmp_path), BORG="2", status=1)
    pings = await bench.pings("borgmatic")
    assert kinds(pings) == ["start", "log", "success", "start", "log", "fail"]
    assert {ping["ua"] for ping in pings} == {"borgmatic"}
    told = await bench.body(pings[2])
    assert "file 500 copied" in told
    assert len(told.encode()) == 10_000


async def test_the_client_from_npm_manages_checks_and_pings_them(bench: Bench) -> None:
    node = shutil.which("node", path=bench.clients.environment["PATH"])
    assert node is not None
    await bench.run(node, str(PROGRAMS / "use_client.js"), bench.gateway.url, bench.key)


def _program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
