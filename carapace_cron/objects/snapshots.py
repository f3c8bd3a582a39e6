"""Many objects in a few: what a quick start reads instead of 100,000 single objects.

A snapshot is gzip over lines of JSON, ``["<key>", "<etag>", "<body>"]``, in shards of at most 10,000
objects. It is only ever a shortcut: the reader compares each ETag with a fresh listing, so a snapshot that
is stale, torn between two writers, corrupt or gone costs time and never data.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence

from carapace_cron.ports.object_store import ObjectStore, Stored, StoredObject

PREFIX = "cron/snapshots/"
SHARD = 10_000  # objects; about 1 MB of gzip
_GZIP_LEVEL = 3  # level 9 takes five times as long for a tenth less

log = logging.getLogger(__name__)


async def read_snapshots(objects: ObjectStore) -> AsyncIterator[list[StoredObject]]:
    """The shards that can be read, one list each. Raises `Unavailable` with the store."""
    keys = [listed.key async for listed in objects.list(PREFIX)]
    for key in keys:
        shard = await objects.get(key)
        if shard is not None and (read := await asyncio.to_thread(_unpacked, shard)):
            yield read


async def write_snapshots(objects: ObjectStore, snapshot: Sequence[StoredObject]) -> bool:
    """Replace the shards by these objects; False when another process wrote one meanwhile.

    Its shard is as good as ours, for whoever reads compares each object with the listing.
    """
    etags = {listed.key: listed.etag async for listed in objects.list(PREFIX)}
    whole = True
    for number, start in enumerate(range(0, len(snapshot), SHARD)):
        key = f"{PREFIX}{number:04d}.jsonl.gz"
        body = await asyncio.to_thread(_packed, snapshot[start:start + SHARD])
        etag = etags.pop(key, None)
        outcome = await objects.put(key, body, if_match=etag, if_absent=etag is None)
        whole = whole and isinstance(outcome, Stored)
    for key, etag in etags.items():  # shards of a time with more objects
        await objects.delete(key, if_match=etag)
    return whole


def _packed(shard: Sequence[StoredObject]) -> bytes:
    lines = (json.dumps([one.key, one.etag, one.body.decode()]) for one in shard)
    # No time stamp: the same objects make the same shard, which then is not written anew.
    return gzip.compress("\n".join(lines).encode(), _GZIP_LEVEL, mtime=0)


def _unpacked(shard: StoredObject) -> list[StoredObject]:
    try:
        return list(_lines(gzip.decompress(shard.body)))
    except (OSError, EOFError, zlib.error, ValueError, TypeError) as error:
        fault = type(error).__name__
        message = "snapshot %s cannot be read (%s): its jobs are read one by one"
        log.warning(message, shard.key, fault, extra={"action": "snapshot_unreadable", "key": shard.key})
        return []


def _lines(text: bytes) -> Iterator[StoredObject]:
    if not text:
        raise ValueError("no object in it")  # what gzip makes of an object without a byte
    for line in text.splitlines():
        key, etag, body = json.loads(line)
        yield StoredObject(str(key), str(body).encode(), str(etag))
