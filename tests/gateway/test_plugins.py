"""Plugins found, checked, started and set aside: one that fails never takes the others with it."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from carapace_cron.errors import ConfigurationError
from carapace_cron.gateway.discovery import GROUP
from carapace_cron.gateway.hookspecs import Agent, HostChannel, Method, Params, Route
from carapace_cron.gateway.plugins import PluginRecord
from carapace_cron.gateway.testing import House, Methods
from carapace_cron.hookspecs import CronHooks, hookimpl
from carapace_cron.model.actor import Actor
from carapace_cron.ports.channel import DeliveryFailed
from carapace_cron.ports.host import AgentCall, Host, HostMessage

OpenHouse = Callable[..., Awaitable[House]]

MANIFEST = """
id = "{id}"
name = "{id}"
version = "1.0"
description = "A plugin for tests"
entry = "{entry}"
{more}
"""

AGENT = """
from carapace_cron.hookspecs import hookimpl

async def agent(call):
    return {reply!r}

class Plugin:
    @hookimpl
    def register_agents(self):
        return {{{name!r}: agent}}
"""


@pytest.fixture(autouse=True)
def _modules() -> Iterator[None]:
    """Modules that a test's plugins imported are forgotten with the test."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def plugins_dir(tmp_path: Path) -> Path:
    return tmp_path / "plugins"


def write_plugin(
    plugins_dir: Path, name: str, code: str, *, module: str = "", plugin_id: str = "", more: str = ""
) -> Path:
    """A plugin folder: ``plugin.toml`` and one module with the class ``Plugin``."""
    folder = plugins_dir / name
    folder.mkdir(parents=True)
    module = module or name.replace("-", "_")
    text = MANIFEST.format(id=plugin_id or name, entry=f"{module}:Plugin", more=more)
    (folder / "plugin.toml").write_text(text)
    (folder / f"{module}.py").write_text(code)
    return folder


def record(house: House, plugin_id: str, number: int = 0) -> PluginRecord:
    return [one for one in house.gateway.plugins() if one.id == plugin_id][number]


# Found


async def test_a_folder_with_a_manifest_is_a_plugin(open_house: OpenHouse, plugins_dir: Path) -> None:
    folder = write_plugin(plugins_dir, "hello", AGENT.format(reply="hi", name="greet"))
    house = await open_house(settings={"plugins_dir": plugins_dir})
    found = record(house, "hello")
    assert (found.status, found.error, found.version) == ("loaded", None, "1.0")
    assert found.source == f"folder {folder}"
    assert found.registered.agents == ("greet",)
    assert found.registered.hooks == ("register_agents",)
    reply = await house.gateway.run_agent(AgentCall("greet", (), "acme", "alice", "k", {}))
    assert reply.output == "hi"
    assert str(folder) not in sys.path


