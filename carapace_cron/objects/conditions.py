"""What a conditional write means, once, for the stores that judge it themselves."""

from __future__ import annotations

import hashlib

from carapace_cron.ports.object_store import Conflict, Stored, StoredObject, WriteOutcome


def etag_of(body: bytes) -> str:
    """The ETag that S3 gives a plain object: the MD5 of its bytes, in hex.

    >>> etag_of(b"{}")
    '99914b932bd37a50b983c5e7c90ae93b'
    """
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def require_one(if_match: str | None, if_absent: bool) -> None:
    """An unconditional write could undo another's: it is a fault of the caller, not of the store."""
    if (if_match is None) != if_absent:
        raise ValueError("expected exactly one condition: if_match=<etag> or if_absent=True")


def judge(
    current: StoredObject | None, body: bytes, *, if_match: str | None, if_absent: bool
) -> WriteOutcome | None:
    """What a write of `body` over `current` ends as without writing; None when it is to be written.

    Bodies are never written twice on purpose (`ObjectStore`), so a `current` that already has these bytes
    is this very write, sent again.
    """
    require_one(if_match, if_absent)
    held = current.etag if current else None
    if held == if_match:  # both None: absent, as `if_absent` asks
        return None
    if current is not None and current.body == body:
        return Stored(current.etag)
    return Conflict(held)
