"""All jobs of a gateway in memory, lean enough for 100,000: who has which, in which order.

Keeps the stored bytes of each job and the few values that look-ups need; the rest is parsed when asked for.
"""

from __future__ import annotations

import sys
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from carapace_cron.model.job import Job

_Owner = tuple[str, str | None]  # (tenant, user id), or (tenant, None) for all users of the tenant


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of one stored job without parsing it."""

    id: str
    tenant: str
    user_id: str
    enabled: bool
    revision: int
    idempotency_key: str | None
    after: tuple[str, ...]  # ids of the jobs that it runs after
    deleted_at: datetime | None  # set = a tombstone: in a list of its own, found by no key
    etag: str  # of `body`, as the store names it
    body: bytes  # the document as it is stored


def entry_of(job: Job, body: bytes, etag: str) -> Entry:
    return Entry(
        id=job.id,
        tenant=sys.intern(job.tenant),
        user_id=sys.intern(job.user_id),
        enabled=job.enabled,
        revision=job.revision,
        idempotency_key=job.idempotency_key,
        after=tuple(one.job_id for one in job.after),
        deleted_at=job.deleted_at,
        etag=etag,
        body=body,
    )


class JobIndex:
    """Entries by id, by owner in creation order (ids begin with their time), and by idempotency key."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._ids_by_owner: dict[_Owner, list[str]] = {}
        self._buried_by_owner: dict[_Owner, list[str]] = {}
        self._id_by_key: dict[tuple[str, str, str], str] = {}

    def __len__(self) -> int:
        """Entries, tombstones among them."""
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        """All entries, tombstones among them, as of now: changing the index meanwhile is safe."""
        return iter(list(self._entries.values()))

    def get(self, job_id: str) -> Entry | None:
        return self._entries.get(job_id)

    def live(self, job_id: str) -> Entry | None:
        entry = self._entries.get(job_id)
        return entry if entry is not None and entry.deleted_at is None else None

    def put(self, entry: Entry) -> None:
        before = self._entries.get(entry.id)
        self._entries[entry.id] = entry
        if before is not None and _listing(before) == _listing(entry):
            return
        if before is not None:
            self._delist(before)
        self._enlist(entry)

    def remove(self, job_id: str) -> Entry | None:
        entry = self._entries.pop(job_id, None)
        if entry is not None:
            self._delist(entry)
        return entry

    def ids(self, tenant: str, user_id: str | None) -> list[str]:
        """Ids of the live jobs of an owner, in creation order."""
        return list(self._ids_by_owner.get((tenant, user_id), ()))

    def page(
        self, tenant: str, user_id: str | None, *, after: str, limit: int, buried: bool = False
    ) -> list[str]:
        """The first `limit` of `ids` that come after the id `after`; or of the tombstones, where `buried`."""
        ids = (self._buried_by_owner if buried else self._ids_by_owner).get((tenant, user_id), [])
        start = bisect_right(ids, after)
        return ids[start:start + limit]

    def count(self, tenant: str, user_id: str | None) -> int:
        return len(self._ids_by_owner.get((tenant, user_id), ()))

    def by_idempotency_key(self, tenant: str, user_id: str, key: str) -> str | None:
        return self._id_by_key.get((tenant, user_id, key))

    def _enlist(self, entry: Entry) -> None:
        lists = self._lists_of(entry)
        for owner in _owners(entry):
            insort(lists.setdefault(owner, []), entry.id)
        if entry.idempotency_key is not None and entry.deleted_at is None:
            self._id_by_key[entry.tenant, entry.user_id, entry.idempotency_key] = entry.id

    def _delist(self, entry: Entry) -> None:
        lists = self._lists_of(entry)
        for owner in _owners(entry):
            ids = lists[owner]
            del ids[bisect_left(ids, entry.id)]
            if not ids:
                del lists[owner]
        key = (entry.tenant, entry.user_id, entry.idempotency_key or "")
        if self._id_by_key.get(key) == entry.id:
            del self._id_by_key[key]

    def _lists_of(self, entry: Entry) -> dict[_Owner, list[str]]:
        return self._ids_by_owner if entry.deleted_at is None else self._buried_by_owner


def _owners(entry: Entry) -> tuple[_Owner, _Owner]:
    return (entry.tenant, entry.user_id), (entry.tenant, None)


def _listing(entry: Entry) -> tuple[str, str, str | None, bool]:
    return entry.tenant, entry.user_id, entry.idempotency_key, entry.deleted_at is None
