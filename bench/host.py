"""The host that the benches give the extension: an agent that answers at once, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import pluggy

from carapace_cron.hookspecs import CronHooks
from carapace_cron.ports.host import AgentCall, AgentReply, HostMessage


class BenchHost:
    """`answer`: what becomes of each call of the agent ``report``."""

    def __init__(self, data_dir: Path, answer: Callable[[AgentCall], AgentReply]) -> None:
        self.data_dir = data_dir
        self.plugin_manager = pluggy.PluginManager("carapace")
        self.plugin_manager.add_hookspecs(CronHooks)
        self._answer = answer

    def settings_of(self, plugin_id: str) -> Mapping[str, Any]:
        return {}

    def agents(self) -> Collection[str]:
        return ["report"]

    async def run_agent(self, call: AgentCall) -> AgentReply:
        return self._answer(call)

    def channels(self) -> Collection[str]:
        return ["gateway"]

    async def post(self, message: HostMessage) -> None:
        pass

    def emit(self, event: str, payload: Mapping[str, Any], *, tenant: str, user_id: str) -> None:
        pass
