"""The docs tell what the code does: names, limits, and examples that run."""

from __future__ import annotations

import re
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from carapace_cron.errors import ConfigurationError, InvalidValue
from carapace_cron.gateway import rpc
from carapace_cron.gateway.hookspecs import HostHooks
from carapace_cron.gateway.limits import Limits
from carapace_cron.gateway.manifest import Manifest, Setting
from carapace_cron.gateway.settings import GatewaySettings
from carapace_cron.gateway.testing import House
from carapace_cron.hookspecs import CronHooks, hookimpl
from carapace_cron.ports.host import AgentCall, HostMessage
from carapace_cron.ports.runner import Work

OpenHouse = Callable[..., Awaitable[House]]
DOCS = Path(__file__).parents[2] / "docs"
REFERENCE = (DOCS / "reference" / "gateway.md").read_text()
HOWTO = (DOCS / "howto" / "write-a-plugin.md").read_text()
BLOCK = re.compile(r"^```(?:toml|python)\n# (\S+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


class Cron:
    """Offers the cron hooks, as the extension does."""

    host: Any

    @hookimpl
    def register_hookspecs(self) -> Sequence[type]:
        return [CronHooks]

    @hookimpl
    def start(self, host: Any) -> None:
        self.host = host


@pytest.fixture
def plugins_dir(tmp_path: Path) -> Any:
    """The how-to's plugins, written to folders as it says."""
    for number, (name, text) in enumerate(BLOCK.findall(HOWTO)):
        folder = tmp_path / "plugins" / str(number // 2)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    yield tmp_path / "plugins"
    for name in ("hello_plugin", "pigeon_plugin"):
        sys.modules.pop(name, None)


def work(command: str) -> Work:
    return Work(
        job_id="job_1", job_name="Shout", tenant="acme", user_id="alice", command=command, http=None,
        channel_id="ops", run_id="run_1", attempt=1, scheduled_for=datetime(2026, 12, 1, tzinfo=UTC),
        timeout_seconds=5, trigger="schedule",
    )


def public_names(of: type) -> list[str]:
    return [name for name in vars(of) if not name.startswith("_")]


@pytest.mark.parametrize("name", public_names(HostHooks) + public_names(CronHooks))
def test_every_hook_has_a_heading(name: str) -> None:
    assert f"\n### {name}\n" in HOWTO


@pytest.mark.parametrize("name", [*Manifest.model_fields, *Setting.model_fields])
def test_every_key_of_the_manifest_is_told(name: str) -> None:
    assert re.search(rf"`?\[?{name}[`<.\]]", HOWTO)


@pytest.mark.parametrize("name", GatewaySettings.model_fields)
def test_every_setting_is_told(name: str) -> None:
    assert re.search(rf"`{name}[`.]|\[{name}\.", REFERENCE)


def test_every_error_code_is_told() -> None:
    for code, message in rpc._MESSAGES.items():
        assert f"| {code} | {message} |" in REFERENCE


def test_the_limits_are_those_of_the_code() -> None:
    limits = Limits()
    for told in (
        f"{limits.body_bytes} bytes", f"within {limits.body_seconds:g} s",
        f"closed after {limits.keepalive_seconds:g} s",
        f"| {limits.connections}, of one address other than loopback {limits.connections_per_address} |",
        f"{limits.socket_at_a_time} requests at a time, {limits.socket_waiting} more waiting",
        f"{limits.socket_queue} texts", f"a ping every {limits.socket_heartbeat_seconds:g} s",
        f"{rpc.MAX_BATCH} requests, {rpc.MAX_AT_A_TIME} at a time",
    ):
        assert told in REFERENCE


async def test_the_example_of_the_reference_is_what_it_answers(house: House) -> None:
    sent, answered = re.findall(r"^[→←] (.*)$", REFERENCE, re.MULTILINE)
    assert await (await house.post(sent)).text() == answered


async def test_every_method_of_the_gateway_is_told(house: House) -> None:
    for name in house.gateway.methods:
        assert f"| `{name}` |" in REFERENCE


async def test_the_plugin_of_the_how_to_works(open_house: OpenHouse, plugins_dir: Path) -> None:
    house = await open_house(settings={"plugins_dir": plugins_dir}, plugins={"cron": Cron()})
    records = {record.id: record for record in house.gateway.plugins()}
    assert records["hello"].error is None
    assert set(records["hello"].registered.hooks) == set(public_names(HostHooks)) - {"register_hookspecs"}

    call = AgentCall("generate-report", ("--daily",), "acme", "alice", "k", {})
    reply = await house.gateway.run_agent(call)
    assert reply.output == "Hello, alice: --daily"
    await house.gateway.post(HostMessage("printer", "acme", "alice", "t", "a page", {}, "k"))
    house.gateway.emit("carapace.cron.job_completed", {}, tenant="acme", user_id="alice")
    pages = await house.call("hello.pages", {"atLeast": 2})
    assert pages["result"] == {"user": "alice", "enough": True}
    response = await house.get("/hello/world", headers={"X-Api-Key": "guest"})
    assert await response.text() == "world, says guest"
    assert (await house.get("/healthz")).status == 200


async def test_the_cron_plugin_of_the_how_to_works(open_house: OpenHouse, plugins_dir: Path) -> None:
    cron = Cron()
    house = await open_house(settings={"plugins_dir": plugins_dir}, plugins={"cron": cron})
    record = next(record for record in house.gateway.plugins() if record.id == "pigeon")
    assert record.error is None
    assert set(record.registered.hooks) == set(public_names(CronHooks))

    hook = cron.host.plugin_manager.hook
    ((runner,),) = hook.register_runners()
    assert runner.claims("shout: hello")
    with pytest.raises(InvalidValue):
        runner.check("shout: ", None)
    outcome = await runner.run(work("shout: hello"))
    assert (outcome.status, outcome.output) == ("success", "HELLO")
    (kinds,) = hook.register_channel_kinds()
    assert kinds["pigeon"]("ops", {"loft": "north"}).loft == "north"
    with pytest.raises(ConfigurationError):
        kinds["pigeon"]("ops", {})
