"""From one store to another, object by object: into a bucket, out of it, or a backup."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from carapace_cron.errors import Unavailable
from carapace_cron.ports.object_store import ObjectStore, Stored, StoredObject


@dataclass(frozen=True, slots=True)
class CopyReport:
    """`copied` were written; `same` were there already with these bytes; `kept` were there with others."""

    copied: int
    same: int
    kept: tuple[str, ...]  # their keys: the target's objects were left as they are


async def copy_objects(
    source: ObjectStore,
    target: ObjectStore,
    prefix: str,
    *,
    overwrite: bool,
    progress: Callable[[int, str], None] = lambda done, key: None,
) -> CopyReport:
    """Copy all objects under `prefix`, keys and bytes as they are; may be run again after it broke off.

    With `overwrite` an object of the target with other bytes is replaced, else it is kept and named.
    `progress(number of objects done, key)` is called after each. Raises `Unavailable`.
    """
    counts = {"copied": 0, "same": 0, "kept": 0}
    kept: list[str] = []
    async for listed in source.list(prefix):
        found = await source.get(listed.key)
        if found is None:  # deleted since it was listed
            continue
        fate = await _copy(found, target, overwrite=overwrite)
        counts[fate] += 1
        if fate == "kept":
            kept.append(found.key)
        progress(sum(counts.values()), found.key)
    return CopyReport(counts["copied"], counts["same"], tuple(kept))


async def _copy(found: StoredObject, target: ObjectStore, *, overwrite: bool) -> str:
    there = await target.get(found.key)
    if there is not None and there.body == found.body:
        return "same"
    if there is not None and not overwrite:
        return "kept"
    etag = None if there is None else there.etag
    outcome = await target.put(found.key, found.body, if_match=etag, if_absent=etag is None)
    if not isinstance(outcome, Stored):
        raise Unavailable(f"{found.key} changed in the target while it was copied: stop who writes there")
    return "copied"
