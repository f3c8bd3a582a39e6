"""The whole program behind its real door, on a clock that the test moves.

Alice owns, Bob is in her team, Charlie is a stranger who administers his own tenant; Ada administers
Alice's. Their tokens are their names.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from carapace_cron.clock import ManualClock
from carapace_cron.gateway.testing import House, running_gateway
from carapace_cron.hookspecs import hookimpl
from carapace_cron.model.actor import Actor
from carapace_cron.plugin import CronPlugin
from carapace_cron.ports.host import AgentCall, AgentReply, Host

NOON = datetime(2026, 1, 30, 12, 0, tzinfo=UTC)  # a Friday; the day of the original extension's examples
PEOPLE = {
    "alice": Actor("acme", "alice", frozenset({"jobs:write"})),
    "bob": Actor("acme", "bob", frozenset({"jobs:write"})),
    "ada": Actor("acme", "ada", frozenset({"admin"})),
    "charlie": Actor("other", "charlie", frozenset({"admin"})),
    "reader": Actor("acme", "alice", frozenset({"jobs:read"})),
    "pinger": Actor("acme", "alice", frozenset({"ping"})),
    "watcher": Actor("acme", "alice", frozenset({"monitors"})),
    "onlooker": Actor("acme", "alice", frozenset({"monitors:read"})),
}
ENDED = {"success", "degraded", "failure", "timeout", "cancelled", "skipped", "missed"}
PATIENCE_SECONDS = 20.0  # of real time, until something real must have happened: disks can be busy

JOB = {"name": "Report", "cronExpression": "0 9 * * *", "command": "echo done", "channelId": "gateway"}


class Agents:
    """The gateway's agents. `hang` works until it is stopped, or until `let_go`; `work <name>` does what the
    test has put into `doing`."""

    def __init__(self) -> None:
        self.calls: list[AgentCall] = []
        self.stopped: list[str] = []
        self.let_go = asyncio.Event()
        self.working = 0
        self.doing: dict[str, Callable[[AgentCall], Awaitable[AgentReply]]] = {}

    @hookimpl
    def register_agents(self) -> Mapping[str, Callable[[AgentCall], Awaitable[AgentReply | str]]]:
        agents = {"generate-report": self._report, "hang": self._hang, "fail": self._fail}
        return {**agents, "work": self._work}

    async def _report(self, call: AgentCall) -> str:
        self.calls.append(call)
        return f"report {' '.join(call.arguments)}"

    async def _fail(self, call: AgentCall) -> AgentReply:
        self.calls.append(call)
        return AgentReply("half of it", "failure", "the source was empty")

    async def _work(self, call: AgentCall) -> AgentReply:
        return await self.doing[call.arguments[0]](call)

    async def _hang(self, call: AgentCall) -> str:
        self.calls.append(call)
        self.working += 1
        try:
            await self.let_go.wait()
        except asyncio.CancelledError:
            self.stopped.append(call.metadata["runId"])
            raise
        finally:
            self.working -= 1
        return "let go"


class SettledHost:
    """The gateway as the plugin sees it, with settings of the test's for the extension."""

    def __init__(self, host: Host, settings: Mapping[str, Any]) -> None:
        self._host = host
        self._settings = settings

    def settings_of(self, plugin_id: str) -> Mapping[str, Any]:
        return self._settings

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)


class SettledCron(CronPlugin):
    """The extension on a clock and settings of the test's."""

    def __init__(self, clock: ManualClock, settings: Mapping[str, Any]) -> None:
        super().__init__(clock)
        self._chosen = settings

    @hookimpl
    async def start(self, host: Host) -> None:
        await super().start(SettledHost(host, self._chosen))

    def busy(self) -> bool:
        """Whether the database works: time must not go on meanwhile."""
        return self._house is not None and self._house._database.in_flight > 0


