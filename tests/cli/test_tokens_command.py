"""``carapace-cron tokens``: asked of a running gateway, as an admin does it."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from click.testing import CliRunner
from support.programs import Ended, ended

from carapace_cron.cli.main import cli
from carapace_cron.clock import SystemClock
from carapace_cron.gateway.testing import House, running_gateway
from carapace_cron.model.actor import SCOPES
from carapace_cron.plugin import PLUGIN_ID, CronPlugin

Tokens = Callable[..., Awaitable[Ended]]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with (
        aiohttp.ClientSession() as client,
        running_gateway(tmp_path, client, plugins={PLUGIN_ID: CronPlugin(SystemClock())}) as open_house,
    ):
        yield open_house


@pytest.fixture
def tokens(house: House) -> Tokens:
    """``carapace-cron tokens …``; Bob is the admin of acme."""

    async def run(*words: str, who: str | None = "bob", url: str | None = None) -> Ended:
        variables = {"CARAPACE_CRON_URL": url or house.server.url, "CARAPACE_CRON_TOKEN": who or ""}
        program = (sys.executable, "-m", "carapace_cron", "tokens")
        return await ended(*program, *words, env={**os.environ, **variables})

    return run


async def test_it_prints_the_token_alone(house: House, tokens: Tokens) -> None:
    made = await tokens("create", "--scope", "monitors", "--scope", "jobs:read")
    assert made.status == 0 and re.fullmatch(rb"cct_\S{32}\n", made.stdout)
    whose = r'tok_\w+ is for "bob" of "acme" and may: monitors, jobs:read'
    assert re.fullmatch(rf"{whose}\. It is shown this once\.\n", made.stderr)
    answer = await house.call("carapace.gateway.whoami", who=made.stdout.decode().strip())
    assert answer["result"] == {"tenant": "acme", "userId": "bob", "scopes": ["jobs:read", "monitors"]}


async def test_a_token_is_made_for_another_user_listed_and_revoked(house: House, tokens: Tokens) -> None:
    made = json.loads((await tokens("create", "--scope", "ping", "--user", "eve", "--json")).stdout)
    assert made == {**made, "tenant": "acme", "user": "eve", "scopes": ["ping"]}
    listed = await tokens("list")
    heading, *lines = listed.stdout.decode().splitlines()
    assert heading.split() == ["id", "tenant", "user", "scopes", "createdAt"]
    assert [line.split()[:4] for line in lines] == [[made["id"], "acme", "eve", "ping"]]
    assert made["token"] not in listed.stdout.decode()
    assert (await tokens("revoke", made["id"])) == (0, b"", f"{made['id']} is revoked\n")
    assert json.loads((await tokens("list", "--json")).stdout) == []
    assert "error" in await house.call("carapace.gateway.whoami", who=made["token"])


REFUSED = [
    # words | whose token | what is said
    (["create", "--scope", "everything"], "bob", 'bad scope "everything": expected one of jobs:read, '),
    (["create", "--scope", "ping", "--tenant", "other"], "bob", 'tenant must be your own, "acme"'),
    (["create", "--scope", "ping"], "alice", "this needs the scope admin; the token has jobs:write"),
    (["revoke", "tok_none"], "bob", 'no token "tok_none" is in force'),
    (["list"], "mallory", "does not know the token in CARAPACE_CRON_TOKEN"),
    (["list"], None, "there is no token: set CARAPACE_CRON_TOKEN to an admin's"),
]


@pytest.mark.parametrize(("words", "who", "sentence"), REFUSED, ids=[said for _, _, said in REFUSED])
async def test_what_is_refused_is_one_sentence(
    tokens: Tokens, words: list[str], who: str | None, sentence: str
) -> None:
    status, printed, said = await tokens(*words, who=who)
    assert (status, printed) == (1, b"")
    assert said.startswith("carapace-cron: ") and sentence in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://127.0.0.1:1", "no gateway at http://127.0.0.1:1: Connection refused; start it, or set"),
        ("127.0.0.1:8787", "bad CARAPACE_CRON_URL: expected a URL that begins with http:// or https://"),
        ("{gateway}/elsewhere", "answered 404 and no JSON-RPC: expected a gateway; set CARAPACE_CRON_URL"),
    ],
)
async def test_a_gateway_that_is_not_there_is_said(
    house: House, tokens: Tokens, url: str, sentence: str
) -> None:
    status, _, said = await tokens("list", url=url.replace("{gateway}", house.server.url))
    assert status == 1 and sentence in said and said.count("\n") == 1


async def test_words_that_it_does_not_know_are_status_2(tokens: Tokens) -> None:
    status, _, said = await tokens("create")
    assert status == 2 and "Missing option '--scope'" in said


def test_the_help_names_every_scope() -> None:
    shown = CliRunner().invoke(cli, ["tokens", "create", "--help"]).output
    assert set(SCOPES) <= set(re.findall(r"[\w:]+", shown))
