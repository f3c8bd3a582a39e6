"""The narrow waist under the job store: objects with ETags and conditional writes, as S3 has them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Stored:
    """The write is durable; `etag` (without quotes) names the object's new content. Empty after a delete."""

    etag: str


@dataclass(frozen=True, slots=True)
class Conflict:
    """Nothing was written: the object is not what the condition said. `etag` is the current one if known."""

    etag: str | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """The write may have been done or not, and could not be found out. `reason` is for the log."""

    reason: str


WriteOutcome = Stored | Conflict | Unknown


@dataclass(frozen=True, slots=True)
class StoredObject:
    key: str
    body: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of a listing. `body` is given by stores that read it for nothing (SQLite), else None."""

    key: str
    etag: str
    body: bytes | None = None


class ObjectStore(Protocol):
    """Four verbs. Bodies carry a random ``writeId``, so no two writes have the same bytes: a store may
    therefore take "the object already is what I wanted to write" for its own write whose answer was lost.

    All raise `carapace_cron.errors.Unavailable` when the store cannot be reached after bounded retries.
    """

    conditional_writes: bool
    """Whether the store honours compare-and-swap. False = this must be the only instance."""

    async def get(self, key: str) -> StoredObject | None:
        """The object, or None when there is none."""
        ...

    async def put(
        self, key: str, body: bytes, *, if_match: str | None = None, if_absent: bool = False
    ) -> WriteOutcome:
        """Write, if the object's ETag is `if_match`, or if there is none and `if_absent`. One is required."""
        ...

    async def delete(self, key: str, *, if_match: str) -> WriteOutcome:
        """Remove, if the ETag is `if_match`. Already absent counts as `Stored`."""
        ...

    def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[Listed]:
        """All objects whose key begins with `prefix`, in key order, after the key `after`."""
        ...

    async def close(self) -> None: ...
