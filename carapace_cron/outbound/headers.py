"""Which request headers may be sent, which may follow a redirect to another place, and which may be shown."""

from __future__ import annotations

import re
from collections.abc import Mapping

from carapace_cron.errors import InvalidValue

MAX_HEADER = 8_000  # characters of a value; servers refuse lines over 8 KiB

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}", re.ASCII)
_VALUE = re.compile(r"[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?|", re.ASCII)
# They say how the message is framed or which server is meant (RFC 9110 section 7.6.1, RFC 9112): a value of
# one's own makes two servers on the way read two different requests.
_OURS = frozenset(
    ("host", "connection", "content-length", "transfer-encoding", "keep-alive", "te", "trailer", "upgrade")
) | {"expect", "via", "forwarded"}
# Everything else stays behind when a redirect leaves the origin. A list of the headers that carry secrets
# could not be complete: each service has its own name for its key.
_TRAVELS = frozenset(("accept", "accept-language", "content-type", "content-language", "user-agent"))


def check_headers(headers: Mapping[str, str], *, field: str = "http.headers") -> None:
    r"""Raise `InvalidValue` for a header that cannot be sent, or would change which request is read.

    >>> check_headers({"X-Note": "a\r\nX-Admin: 1"})
    Traceback (most recent call last):
    carapace_cron.errors.InvalidValue: bad value of header "X-Note": expected one line of printable ASCII
    """
    seen: set[str] = set()
    for name, value in headers.items():
        _check_name(name, seen, field)
        if _VALUE.fullmatch(value) is None:
            expected = "expected one line of printable ASCII"
            raise InvalidValue(f'bad value of header "{name}": {expected}', field=f"{field}.{name}")
        if len(value) > MAX_HEADER:
            fault = f"it has {len(value)} characters, expected at most {MAX_HEADER}"
            raise InvalidValue(f'bad value of header "{name}": {fault}', field=f"{field}.{name}")
        seen.add(name.lower())


def _check_name(name: str, seen: set[str], field: str) -> None:
    if _NAME.fullmatch(name) is None:
        raise InvalidValue(f"bad header name {name[:100]!a}: expected letters, digits and -", field=field)
    lower = name.lower()
    if lower in _OURS or lower.startswith("proxy-"):
        fault = f'header "{name}" cannot be set: the gateway sends its own'
        raise InvalidValue(fault, field=f"{field}.{name}")
    if lower in seen:
        raise InvalidValue(f'header "{name}" is given twice: give it once', field=f"{field}.{name}")


def for_other_origin(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that may go to another origin: nothing that identifies or authorises.

    >>> for_other_origin({"Accept": "*/*", "Authorization": "Bearer x", "Private-Token": "y"})
    {'Accept': '*/*'}
    """
    return {name: value for name, value in headers.items() if name.lower() in _TRAVELS}


def without_secrets(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers as a record for others may show them: a value only where it can be no secret.

    >>> without_secrets({"Accept": "*/*", "X-Functions-Key": "y"})
    {'Accept': '*/*', 'X-Functions-Key': '[redacted]'}
    """
    return {name: value if name.lower() in _TRAVELS else "[redacted]" for name, value in headers.items()}


def without_body(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers of a request that lost its body on the way."""
    return {name: value for name, value in headers.items() if not name.lower().startswith("content-")}
