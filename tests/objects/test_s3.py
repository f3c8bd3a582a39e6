"""What is the bucket's own: finding out what it honours, and saying what is wrong with it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest
from support.fault_proxy import NONE, FaultProxy, Faults, fault_proxy
from support.s3_servers import SECRET_KEY, free_ports

from carapace_cron.clock import SystemClock
from carapace_cron.errors import ConfigurationError, Unavailable
from carapace_cron.job_store import JobStore
from carapace_cron.model.job import Job
from carapace_cron.objects.s3 import S3Objects
from carapace_cron.objects.s3_probe import Probe
from carapace_cron.objects.s3_wire import Address
from carapace_cron.ports.object_store import Conflict, Stored, Unknown

HONEST = Probe(create_if_absent=True, compare_and_swap=True, conditional_delete=True)


@pytest.fixture
async def fallen(moto: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FaultProxy]:
    """A proxy in front of a client that is not patient."""
    monkeypatch.setattr("carapace_cron.objects.s3.FIRST_WAIT_SECONDS", 0.001)
    async with fault_proxy(moto) as proxy:
        yield proxy


@pytest.mark.parametrize("server", ["moto", "seaweedfs"])
async def test_it_finds_that_a_server_honours_conditions(
    server: str, request: pytest.FixtureRequest
) -> None:
    objects = await S3Objects.open("s3://honest", endpoint_url=request.getfixturevalue(server))
    assert objects.found == HONEST
    assert objects.conditional_writes
    assert [one async for one in objects.list("cron/probe/")] == []  # it cleans up
    await objects.close()


async def test_it_finds_the_same_through_lost_answers(moto: str) -> None:
    async with fault_proxy(moto, Faults(lost_answer=0.1), seed=7) as proxy:
        objects = await S3Objects.open("s3://stormy", endpoint_url=proxy.url)
        assert objects.found == HONEST
        await objects.close()
        assert proxy.befell["lost_answer"] > 0


@pytest.mark.parametrize("seed", range(5))
async def test_it_finds_the_same_in_weather_in_which_hardly_five_requests_in_a_row_get_through(
    fallen: FaultProxy, seed: int
) -> None:
    fallen.reseed(seed)
    fallen.faults = Faults(reset=0.05, error_500=0.05, slow_down=0.05, lost_answer=0.05, done_500=0.05)
    objects = await S3Objects.open("s3://stormy", endpoint_url=fallen.url)
    assert objects.found == HONEST
    await objects.close()
    assert fallen.befell.total() > fallen.befell["none"]


async def test_it_says_loudly_that_a_server_ignores_conditions(
    moto: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with fault_proxy(moto, Faults(strip_conditions=True)) as proxy:
        objects = await S3Objects.open("s3://deaf", endpoint_url=proxy.url)
        assert not objects.conditional_writes
        assert len(objects.found.findings) == 3
        assert "this must be the ONLY instance" in caplog.text
        actions = [record.__dict__["action"] for record in caplog.records if record.levelname == "WARNING"]
        assert actions == ["store_probe"] * 3 + ["store_single_instance"]
        await objects.close()


async def test_it_works_as_the_only_instance_without_conditions(
    moto: str, make_job: Callable[..., Job]
) -> None:
    async with fault_proxy(moto, Faults(strip_conditions=True)) as proxy:
        objects = await S3Objects.open("s3://deaf/alone", endpoint_url=proxy.url)
        store = JobStore(objects, SystemClock())
        job = await store.create(make_job())
        await store.update(job.id, lambda job: job.evolve(enabled=False))
        assert isinstance(await objects.put("a", b"1", if_absent=True), Stored)
        assert isinstance(await objects.put("a", b"2", if_absent=True), Conflict)
        await store.delete(job.id, job.created_at)
        assert await store.purge(job.created_at + timedelta(days=1)) == [job.id]
        await objects.close()


async def test_it_keeps_prefixes_of_one_bucket_apart(moto: str) -> None:
    one = await S3Objects.open("s3://shared/one/", endpoint_url=moto)
    other = await S3Objects.open("s3://shared/one/other", endpoint_url=moto)
    await one.put("cron/a", b"1", if_absent=True)
    assert await other.get("cron/a") is None
    assert [found.key async for found in one.list("cron/")] == ["cron/a"]
    await one.close()
    await other.close()


async def test_it_tells_down_from_empty(fallen: FaultProxy) -> None:
    objects = await S3Objects.open("s3://down", endpoint_url=fallen.url)
    fallen.faults = Faults(slow_down=1.0)
    with pytest.raises(Unavailable, match=r"bucket 'down' at .* cannot be read: 503 SlowDown"):
        await objects.get("a")
    with pytest.raises(Unavailable, match="cannot be read"):
        await anext(aiter(objects.list("cron/")))
    assert isinstance(await objects.put("a", b"1", if_absent=True), Unknown)
    assert isinstance(await objects.delete("a", if_match="0"), Unknown)
    fallen.faults = NONE
    assert await objects.get("a") is None
    await objects.close()


async def test_it_names_the_endpoint_that_does_not_answer(_credentials: None) -> None:
    with free_ports(1) as (port,):
        endpoint = f"http://127.0.0.1:{port}"
    with pytest.raises(Unavailable, match=f"bucket 'jobs' at '?{endpoint}"):
        await S3Objects.open("s3://jobs", endpoint_url=endpoint)


async def test_gateways_that_start_at_once_create_a_missing_bucket_once(seaweedfs: str) -> None:
    opened = await asyncio.gather(
        *(S3Objects.open("s3://brand-new", endpoint_url=seaweedfs) for _ in range(4))
    )
    assert all([one.conditional_writes for one in opened])
    for one in opened:
        await one.close()


async def test_it_creates_no_bucket_but_on_loopback(moto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Address, "is_loopback", False)
    with pytest.raises(ConfigurationError, match=r"bucket 'tpyo' at .*NoSuchBucket.*: create it, or correct"):
        await S3Objects.open("s3://tpyo", endpoint_url=moto)


async def test_it_explains_wrong_credentials_without_telling_them(
    seaweedfs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-" + SECRET_KEY)
    with pytest.raises(ConfigurationError, match="check AWS_SECRET_ACCESS_KEY") as raised:
        await S3Objects.open("s3://jobs", endpoint_url=seaweedfs)
    assert SECRET_KEY not in str(raised.value)


async def test_it_asks_for_credentials_that_are_not_set(moto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(ConfigurationError, match=r"no credentials for bucket 'jobs'.*AWS_ACCESS_KEY_ID"):
        await S3Objects.open("s3://jobs", endpoint_url=moto)


@pytest.mark.parametrize("address", ["s3:", "s3:///x", "http://bucket", "bucket", "s3://b?x=1"])
def test_it_refuses_an_address_that_is_none(address: str) -> None:
    with pytest.raises(ConfigurationError, match=r"expected s3://bucket or s3://bucket/prefix"):
        Address.parse(address, None)


@pytest.mark.parametrize(
    ("endpoint", "loopback"),
    [
        ("http://127.0.0.1:8333", True),
        ("http://localhost:9000", True),
        ("http://[::1]:9000", True),
        ("https://s3.example.com", False),
        ("http://127.0.0.1.example.com", False),
        (None, False),
    ],
)
def test_it_knows_a_loopback_endpoint(endpoint: str | None, loopback: bool) -> None:
    assert Address.parse("s3://bucket", endpoint).is_loopback is loopback


def test_the_embedded_store_does_not_pay_for_the_client() -> None:
    code = "import sys, carapace_cron.job_store, carapace_cron.objects.database, carapace_cron.objects.s3\n"
    code += "print(sorted(sys.modules.keys() & {'aioboto3', 'botocore', 'aiobotocore'}))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"
