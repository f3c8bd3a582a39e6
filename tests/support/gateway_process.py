"""The gateway as its users have it: a process that is started, asked over HTTP, stopped and killed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

OURS = (sys.executable, "-m", "carapace_cron")  # the program under test, as it stands in the sources
READY_SECONDS = 40.0  # many, for a machine that has much else to do
STOP_SECONDS = 30.0
UNAVAILABLE = -32004  # the JSON-RPC code for that
LOG_TAIL = 6_000  # characters of each log that a failed test shows

_ADDRESS = re.compile(r"^  address +(http://\S+)$", re.MULTILINE)


class NotNow(Exception):
    """The gateway takes no calls just now, and says to try again later."""


class DiedEarly(AssertionError):
    """The process ended before it told its address."""


class GatewayProcess:
    """One gateway in `folder`, over all its lives. Each life has a port and a log of its own.

    `settings`: names without the prefix, as in ``CARAPACE_CRON_<NAME>``; `environment`: what else it needs.
    """

    def __init__(
        self,
        folder: Path,
        client: aiohttp.ClientSession,
        *,
        token: str,
        settings: Mapping[str, str],
        environment: Mapping[str, str] | None = None,
        program: tuple[str, ...] = OURS,
        name: str = "gateway",
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.token = token
        self.lives = 0
        self.url = ""
        self.statuses: list[int | None] = []  # of /healthz while this life began; None: no connection
        self._client = client
        self._program = program
        self._name = name
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            **(environment or {}),
            **{f"CARAPACE_CRON_{key}": value for key, value in settings.items()},
            "CARAPACE_CRON_PORT": "0",
            "CARAPACE_CRON_ADMIN_TOKEN": token,
        }
        self._process: asyncio.subprocess.Process | None = None

    @property
    def log(self) -> Path:
        """What this life prints."""
        return self.folder / f"{self._name}-{self.lives}.log"

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def data_dir(self) -> Path:
        return Path(self._environment["CARAPACE_CRON_DATA_DIR"])

    @property
    def ledger(self) -> Path | str:
        """Its file, or the URL of its database."""
        url = self._environment.get("CARAPACE_CRON_LEDGER", "sqlite:")
        return self.data_dir / "carapace.sqlite" if url == "sqlite:" else url

    def configure(self, **settings: str) -> None:
        """Settings for the lives to come."""
        self._environment |= {f"CARAPACE_CRON_{name}": value for name, value in settings.items()}

    async def start(self) -> None:
        """Until it is ready. An `AssertionError` with its log when it does not get there."""
        await self._spawn()
        self.url = await until(self._told_address, f"{self._name} tells its address", READY_SECONDS)
        await until(self._is_ready, f"/healthz of {self._name} answers 200", READY_SECONDS)

    async def start_or_die(self) -> bool:
        """As `start`, for a life that may end at any moment: whether it was ready before it did."""
        await self._spawn()
        try:
            self.url = await until(self._told_address, f"{self._name} tells its address", READY_SECONDS)
            await until(self._is_ready_or_dead, f"/healthz of {self._name} answers 200", READY_SECONDS)
        except DiedEarly:
            return False
        return self.alive

    async def run_to_its_end(self) -> tuple[int, str]:
        """Start the process, which is to end by itself: its exit status, and what it printed."""
        await self._spawn()
        status = await self.ended(READY_SECONDS)
        assert status is not None, f"{self._name} did not end within {READY_SECONDS:g} s"
        return status, self.log.read_text()

    async def ended(self, seconds: float) -> int | None:
        """The exit status, if it ends by itself within `seconds`; None when it lives on."""
        assert self._process is not None
        try:
            async with asyncio.timeout(seconds):
                status = await self._process.wait()
        except TimeoutError:
            return None
        self._process = None
        return status

    async def _spawn(self) -> asyncio.subprocess.Process:
        assert self._process is None, "it runs already"
        self.lives += 1
        self.statuses = []
        with self.log.open("wb") as output:
            self._process = await asyncio.create_subprocess_exec(
                *self._program,
                "serve",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                cwd=self.folder,
                env=self._environment,
            )
        return self._process

    async def health(self) -> int | None:
        """The status of /healthz; None when nobody listens."""
        try:
            async with self._client.get(f"{self.url}/healthz") as answer:
                return answer.status
        except aiohttp.ClientError:
            return None

    async def terminate(self) -> None:
        """SIGTERM, and wait for a clean end."""
        process = self._running()
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(STOP_SECONDS):
            status = await process.wait()
        self._process = None
        assert status == 0, f"{self._name} ended with status {status} after SIGTERM"

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, and wait for nothing."""
        self._running().send_signal(number)

    async def kill(self) -> None:
        """SIGKILL: it can do nothing more."""
        process = self._running()
        process.kill()
        await process.wait()
        self._process = None

    async def close(self) -> None:
        """Whatever it does, it is gone afterwards."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
            self._process = None

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """The envelope of one call; for methods without one, the result. `NotNow` while it stops."""
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        headers = {"Authorization": f"Bearer {self.token}"}
        async with self._client.post(f"{self.url}/rpc", json=body, headers=headers) as answer:
            said = await answer.json()
        if said.get("error", {}).get("code") == UNAVAILABLE:
            raise NotNow(said["error"]["data"])
        assert "result" in said, f"{method} {params} answered {said}"
        result: dict[str, Any] = said["result"]
        return result

    async def call(self, method: str, **params: Any) -> Any:
        """The data of one call that succeeds."""
        said = await self.ask(method, **params)
        assert said.get("success"), f"{method} {params} answered {said}"
        return said.get("data")

    async def hear(self) -> aiohttp.ClientWebSocketResponse:
        """A WebSocket at ``/rpc``."""
        return await self._client.ws_connect(
            f"{self.url}/rpc", headers={"Authorization": f"Bearer {self.token}"}, max_msg_size=0
        )

    def logs(self) -> str:
        """The end of every log of it, without the access log, most of which is the test's own questions."""
        files = [self.folder / f"{self._name}-{life}.log" for life in range(1, self.lives + 1)]
        return "\n".join(f"--- {file.name}\n{_without_access_log(file.read_text())}" for file in files)

    def _running(self) -> asyncio.subprocess.Process:
        assert self._process is not None and self._process.returncode is None, "it does not run any more"
        return self._process

    async def _is_ready(self) -> bool:
        self.statuses.append(await self.health())
        return self.statuses[-1] == 200

    async def _is_ready_or_dead(self) -> bool:
        return await self._is_ready() or not self.alive

    async def _told_address(self) -> str | None:
        assert self._process is not None
        found = _ADDRESS.search(self.log.read_text())
        if found is None and self._process.returncode is not None:
            raise DiedEarly(f"{self._name} ended before it was up:\n{self.log.read_text()[-LOG_TAIL:]}")
        return None if found is None else found[1]


