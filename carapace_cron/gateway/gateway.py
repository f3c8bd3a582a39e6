"""The gateway itself: it holds the plugins, runs agents, carries messages and tells those who listen.

It is the `Host` that plugins see. The doors (HTTP, WebSocket) are in `server.py`.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

from carapace_cron.clock import Clock
from carapace_cron.errors import CarapaceError, ConfigurationError, Forbidden, InvalidValue, NotFound
from carapace_cron.gateway.agents import agent_by_url, call_agent
from carapace_cron.gateway.audience import LISTENING_SCOPES, Audience, may_listen
from carapace_cron.gateway.discovery import EntryPoints, installed_plugins
from carapace_cron.gateway.hook_check import each_call
from carapace_cron.gateway.http_client import HttpClient
from carapace_cron.gateway.messages import KEEP_PER_USER, Messages
from carapace_cron.gateway.methods import method_of
from carapace_cron.gateway.plugins import (
    GATEWAY,
    START_SECONDS,
    STOP_SECONDS,
    PluginRecord,
    Plugins,
    resolved,
)
from carapace_cron.gateway.settings import GatewaySettings
from carapace_cron.model.actor import Actor
from carapace_cron.ports.channel import DeliveryFailed
from carapace_cron.ports.host import AgentCall, AgentReply, HostMessage

log = logging.getLogger(__name__)

CHANNEL = "gateway"  # the id of the channel that is always there
EVENT_SCOPE = "jobs:read"  # what a token must carry for its holder to hear events
MESSAGES_FILE = "gateway-messages.jsonl"


class Gateway:
    """One gateway. `load`, then `start`; `stop` at the end. Methods and routes are complete after `start`.

    `built_in`: id → plugin object, for plugins that come with the program instead of being found.
    `main_plugin`: the id of the one that the program is for; `load` or `start` fails if it does.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        *,
        outbound: HttpClient,
        clock: Clock,
        built_in: Mapping[str, object] | None = None,
        main_plugin: str | None = None,
        installed: EntryPoints = installed_plugins,
        start_seconds: float = START_SECONDS,
        stop_seconds: float = STOP_SECONDS,
    ) -> None:
        self.settings = settings
        self.data_dir = settings.data_dir
        self.audience = Audience()
        self._installed = installed
        self._messages = Messages(settings.data_dir / MESSAGES_FILE, clock)
        self._plugins = Plugins(
            built_in=built_in or {},
            main=main_plugin,
            start_seconds=start_seconds,
            stop_seconds=stop_seconds,
        )
        self.plugin_manager = self._plugins.manager
        self.methods = self._plugins.methods
        self.routes = self._plugins.routes
        self._not_ready: str | None = "the gateway has not started yet"
        self._offer_own(outbound)

    def load(self) -> None:
        """Find, check and register the plugins. What is wrong with one is in its record.

        Raises `ConfigurationError` when the main plugin cannot be had.
        """
        self._plugins.load(self.settings.plugins_dir, self.settings.plugins, self._installed)

    async def start(self) -> None:
        """Open the message file, start the plugins, gather their methods and routes.

        Raises `ConfigurationError` when the data directory cannot be used, or the main plugin not started.
        """
        try:
            await self._messages.open()
        except OSError as error:
            raise ConfigurationError(
                f"cannot use the data directory {self.data_dir}: {error.strerror}; "
                "expected one that this user may write to"
            ) from error
        await self._plugins.start(self)
        self._not_ready = None

    async def stop(self) -> None:
        """Stop the plugins, the last first, then write out what is left."""
        self._not_ready = "the gateway is stopping"
        await self._plugins.stop()

    async def close(self) -> None:
        """After `stop`, when nobody can send any more: wait for the last message to be on disk."""
        await self._messages.close()

    # Agents

    def agents(self) -> Collection[str]:
        return tuple(sorted(self._plugins.agents))

    async def run_agent(self, call: AgentCall) -> AgentReply:
        agent = self._plugins.agents.get(call.agent)
        if agent is None:
            known = ", ".join(self.agents()) or "none"
            raise NotFound(f'no agent "{call.agent[:80]}" here: expected one of {known}')
        return await call_agent(agent, call)

    # Channels

    def channels(self) -> Collection[str]:
        return tuple(sorted(self._plugins.channels))

    async def post(self, message: HostMessage) -> None:
        channel = self._plugins.channels.get(message.channel_id)
        if channel is None:
            known = ", ".join(self.channels())
            raise DeliveryFailed(
                f'no channel "{message.channel_id[:80]}" here: expected one of {known}', permanent=True
            )
        try:
            await channel(message)
        except DeliveryFailed:
            raise
        except CarapaceError as error:
            raise DeliveryFailed(str(error)) from error
        except Exception as error:
            raise self._unexpected_in_channel(message.channel_id, error) from error

    async def _keep_and_push(self, message: HostMessage) -> None:
        """The channel ``gateway``."""
        kept = await self._messages.keep(message)
        if kept is not None:
            to = {"tenant": kept.tenant, "user_id": kept.user_id, "scope": kept.scope}
            self.audience.tell("carapace.gateway.message", kept.wire(), **to)

    def _unexpected_in_channel(self, channel_id: str, error: Exception) -> DeliveryFailed:
        error_id = secrets.token_hex(6)
        log.error(
            "channel %s failed (error id %s)", channel_id, error_id,
            exc_info=error, extra={"action": "channel_failed", "error_id": error_id},
        )
        return DeliveryFailed(
            f"channel {channel_id} failed unexpectedly; the gateway's log has it as {error_id}"
        )

    # Events

    def emit(self, event: str, payload: Mapping[str, Any], *, tenant: str, user_id: str) -> None:
        hook = self.plugin_manager.hook.on_event
        for plugin_id, call in each_call(hook, event=event, payload=payload, tenant=tenant, user_id=user_id):
            try:
                call()
            except Exception:
                log.exception(
                    "plugin %s: on_event(%r) failed", plugin_id, event, extra={"action": "event_hook_failed"}
                )
        try:
            told = {"type": event, **payload}
            to = {"tenant": tenant, "user_id": user_id, "scope": EVENT_SCOPE}
            self.audience.tell(event_method(event), told, **to)
        except (TypeError, ValueError, RecursionError):
            log.exception("event %r is not JSON", event, extra={"action": "event_not_json"})

    # Identity and state

    @property
    def can_identify(self) -> bool:
        """Whether any plugin knows tokens; without one, every token is unknown."""
        return bool(self.plugin_manager.hook.identify.get_hookimpls())

    async def identify(self, token: str) -> Actor | None:
        """Who holds the token. All plugins are asked, whoever answers first: the time taken tells nothing.

        Raises what a plugin raises: then nobody is let in.
        """
        found: Actor | None = None
        for _, call in each_call(self.plugin_manager.hook.identify, token=token):
            actor = await resolved(call())
            found = found or actor
        return found

    def why_not_ready(self) -> str | None:
        """None when all do their work, else the first sentence of what is missing."""
        if self._not_ready is not None:
            return self._not_ready
        for plugin_id in self.settings.required_plugins:
            if not self._plugins.is_loaded(plugin_id):
                return f"the required plugin {plugin_id} is not loaded"
        for plugin_id, call in each_call(self.plugin_manager.hook.ready):
            sentence = self._asked_ready(plugin_id, call)
            if sentence is not None:
                return sentence
        return None

    def _asked_ready(self, plugin_id: str, call: Any) -> str | None:
        try:
            sentence: str | None = call()
        except Exception:
            log.exception("plugin %s: ready() failed", plugin_id, extra={"action": "ready_hook_failed"})
            return f"plugin {plugin_id} cannot say whether it is ready"
        return None if sentence is None else f"{plugin_id}: {sentence}"

    def settings_of(self, plugin_id: str) -> dict[str, Any]:
        """A plugin's settings, checked against its manifest and with its defaults filled in."""
        return self._plugins.settings_of(plugin_id)

    def plugins(self) -> tuple[PluginRecord, ...]:
        return self._plugins.records()

    # What the gateway itself offers, by the same tables as the plugins; being first, it keeps its names.

    def _offer_own(self, outbound: HttpClient) -> None:
        self._plugins.channels.add(GATEWAY, CHANNEL, self._keep_and_push)
        for name, settings in self.settings.agents.items():
            self._plugins.agents.add(GATEWAY, name, agent_by_url(settings, outbound))
        for name, function in {
            "carapace.gateway.messages": self._answer_messages,
            "carapace.gateway.plugins": self._answer_plugins,
            "carapace.gateway.whoami": self._answer_whoami,
        }.items():
            self._plugins.methods.add(GATEWAY, name, method_of(function))

    async def _answer_messages(
        self, actor: Actor, limit: object = 50, after: object = None
    ) -> dict[str, Any]:
        if not may_listen(actor):
            scopes = ", ".join(LISTENING_SCOPES)
            raise Forbidden(f"carapace.gateway.messages needs a token with one of the scopes {scopes}")
        kept = self._messages.recent(
            actor,
            limit=_integer("limit", limit, 1, KEEP_PER_USER),
            after=None if after is None else _integer("after", after, 0, 2**63 - 1),
        )
        return {"items": [message.wire() for message in kept]}

    async def _answer_plugins(self, actor: Actor) -> dict[str, Any]:
        if not actor.is_admin:
            raise Forbidden('carapace.gateway.plugins needs a token with the scope "admin"')
        return {"items": [asdict(record) for record in self.plugins()]}

    async def _answer_whoami(self, actor: Actor) -> dict[str, Any]:
        return {"tenant": actor.tenant, "userId": actor.user, "scopes": sorted(actor.scopes)}


def event_method(event: str) -> str:
    """The notification's method: the first two parts of the event's name, then ``event``.

    >>> event_method("carapace.cron.job_completed")
    'carapace.cron.event'
    """
    return ".".join([*event.split(".")[:2], "event"])


def _integer(name: str, value: object, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidValue(f"bad {name} {value!r:.40}: expected an integer, {low}–{high}", field=name)
    return value
