"""What the extension asks of the gateway that hosts it. Any gateway that offers this can host it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pluggy

from carapace_cron.model.actor import Actor, Scope


@dataclass(frozen=True, slots=True)
class AgentCall:
    """A command for one of the host's agents: ``agent: generate-report --daily``.

    `arguments` is the list after the name, parsed without a shell. The call comes from the clock, not
    from a person: a host gives it fewer rights than its maker has, and no scheduling methods.
    """

    agent: str
    arguments: tuple[str, ...]
    tenant: str
    user_id: str
    idempotency_key: str  # the same for every attempt of one run
    metadata: Mapping[str, Any]
    """jobId, runId, attempt, scheduledFor: for the agent's information; and `upstream` where the end of
    another run started this one. That holds what the other job brought, so an agent takes it for data."""


@dataclass(frozen=True, slots=True)
class AgentReply:
    """What the agent said; `status` is its own word on how it went."""

    output: str
    status: str = "success"  # success | degraded | failure
    error: str | None = None


@dataclass(frozen=True, slots=True)
class HostMessage:
    """A message for one of the host's channels. `idempotency_key`: the same message sent again; `scope`: what
    a token must carry for its holder to read it."""

    channel_id: str
    tenant: str
    user_id: str
    title: str
    text: str
    data: Mapping[str, Any]
    idempotency_key: str
    scope: Scope = "jobs:read"


class Host(Protocol):
    """The gateway, seen from a plugin."""

    data_dir: Path
    plugin_manager: pluggy.PluginManager  # where plugins add to each other: hooks of project "carapace"

    def settings_of(self, plugin_id: str) -> Mapping[str, Any]:
        """A plugin's settings, checked against its manifest, defaults filled in."""
        ...

    def agents(self) -> Collection[str]:
        """The names of the agents that `run_agent` would find."""
        ...

    async def run_agent(self, call: AgentCall) -> AgentReply:
        """Run it to its end. Raises NotFound for an unknown agent, Unavailable when it cannot be reached;
        cancelling the call stops the agent, and then it ends with CancelledError, or with WorkStopped to show
        how the agent was stopped."""
        ...

    def channels(self) -> Collection[str]:
        """The ids of the host's own channels; ``gateway`` is always one."""
        ...

    async def post(self, message: HostMessage) -> None:
        """Hand a message to a host channel; returns when the host has it for good. Raises DeliveryFailed."""
        ...

    async def identify(self, token: str) -> Actor | None:
        """Who holds a token that came another way than in a header; None when nobody knows it. Raises what
        goes wrong with asking: then nobody is let in."""
        ...

    def emit(self, event: str, payload: Mapping[str, Any], *, tenant: str, user_id: str) -> None:
        """Tell those who watch: other plugins, and WebSocket clients of that user with the scope jobs:read.
        Never raises, never waits."""
        ...
