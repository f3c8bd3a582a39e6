"""A disk that is full for a while: calls are refused in words, nothing is lost, and it goes on."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

from crash.full_disk import ShortFiles, full
from support.gateway_process import OURS


async def test_it_refuses_what_it_cannot_keep_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    report = await full(tmp_path, random.randrange(10**6), ShortFiles(tmp_path / "data"))
    print(report, *report.broken, sep="\n")
    assert report.broken == []
    assert report.runs["success"] >= 50
    assert report.orders.total() >= 20


def test_it_does_not_start_on_a_full_disk_and_says_why(tmp_path: Path) -> None:
    """Not one byte fits into a file of this process; what it prints goes to a pipe."""
    command = ["/bin/sh", "-c", 'ulimit -f 0; exec "$@"', "sh", *OURS, "serve", "--port", "0"]
    environment = {"PATH": os.environ["PATH"], "CARAPACE_CRON_DATA_DIR": str(tmp_path / "data")}
    process = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert process.returncode == 1
    last = process.stderr.splitlines()[-1]
    assert f"the data directory {tmp_path / 'data'} cannot be locked" in last
    assert "expected a disk with room" in last
