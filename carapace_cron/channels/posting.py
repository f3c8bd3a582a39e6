"""What channels have in common that POST JSON to one service of the operator's: the call, and how its answer
is judged.

Which answers are final is in ``docs/reference/channels.md``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Protocol

from pydantic import SecretStr
from yarl import URL

from carapace_cron.errors import AddressNotAllowed, Refused, Unavailable
from carapace_cron.ports.channel import DeliveryFailed

# A 4xx says that this request is wrong, and it will be as wrong the next time; these three mean "not now".
_PASSING_CLIENT_ERRORS = frozenset((408, 425, 429))


class Answer(Protocol):
    """What channels read of an HTTP answer."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def body(self) -> bytes: ...


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


def http_url(url: SecretStr) -> SecretStr:
    """For a validator: raises `ValueError` for what cannot be called."""
    try:
        parsed = URL(url.get_secret_value())
    except ValueError:
        parsed = URL()
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError("expected an http:// or https:// URL")
    return url


class Poster:
    """One URL of a service. `what` names it in sentences: ``the webhook``."""

    def __init__(self, what: str, url: SecretStr, timeout_seconds: float, http: HttpDoor) -> None:
        self._what = what
        self._url = url.get_secret_value()
        self._timeout_seconds = timeout_seconds
        self._http = http

    async def post(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """The answer, whatever it says. Raises `DeliveryFailed` when there is none."""
        try:
            return await self._http.request(
                "POST",
                self._url,
                headers={"Content-Type": "application/json", **headers},
                body=body,
                timeout_seconds=self._timeout_seconds,
                trusted_origin=True,
                follow_redirects=False,  # a POST that became a GET on the way would look delivered
            )
        except AddressNotAllowed as error:
            raise DeliveryFailed(f"{self._what} was not called: {error}", permanent=True) from error
        except Refused as error:  # the client's sentence quotes the URL that it refused
            raise DeliveryFailed(f"{self._what} was not called: bad url", permanent=True) from error
        except Unavailable as error:
            reason = self._without_url(str(error))
            raise DeliveryFailed(f"{self._what} could not be reached: {reason}") from error

    def _without_url(self, sentence: str) -> str:
        """The client names the URL it called; path and query of one are as good as a password."""
        origin = str(URL(self._url).origin())
        return re.sub(re.escape(origin) + r"\S*", f"{origin}/…", sentence)


def judge(what: str, answer: Answer, now: datetime, *, said: str = "") -> None:
    """Nothing for 2xx; otherwise raises `DeliveryFailed`, saying whether it is final. `said`: the service's
    own word for what is wrong, if it is known to be one."""
    if 200 <= answer.status < 300:
        return
    in_its_words = f" ({said})" if said else ""
    sentence = f"{what} answered {_status_text(answer.status)}{in_its_words}; expected 2xx"
    if 300 <= answer.status < 400:
        raise DeliveryFailed(f"{sentence}. Set url to where it redirects", permanent=True)
    raise DeliveryFailed(
        sentence,
        permanent=400 <= answer.status < 500 and answer.status not in _PASSING_CLIENT_ERRORS,
        retry_after_seconds=retry_after_seconds(header(answer.headers, "Retry-After"), now),
    )


def word_in(answer: Answer) -> str:
    """What the service says, where that is one word such as ``channel_is_archived``; else empty."""
    match = re.fullmatch(rb"\s*([a-z][a-z0-9_]{1,60})\s*", answer.body[:100])
    return match[1].decode() if match else ""


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
    except (ValueError, OverflowError):  # a year of thirty digits
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max((at - now).total_seconds(), 0.0)


def header(headers: Mapping[str, str], name: str) -> str | None:
    """Header names have no case, and not every mapping that comes here knows that."""
    return next((value for key, value in headers.items() if key.lower() == name.lower()), None)


def _status_text(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:  # a status that no RFC names; the number is all there is to say
        return str(status)
