"""``examples/report_job_status.sh``: what reaches a monitor, and what the script ends with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.bare_monitor import BareMonitor, bare_monitor
from support.programs import ended

SCRIPT = Path(__file__).parents[2] / "examples" / "report_job_status.sh"


@pytest.fixture
async def monitor() -> AsyncIterator[BareMonitor]:
    async with bare_monitor() as one:
        yield one


async def test_it_delivers_a_report(monitor: BareMonitor) -> None:
    assert await ended(str(SCRIPT), monitor.url, "failed", "disk full", "1234") == (0, b"", "")
    [heard] = monitor.heard
    assert (heard.method, heard.headers["Content-Type"]) == ("POST", "application/json")
    assert heard.body == b'{"status": "failed", "message": "disk full", "execution_time_ms": 1234}'


async def test_a_status_alone_will_do(monitor: BareMonitor) -> None:
    assert (await ended(str(SCRIPT), monitor.url, "running")).status == 0
    assert (await ended(str(SCRIPT), monitor.url, "success", "")).status == 0
    assert [json.loads(heard.body) for heard in monitor.heard] == [
        {"status": "running"}, {"status": "success", "message": ""},
    ]  # fmt: skip


MESSAGES = [
    """it's "quoted", with \\ and \\" and \\n""",
    "two\nlines\r\nand\ttabs\n\n",
    "".join(map(chr, range(1, 128))),
    "Grüße, naïve 東京 €, \ufffd \uffff, 😀 \U0010ffff",
    "%s %d $(id) `id` $HOME * {a,b} [0-9] -n",
]


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
async def test_any_text_arrives_as_it_was(monitor: BareMonitor, message: str, locale: str) -> None:
    environment = {**os.environ, "LC_ALL": locale}
    assert (await ended(str(SCRIPT), monitor.url, "failed", message, env=environment)).status == 0
    assert json.loads(monitor.heard[0].body) == {"status": "failed", "message": message}


async def test_bytes_that_are_no_text_become_marks(monitor: BareMonitor) -> None:
    broken = b"a\xff b\xc3( c\xed\xa0\x80 d\xc0\xaf e\xf0\x9f"
    await ended(str(SCRIPT), monitor.url, "failed", os.fsdecode(broken))
    message = json.loads(monitor.heard[0].body)["message"]
    assert [part.strip("\ufffd") for part in message.split(" ")] == ["a", "b\ufffd(", "c", "d", "e"]


@pytest.mark.parametrize("character", ["x", "\n", "\x01", "é", "€", "😀"])
async def test_of_a_long_text_the_end_is_sent(monitor: BareMonitor, character: str) -> None:
    await ended(str(SCRIPT), monitor.url, "failed", character * 30_000 + "the end", "86400000")
    body = monitor.heard[0].body
    assert 9_000 < len(body) <= 10_000
    assert json.loads(body)["message"].endswith(f"{character}the end")


async def test_it_tries_again_when_that_may_help(monitor: BareMonitor) -> None:
    monitor.statuses = [503]
    assert await ended(str(SCRIPT), monitor.url, "success", "done") == (0, b"", "")
    assert len({heard.body for heard in monitor.heard}) == 1 and len(monitor.heard) == 2


@pytest.mark.parametrize("status", [404, 302])
async def test_it_says_what_was_not_delivered(monitor: BareMonitor, status: int) -> None:
    monitor.statuses = [status]
    said = f"report_job_status.sh: not delivered, the answer was {status}: OK\n"
    assert await ended(str(SCRIPT), monitor.url, "success") == (1, b"", said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "expected 2 to 4 arguments, got 0"),
        (["http://h/", "success", "", "1", "2"], "expected 2 to 4 arguments, got 5"),
        (["cron.example.com", "success"], "bad URL"),
        (["http://h/", "ok"], 'bad status "ok": expected success, failed or running'),
        (["http://h/", "success", "", "1.5"], 'bad execution time "1.5": expected whole milliseconds'),
        (["http://h/", "success", "", "007"], 'bad execution time "007": expected whole milliseconds'),
    ],
)
async def test_what_it_cannot_read_is_status_2(words: list[str], said: str) -> None:
    end = await ended(str(SCRIPT), *words)
    assert end.status == 2 and said in end.stderr


async def test_its_help_is_on_stdout() -> None:
    end = await ended(str(SCRIPT), "--help")
    assert end.status == 0 and end.stdout.startswith(b"Usage: report_job_status.sh URL STATUS [MESSAGE]")


def test_shellcheck_finds_nothing() -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    checked = subprocess.run([shellcheck, SCRIPT], capture_output=True, text=True)
    assert checked.stdout + checked.stderr == ""
