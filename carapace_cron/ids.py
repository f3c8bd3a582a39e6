"""Ids: random enough not to be guessed, checked by pattern before they touch a key or a path."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import uuid
from datetime import datetime

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_RANDOM_LENGTH = 20  # 20 base-36 characters: 103 random bits
_JOB_ID = re.compile(r"job_[0-9]{13}_[0-9a-z]{16,26}")
_MONITOR_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_UNIQUE_KEY = re.compile(r"[0-9a-f]{40}")
_RUN_ID = re.compile(r"run_[0-9a-v]{26}")


def random_text(length: int = _RANDOM_LENGTH) -> str:
    """`length` random characters of 0–9 and a–z."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def new_job_id(created_at: datetime) -> str:
    """``job_<epoch milliseconds>_<20 random characters>``: sorts by creation, cannot be guessed."""
    return f"job_{int(created_at.timestamp() * 1000):013d}_{random_text()}"


def is_job_id(text: str) -> bool:
    """
    >>> is_job_id("job_1764547200000_0123456789abcdefghij")
    True
    >>> is_job_id("job_1764547200000_0123456789abcdefghij\\n") or is_job_id("../job")
    False
    """
    return _JOB_ID.fullmatch(text) is not None


def run_id(key: str) -> str:
    """The run's id, made from its key: the same key is the same run, in any process, for ever.

    128 bits of BLAKE2b in base 32; unguessable because every key holds a job id or a random part.
    """
    digest = hashlib.blake2b(key.encode(), digest_size=16).digest()
    return "run_" + base64.b32hexencode(digest).decode().rstrip("=").lower()


def is_run_id(text: str) -> bool:
    return _RUN_ID.fullmatch(text) is not None


def unique_key(monitor_id: str) -> str:
    """What names a monitor to those who may see but not ping it: Healthchecks' ``unique_key``.

    SHA-1 of the first half of its id; the half that is left out cannot be told from it.

    >>> unique_key("1f2e3d4c-5b6a-4978-8695-a4b3c2d1e0f1")
    '7f936f6a511e00a99976f88d691749f60da04038'
    """
    half = monitor_id.replace("-", "")[:16]
    return hashlib.sha1(half.encode(), usedforsecurity=False).hexdigest()


def is_monitor_id(text: str) -> bool:
    """A UUID in lower case with dashes, as in ping URLs.

    >>> is_monitor_id("7e3f0000-0000-4000-8000-0000000000aa")
    True
    """
    return _MONITOR_ID.fullmatch(text) is not None


def is_unique_key(text: str) -> bool:
    return _UNIQUE_KEY.fullmatch(text) is not None


def job_monitor_id(job_id: str) -> str:
    """The id of the monitor that a job has by its switch: made from the job's, so nobody need look it up.

    >>> is_monitor_id(job_monitor_id("job_1764547200000_0123456789abcdefghij"))
    True
    """
    digest = hashlib.blake2b(f"monitor of {job_id}".encode(), digest_size=16).digest()
    return str(uuid.UUID(bytes=digest, version=4))


def new_token() -> str:
    """A bearer token: 192 random bits behind a prefix that secret scanners can find."""
    return "cct_" + secrets.token_urlsafe(24)


def new_ping_secret() -> str:
    """What signs the pings of one monitor: 192 random bits."""
    return "ccs_" + secrets.token_urlsafe(24)


def token_hash(token: str) -> str:
    """What is kept of a token: SHA-256, hex. Tokens are random, so no salt and no slow hash is needed."""
    return hashlib.sha256(token.encode()).hexdigest()


def stable_fraction(text: str) -> float:
    """A number in [0, 1) that depends on `text` alone: the same after a restart and on any machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) / 2**64
