"""Objects in a dictionary: for tests, and for a gateway that is to remember nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from carapace_cron.failpoints import failpoint
from carapace_cron.objects.conditions import etag_of, judge
from carapace_cron.ports.object_store import Conflict, Listed, Stored, StoredObject, WriteOutcome


class MemoryObjects:
    """As S3 behaves, without S3: same ETags, same conditions, and a listing that gives no bodies."""

    conditional_writes = True

    def __init__(self) -> None:
        self._objects: dict[str, StoredObject] = {}

    @failpoint("objects.get")
    async def get(self, key: str) -> StoredObject | None:
        return self._objects.get(key)

    @failpoint("objects.put")
    async def put(
        self, key: str, body: bytes, *, if_match: str | None = None, if_absent: bool = False
    ) -> WriteOutcome:
        judged = judge(self._objects.get(key), body, if_match=if_match, if_absent=if_absent)
        if judged is None:
            self._objects[key] = StoredObject(key, body, etag_of(body))
            return Stored(self._objects[key].etag)
        return judged

    @failpoint("objects.delete")
    async def delete(self, key: str, *, if_match: str) -> WriteOutcome:
        current = self._objects.get(key)
        if current is not None and current.etag != if_match:
            return Conflict(current.etag)
        self._objects.pop(key, None)
        return Stored("")

    @failpoint("objects.list")
    async def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[Listed]:
        keys = sorted(key for key in self._objects if key.startswith(prefix) and key > (after or ""))
        for key in keys:
            await asyncio.sleep(0)  # as any real store: others run, and write, in the middle of a listing
            if (listed := self._objects.get(key)) is not None:
                yield Listed(key, listed.etag)

    async def close(self) -> None:
        """Nothing to let go of; the objects stay for the next who is handed this store."""
