"""The kind `webhook`: a notice is POSTed as JSON, signed so that the receiver knows who speaks.

Which answers are final, and how to check the signature, is in ``docs/reference/channels.md``.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import Field, SecretStr, field_validator, model_validator

from carapace_cron.channels.envelope import envelope
from carapace_cron.channels.posting import HttpDoor, Poster, header, http_url, judge
from carapace_cron.channels.settings import KindSettings, read_settings
from carapace_cron.clock import Clock
from carapace_cron.hookspecs import ChannelFactory
from carapace_cron.model.notice import AnyNotice
from carapace_cron.model.ping_proof import SIGNATURE_HEADER, TIMESTAMP_HEADER, TOLERANCE_SECONDS
from carapace_cron.outbound.headers import check_headers
from carapace_cron.ports.channel import Channel

DELIVERY_HEADER = "X-Carapace-Delivery"
MIN_SECRET_LENGTH = 16

_WHAT = "the webhook"
_OURS = frozenset(("content-type", "idempotency-key"))  # besides those that the client itself refuses


class WebhookSettings(KindSettings):
    """``[channels.<id>] kind = "webhook"``."""

    url: SecretStr  # https or http; it often has a token in it
    secret: SecretStr | None = None  # signs every request; without it nothing is signed
    headers: dict[str, SecretStr] = Field(default_factory=dict)  # added to each request
    timeout_seconds: float = Field(10, ge=1, le=25)

    _is_http = field_validator("url")(http_url)

    @field_validator("secret")
    @classmethod
    def _is_long(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and len(secret.get_secret_value()) < MIN_SECRET_LENGTH:
            raise ValueError(f"expected at least {MIN_SECRET_LENGTH} characters")
        return secret

    @model_validator(mode="after")
    def _headers_are_free(self) -> WebhookSettings:
        check_headers({name: value.get_secret_value() for name, value in self.headers.items()})
        for name in self.headers:
            if name.lower() in _OURS or name.lower().startswith("x-carapace-"):
                raise ValueError(f'header "{name}" cannot be set: the channel sends its own')
        return self


class WebhookChannel:
    """One URL that takes notices."""

    kind = "webhook"

    def __init__(self, settings: WebhookSettings, http: HttpDoor, clock: Clock) -> None:
        self._settings = settings
        self._poster = Poster(_WHAT, settings.url, settings.timeout_seconds, http)
        self._clock = clock

    async def send(self, notice: AnyNotice) -> None:
        body = json.dumps(envelope(notice), ensure_ascii=False, separators=(",", ":")).encode()
        answer = await self._poster.post(body, self._headers(notice, body, self._clock.now()))
        judge(_WHAT, answer, self._clock.now())

    async def close(self) -> None:
        """Nothing is held open: the client is the house's."""

    def _headers(self, notice: AnyNotice, body: bytes, now: datetime) -> dict[str, str]:
        timestamp = str(int(now.timestamp()))
        headers = {name: value.get_secret_value() for name, value in self._settings.headers.items()}
        headers |= {
            "Idempotency-Key": notice.id,
            DELIVERY_HEADER: notice.id,
            TIMESTAMP_HEADER: timestamp,
        }
        if self._settings.secret is not None:
            headers[SIGNATURE_HEADER] = signature(timestamp, body, self._settings.secret.get_secret_value())
        return headers


def open_webhooks(http: HttpDoor, clock: Clock) -> ChannelFactory:
    """The factory of the kind `webhook`, for `register_channel_kinds`."""

    def factory(channel_id: str, given: Mapping[str, Any]) -> Channel:
        return WebhookChannel(read_settings(WebhookSettings, channel_id, given), http, clock)

    return factory


def signature(timestamp: str, body: bytes, secret: str) -> str:
    """``v1=`` and the hex HMAC-SHA256 of timestamp, a full stop and the body.

    >>> signature("1764547200", b"{}", "0123456789abcdef")
    'v1=da7e8a0eb16aa4465788cbc6cf1a5a20bd844df29ba6703b322d4df96519564d'
    """
    return "v1=" + hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def verify(
    headers: Mapping[str, str],
    body: bytes,
    secret: str,
    now: datetime,
    tolerance_seconds: float = TOLERANCE_SECONDS,
) -> bool:
    """Whether a received request was signed with `secret`, at most `tolerance_seconds` from `now`.

    For receivers: `headers` and the raw `body` as they came. Names of headers may be in any case. The
    signature is compared in constant time. A repeat within the tolerance verifies too: remember
    ``X-Carapace-Delivery`` to recognise it.
    """
    timestamp = header(headers, TIMESTAMP_HEADER) or ""
    given = header(headers, SIGNATURE_HEADER) or ""
    if re.fullmatch(r"[0-9]{1,12}", timestamp) is None:
        return False
    fresh = abs(now.timestamp() - int(timestamp)) <= tolerance_seconds
    return hmac.compare_digest(given.encode(), signature(timestamp, body, secret).encode()) and fresh
