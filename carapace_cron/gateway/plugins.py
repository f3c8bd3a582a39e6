"""The life of plugins: found, checked, registered, started, asked what they bring, stopped.

One that fails at any step is set aside with its reason and all that it brought; the others go on. Only
without the main plugin, if there is one, nothing goes on.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pluggy

from carapace_cron.errors import CarapaceError, ConfigurationError
from carapace_cron.gateway.discovery import (
    Candidate,
    EntryPoints,
    candidates,
    import_entry,
    installed_plugins,
)
from carapace_cron.gateway.hook_check import check_hooks, each_call, fault_of_route, implemented_hooks
from carapace_cron.gateway.hookspecs import Agent, HostChannel, HostHooks, Method, Route
from carapace_cron.gateway.manifest import Manifest, read_manifest, settings_for
from carapace_cron.gateway.offers import Offers
from carapace_cron.hookspecs import PROJECT
from carapace_cron.ports.host import Host

log = logging.getLogger(__name__)

GATEWAY = "gateway"  # the owner's name of what the gateway itself offers; no plugin may take it
START_SECONDS = 30.0
STOP_SECONDS = 10.0

Status = Literal["loaded", "disabled", "failed"]


@dataclass(frozen=True, slots=True)
class Registered:
    """The names of what one plugin brought."""

    methods: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PluginRecord:
    """How it went with one plugin."""

    id: str
    name: str
    version: str
    source: str  # where it was found
    status: Status
    error: str | None  # why it is disabled or failed
    refused: tuple[str, ...]  # sentences: what it offered under a name that was taken
    registered: Registered


@dataclass(slots=True)
class _Plugin:
    id: str
    name: str
    version: str
    source: str
    manifest: Manifest | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    thing: object | None = None
    status: Status = "loaded"
    error: str | None = None
    refused: list[str] = field(default_factory=list)
    hooks: tuple[str, ...] = ()


class Plugins:
    """All plugins of one gateway. `built_in`: id → plugin object, registered before those that are found.

    `main`: the id of the one that the program is for. If it cannot be had, `load` or `start` raises a
    `ConfigurationError` that says why; None: there is no such plugin.
    """

    def __init__(
        self,
        *,
        built_in: Mapping[str, object],
        main: str | None = None,
        start_seconds: float = START_SECONDS,
        stop_seconds: float = STOP_SECONDS,
    ) -> None:
        self.manager = pluggy.PluginManager(PROJECT)
        self.manager.add_hookspecs(HostHooks)
        self.agents: Offers[Agent] = Offers("agent")
        self.channels: Offers[HostChannel] = Offers("channel")
        self.methods: Offers[Method] = Offers("method")
        self.routes: Offers[Route] = Offers("route")
        self._plugins: list[_Plugin] = [
            _Plugin(id, id, "", "built in", thing=thing) for id, thing in built_in.items()
        ]
        self._started: list[_Plugin] = []
        self._main = main
        self._start_seconds = start_seconds
        self._stop_seconds = stop_seconds

    def load(
        self,
        plugins_dir: Path | None,
        settings: Mapping[str, Mapping[str, Any]],
        installed: EntryPoints = installed_plugins,
    ) -> None:
        """Find, import, check and register; then ask for agents and channels.

        Raises nothing of a plugin's but the main one's. `settings`: plugin id → what the operator gave.
        """
        for candidate in candidates(plugins_dir, installed):
            self._plugins.append(self._find(candidate, settings))
        self._check_main()
        self._note_unknown_settings(settings)
        for step in (self._offer_hooks, self._register, self._ask_first):
            for plugin in self._alive():
                self._try(plugin, step)

    async def start(self, host: Host) -> None:
        """Start them in order, those that offer hooks to others last; then ask for methods and routes."""
        for plugin in sorted(self._alive(), key=lambda plugin: "register_hookspecs" in plugin.hooks):
            await self._start_one(plugin, host)
        for plugin in self._alive():
            self._try(plugin, self._ask_doors)

    async def stop(self) -> None:
        """Stop those that started, the last first, each within its time."""
        while self._started:
            plugin = self._started.pop()
            reason = await self._call_bounded(plugin, "stop", self._stop_seconds)
            if reason is not None:
                log.error("plugin %s: %s", plugin.id, reason, extra={"action": "plugin_stop_failed"})

    def settings_of(self, plugin_id: str) -> dict[str, Any]:
        """The plugin's settings, checked and complete. Raises `ConfigurationError` for an unknown id."""
        for plugin in self._alive():
            if plugin.id == plugin_id:
                return dict(plugin.settings)
        raise ConfigurationError(f'no plugin "{plugin_id}" is loaded')

    def is_loaded(self, plugin_id: str) -> bool:
        return any(plugin.id == plugin_id for plugin in self._alive())

    def records(self) -> tuple[PluginRecord, ...]:
        """One for each place where a plugin was found, in the order of finding."""
        return tuple(self._record(plugin) for plugin in self._plugins)

    # Finding

    def _find(self, candidate: Candidate, settings: Mapping[str, Mapping[str, Any]]) -> _Plugin:
        plugin = _Plugin(candidate.name, candidate.name, "", candidate.source)
        self._try(plugin, lambda plugin: self._read(plugin, candidate, settings))
        return plugin

    def _read(
        self, plugin: _Plugin, candidate: Candidate, settings: Mapping[str, Mapping[str, Any]]
    ) -> None:
        manifest = read_manifest(candidate.manifest_file)
        plugin.id, plugin.name, plugin.version = manifest.id, manifest.name, manifest.version
        plugin.manifest = manifest
        given = dict(settings.get(manifest.id, {}))
        reason = self._why_disabled(manifest.id, given.pop("enabled", True))
        if reason is not None:
            plugin.status, plugin.error = "disabled", reason
            return
        plugin.settings = settings_for(manifest, given)
        plugin.thing = import_entry(manifest, candidate)

    def _why_disabled(self, plugin_id: str, enabled: object) -> str | None:
        if plugin_id == GATEWAY:
            raise ConfigurationError(f'plugin id "{GATEWAY}" is the gateway\'s own: expected another id')
        winner = next((plugin for plugin in self._plugins if plugin.id == plugin_id), None)
        if winner is not None:
            return f"overridden by {winner.source}"
        if not isinstance(enabled, bool):
            raise ConfigurationError(f"bad plugins.{plugin_id}.enabled {enabled!r}: expected true or false")
        return None if enabled else f"disabled in the settings: plugins.{plugin_id}.enabled = false"

    def _check_main(self) -> None:
        if self._main is None or self.is_loaded(self._main):
            return
        errors = [plugin.error for plugin in self._plugins if plugin.id == self._main]
        reason = errors[0] if errors else "was not found"
        raise ConfigurationError(f"the plugin {self._main} is needed, but {reason}")

    def _note_unknown_settings(self, settings: Mapping[str, Any]) -> None:
        for unknown in settings.keys() - {plugin.id for plugin in self._plugins}:
            log.warning(
                "settings for plugin %s, which was not found: expected one of %s",
                unknown, ", ".join(plugin.id for plugin in self._plugins) or "none",
                extra={"action": "plugin_settings_unused"},
            )

    # Registering. Hook specifications of all come first, so that every plugin can be checked on its own.

    def _offer_hooks(self, plugin: _Plugin) -> None:
        offer = implemented_hooks(self.manager, plugin.thing).get("register_hookspecs")
        for specifications in offer() if offer is not None else ():
            self.manager.add_hookspecs(specifications)

    def _register(self, plugin: _Plugin) -> None:
        plugin.hooks = check_hooks(self.manager, plugin.id, plugin.thing)
        try:
            self.manager.register(plugin.thing, plugin.id)
        except pluggy.PluginValidationError as error:
            raise ConfigurationError(str(error)) from error

    def _ask_first(self, plugin: _Plugin) -> None:
        for name, agent in self._answers(plugin, "register_agents"):
            self._keep(plugin, self.agents, name, agent)
        for name, channel in self._answers(plugin, "register_host_channels"):
            self._keep(plugin, self.channels, name, channel)

    def _ask_doors(self, plugin: _Plugin) -> None:
        for name, method in self._answers(plugin, "register_methods"):
            self._keep(plugin, self.methods, name, method)
        for call in self._calls(plugin, "register_routes"):
            for route in call():
                self._keep_route(plugin, route)

    def _answers(self, plugin: _Plugin, hook: str) -> Iterator[tuple[str, Any]]:
        for call in self._calls(plugin, hook):
            offered: Mapping[str, Any] = call()
            yield from offered.items()

    def _keep_route(self, plugin: _Plugin, route: Route) -> None:
        name = f"{route.method} {route.path}"
        fault = fault_of_route(route)
        if fault is None:
            self._keep(plugin, self.routes, name, route)
        else:
            self._refuse(plugin, f'route "{name}" refused: {fault}')

    def _keep(self, plugin: _Plugin, offers: Offers[Any], name: str, thing: object) -> None:
        sentence = offers.add(plugin.id, name, thing)
        if sentence is not None:
            self._refuse(plugin, sentence)

    def _refuse(self, plugin: _Plugin, sentence: str) -> None:
        plugin.refused.append(sentence)
        log.warning("plugin %s: %s", plugin.id, sentence, extra={"action": "plugin_offer_refused"})

    # Starting and stopping

    async def _start_one(self, plugin: _Plugin, host: Host) -> None:
        reason = await self._call_bounded(plugin, "start", self._start_seconds, host=host)
        if reason is None:
            self._started.append(plugin)
        else:
            self._set_aside(plugin, reason)

    async def _call_bounded(
        self, plugin: _Plugin, hook: str, seconds: float, **arguments: Any
    ) -> str | None:
        """Call the plugin's hook; None when that went well, else the reason in a sentence."""
        try:
            async with asyncio.timeout(seconds) as deadline:
                for call in self._calls(plugin, hook, **arguments):
                    await resolved(call())
        except TimeoutError as error:
            if deadline.expired():
                return f"{hook}() was not done within {seconds:g} s"
            return self._logged(plugin, hook, error)
        except CarapaceError as error:
            return str(error)  # a sentence for the operator already
        except Exception as error:  # noqa: BLE001  # a plugin may raise anything; it is logged by `_logged`
            return self._logged(plugin, hook, error)
        return None

    def _logged(self, plugin: _Plugin, hook: str, error: Exception) -> str:
        log.error(
            "plugin %s: %s() failed", plugin.id, hook,
            exc_info=error, extra={"action": "plugin_hook_failed"},
        )
        return f"{hook}() raised {type(error).__name__}: {error}"

    # Helpers

    def _alive(self) -> list[_Plugin]:
        return [plugin for plugin in self._plugins if plugin.status == "loaded"]

    def _calls(self, plugin: _Plugin, hook: str, **arguments: Any) -> list[Callable[[], Any]]:
        caller: pluggy.HookCaller = getattr(self.manager.hook, hook)
        return [call for name, call in each_call(caller, **arguments) if name == plugin.id]

    def _try(self, plugin: _Plugin, step: Callable[[_Plugin], None]) -> None:
        try:
            step(plugin)
        except ConfigurationError as error:
            self._set_aside(plugin, str(error))
        except (Exception, SystemExit) as error:  # a script in a plugin's place ends with sys.exit()
            log.exception("plugin %s failed", plugin.id, extra={"action": "plugin_failed"})
            self._set_aside(plugin, f"{type(error).__name__}: {error}")

    def _set_aside(self, plugin: _Plugin, reason: str) -> None:
        if plugin.id == self._main:
            raise ConfigurationError(reason)
        log.error("plugin %s set aside: %s", plugin.id, reason, extra={"action": "plugin_set_aside"})
        plugin.status, plugin.error, plugin.hooks = "failed", reason, ()
        if self.manager.get_plugin(plugin.id) is plugin.thing and plugin.thing is not None:
            self.manager.unregister(name=plugin.id)
        for offers in (self.agents, self.channels, self.methods, self.routes):
            offers.withdraw(plugin.id)

    def _record(self, plugin: _Plugin) -> PluginRecord:
        registered = Registered() if plugin.status != "loaded" else Registered(
            methods=self.methods.of(plugin.id),
            routes=self.routes.of(plugin.id),
            agents=self.agents.of(plugin.id),
            channels=self.channels.of(plugin.id),
            hooks=plugin.hooks,
        )
        return PluginRecord(
            plugin.id, plugin.name, plugin.version, plugin.source,
            plugin.status, plugin.error, tuple(plugin.refused), registered,
        )


async def resolved(value: Awaitable[Any] | Any) -> Any:
    """The value itself, awaited first when a hook was async."""
    return await value if inspect.isawaitable(value) else value