class Api:
    """A started gateway and those who call it."""

    def __init__(self, house: House, cron: SettledCron, clock: ManualClock, agents: Agents) -> None:
        self.house = house
        self.cron = cron
        self.clock = clock
        self.agents = agents

    async def ask(self, method: str, params: Any = None, *, who: str = "alice") -> dict[str, Any]:
        """The JSON-RPC answer to ``carapace.cron.<method>``."""
        name = method if method.startswith("carapace.") else f"carapace.cron.{method}"
        answer = await self.house.call(name, params, who=who)
        assert isinstance(answer, dict)
        return answer

    async def answer(self, method: str, params: Any = None, *, who: str = "alice") -> dict[str, Any]:
        """The envelope of a call that was no protocol fault."""
        answer = await self.ask(method, params, who=who)
        assert "result" in answer, answer
        envelope = answer["result"]
        assert isinstance(envelope, dict)
        return envelope

    async def data(self, method: str, params: Any = None, *, who: str = "alice") -> Any:
        """What a call that went well answers."""
        envelope = await self.answer(method, params, who=who)
        assert envelope["success"] is True, envelope
        return envelope.get("data")

    async def refusal(self, method: str, params: Any = None, *, who: str = "alice") -> dict[str, Any]:
        """The envelope of a call that was refused."""
        envelope = await self.answer(method, params, who=who)
        assert envelope["success"] is False, envelope
        assert isinstance(envelope["error"], str) and envelope["error"]
        return envelope

    async def create(self, *, who: str = "alice", **fields: Any) -> dict[str, Any]:
        job = await self.data("create", {"data": {**JOB, **fields}}, who=who)
        assert isinstance(job, dict)
        return job

    async def runs(self, *, who: str = "alice", **asked: Any) -> list[dict[str, Any]]:
        items = (await self.data("runs", asked, who=who))["items"]
        assert isinstance(items, list)
        return items

    async def run_in(self, run_id: str, states: Collection[str] = ENDED, *, who: str = "alice") -> Any:
        """The run, once it is in one of the states."""
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < give_up_at:
            for run in await self.runs(who=who):
                if run["id"] == run_id and run["status"] in states:
                    await self.clock.advance(0)  # the loops hear of what the ledger holds a moment later
                    return run
        raise AssertionError(f"run {run_id} never came to {states}: {await self.runs(who=who)}")

    async def until(self, happened: Callable[[], Awaitable[bool]]) -> None:
        """Ask again and again; each question lets the gateway work."""
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < give_up_at:
            if await happened():
                return
        raise AssertionError("it never happened")


class OpenApi:
    """``await open_api(max_concurrent_runs=1, …)``: a gateway with these settings of the extension.

    Opened again, the one before is stopped first: a restart on the same files.
    """

    def __init__(self, data_dir: Path, client: aiohttp.ClientSession) -> None:
        self._data_dir = data_dir
        self._client = client
        self._clock = ManualClock(NOON)
        self._stack = AsyncExitStack()

    async def __call__(self, **settings: Any) -> Api:
        await self.stop()
        agents = Agents()
        cron = SettledCron(self._clock, {"shutdown_grace_seconds": 0, **settings})
        self._clock.busy.append(cron.busy)
        plugins = {"agents": agents, "carapace-cron": cron}
        opened = running_gateway(self._data_dir, self._client, plugins=plugins, clock=self._clock)
        house = await self._stack.enter_async_context(opened)
        house.people.known = dict(PEOPLE)
        return Api(house, cron, self._clock, agents)

    async def stop(self) -> None:
        await self._stack.aclose()
        self._clock.busy.clear()


@pytest.fixture
async def open_api(tmp_path: Path) -> AsyncIterator[OpenApi]:
    async with aiohttp.ClientSession() as client:
        opener = OpenApi(tmp_path / "data", client)
        yield opener
        await opener.stop()


@pytest.fixture
async def api(open_api: OpenApi) -> Api:
    """A gateway with nothing in it."""
    return await open_api()
