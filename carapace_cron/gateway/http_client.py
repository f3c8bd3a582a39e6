"""What the gateway asks of the guarded HTTP client; `carapace_cron.outbound.client.Outbound` is one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class HttpAnswer(Protocol):
    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def body(self) -> bytes: ...

    @property
    def truncated(self) -> bool: ...


class HttpClient(Protocol):
    """Opens connections with the address rules applied. `trusted_origin`: the operator chose the URL.

    Raises `Unavailable`, whose sentence names the address, when there is no whole answer in time; `Refused`
    for what is not called at all.
    """

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_seconds: float,
        trusted_origin: bool,
    ) -> HttpAnswer: ...
