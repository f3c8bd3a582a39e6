"""One run of a program that the operator added: no shell, nothing inherited, limits, a bounded output."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from carapace_cron.model.program import ProgramLimits, ProgramRule
from carapace_cron.model.run import OUTPUT_LIMIT

ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
STOP_SECONDS = 6.0  # the keeper needs GRACE_SECONDS; after this it is killed itself

_LAUNCHER = Path(__file__).with_name("launch.py")
_KEPT = OUTPUT_LIMIT // 2 - 64  # bytes of each end of the output


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended: its exit status, or minus the number of the signal; and what it printed."""

    exit_status: int
    output: str
    truncated: bool


class HeadAndTail:
    """Takes any number of bytes and keeps the first and the last, `size` of each."""

    def __init__(self, size: int = _KEPT) -> None:
        self._size = size
        self._head = bytearray()
        self._tail = bytearray()
        self.left_out = 0

    def add(self, chunk: bytes) -> None:
        room = self._size - len(self._head)
        self._head += chunk[:room]
        self._tail += chunk[room:]
        surplus = max(len(self._tail) - self._size, 0)
        del self._tail[:surplus]
        self.left_out += surplus

    def text(self) -> str:
        """
        >>> kept = HeadAndTail(3)
        >>> kept.add(b"abcd"); kept.add(b"efghi")
        >>> kept.text()
        'abc\\n… 3 bytes left out …\\nghi'
        """
        head, tail = self._head.decode("utf-8", "replace"), self._tail.decode("utf-8", "replace")
        if not self.left_out:
            return (self._head + self._tail).decode("utf-8", "replace")
        return f"{head}\n… {self.left_out} bytes left out …\n{tail}"


async def run_program(rule: ProgramRule, arguments: Sequence[str], work_dir: Path) -> Ended:
    """Run it to its end in an empty directory of its own under `work_dir`, which is removed afterwards.

    Stdout and stderr are one text. Cancelling stops the program and all that it started (SIGTERM, then
    SIGKILL after two seconds) and returns when they are gone. Raises OSError when nothing can be started.
    """
    async with _empty_directory(work_dir) as directory:
        process = await _started(rule, arguments, directory)
        kept = HeadAndTail()
        try:
            await _drain(process, kept)
            status = await process.wait()
        finally:
            await _stopped(process)
    return Ended(status, kept.text(), kept.left_out > 0)


async def _started(
    rule: ProgramRule, arguments: Sequence[str], directory: Path
) -> asyncio.subprocess.Process:
    """The process; when the start is cancelled, what was started is stopped first."""
    starting = asyncio.ensure_future(_start(rule, arguments, directory))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        await _stopped(await starting)
        raise


async def _start(rule: ProgramRule, arguments: Sequence[str], directory: Path) -> asyncio.subprocess.Process:
    order = {"argv": [rule.path, *arguments], "env": ENVIRONMENT, "limits": _limits(rule.limits)}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-S",
        str(_LAUNCHER),
        json.dumps(order),
        stdin=asyncio.subprocess.PIPE,  # never written to: closes when this process is gone
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=ENVIRONMENT,  # the keeper's too: its own could be read in /proc
        cwd=directory,
        close_fds=True,
        start_new_session=True,
    )


def _limits(limits: ProgramLimits) -> dict[str, int]:
    return {
        "RLIMIT_AS": limits.memory_bytes,
        "RLIMIT_CPU": limits.cpu_seconds,
        "RLIMIT_FSIZE": limits.file_bytes,
        "RLIMIT_NOFILE": limits.open_files,
        "RLIMIT_NPROC": limits.processes,
        "RLIMIT_CORE": 0,
    }


async def _drain(process: asyncio.subprocess.Process, kept: HeadAndTail) -> None:
    assert process.stdout is not None
    while chunk := await process.stdout.read(65_536):
        kept.add(chunk)


async def _stopped(process: asyncio.subprocess.Process) -> None:
    """Return when the program is gone, however often the caller is cancelled meanwhile."""
    if process.returncode is None:
        stopping = asyncio.ensure_future(_stop(process))
        while not stopping.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(stopping)
        stopping.result()


async def _stop(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    reading = asyncio.ensure_future(_drain(process, HeadAndTail()))  # a full pipe must not hold it up
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    finally:
        reading.cancel()
        await asyncio.wait((reading,))


@contextlib.asynccontextmanager
async def _empty_directory(work_dir: Path) -> AsyncIterator[Path]:
    directory = await asyncio.to_thread(_make_directory, work_dir)
    try:
        yield directory
    finally:
        await asyncio.shield(asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True))


def _make_directory(work_dir: Path) -> Path:
    work_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=work_dir, prefix="run-"))
