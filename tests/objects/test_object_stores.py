"""One contract for all object stores: in memory, in SQLite, in buckets, and in buckets in bad weather."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable

import pytest

from carapace_cron.clock import SystemClock
from carapace_cron.errors import CarapaceError
from carapace_cron.ids import random_text
from carapace_cron.job_store import JobStore
from carapace_cron.model.job import Job
from carapace_cron.objects.copy import copy_objects
from carapace_cron.objects.memory import MemoryObjects
from carapace_cron.ports.object_store import Conflict, ObjectStore, Stored

WRITERS = 20
MISSING = "0" * 32

def body(**content: object) -> bytes:
    return json.dumps({**content, "writeId": random_text()}).encode()


async def created(store: ObjectStore, key: str, content: bytes) -> str:
    outcome = await store.put(key, content, if_absent=True)
    assert isinstance(outcome, Stored)
    return outcome.etag


async def test_it_gives_back_what_was_stored(store: ObjectStore) -> None:
    content = body(text="Grüße, 世界")
    etag = await created(store, "cron/jobs/a.json", content)
    found = await store.get("cron/jobs/a.json")
    assert found is not None
    assert (found.key, found.body, found.etag) == ("cron/jobs/a.json", content, etag)
    assert '"' not in etag
    assert await store.get("cron/jobs/b.json") is None


async def test_it_creates_once(store: ObjectStore) -> None:
    first = body()
    etag = await created(store, "a", first)
    assert await store.put("a", body(), if_absent=True) == Conflict(etag)
    found = await store.get("a")
    assert found is not None
    assert found.body == first


async def test_it_swaps_the_current_object_only(store: ObjectStore) -> None:
    old = await created(store, "a", body())
    swapped = await store.put("a", body(), if_match=old)
    assert isinstance(swapped, Stored)
    assert await store.put("a", body(), if_match=old) == Conflict(swapped.etag)
    assert await store.put("absent", body(), if_match=MISSING) == Conflict(None)
    assert await store.get("absent") is None


async def test_it_knows_its_own_write_when_it_is_sent_again(store: ObjectStore) -> None:
    first, second = body(), body()
    etag = await created(store, "a", first)
    assert await store.put("a", first, if_absent=True) == Stored(etag)
    swapped = await store.put("a", second, if_match=etag)
    assert await store.put("a", second, if_match=etag) == swapped


async def test_it_deletes_the_current_object_only(store: ObjectStore) -> None:
    old = await created(store, "a", body())
    swapped = await store.put("a", body(), if_match=old)
    assert isinstance(swapped, Stored)
    assert await store.delete("a", if_match=old) == Conflict(swapped.etag)
    assert await store.delete("a", if_match=swapped.etag) == Stored("")
    assert await store.get("a") is None
    assert await store.delete("a", if_match=swapped.etag) == Stored("")


async def test_it_lists_keys_in_order_with_their_etags(store: ObjectStore) -> None:
    keys = ["cron/jobs/b", "cron/jobs/a", "cron/jobs/a.b", "cron/jobz", "cron/job", "cron/jobs/Z"]
    etags = {key: await created(store, key, body()) for key in keys}
    expected = ["cron/jobs/Z", "cron/jobs/a", "cron/jobs/a.b", "cron/jobs/b"]
    listed = [one async for one in store.list("cron/jobs/")]
    assert [one.key for one in listed] == expected
    assert all(one.etag == etags[one.key] for one in listed)
    assert [one.key async for one in store.list("cron/jobs/", after="cron/jobs/a")] == expected[2:]
    assert [one.key async for one in store.list("cron/none/")] == []


async def test_it_lists_page_by_page(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("carapace_cron.objects.database.PAGE", 2)
    monkeypatch.setattr("carapace_cron.objects.s3_wire.PAGE", 2)
    for number in range(5):
        await created(store, f"cron/jobs/{number}", body())
    listed = [one.key async for one in store.list("cron/jobs/", after="cron/jobs/0")]
    assert listed == [f"cron/jobs/{number}" for number in range(1, 5)]


async def test_it_refuses_a_write_without_exactly_one_condition(store: ObjectStore) -> None:
    with pytest.raises(ValueError, match="exactly one condition"):
        await store.put("a", body())
    with pytest.raises(ValueError, match="exactly one condition"):
        await store.put("a", body(), if_match=MISSING, if_absent=True)


async def test_it_lets_exactly_one_of_several_creators_win(store: ObjectStore) -> None:
    outcomes = await asyncio.gather(*(store.put("a", body(), if_absent=True) for _ in range(4)))
    assert Counter(type(outcome) for outcome in outcomes) == {Stored: 1, Conflict: 3}


async def test_it_is_copied_one_to_one(store: ObjectStore) -> None:
    contents = {f"cron/jobs/{number}": body(number=number) for number in range(3)}
    for key, content in contents.items():
        await created(store, key, content)
    await created(store, "elsewhere", body())
    target = MemoryObjects()
    seen: list[tuple[int, str]] = []
    report = await copy_objects(
        store, target, "cron/", overwrite=False, progress=lambda n, k: seen.append((n, k))
    )
    assert (report.copied, report.same, report.kept) == (3, 0, ())
    assert seen == [(number + 1, f"cron/jobs/{number}") for number in range(3)]
    copies = [await target.get(key) for key in contents]
    assert {copy.key: copy.body for copy in copies if copy is not None} == contents
    again = await copy_objects(store, target, "cron/", overwrite=False)
    assert (again.copied, again.same) == (0, 3)


async def test_twenty_writers_lose_no_increment(store: ObjectStore, make_job: Callable[..., Job]) -> None:
    """Each through a `JobStore` of its own, as if in twenty processes, on one job at the same moment."""
    job = await JobStore(store, SystemClock()).create(make_job())
    writers = [JobStore(store, SystemClock()) for _ in range(WRITERS)]
    for writer in writers:
        await writer.load()

    async def increment(writer: JobStore) -> bool:
        try:
            await writer.update(job.id, lambda job: job.evolve(execution_count=job.execution_count + 1))
        except CarapaceError:
            return False
        return True

    done = await asyncio.gather(*(increment(writer) for writer in writers))
    reader = JobStore(store, SystemClock())
    await reader.load()
    after = reader.get(job.id)
    assert after is not None
    assert all(done)
    assert (after.execution_count, after.revision) == (WRITERS, WRITERS + 1)


async def test_copying_keeps_what_the_target_has_unless_told() -> None:
    source, target = MemoryObjects(), MemoryObjects()
    await created(source, "a", body(side="source"))
    await created(target, "a", body(side="target"))
    assert (await copy_objects(source, target, "", overwrite=False)).kept == ("a",)
    assert (await copy_objects(source, target, "", overwrite=True)).copied == 1
    assert await target.get("a") == await source.get("a")
