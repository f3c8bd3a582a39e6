"""The host's own channels: the notice is handed to the gateway, which shows it where its people read."""

from __future__ import annotations

from carapace_cron.channels.envelope import envelope
from carapace_cron.model.notice import AnyNotice, MonitorNotice
from carapace_cron.ports.host import Host, HostMessage


class HostChannelAdapter:
    """One of the host's channels (`gateway` is always one), seen as a channel of ours."""

    kind = "gateway"

    def __init__(self, host: Host, channel_id: str) -> None:
        self._host = host
        self._channel_id = channel_id

    async def send(self, notice: AnyNotice) -> None:
        """Returns when the host has it for good. Raises what `Host.post` raises: `DeliveryFailed`."""
        await self._host.post(
            HostMessage(
                channel_id=self._channel_id,
                tenant=notice.tenant,
                user_id=notice.user_id,
                title=notice.title,
                text=notice.text,
                data=envelope(notice),
                idempotency_key=notice.id,
                scope="monitors:read" if isinstance(notice, MonitorNotice) else "jobs:read",
            )
        )

    async def close(self) -> None:
        """Nothing is held open: the channel is the host's."""
