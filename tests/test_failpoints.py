"""Failpoints: the places at which tests kill a gateway, before and after every call of a store."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from carapace_cron.errors import ConfigurationError
from carapace_cron.failpoints import NAMES, POINTS, VARIABLE, Failpoint, armed, failpoint

PACKAGE = Path(__file__).parent.parent / "carapace_cron"

# The classes through which the engine and the services reach a store.
DOORS = {
    "ledger/runs.py": "Runs",
    "ledger/in_force.py": "InForce",
    "ledger/deliveries.py": "Deliveries",
    "ledger/events.py": "Events",
    "ledger/pings.py": "Pings",
    "ledger/watchlist.py": "Watchlist",
    "ledger/badges.py": "BadgeKeys",
    "objects/memory.py": "MemoryObjects",
    "objects/database.py": "DatabaseObjects",
    "objects/s3.py": "S3Objects",
}
WRITES = ("_database.write(", "self._step(")
VERBS = ("get", "put", "delete", "list")


def methods_of(file: str) -> Iterator[tuple[ast.AsyncFunctionDef, str]]:
    """The public async methods of the door in `file`, with their sources."""
    source = (PACKAGE / file).read_text()
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and node.name == DOORS[file]:
            for one in node.body:
                if isinstance(one, ast.AsyncFunctionDef) and not one.name.startswith("_"):
                    yield one, ast.get_source_segment(source, one) or ""


def points_of(method: ast.AsyncFunctionDef) -> list[str]:
    calls = [one for one in method.decorator_list if isinstance(one, ast.Call)]
    return [ast.literal_eval(one.args[0]) for one in calls if ast.unparse(one.func) == "failpoint"]


@pytest.mark.parametrize("file", DOORS)
def test_every_method_that_writes_has_its_point(file: str) -> None:
    writing = [
        method
        for method, source in methods_of(file)
        if any(one in source for one in WRITES) or (file.startswith("objects/") and method.name in VERBS)
    ]
    assert writing
    assert [method.name for method in writing if len(points_of(method)) != 1] == []


def test_every_point_stands_somewhere_under_the_name_of_its_method() -> None:
    methods = [method for file in DOORS for method, _ in methods_of(file)]
    standing = {(point, method.name) for method in methods for point in points_of(method)}
    assert {point for point, _ in standing} == set(POINTS)
    assert [one for one in standing if one[0].partition(".")[2] != one[1]] == []


def test_it_is_not_there_when_nobody_asked_for_it() -> None:
    async def function() -> None: ...

    assert VARIABLE not in os.environ
    assert failpoint("ledger.claim")(function) is function
    with pytest.raises(ValueError, match="add it to POINTS"):
        failpoint("ledger.unheard_of")


@pytest.mark.parametrize(
    "text", ["ledger.claim", "ledger.claim.between", "claim.after", "ledger.claim.after:0"]
)
def test_it_lists_its_names_when_it_is_given_none_of_them(text: str) -> None:
    with pytest.raises(ConfigurationError) as failure:
        armed({VARIABLE: text})
    assert f'"{text}"' in str(failure.value)
    assert all(name in str(failure.value) for name in NAMES)


def test_an_unknown_name_is_said_at_the_start_in_one_sentence(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "CARAPACE_CRON_DATA_DIR": str(tmp_path), VARIABLE: "nowhere"}
    command = [sys.executable, "-m", "carapace_cron", "serve", "--port", "0"]
    process = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=30
    )
    assert process.returncode == 1
    last = process.stderr.splitlines()[-1]
    assert last.startswith(f'carapace-cron: bad {VARIABLE} "nowhere": expected one of')


async def test_it_counts_only_its_own_side_and_lets_the_answer_through() -> None:
    async def double(number: int, *, more: int = 0) -> int:
        return 2 * number + more

    async def count(to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number

    point = Failpoint("ledger.claim", "after", nth=100)
    assert await point.around(double)(4, more=1) == 9
    assert [one async for one in point.around(count)(3)] == [0, 1, 2]
    assert point.around(double).__name__ == "double"
    assert point.reached == 2


CALLS = """
import asyncio
from carapace_cron.objects.memory import MemoryObjects

async def main():
    objects = MemoryObjects()
    for number in (1, 2, 3):
        print("put", number, flush=True)
        await objects.put(f"key{number}", b"body", if_absent=True)
        print("listed", [one.key async for one in objects.list("key")], flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("name", "last_words"),
    [
        ("objects.put.before", "put 1"),
        ("objects.put.after:2", "put 2"),
        ("objects.list.before:2", "put 2"),
        ("objects.list.after:3", "put 3"),
        ("objects.put.after:4", "listed ['key1', 'key2', 'key3']"),
    ],
)
def test_the_process_dies_at_the_point_and_time_that_were_named(name: str, last_words: str) -> None:
    process = subprocess.run(
        [sys.executable, "-c", CALLS],
        env={"PATH": os.environ["PATH"], VARIABLE: name},
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert process.stdout.splitlines()[-1] == last_words
    assert process.returncode == (0 if name.endswith(":4") else -signal.SIGKILL)
