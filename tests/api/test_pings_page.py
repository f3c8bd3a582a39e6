"""docs/reference/pings.md says what is answered: its rows are sent."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from carapace_cron.api.report import Report
from carapace_cron.gateway.faults import RETRY_AFTER_SECONDS
from carapace_cron.ids import unique_key
from carapace_cron.ledger.pings import KEPT_PINGS
from carapace_cron.model.actor import Actor
from carapace_cron.model.monitor import BODY_LIMIT
from carapace_cron.monitors.ping_book import MOST_WAITING

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "pings.md").read_text()
ALICE = Actor("acme", "alice", frozenset({"monitors"}))
UNKNOWN = "00000000-0000-4000-8000-000000000000"
REQUEST = re.compile(r"^\| `([A-Z]+) (/\S*)(?: ([^`]+))?` \| [^|]* \| `(\d+) ?([^`]*)` \|", re.MULTILINE)
ROW = re.compile(r"^\| `[A-Z]+ /", re.MULTILINE)


class Asked(NamedTuple):
    method: str
    path: str
    body: str
    status: str
    text: str


def rows(heading: str) -> list[Asked]:
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    found = [Asked(*one) for one in REQUEST.findall(section)]
    assert len(found) == len(ROW.findall(section)) > 20, "a row that nobody would send"
    return found


@pytest.mark.parametrize("heading", ["Answers", "Management API"])
async def test_each_request_is_answered_as_its_row_says(
    heading: str, open_api: Callable[..., Awaitable[Any]]
) -> None:
    api = await open_api()
    api.house.people.known["rw"] = ALICE
    made = await api.cron._house.watch.monitors.create(ALICE, {"name": "Nightly", "slug": "nightly"})
    uuid = made.watched.monitor.id
    named = {
        "<uuid>": uuid,
        "<UUID>": uuid.upper(),
        "<unknown>": UNKNOWN,
        "<unique-key>": unique_key(uuid),
        "<key>": "pinger",
        "<slug>": "nightly",
        "<rid>": UNKNOWN,
    }
    for asked in rows(heading):
        path, body = asked.path, asked.body
        for name, value in named.items():
            path, body = path.replace(name, value), body.replace(name, value)
        response = await api.house.client.request(
            asked.method, f"{api.house.server.url}{path}", data=body or None, headers={"X-Api-Key": "rw"}
        )
        assert str(response.status) == asked.status, asked
        shown = re.escape(asked.text).replace("…", ".+")
        said = await response.text()
        told = (await response.json())["error"] if said.startswith('{"error"') else said
        assert not asked.text or re.fullmatch(shown, told), (asked, told)


def test_the_page_names_every_parameter_of_a_report_and_limit() -> None:
    for name in Report.model_fields:
        assert f"| `{name}` |" in PAGE
    retry_after = f"`Retry-After: {RETRY_AFTER_SECONDS}`"
    for told in (f"more than {MOST_WAITING}", retry_after, f"{KEPT_PINGS:,} pings", f"{BODY_LIMIT:,} bytes"):
        assert told in PAGE


def test_the_page_names_the_clients_that_are_run() -> None:
    folder = Path(__file__).parents[1] / "clients"
    pinned = (folder / "requirements.txt").read_text().replace("healthchecks_io==", "healthchecks-io==")
    pinned += (folder / "package.json").read_text()
    told = re.findall(r"([\w-]+) (\d[\d.]*\d)", PAGE.split("## Clients that are tested")[1])
    assert len(told) == 7
    for name, version in told:
        assert f"{name}=={version}\n" in pinned or f'"{name}": "{version}"' in pinned


async def test_the_shell_of_the_page_signs(open_api: Callable[..., Awaitable[Any]]) -> None:
    api = await open_api()
    desk = api.cron._house.watch.monitors
    monitor = (await desk.create(ALICE, {"slug": "nightly"})).watched.monitor.id
    secret = await desk.sign(ALICE, monitor, True)
    (script,) = re.findall(r"```sh\n(address=.*?)```", PAGE, re.DOTALL)
    for key, status in ((secret, 0), ("another", 22)):
        shell = await asyncio.create_subprocess_exec(
            "sh",
            "-c",
            script.replace("$(date +%s)", f"{desk.now().timestamp():.0f}"),
            env={**os.environ, "ID": monitor, "SECRET": key, "URL": api.house.server.url},
        )
        assert await shell.wait() == status
    (watched,) = await desk.list(ALICE)
    assert (watched.health.status, watched.health.pings) == ("down", 1)
