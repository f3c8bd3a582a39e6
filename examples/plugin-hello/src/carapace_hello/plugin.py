"""The whole plugin: one agent for the gateway, one kind of channel for cron."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from carapace_cron.errors import ConfigurationError
from carapace_cron.hookspecs import ChannelFactory, hookimpl
from carapace_cron.model.notice import AnyNotice
from carapace_cron.ports.channel import DeliveryFailed
from carapace_cron.ports.host import AgentCall, AgentReply, Host


class HelloPlugin:
    def __init__(self) -> None:
        self._greeting = ""

    @hookimpl
    def start(self, host: Host) -> None:
        self._greeting = host.settings_of("hello")["greeting"]

    @hookimpl
    def register_agents(self) -> Mapping[str, Any]:
        return {"generate-report": self._generate_report}

    @hookimpl
    def register_channel_kinds(self) -> Mapping[str, ChannelFactory]:
        return {"file": FileChannel.open}

    async def _generate_report(self, call: AgentCall) -> AgentReply:
        """``agent: generate-report --daily``: the arguments arrive as a list, never through a shell."""
        kind = "daily" if "--daily" in call.arguments else "full"
        return AgentReply(f"{self._greeting} ({kind}) for {call.user_id}")


class FileChannel:
    """Appends each notice to a file, once: a line begins with the notice's id."""

    kind = "file"

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def open(cls, channel_id: str, settings: Mapping[str, Any]) -> FileChannel:
        if not settings.get("path"):
            raise ConfigurationError(f'[channels.{channel_id}] needs path = "…", the file to write to')
        return cls(Path(settings["path"]))

    async def send(self, notice: AnyNotice) -> None:
        try:
            await asyncio.to_thread(self._append, notice)
        except OSError as error:
            raise DeliveryFailed(f"cannot write {self._path}: {error.strerror}") from error

    async def close(self) -> None:
        """Nothing is held open."""

    def _append(self, notice: AnyNotice) -> None:
        known = self._path.read_text().splitlines() if self._path.exists() else []
        if not any(line.startswith(notice.id) for line in known):
            with self._path.open("a") as file:
                file.write(f"{notice.id}\t{notice.title}\t{notice.output!r}\n")
