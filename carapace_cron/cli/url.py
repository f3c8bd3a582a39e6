"""URLs that somebody gives to the command line."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from carapace_cron.errors import InvalidValue

_PRINTABLE = re.compile(r"[!-~]+")  # ASCII without the space


def check_url(url: str, name: str) -> str:
    """The URL as it was given. Raises `InvalidValue`, which does not repeat it: there may be a key in it.

    >>> check_url("https://cron.example.com/ping/abc", "--monitor")
    'https://cron.example.com/ping/abc'
    >>> check_url("cron.example.com", "--monitor")
    Traceback (most recent call last):
    carapace_cron.errors.InvalidValue: bad --monitor: expected a URL that begins with http:// or https://
    """
    if _PRINTABLE.fullmatch(url) is None:
        raise InvalidValue(f"bad {name}: expected a URL of printable ASCII without spaces", field=name)
    if urlsplit(url).scheme not in ("http", "https"):
        raise InvalidValue(f"bad {name}: expected a URL that begins with http:// or https://", field=name)
    if not _has_plain_host(url):
        raise InvalidValue(f"bad {name}: expected a host, perhaps a port, and no user or # in it", field=name)
    return url


def origin(url: str) -> str:
    """What of a URL may be shown: paths hold keys.

    >>> origin("https://cron.example.com:8443/ping/a-key/nightly?create=1")
    'https://cron.example.com:8443'
    """
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _has_plain_host(url: str) -> bool:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        return False
    return bool(parts.hostname) and port != 0 and "@" not in parts.netloc and "#" not in url
