"""The configured channels by id: which there are for a tenant, and the object that sends there."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping

from carapace_cron.channels.gateway import HostChannelAdapter
from carapace_cron.errors import ConfigurationError, InvalidValue
from carapace_cron.hookspecs import ChannelFactory
from carapace_cron.model.channel import ChannelSettings
from carapace_cron.ports.channel import Channel
from carapace_cron.ports.host import Host
from carapace_cron.schedule.errors import shown

CHANNEL_ID = re.compile(r"[A-Za-z0-9#@][A-Za-z0-9#@._:-]{0,199}")
SHOWN_IDS = 20  # in a refusal: enough to find one's own, short enough to be read


class Channels:
    """The host's channels, which every tenant may use, and those that the operator configured.

    Everything configured is made here, at start: an unknown kind, a bad setting or an id that the host
    has already is a `ConfigurationError` before the first job runs, never a surprise at night.
    """

    def __init__(
        self,
        host: Host,
        kinds: Mapping[str, ChannelFactory],
        configured: Mapping[str, ChannelSettings],
    ) -> None:
        """`kinds`: built-in ones and plugins' alike, as `register_channel_kinds` gives them."""
        self._host = host
        self._settings = dict(configured)
        self._made = {
            channel_id: self._make(channel_id, settings, kinds)
            for channel_id, settings in configured.items()
        }

    def resolve(self, channel_id: str, tenant: str) -> Channel | None:
        """The channel that `channel_id` means for `tenant`; None when it means none."""
        settings = self._settings.get(channel_id)
        if settings is None:
            known = channel_id in self._host.channels()
            return HostChannelAdapter(self._host, channel_id) if known else None
        return self._made[channel_id] if _may_use(settings, tenant) else None

    def exists(self, channel_id: str) -> bool:
        """Whether it is a channel at all, of whichever tenant."""
        return channel_id in self._settings or channel_id in self._host.channels()

    @property
    def kinds(self) -> list[str]:
        """Of all that are configured, and of the host's own; sorted."""
        return sorted({HostChannelAdapter.kind, *(one.kind for one in self._settings.values())})

    def kind_of(self, channel_id: str) -> str:
        """``webhook``, ``apprise``, …; ``gateway`` for the host's own."""
        settings = self._settings.get(channel_id)
        return "gateway" if settings is None else settings.kind

    def ids_for(self, tenant: str) -> list[str]:
        """The ids that `tenant` may name, sorted."""
        own = {channel_id for channel_id, settings in self._settings.items() if _may_use(settings, tenant)}
        return sorted(own | set(self._host.channels()))

    def check(self, channel_id: str, tenant: str) -> None:
        """Raises `InvalidValue` (field `channelId`) unless `tenant` may name it.

        Another tenant's channel and one that nobody has get the same sentence.
        """
        if self.resolve(channel_id, tenant) is not None:
            return
        usable = self.ids_for(tenant)
        listed = ", ".join(usable[:SHOWN_IDS]) + (", …" if len(usable) > SHOWN_IDS else "")
        expected = f"expected one of {listed}{_meant(channel_id, usable)}"
        message = f'unknown channel "{shown(channel_id)}": {expected}'
        raise InvalidValue(message, field="channelId")

    async def close(self) -> None:
        """Let go of what the channels hold open."""
        for channel in self._made.values():
            await channel.close()

    def _make(
        self, channel_id: str, settings: ChannelSettings, kinds: Mapping[str, ChannelFactory]
    ) -> Channel:
        where = f"[channels.{channel_id}]"
        if not CHANNEL_ID.fullmatch(channel_id):
            raise ConfigurationError(
                f'bad channel id "{channel_id}": expected 1–200 letters, digits, # @ . _ : or -, no blanks'
            )
        if channel_id in self._host.channels():
            raise ConfigurationError(f"{where} has the id of one of the gateway's own channels: take another")
        factory = kinds.get(settings.kind)
        if factory is None:
            expected = ", ".join(sorted(kinds)) + _meant(settings.kind, kinds)
            raise ConfigurationError(f'unknown kind "{settings.kind}" in {where}: expected one of {expected}')
        return factory(channel_id, settings.of_kind)


def _may_use(settings: ChannelSettings, tenant: str) -> bool:
    return settings.tenant is None or settings.tenant == tenant


def _meant(given: str, known: Collection[str]) -> str:
    nearest = difflib.get_close_matches(given, known, n=1)
    return f' (did you mean "{nearest[0]}"?)' if nearest else ""