@asynccontextmanager
async def watched(*gateways: GatewayProcess) -> AsyncIterator[None]:
    """End these gateways with the block; what they logged is printed when the block fails."""
    try:
        yield
    except BaseException:
        for gateway in gateways:
            print(gateway.logs())
        raise
    finally:
        for gateway in gateways:
            await gateway.close()


async def until(condition: Callable[[], Any], what: str, seconds: float) -> Any:
    """The first truthy answer of the async function `condition`, asked again and again."""
    deadline = time.monotonic() + seconds
    while True:
        found = await condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        await asyncio.sleep(0.03)


def _without_access_log(text: str) -> str:
    lines = [line for line in text.splitlines() if " aiohttp.access: " not in line]
    return "\n".join(lines)[-LOG_TAIL:]


class Ears:
    """Everything that a gateway's WebSocket tells, over all its lives, in order."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self._listener: asyncio.Task[None] | None = None

    async def connect(self, gateway: GatewayProcess) -> None:
        await self.close()
        self._listener = asyncio.create_task(self._listen(await gateway.hear()))

    async def close(self) -> None:
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.wait((self._listener,))
            self._listener = None

    def params_of(self, method: str) -> list[dict[str, Any]]:
        """The params of all notifications of that method."""
        return [one["params"] for one in self.heard if one.get("method") == method]

    async def _listen(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async with socket:
            async for message in socket:
                if message.type is aiohttp.WSMsgType.TEXT:
                    self.heard.append(json.loads(message.data))
