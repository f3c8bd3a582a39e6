"""docs/reference/rest.md says which addresses there are: its rows are sent, and each address has one."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

from carapace_cron.api.monitor_routes import MONITOR_CALLS, READ
from carapace_cron.api.rest import ROOT, STATUSES, RestCall
from carapace_cron.gateway.faults import _CODES

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "rest.md").read_text()
REQUEST = r"^\| `([A-Z]+) (/\S*)(?: ([^`]+))?` \|"
ADDRESS = re.compile(REQUEST + r" ?(.*?) \| `(.*?)` \| `(\d+)` .*? \| `(\w+)` \|$", re.MULTILINE)
REFUSAL = re.compile(REQUEST + r" `(\d+) (\w+)` \|$", re.MULTILINE)
UNKNOWN = "00000000-0000-4000-8000-000000000000"


class Row(NamedTuple):
    verb: str
    path: str
    body: str
    query: str
    needs: str
    status: str
    rpc: str

    @property
    def address(self) -> tuple[str, str]:
        """As a route has it: the first id is the monitor's, a number the ping's."""
        path = self.path.partition("?")[0].replace("<id>", "{monitorId}")
        return self.verb, re.sub(r"/\d+/", "/{n}/", path)


def section(heading: str) -> str:
    return PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def written() -> list[Row]:
    found = [Row(*one) for one in ADDRESS.findall(section("Addresses"))]
    assert len(found) == len(re.findall(r"^\| `[A-Z]+ /", section("Addresses"), re.MULTILINE))
    return found


def test_each_address_has_its_row_and_each_row_its_address() -> None:
    told = {row.address: row for row in written()}
    calls = {(call.verb, f"{ROOT}/{call.path}"): call for call in MONITOR_CALLS}
    assert len(told) == len(written()) and told.keys() == calls.keys()
    for address, call in calls.items():
        assert described(told[address]) == called(call)


def described(row: Row) -> tuple[str, str, set[str]]:
    return f"carapace.cron.monitors.{row.rpc}", row.needs, set(re.findall(r"`(\w+)`", row.query))


def called(call: RestCall) -> tuple[str, str, set[str]]:
    return call.rpc, call.scope, call.query


async def test_the_gateway_has_these_addresses_and_every_method(api: Any) -> None:
    routes = {(one.method, one.path) for one in api.cron.register_routes() if "/monitors" in one.path}
    assert routes == {row.address for row in written()}
    methods = {name for name in api.cron.register_methods() if name.startswith("carapace.cron.monitors.")}
    assert methods == {f"carapace.cron.monitors.{row.rpc}" for row in written()}


async def test_each_address_answers_as_its_row_says(open_api: Callable[..., Awaitable[Any]]) -> None:
    api, monitor = await open_api(), ""
    for row in written():
        if monitor and row.rpc in ("pings", "acknowledge"):
            await ping(api, f"{monitor}/fail")
        status, answer = await send(api, row.verb, row.path.replace("<id>", monitor), row.body)
        assert (str(status), answer["success"]) == (row.status, True), (row, answer)
        monitor = monitor or answer["data"]["id"]
        lacking = "pinger" if row.needs == READ else "onlooker"
        status, answer = await send(api, row.verb, row.path.replace("<id>", monitor), row.body, who=lacking)
        assert (status, answer["code"]) == (403, "forbidden"), row


async def test_each_refusal_is_answered_as_its_row_says(open_api: Callable[..., Awaitable[Any]]) -> None:
    api = await open_api()
    _, made = await send(api, "POST", "/api/v1/monitors", '{"slug": "nightly"}')
    rows = REFUSAL.findall(section("Refusals"))
    assert len(rows) == len(re.findall(r"^\| `[A-Z]+ /", section("Refusals"), re.MULTILINE)) > 10
    for verb, path, body, status, code in rows:
        path, body = (one.replace("<unknown>", UNKNOWN) for one in (path, body))
        said, answer = await send(api, verb, path.replace("<id>", made["data"]["id"]), body)
        assert (str(said), answer["code"]) == (status, code), (verb, path, answer)
        assert answer["success"] is False and answer["error"]


def test_each_status_is_in_the_table_with_its_codes() -> None:
    rows = dict(re.findall(r"^\| (\d+) \| (.*?) \|", section("Refusals"), re.MULTILINE))
    told = {int(status): set(re.findall(r"`(\w+)`", codes)) for status, codes in rows.items()}
    known = {(status, code) for code, status in STATUSES.items()}
    known |= {(status, code) for status, (_, code) in _CODES.items() if status not in (400, 426)}
    assert {(status, code) for status, codes in told.items() for code in codes} == known


async def ping(api: Any, address: str) -> None:
    url = f"{api.house.server.url}/ping/{address}"
    assert (await api.house.client.post(url, data="disk full")).status == 200


async def send(api: Any, verb: str, path: str, body: str, who: str = "watcher") -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {who}"} | ({"Content-Type": "application/json"} if body else {})
    url = f"{api.house.server.url}{path}"
    async with api.house.client.request(verb, url, data=body or None, headers=headers) as response:
        return response.status, json.loads(await response.text())
