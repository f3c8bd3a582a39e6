"""The program itself: its first start, its second, and those that cannot be."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

STOP_SECONDS = 30


@dataclass
class Served:
    """A program that serves, and what it has printed up to its last line of greeting."""

    process: subprocess.Popen[str]
    printed: str

    @property
    def url(self) -> str:
        return re.search(r"address +(http://\S+)", self.printed)[1]  # type: ignore[index]  # else the test fails

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=STOP_SECONDS)
        return self.process.returncode


def serve(folder: Path, *flags: str) -> Served:
    process = subprocess.Popen(
        command(*flags), cwd=folder, env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    printed = ""
    for line in process.stdout:
        printed += line
        if line.startswith("Ctrl-C"):
            return Served(process, printed)
    raise AssertionError(f"it ended with {process.wait()}: {printed}")


def command(*flags: str) -> list[str]:
    return [sys.executable, "-m", "carapace_cron", "serve", *flags]


def environment() -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("CARAPACE_CRON_")},
        "PYTHONUNBUFFERED": "1",
    }


def refused(folder: Path, *flags: str) -> str:
    """What a start says that cannot be: one sentence, and not that it listens."""
    ended = subprocess.run(
        command(*flags), cwd=folder, env=environment(), text=True, capture_output=True, timeout=STOP_SECONDS
    )
    assert ended.returncode == 1, ended
    [sentence] = ended.stderr.splitlines()
    return sentence


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("serve")


@pytest.fixture(scope="module")
def first(folder: Path) -> Iterator[Served]:
    """The first start in an empty folder."""
    served = serve(folder, "--port", "0", "--data-dir", "data")
    yield served
    served.process.kill()
    served.process.communicate()


def requests(printed: str) -> list[list[str]]:
    """The commands to paste, as a shell would take them apart."""
    found = re.findall(r"^curl .*?'$", printed, re.MULTILINE | re.DOTALL)
    return [shlex.split(text.replace("\\\n", " ")) for text in found]


def pasted(words: list[str]) -> Any:
    """The answer to a printed request."""
    answer = subprocess.run(words, capture_output=True, text=True, timeout=STOP_SECONDS, check=True)
    return json.loads(answer.stdout)["result"]


def test_the_first_start_prints_a_token_and_requests_that_work(first: Served) -> None:
    assert re.search(r"admin token  cct_\S{32}\n  It is shown this once; keep it\.", first.printed)
    assert "plugin       carapace-cron 0.1.0 loaded\n" in first.printed
    create, messages = requests(first.printed)
    job = pasted(create)
    assert job["success"] is True and job["data"]["channelId"] == "gateway"
    assert pasted(messages) == {"items": []}


def test_a_port_that_is_in_use_is_said_in_a_sentence(first: Served, folder: Path) -> None:
    port = first.url.rpartition(":")[2]
    said = refused(folder, "--port", port, "--data-dir", "other")
    assert said == (
        f"carapace-cron: cannot listen on 127.0.0.1:{port}: Address already in use; "
        "expected a free port of this machine"
    )
    assert not (folder / "other").exists(), "nothing was begun"


def test_a_data_directory_that_is_in_use_is_said_in_a_sentence(first: Served, folder: Path) -> None:
    said = refused(folder, "--port", "0", "--data-dir", "data")
    assert f"the data directory {folder / 'data'} is in use by another gateway" in said
    assert "give this one its own (CARAPACE_CRON_DATA_DIR)" in said


@pytest.mark.parametrize("file", ["carapace.sqlite", "gateway.lock"])
def test_a_damaged_file_is_named(folder: Path, file: str) -> None:
    damaged = folder / f"damaged-{file}" / file
    damaged.parent.mkdir()
    damaged.write_text("this is a letter, not a database" * 100)
    said = refused(folder, "--port", "0", "--data-dir", damaged.parent.name)
    assert f"{damaged} cannot be " in said and "file is not a database" in said


def test_the_files_are_private_to_their_user(first: Served, folder: Path) -> None:
    assert (folder / "data").stat().st_mode & 0o077 == 0


def test_the_second_start_prints_no_token_and_has_the_job(first: Served, folder: Path) -> None:
    """The last of this module: it stops the first one."""
    [create, _] = requests(first.printed)
    made = pasted(create)["data"]["id"]
    assert first.stop() == 0
    second = serve(folder, "--port", "0", "--data-dir", "data")
    try:
        assert "admin token" not in second.printed and "curl" not in second.printed
        body = {"jsonrpc": "2.0", "id": 1, "method": "carapace.cron.list"}
        again = [word.replace(first.url, second.url) for word in create[:-1]] + [json.dumps(body)]
        assert made in [job["id"] for job in pasted(again)["data"]]
    finally:
        assert second.stop() == 0
