"""healthchecks-io 0.4.4 from PyPI, sync and async, all versions of the API. Run by its own interpreter."""

import asyncio
import sys

from healthchecks_io import AsyncClient, CheckCreate, CheckTrap, CheckUpdate, Client
from healthchecks_io.client.exceptions import BadAPIRequestError, CheckNotFoundError, HCAPIAuthError

ROOT, KEY, READ_ONLY, PING_KEY = sys.argv[1:]
URLS = {"api_url": f"{ROOT}/api/", "ping_url": f"{ROOT}/ping/"}


def refused(error, call, *arguments):
    try:
        call(*arguments)
    except error:
        return
    raise AssertionError(f"{call} {arguments} was not refused")


def manage(version):
    with Client(api_key=KEY, ping_key=PING_KEY, api_version=version, **URLS) as client:
        name = f"Sync {version}"
        asked = CheckCreate(name=name, tags=f"sync v{version}", unique=["name"])
        made = client.create_check(asked)
        assert made.uuid and made.ping_url.endswith(made.uuid), made
        assert client.create_check(asked.model_copy(update={"desc": "again"})).uuid == made.uuid
        assert client.get_check(made.uuid).desc == "again"
        assert [one.uuid for one in client.get_checks(tags=["sync", f"v{version}"])] == [made.uuid]
        changed = client.update_check(made.uuid, CheckUpdate(desc="changed", timeout=120))
        assert (changed.desc, changed.timeout) == ("changed", 120)
        assert client.success_ping(uuid=made.uuid, data="all well") == (True, "OK")
        assert client.start_ping(uuid=made.uuid) == (True, "OK")
        assert client.exit_code_ping(3, uuid=made.uuid) == (True, "OK")
        kinds = [ping.type for ping in client.get_check_pings(made.uuid)]
        assert kinds == ["fail", "start", "success"], kinds
        assert client.pause_check(made.uuid).status == "paused"
        assert {"*", "sync"} <= set(client.get_badges())
        assert "gateway" in [one.id for one in client.get_integrations()]
        assert client.delete_check(made.uuid).name == name
        refused(CheckNotFoundError, client.success_ping, made.uuid)
        refused(CheckNotFoundError, client.get_check, made.uuid)
        refused(BadAPIRequestError, client.exit_code_ping, 256, client.get_checks()[0].uuid)


def only_read():
    with Client(api_key=READ_ONLY, **URLS) as client:
        (seen,) = [one for one in client.get_checks() if one.name == "backup"]
        assert seen.uuid is None and client.get_check(seen.unique_key).name == "backup"
        refused(HCAPIAuthError, client.create_check, CheckCreate(name="x"))
    with Client(api_key="nobody's", **URLS) as client:
        refused(HCAPIAuthError, client.get_checks)


def trap():
    with Client(api_key=KEY, ping_key=PING_KEY, **URLS) as client:
        with CheckTrap(client, slug="backup") as job:
            job.add_log("copied")
        try:
            with CheckTrap(client, slug="backup"):
                raise ValueError("no space left")
        except ValueError:
            pass


async def trap_async():
    client = AsyncClient(api_key=KEY, ping_key=PING_KEY, api_version=3, **URLS)
    async with client, CheckTrap(client, slug="backup") as job:
        job.add_log("copied, too")


for api_version in (1, 2, 3):
    manage(api_version)
only_read()
trap()
asyncio.run(trap_async())
