"""The object stores, each real, and jobs to keep in them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.fault_proxy import BAD_WEATHER, fault_proxy
from support.s3_servers import aws_environment, moto_server, seaweedfs

from carapace_cron.clock import Clock, ManualClock, SystemClock
from carapace_cron.database import Database
from carapace_cron.engines import sqlite_engine
from carapace_cron.ids import new_job_id, random_text
from carapace_cron.ledger.migrations.upgrade import upgrade
from carapace_cron.model.job import Job
from carapace_cron.objects.database import DatabaseObjects
from carapace_cron.objects.memory import MemoryObjects
from carapace_cron.objects.s3 import S3Objects
from carapace_cron.ports.object_store import ObjectStore

START = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)

MakeJob = Callable[..., Job]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def memory() -> MemoryObjects:
    return MemoryObjects()


@asynccontextmanager
async def sqlite_objects(folder: Path, clock: Clock) -> AsyncIterator[DatabaseObjects]:
    database = Database(sqlite_engine(folder / "carapace.db"), upgrade)
    await database.open()
    yield DatabaseObjects(database, clock)
    await database.close()


@pytest.fixture
async def sqlite(tmp_path: Path, clock: ManualClock) -> AsyncIterator[DatabaseObjects]:
    async with sqlite_objects(tmp_path, clock) as objects:
        yield objects


@pytest.fixture(scope="session")
def _credentials() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in aws_environment().items():
            patch.setenv(name, value)
        patch.delenv("AWS_PROFILE", raising=False)
        yield


@pytest.fixture(scope="session")
def moto(_credentials: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with moto_server(tmp_path_factory.mktemp("moto")) as endpoint:
        yield endpoint


@pytest.fixture(scope="session", name="seaweedfs")
def seaweedfs_endpoint(_credentials: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as endpoint:
        yield endpoint


KINDS = ["memory", "sqlite", "moto", "seaweedfs", "moto-bad-weather", "seaweedfs-bad-weather"]


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ObjectStore]:
    """Every store in turn, empty; those on servers also through a bad network."""
    async with AsyncExitStack() as resources:
        yield await _opened(request, tmp_path, resources)


async def _opened(request: pytest.FixtureRequest, folder: Path, resources: AsyncExitStack) -> ObjectStore:
    server, _, weather = request.param.partition("-")
    if server == "memory":
        return MemoryObjects()
    if server == "sqlite":
        return await resources.enter_async_context(sqlite_objects(folder, SystemClock()))
    endpoint = request.getfixturevalue(server)
    if weather:
        proxy = await resources.enter_async_context(fault_proxy(endpoint, BAD_WEATHER, seed=20261121))
        endpoint = proxy.url
    objects = await S3Objects.open(f"s3://contract/{random_text()}", endpoint_url=endpoint)
    resources.push_async_callback(objects.close)
    return objects


@pytest.fixture
def make_job() -> MakeJob:
    """Alice's jobs, each a millisecond younger than the one before."""
    made = 0

    def make(**values: Any) -> Job:
        nonlocal made
        made += 1
        at = START + timedelta(milliseconds=made)
        given = {
            "id": new_job_id(at),
            "tenant": "acme",
            "user_id": "alice",
            "name": f"job {made}",
            "schedule": "0 9 * * 1-5",
            "command": "echo good morning",
            "channel_id": "gateway",
            "created_at": at,
            "updated_at": at,
            "scheduled_since": at,
        }
        return Job(**(given | values))

    return make