async def test_an_installed_package_is_a_plugin_and_a_folder_of_its_id_wins(
    open_house: OpenHouse, plugins_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("installed_one", "installed_two"):
        package = tmp_path / "site" / name
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(AGENT.format(reply="package", name=name))
        text = MANIFEST.format(id=name.replace("_", "-"), entry=f"{name}:Plugin", more="")
        (package / "plugin.toml").write_text(text)
    monkeypatch.syspath_prepend(tmp_path / "site")
    write_plugin(
        plugins_dir, "mine", AGENT.format(reply="folder", name="installed_two"), plugin_id="installed-two"
    )
    house = await open_house(
        settings={"plugins_dir": plugins_dir},
        installed=lambda: [EntryPoint(name, name, GROUP) for name in ("installed_two", "installed_one")],
    )
    assert record(house, "installed-one").status == "loaded"
    assert record(house, "installed-one").source == "package installed_one"
    winner, loser = record(house, "installed-two", 0), record(house, "installed-two", 1)
    assert winner.status == "loaded"
    assert (loser.status, loser.error) == ("disabled", f"overridden by {winner.source}")
    assert "installed_two" not in sys.modules
    reply = await house.gateway.run_agent(AgentCall("installed_two", (), "acme", "alice", "k", {}))
    assert reply.output == "folder"


async def test_an_entry_point_without_a_manifest_is_a_failed_plugin(open_house: OpenHouse) -> None:
    points = [EntryPoint("gone", "no_such_package", GROUP), EntryPoint("json", "json", GROUP)]
    house = await open_house(installed=lambda: points)
    assert "No such file" in (record(house, "gone").error or "")
    assert "No such file" in (record(house, "json").error or "")


async def test_the_settings_can_turn_a_plugin_off(open_house: OpenHouse, plugins_dir: Path) -> None:
    write_plugin(plugins_dir, "hello", "raise RuntimeError('imported')")
    house = await open_house(
        settings={"plugins_dir": plugins_dir, "plugins": {"hello": {"enabled": False}}}
    )
    found = record(house, "hello")
    assert found.status == "disabled"
    assert found.error == "disabled in the settings: plugins.hello.enabled = false"


async def test_a_plugin_gets_its_settings_with_defaults(open_house: OpenHouse, plugins_dir: Path) -> None:
    more = '[settings.times]\ntype = "integer"\ndefault = 3\ndescription = "How often"'
    write_plugin(plugins_dir, "hello", AGENT.format(reply="hi", name="greet"), more=more)
    house = await open_house(settings={"plugins_dir": plugins_dir, "plugins": {"hello": {"enabled": True}}})
    assert house.gateway.settings_of("hello") == {"times": 3}
    with pytest.raises(ConfigurationError, match='no plugin "other" is loaded'):
        house.gateway.settings_of("other")


async def test_settings_for_a_plugin_that_is_not_there_are_said(
    open_house: OpenHouse, caplog: pytest.LogCaptureFixture
) -> None:
    await open_house(settings={"plugins": {"helo": {}}})
    assert "settings for plugin helo, which was not found: expected one of people" in caplog.text


# Set aside

BROKEN = {
    "syntax": ("def broken(:", "SyntaxError"),
    "import": ("import no_such_module_at_all", "ModuleNotFoundError"),
    "raises": ("raise RuntimeError('no luck')", "RuntimeError: no luck"),
    "exits": ("raise SystemExit(3)", "SystemExit"),
    "no-entry": ("class Other: pass", 'no "Plugin" in no_entry'),
    "constructor": ("class Plugin:\n    def __init__(self, host): pass", "missing 1 required"),
    "no-hook": ("class Plugin:\n    def start(self, host): pass", "implements no hook"),
    "unknown-hook": (
        "from carapace_cron.hookspecs import hookimpl\n"
        "class Plugin:\n    @hookimpl\n    def register_agent(self): return {}",
        'did you mean "register_agents"?',
    ),
    "wrong-argument": (
        "from carapace_cron.hookspecs import hookimpl\n"
        "class Plugin:\n    @hookimpl\n    def start(self, gateway): pass",
        "gateway",
    ),
    "async-register": (
        "from carapace_cron.hookspecs import hookimpl\n"
        "class Plugin:\n    @hookimpl\n    async def register_agents(self): return {}",
        "def instead of async def",
    ),
    "wrapper": (
        "from carapace_cron.hookspecs import hookimpl\n"
        "class Plugin:\n    @hookimpl(wrapper=True)\n    def on_event(self): return (yield)",
        "a plain implementation",
    ),
    "no-mapping": (
        "from carapace_cron.hookspecs import hookimpl\n"
        "class Plugin:\n    @hookimpl\n    def register_agents(self): return [1]",
        "AttributeError",
    ),
    "start-raises": (
        "from carapace_cron.hookspecs import hookimpl\n"
        "class Plugin:\n    @hookimpl\n    async def start(self, host): raise OSError('no disk')",
        "start() raised OSError: no disk",
    ),
    "start-hangs": (
        "import asyncio\nfrom carapace_cron.hookspecs import hookimpl\n"
        "class Plugin:\n    @hookimpl\n    async def start(self, host): await asyncio.sleep(60)",
        "start() was not done within 0.2 s",
    ),
    "methods-raise": (
        "from carapace_cron.hookspecs import hookimpl\n"
        "class Plugin:\n    @hookimpl\n    def register_methods(self): raise KeyError('x')",
        "KeyError: 'x'",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_one_that_fails_is_set_aside_and_the_others_run(
    open_house: OpenHouse, plugins_dir: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    code, reason = BROKEN[name]
    write_plugin(plugins_dir, name, code)
    write_plugin(plugins_dir, "zz-fine", AGENT.format(reply="hi", name="greet"))
    house = await open_house(settings={"plugins_dir": plugins_dir}, start_seconds=0.2)
    failed = record(house, name)
    assert failed.status == "failed"
    assert reason in (failed.error or "")
    assert failed.registered.hooks == ()
    assert f"plugin {name} set aside" in caplog.text
    assert record(house, "zz-fine").status == "loaded"
    assert house.gateway.agents() == ("greet",)
    assert (await house.get("/healthz")).status == 200


@pytest.mark.parametrize("name", BROKEN)
async def test_without_the_main_plugin_nothing_starts(
    open_house: OpenHouse, plugins_dir: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    code, reason = BROKEN[name]
    write_plugin(plugins_dir, name, code)
    caplog.set_level(logging.INFO)
    with pytest.raises(ConfigurationError) as refusal:
        await open_house(settings={"plugins_dir": plugins_dir}, main_plugin=name, start_seconds=0.2)
    assert reason in str(refusal.value)
    assert "set aside" not in caplog.text, "it is said once, by whoever catches it"
    assert "listens" not in caplog.text


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("hello", "but disabled in the settings: plugins.hello.enabled = false"),
        ("absent", "but was not found"),
    ],
)
async def test_a_main_plugin_that_is_not_there_is_said(
    open_house: OpenHouse, plugins_dir: Path, name: str, sentence: str
) -> None:
    write_plugin(plugins_dir, "hello", AGENT.format(reply="hi", name="greet"))
    settings = {"plugins_dir": plugins_dir, "plugins": {"hello": {"enabled": False}}}
    with pytest.raises(ConfigurationError, match=f"^the plugin {name} is needed, {sentence}$"):
        await open_house(settings=settings, main_plugin=name)


async def test_the_others_are_stopped_when_the_main_plugin_cannot_start(open_house: OpenHouse) -> None:
    done: list[str] = []

    class Other:
        @hookimpl
        def start(self, host: Host) -> None:
            done.append("started")

        @hookimpl
        def stop(self) -> None:
            done.append("stopped")

    class Main:
        @hookimpl
        def start(self, host: Host) -> None:
            raise ConfigurationError("the folder is in use")

    with pytest.raises(ConfigurationError, match=r"^the folder is in use$"):
        await open_house(plugins={"other": Other(), "main": Main()}, main_plugin="main")
    assert done == ["started", "stopped"]


async def test_a_failed_start_takes_back_what_was_offered(open_house: OpenHouse) -> None:
    class Fails:
        @hookimpl
        def register_agents(self) -> Mapping[str, Agent]:
            async def agent(call: AgentCall) -> str:
                return "hi"

            return {"greet": agent}

        @hookimpl
        def start(self, host: Host) -> None:
            assert "greet" in host.agents()
            raise OSError("no")

    house = await open_house(plugins={"fails": Fails()})
    assert house.gateway.agents() == ()


async def test_two_folders_with_modules_of_one_name_do_not_get_each_others_code(
    open_house: OpenHouse, plugins_dir: Path
) -> None:
    write_plugin(plugins_dir, "first", AGENT.format(reply="first", name="one"), module="plugin_module")
    write_plugin(plugins_dir, "second", AGENT.format(reply="second", name="two"), module="plugin_module")
    house = await open_house(settings={"plugins_dir": plugins_dir})
    assert house.gateway.agents() == ("one",)
    assert 'module "plugin_module" of the plugin clashes' in (record(house, "second").error or "")


async def test_a_folder_may_not_hide_a_module_of_the_standard_library(
    open_house: OpenHouse, plugins_dir: Path
) -> None:
    folder = write_plugin(plugins_dir, "hello", AGENT.format(reply="hi", name="greet"))
    (folder / "colorsys.py").write_text("hidden = True")
    house = await open_house(settings={"plugins_dir": plugins_dir})
    assert 'module "colorsys" of the plugin clashes' in (record(house, "hello").error or "")


async def test_half_an_imported_plugin_is_forgotten(open_house: OpenHouse, plugins_dir: Path) -> None:
    folder = write_plugin(plugins_dir, "broken", "import broken_helper\nraise RuntimeError('x')")
    (folder / "broken_helper.py").write_text("")
    await open_house(settings={"plugins_dir": plugins_dir})
    assert "broken_helper" not in sys.modules
    assert "broken" not in sys.modules


# Offers


async def fine(actor: Actor, params: Params) -> str:
    return "first"


async def other(actor: Actor, params: Params) -> str:
    return "second"


async def carry(message: HostMessage) -> None:
    return None


class Everything:
    """Offers one of each kind."""

    def __init__(self, method: Method) -> None:
        self._method = method

    @hookimpl
    def register_methods(self) -> Mapping[str, Method]:
        return {"demo.it": self._method, "carapace.gateway.whoami": self._method}

    @hookimpl
    def register_host_channels(self) -> Mapping[str, HostChannel]:
        return {"pager": carry, "gateway": carry}

    @hookimpl
    def register_routes(self) -> Sequence[Route]:
        async def handler(request: Any) -> Any:
            raise AssertionError("never called")

        return [
            Route("GET", "/demo", handler, None),
            Route("POST", "/rpc", handler, None),
            Route("GET", "no-slash", handler, None),
            Route("GET", "/open{", handler, None),
            Route("*", "/all", handler, None),
            Route("get", "/demo", handler, None),
        ]


async def test_the_first_of_a_name_keeps_it_and_the_record_says_so(open_house: OpenHouse) -> None:
    house = await open_house(plugins={"first": Everything(fine), "second": Everything(other)})
    assert (await house.call("demo.it"))["result"] == "first"
    assert (await house.call("carapace.gateway.whoami"))["result"]["userId"] == "alice"
    first, second = record(house, "first"), record(house, "second")
    assert first.registered.methods == ("demo.it",)
    assert first.registered.routes == ("GET /demo",)
    assert first.registered.channels == ("pager",)
    assert second.status == "loaded"
    assert second.registered.methods == ()
    assert 'method "demo.it" refused: first has one of that name' in second.refused
    assert 'channel "pager" refused: first has one of that name' in second.refused
    assert 'route "GET /demo" refused: first has one of that name' in second.refused
    assert 'channel "gateway" refused: gateway has one of that name' in first.refused
    assert 'route "POST /rpc" refused: gateway has one of that name' in first.refused
    for name in ("GET no-slash", "GET /open{", "* /all", "get /demo"):
        assert any(one.startswith(f'route "{name}" refused: ') for one in first.refused), name


async def test_an_admin_sees_what_each_plugin_registered(open_house: OpenHouse) -> None:
    house = await open_house(plugins={"demo": Methods({"demo.it": fine})})
    assert (await house.call("carapace.gateway.plugins"))["error"]["code"] == -32003
    items = (await house.call("carapace.gateway.plugins", who="bob"))["result"]["items"]
    assert [item["id"] for item in items] == ["people", "demo"]
    assert items[1]["registered"]["methods"] == ["demo.it"]


async def test_a_channel_of_a_plugin_carries_messages(open_house: OpenHouse) -> None:
    carried: list[str] = []

    class Pager:
        @hookimpl
        def register_host_channels(self) -> Mapping[str, HostChannel]:
            async def pager(message: HostMessage) -> None:
                if message.text == "break":
                    raise RuntimeError("hunter2")
                carried.append(message.text)

            return {"pager": pager}

    house = await open_house(plugins={"pager": Pager()})
    assert house.gateway.channels() == ("gateway", "pager")
    await house.gateway.post(HostMessage("pager", "acme", "alice", "t", "hello", {}, "k"))
    assert carried == ["hello"]
    with pytest.raises(DeliveryFailed) as failure:
        await house.gateway.post(HostMessage("pager", "acme", "alice", "t", "break", {}, "k"))
    assert "hunter2" not in str(failure.value)


# Hooks of other plugins


class Cron:
    """Offers the cron hooks to others, as the cron extension does."""

    def __init__(self) -> None:
        self.kinds: list[str] = []

    @hookimpl
    def register_hookspecs(self) -> Sequence[type]:
        return [CronHooks]

    @hookimpl
    def start(self, host: Any) -> None:
        for kinds in host.plugin_manager.hook.register_channel_kinds():
            self.kinds.extend(kinds)


class Kind:
    @hookimpl
    def register_channel_kinds(self) -> Mapping[str, Any]:
        return {"pigeon": carry}


class BadKind:
    @hookimpl
    def register_channel_kinds(self, channels: object) -> Mapping[str, Any]:
        return {}


async def test_a_plugin_may_implement_hooks_that_another_offers(open_house: OpenHouse) -> None:
    cron = Cron()
    house = await open_house(plugins={"kind": Kind(), "cron": cron})
    assert cron.kinds == ["pigeon"]
    assert record(house, "kind").registered.hooks == ("register_channel_kinds",)


async def test_without_the_other_its_hooks_are_unknown(open_house: OpenHouse) -> None:
    house = await open_house(plugins={"kind": Kind()})
    assert 'unknown hook "register_channel_kinds"' in (record(house, "kind").error or "")


async def test_a_wrong_argument_sets_aside_its_own_plugin_alone(open_house: OpenHouse) -> None:
    cron = Cron()
    house = await open_house(plugins={"bad": BadKind(), "kind": Kind(), "cron": cron})
    assert "channels" in (record(house, "bad").error or "")
    assert record(house, "cron").status == "loaded"
    assert cron.kinds == ["pigeon"]


# Start and stop


class Diary:
    """Writes down when it starts and stops."""

    def __init__(self, name: str, diary: list[str], *, hangs: bool = False) -> None:
        self._name = name
        self._diary = diary
        self._hangs = hangs

    @hookimpl
    async def start(self, host: Host) -> None:
        self._diary.append(f"{self._name} starts")

    @hookimpl
    async def stop(self) -> None:
        self._diary.append(f"{self._name} stops")
        if self._hangs:
            await asyncio.Event().wait()


class OffersHooks(Diary):
    """Offers hooks, so it starts last and stops first."""

    @hookimpl
    def register_hookspecs(self) -> Sequence[type]:
        return [CronHooks]


async def test_those_that_offer_hooks_start_last_and_all_stop_in_reverse(open_house: OpenHouse) -> None:
    diary: list[str] = []
    house = await open_house(
        plugins={"cron": OffersHooks("cron", diary), "a": Diary("a", diary), "b": Diary("b", diary)}
    )
    assert diary == ["a starts", "b starts", "cron starts"]
    diary.clear()
    await house.server.stop()
    assert diary == ["cron stops", "b stops", "a stops"]


async def test_a_stop_that_hangs_is_given_up(
    open_house: OpenHouse, caplog: pytest.LogCaptureFixture
) -> None:
    diary: list[str] = []
    plugins = {"a": Diary("a", diary), "b": Diary("b", diary, hangs=True)}
    house = await open_house(plugins=plugins, stop_seconds=0.1)
    await house.server.stop()
    assert diary[-1] == "a stops"
    assert "plugin b: stop() was not done within 0.1 s" in caplog.text


async def test_events_reach_every_plugin_even_past_one_that_fails(
    open_house: OpenHouse, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[str] = []

    class Deaf:
        @hookimpl
        def on_event(self, event: str) -> None:
            raise RuntimeError("deaf")

    class Hears:
        @hookimpl
        def on_event(self, event: str, payload: Mapping[str, Any], tenant: str, user_id: str) -> None:
            heard.append(f"{event} {payload['jobId']} {tenant} {user_id}")

    house = await open_house(plugins={"deaf": Deaf(), "hears": Hears()})
    house.gateway.emit("carapace.cron.job_completed", {"jobId": "j"}, tenant="acme", user_id="alice")
    assert heard == ["carapace.cron.job_completed j acme alice"]
    assert "plugin deaf: on_event('carapace.cron.job_completed') failed" in caplog.text


async def test_a_plugin_that_cannot_say_whether_it_is_ready_is_not(open_house: OpenHouse) -> None:
    class Unsure:
        @hookimpl
        def ready(self) -> str | None:
            raise RuntimeError("hunter2")

    house = await open_house(plugins={"unsure": Unsure()})
    response = await house.get("/healthz")
    assert response.status == 503
    assert (await response.json())["reason"] == "plugin unsure cannot say whether it is ready"
