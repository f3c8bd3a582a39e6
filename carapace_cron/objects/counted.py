"""Any object store, with its requests counted: S3 bills each of them."""

from __future__ import annotations

from collections.abc import AsyncIterator

from carapace_cron.errors import CarapaceError
from carapace_cron.metrics import Metrics
from carapace_cron.ports.object_store import (
    Conflict,
    Listed,
    ObjectStore,
    Stored,
    StoredObject,
    WriteOutcome,
)


class CountedObjects:
    """Hands on to `objects`, and counts what comes of it: ``ok``, ``absent``, ``conflict``, ``unknown`` or
    ``failed``. A listing is one request, however many pages it has."""

    def __init__(self, objects: ObjectStore, metrics: Metrics) -> None:
        self._objects = objects
        self.conditional_writes = objects.conditional_writes
        self._count = metrics.object_requests.add

    async def get(self, key: str) -> StoredObject | None:
        try:
            found = await self._objects.get(key)
        except CarapaceError:
            self._count("get", "failed")
            raise
        self._count("get", "absent" if found is None else "ok")
        return found

    async def put(
        self, key: str, body: bytes, *, if_match: str | None = None, if_absent: bool = False
    ) -> WriteOutcome:
        try:
            outcome = await self._objects.put(key, body, if_match=if_match, if_absent=if_absent)
        except CarapaceError:
            self._count("put", "failed")
            raise
        self._count("put", _result(outcome))
        return outcome

    async def delete(self, key: str, *, if_match: str) -> WriteOutcome:
        try:
            outcome = await self._objects.delete(key, if_match=if_match)
        except CarapaceError:
            self._count("delete", "failed")
            raise
        self._count("delete", _result(outcome))
        return outcome

    async def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[Listed]:
        try:
            async for one in self._objects.list(prefix, after=after):
                yield one
        except CarapaceError:
            self._count("list", "failed")
            raise
        self._count("list", "ok")

    async def close(self) -> None:
        await self._objects.close()


def _result(outcome: WriteOutcome) -> str:
    if isinstance(outcome, Stored):
        return "ok"
    return "conflict" if isinstance(outcome, Conflict) else "unknown"
