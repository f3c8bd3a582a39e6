"""What a channel must do: carry one notice, and say honestly how that went. And who may name it."""

from __future__ import annotations

from typing import Protocol

from carapace_cron.errors import CarapaceError
from carapace_cron.model.notice import AnyNotice


class DeliveryFailed(CarapaceError):
    """The notice did not arrive. `permanent`: trying again cannot help. `retry_after_seconds`: the
    service's own wish, None when it has none. The message names no secret."""

    code = "delivery_failed"

    def __init__(
        self, message: str, *, permanent: bool = False, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(message)
        self.permanent = permanent
        self.retry_after_seconds = retry_after_seconds


class Channel(Protocol):
    """One configured place. Returns when the service has taken the notice; raises `DeliveryFailed`."""

    kind: str

    async def send(self, notice: AnyNotice) -> None: ...

    async def close(self) -> None: ...


class ChannelRules(Protocol):
    """Raises `InvalidValue` for a channel that the tenant may not name."""

    def check(self, channel_id: str, tenant: str) -> None: ...
