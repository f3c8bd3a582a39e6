"""What the address of a ping says: for whom it is, and what it tells.

    /ping/<uuid>[/start | /fail | /log | /<exit status>]
    /ping/<ping key>/<slug>[/start | /fail | /log | /<exit status>]

The form is that of Healthchecks (its hc/api/urls.py, 2026-08). A final slash is fine everywhere, and so are
capitals in a UUID (RFC 9562: its input is case-insensitive); there they are "not found".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from carapace_cron.model.monitor import PingKind

LAST_EXIT_STATUS = 255

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
_WORD = re.compile(r"[-A-Za-z0-9_]+")
_SAID: dict[str, PingKind] = {"": "success", "start": "start", "fail": "fail", "log": "log"}


@dataclass(frozen=True, slots=True)
class PingAddress:
    """`monitor_id` is empty when `key` and `slug` name the monitor. `exit_status` may be out of range."""

    monitor_id: str
    key: str
    slug: str
    said: PingKind
    exit_status: int | None = None

    def __repr__(self) -> str:
        """Without what is secret in it."""
        return f"PingAddress({self.said}, exit_status={self.exit_status})"

    @property
    def has_suffix(self) -> bool:
        return self.said != "success" or self.exit_status is not None

    @property
    def is_out_of_range(self) -> bool:
        return self.exit_status is not None and self.exit_status > LAST_EXIT_STATUS


def read_address(path: str) -> PingAddress | None:
    """What follows ``/ping/``; None when nothing can be there.

    >>> read_address("1f2e3d4c-5b6a-4978-8695-A4B3C2D1E0F1/3").monitor_id
    '1f2e3d4c-5b6a-4978-8695-a4b3c2d1e0f1'
    >>> read_address("cct_key/backup/start"), read_address("backup"), read_address("1f2e/../log")
    (PingAddress(start, exit_status=None), None, None)
    """
    parts = path.removesuffix("/").split("/")
    if _UUID.fullmatch(parts[0]):
        named, rest = (parts[0].lower(), "", ""), parts[1:]
    elif len(parts) > 1 and _WORD.fullmatch(parts[0]) and _WORD.fullmatch(parts[1]):
        named, rest = ("", parts[0], parts[1]), parts[2:]
    else:
        return None
    suffix = "".join(rest[:1])
    if len(rest) > 1 or rest == [""]:
        return None
    if suffix in _SAID:
        return PingAddress(*named, _SAID[suffix])
    if suffix.isascii() and suffix.isdigit():
        status = int(suffix[-4:]) if not suffix[:-4].strip("0") else LAST_EXIT_STATUS + 1
        return PingAddress(*named, "fail" if status else "success", status)
    return None


def read_run_id(text: str) -> str | None:
    """A run id in lower case; None when it is no UUID with its dashes.

    >>> read_run_id("1F2E3D4C-5B6A-4978-8695-A4B3C2D1E0F1"), read_run_id("1f2e"), read_run_id("")
    ('1f2e3d4c-5b6a-4978-8695-a4b3c2d1e0f1', None, None)
    """
    return text.lower() if _UUID.fullmatch(text) else None
