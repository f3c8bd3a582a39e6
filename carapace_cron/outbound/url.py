"""Which URLs a job may have. Text in, a checked `yarl.URL` out; nothing is looked up.

yarl is the only parser, because it is the one that connects: two parsers that disagree about the host are
how such checks are passed. What is checked here gives early and clear answers; the guard on the socket
(`outbound/guard.py`) is what holds.
"""

from __future__ import annotations

import re
import unicodedata

from yarl import URL

from carapace_cron.errors import AddressNotAllowed, InvalidValue
from carapace_cron.outbound.address import AllowList, read_address, why_refused

MAX_URL = 8_192  # characters
NOT_ALLOWED = "address not allowed"

_START = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?#]*)", re.IGNORECASE | re.ASCII)
_AUTHORITY = re.compile(r"(?P<host>\[[^\[\]]*\]|[^\[\]:]*)(?::(?P<port>[0-9]{1,5}))?", re.ASCII)
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.ASCII)
_NUMBER_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_INSIDE_NAMES = frozenset(
    ("localhost", "local", "localdomain", "internal", "intranet", "lan", "home", "corp", "private", "svc")
) | {"home.arpa"}
# Ports of other protocols, which a well-chosen request could talk: the list of https://fetch.spec.whatwg.org
# (port blocking, 2025), Docker (2375, 2376), Redis (6379) and memcached (11211).
_BAD_PORTS = frozenset((
    0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102,
    103, 104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512,
    513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719,
    1720, 1723, 2049, 2375, 2376, 3659, 4045, 4190, 5060, 5061, 6000, 6379, 6566, 6665, 6666, 6667,
    6668, 6669, 6679, 6697, 10080, 11211,
))


def check_url(text: str, allow: AllowList, *, trusted: bool = False) -> URL:
    """The URL, fit to be called as far as can be said without looking its name up.

    `trusted`: the operator configured it, so names and addresses of the inside are meant.
    Raises `InvalidValue` for what is no plain http(s) URL, `AddressNotAllowed` for an address or name that
    is not called. Both carry the field ``command``.

    >>> str(check_url("HTTPS://Example.com/a?b=c", AllowList()))
    'https://example.com/a?b=c'
    >>> check_url("http://127.0.0.1/", AllowList())
    Traceback (most recent call last):
    carapace_cron.errors.AddressNotAllowed: address not allowed
    """
    _check_text(text)
    host = _written_host(text)
    try:
        url = URL(text)
    except ValueError as error:
        raise _bad(text, "it cannot be read as a URL") from error
    if not url.raw_host or url.port is None:
        raise _bad(text, "it names no host")
    _check_host(text, host, url.raw_host)
    if not trusted:
        _check_reach(text, url.raw_host, url.port, allow)
    return url


def shown(url: URL) -> str:
    """The URL for messages and logs: no query, no fragment, and path parts that look like secrets hidden.

    >>> shown(URL("https://hooks.example.com/services/T00/aB3dE6gH9jK2mN5p?token=x"))
    'https://hooks.example.com/services/T00/…'
    """
    parts = ["…" if _looks_secret(part) else part for part in url.raw_path.split("/")]
    text = str(url.origin()) + "/".join(parts)
    return text if len(text) <= 120 else text[:119] + "…"


def _looks_secret(part: str) -> bool:
    mixed = any(c.isdigit() for c in part) or (part.lower() != part and part.upper() != part)
    return len(part) >= 16 and mixed


def _check_text(text: str) -> None:
    if len(text) > MAX_URL:
        raise _bad(text, f"it has {len(text)} characters, expected at most {MAX_URL}")
    if not text.isprintable() or " " in text or "\\" in text:
        raise _bad(text, "percent-encode its blanks, backslashes, control and invisible characters")


def _written_host(text: str) -> str:
    """The host as it was written, brackets included."""
    start = _START.match(text)
    if start is None:
        raise _bad(text, "expected http://… or https://…")
    authority = start["authority"]
    if "@" in authority:
        raise _bad("…", "a name or password before the host is not sent; use an Authorization header")
    match = _AUTHORITY.fullmatch(authority)
    if match is None or "%" in authority:
        raise _bad(text, "expected host or host:port between // and the path")
    if not match["host"]:
        raise _bad(text, "it names no host")
    return match["host"]


def _check_host(text: str, written: str, host: str) -> None:
    """Refuse what is neither an address in its usual spelling nor a host name."""
    address = read_address(host)
    if address is not None:
        if written.startswith("[") != (":" in host) or (":" not in host and written != host):
            raise _bad(text, "the address is not in its usual spelling, such as 203.0.113.7")
        return
    if written.startswith("["):
        raise _bad(text, "what stands in brackets is no IPv6 address")
    if unicodedata.normalize("NFKC", written) != written:
        raise _bad(text, "the host name has letters that stand for others; write it in ASCII")
    labels = host.split(".")
    if _NUMBER_LABEL.fullmatch(labels[-1]):
        raise _bad(text, "the address is not in its usual spelling, such as 203.0.113.7")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise _bad(text, "the host is no domain name: expected letters, digits, - and _ between single dots")


def _check_reach(text: str, host: str, port: int, allow: AllowList) -> None:
    """Refuse ports of other protocols, and addresses and names of the inside that nobody allowed."""
    if port in _BAD_PORTS and not allow.names_port(port):
        raise _bad(text, f"port {port} belongs to another protocol")
    address = read_address(host)
    if address is not None:
        reachable = why_refused(address) is None or allow.covers(address, port)
    elif host == "localhost":
        reachable = bool(allow.localhost(port))
    else:
        reachable = not _is_inside_name(host)
    if not reachable:
        raise AddressNotAllowed(NOT_ALLOWED, field="command")


def _is_inside_name(host: str) -> bool:
    labels = host.split(".")
    return len(labels) == 1 or labels[-1] in _INSIDE_NAMES or ".".join(labels[-2:]) in _INSIDE_NAMES


def _bad(text: str, reason: str) -> InvalidValue:
    given = text.split("?", 1)[0]  # a query often holds a key
    given = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in given[:100])
    return InvalidValue(f'bad URL "{given}": {reason}', field="command")


def without_secrets(command: str) -> str:
    """A URL as a record for others may show it: of its query and fragment only the names. What is no URL, as
    it is.

    >>> without_secrets("https://example.com/report?day=1&abc#top")
    'https://example.com/report?day=[redacted]&[redacted]'
    >>> without_secrets("agent: report --really?")
    'agent: report --really?'
    """
    if _START.match(command) is None:
        return command
    address, _, query = command.partition("#")[0].partition("?")
    named = (part.partition("=")[:2] for part in query.split("&") if part)
    told = "&".join(f"{name}=[redacted]" if equals else "[redacted]" for name, equals in named)
    return f"{address}?{told}" if told else address
