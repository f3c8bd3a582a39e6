"""The kind `webhook`: a notice is POSTed as JSON, signed so that the receiver knows who speaks.

Which answers are final, and how to check the signature, is in ``docs/reference/channels.md``.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Protocol

from pydantic import Field, SecretStr, field_validator, model_validator
from yarl import URL

from carapace_cron.channels.envelope import envelope
from carapace_cron.channels.settings import KindSettings, read_settings
from carapace_cron.clock import Clock
from carapace_cron.errors import AddressNotAllowed, Refused, Unavailable
from carapace_cron.hookspecs import ChannelFactory
from carapace_cron.model.notice import AnyNotice
from carapace_cron.outbound.headers import check_headers
from carapace_cron.ports.channel import Channel, DeliveryFailed

TIMESTAMP_HEADER = "X-Carapace-Timestamp"
SIGNATURE_HEADER = "X-Carapace-Signature"
DELIVERY_HEADER = "X-Carapace-Delivery"
MIN_SECRET_LENGTH = 16
TOLERANCE_SECONDS = 300  # how old a signed request may be: clocks differ, and a captured one goes stale

# A 4xx says that this request is wrong, and it will be as wrong the next time; these three mean "not now".
_PASSING_CLIENT_ERRORS = frozenset((408, 425, 429))
_OURS = frozenset(("content-type", "idempotency-key"))  # besides those that the client itself refuses


class Answer(Protocol):
    """What this channel reads of an HTTP answer."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...


class HttpDoor(Protocol):
    """The guarded HTTP client (`carapace_cron.outbound`). Raises `Refused` for an address or a header
    that it does not take, and `Unavailable` when nobody answers."""

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_seconds: float,
        trusted_origin: bool = False,
        follow_redirects: bool = True,
    ) -> Answer: ...


class WebhookSettings(KindSettings):
    """``[channels.<id>] kind = "webhook"``."""

    url: SecretStr  # https or http; it often has a token in it
    secret: SecretStr | None = None  # signs every request; without it nothing is signed
    headers: dict[str, SecretStr] = Field(default_factory=dict)  # added to each request
    timeout_seconds: float = Field(10, ge=1, le=25)

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: SecretStr) -> SecretStr:
        try:
            parsed = URL(url.get_secret_value())
        except ValueError:
            parsed = URL()
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ValueError("expected an http:// or https:// URL")
        return url

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
        self._http = http
        self._clock = clock

    async def send(self, notice: AnyNotice) -> None:
        body = json.dumps(envelope(notice), ensure_ascii=False, separators=(",", ":")).encode()
        now = self._clock.now()
        try:
            answer = await self._http.request(
                "POST",
                self._settings.url.get_secret_value(),
                headers=self._headers(notice, body, now),
                body=body,
                timeout_seconds=self._settings.timeout_seconds,
                trusted_origin=True,
                follow_redirects=False,  # a POST that became a GET on the way would look delivered
            )
        except AddressNotAllowed as error:
            raise DeliveryFailed(f"the webhook was not called: {error}", permanent=True) from error
        except Refused as error:  # the client's sentence quotes the URL that it refused
            raise DeliveryFailed("the webhook was not called: bad url", permanent=True) from error
        except Unavailable as error:
            reason = self._without_url(str(error))
            raise DeliveryFailed(f"the webhook could not be reached: {reason}") from error
        except TimeoutError as error:
            seconds = f"{self._settings.timeout_seconds:g}"
            raise DeliveryFailed(f"the webhook did not answer within {seconds} s") from error
        _judge(answer, self._clock.now())

    async def close(self) -> None:
        """Nothing is held open: the client is the house's."""

    def _headers(self, notice: AnyNotice, body: bytes, now: datetime) -> dict[str, str]:
        timestamp = str(int(now.timestamp()))
        headers = {name: value.get_secret_value() for name, value in self._settings.headers.items()}
        headers |= {
            "Content-Type": "application/json",
            "Idempotency-Key": notice.id,
            DELIVERY_HEADER: notice.id,
            TIMESTAMP_HEADER: timestamp,
        }
        if self._settings.secret is not None:
            headers[SIGNATURE_HEADER] = signature(timestamp, body, self._settings.secret.get_secret_value())
        return headers

    def _without_url(self, sentence: str) -> str:
        """The client names the URL it called; path and query of a webhook's are as good as a password."""
        origin = str(URL(self._settings.url.get_secret_value()).origin())
        return re.sub(re.escape(origin) + r"\S*", f"{origin}/…", sentence)


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
    timestamp = _header(headers, TIMESTAMP_HEADER) or ""
    given = _header(headers, SIGNATURE_HEADER) or ""
    if re.fullmatch(r"[0-9]{1,12}", timestamp) is None:
        return False
    fresh = abs(now.timestamp() - int(timestamp)) <= tolerance_seconds
    return hmac.compare_digest(given.encode(), signature(timestamp, body, secret).encode()) and fresh


def _judge(answer: Answer, now: datetime) -> None:
    """Nothing for 2xx; otherwise raises, saying whether it is final."""
    if 200 <= answer.status < 300:
        return
    sentence = f"the webhook answered {_status_text(answer.status)}; expected 2xx"
    if 300 <= answer.status < 400:
        raise DeliveryFailed(f"{sentence}. Set url to where it redirects", permanent=True)
    raise DeliveryFailed(
        sentence,
        permanent=400 <= answer.status < 500 and answer.status not in _PASSING_CLIENT_ERRORS,
        retry_after_seconds=retry_after_seconds(_header(answer.headers, "Retry-After"), now),
    )


def retry_after_seconds(text: str | None, now: datetime) -> float | None:
    """The wish in a Retry-After header, RFC 9110 section 10.2.3; None when there is none to be understood.

    >>> noon = datetime(2026, 11, 21, 12, tzinfo=UTC)
    >>> retry_after_seconds("120", noon), retry_after_seconds("Sat, 21 Nov 2026 12:00:30 GMT", noon)
    (120.0, 30.0)
    >>> retry_after_seconds("soon", noon) is None
    True
    """
    if text is None:
        return None
    if re.fullmatch(r"[0-9]{1,9}", text.strip()):
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max((at - now).total_seconds(), 0.0)


def _status_text(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:  # a status that no RFC names; the number is all there is to say
        return str(status)


def _header(headers: Mapping[str, str], name: str) -> str | None:
    """Header names have no case, and not every mapping that comes here knows that."""
    return next((value for key, value in headers.items() if key.lower() == name.lower()), None)
