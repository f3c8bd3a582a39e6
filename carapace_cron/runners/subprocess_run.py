"""One run of a program that the operator added: no shell, nothing inherited, limits, a bounded output."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from carapace_cron.errors import WorkStopped
from carapace_cron.model.program import ProgramLimits, ProgramRule
from carapace_cron.model.run import OUTPUT_LIMIT
from carapace_cron.runners.processes import descendants, living

T = TypeVar("T")

log = logging.getLogger(__name__)

ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
STOP_SECONDS = 6.0  # the keeper needs GRACE_SECONDS; after this it is killed itself
LOOK_SECONDS, KILL_LOOKS = 0.02, 100  # after that: how often it is looked whether what it kept has ended
LAST_WORDS_SECONDS = 0.5  # for output that is still in the pipe when nobody is left to write more

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


async def run_program(
    rule: ProgramRule, arguments: Sequence[str], work_dir: Path, *, stdin: bytes = b""
) -> Ended:
    """Run it to its end in an empty directory of its own under `work_dir`, which is removed afterwards.

    Stdout and stderr are one text. Cancelling stops the program and all that it started (SIGTERM, then
    SIGKILL after two seconds), and ends with `WorkStopped` when they are gone. Raises OSError when nothing
    can be started.
    """
    kept = HeadAndTail()
    with _Report() as report:
        async with _empty_directory(work_dir) as directory:
            with _readable(stdin, directory) as given:
                starting = asyncio.ensure_future(_start(rule, arguments, directory, given, report))
                try:
                    process = await asyncio.shield(starting)
                    await _drain(process, kept)
                    status = await process.wait()
                except asyncio.CancelledError as stop:
                    how = await _finished(_stop(starting, report, kept))
                    raise WorkStopped(how, kept.text()) from stop
    return Ended(status, kept.text(), kept.left_out > 0)


class _Report:
    """What the keeper says at its end: on a pipe, as the program could write into any file here."""

    def __enter__(self) -> _Report:
        self._reader, self.writer = os.pipe()
        os.set_blocking(self._reader, False)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._reader)
        os.close(self.writer)

    def read(self) -> dict[str, Any] | None:
        """None: it said nothing, as it was killed."""
        try:
            said: dict[str, Any] = json.loads(os.read(self._reader, 4096))
        except BlockingIOError:
            return None
        return said


@contextlib.contextmanager
def _readable(content: bytes, directory: Path) -> Iterator[int]:
    """A file descriptor to read `content` from: a file without a name, as a pipe would have to be fed."""
    with tempfile.TemporaryFile(dir=directory) as file:
        file.write(content)
        file.seek(0)
        yield file.fileno()


async def _start(
    rule: ProgramRule, arguments: Sequence[str], directory: Path, stdin: int, report: _Report
) -> asyncio.subprocess.Process:
    order = {
        "argv": [rule.path, *arguments],
        "env": ENVIRONMENT,
        "limits": _limits(rule.limits),
        "stdin": stdin,
        "report": report.writer,
    }
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
        pass_fds=(stdin, report.writer),
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


async def _finished(work: Coroutine[Any, Any, T]) -> T:
    """What `work` answers, however often the caller is cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(task)
    return task.result()


async def _stop(
    starting: asyncio.Future[asyncio.subprocess.Process], report: _Report, kept: HeadAndTail
) -> dict[str, Any]:
    """Stop the program and all that it started; how they ended."""
    process = await starting
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    reading = asyncio.ensure_future(_drain(process, kept))  # its last words; a full pipe must not hold it up
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        return await _kill(process)
    finally:
        await asyncio.wait((reading,), timeout=LAST_WORDS_SECONDS)
        reading.cancel()
        await asyncio.wait((reading,))
    return report.read() or {"by": "SIGKILL", "exitStatus": process.returncode}


async def _kill(process: asyncio.subprocess.Process) -> dict[str, Any]:
    """The end of a keeper that does not do its part, and of all that it kept."""
    kept = descendants(process.pid)
    _signal_all([process.pid, *kept])
    await process.wait()
    for _ in range(KILL_LOOKS):
        if not (left := living(kept)):
            break
        await asyncio.sleep(LOOK_SECONDS)
    if left:
        log.error("processes %s of a job do not end", left, extra={"action": "stop"})
    return {"by": "SIGKILL", "exitStatus": process.returncode, "processesLeft": len(left)}


def _signal_all(pids: Sequence[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@contextlib.asynccontextmanager
async def _empty_directory(work_dir: Path) -> AsyncIterator[Path]:
    making = asyncio.ensure_future(asyncio.to_thread(_make_directory, work_dir))
    try:
        yield await asyncio.shield(making)
    finally:
        await _finished(_remove(making))


async def _remove(making: asyncio.Future[Path]) -> None:
    with contextlib.suppress(OSError):  # there is none
        await asyncio.to_thread(shutil.rmtree, await making, ignore_errors=True)


def _make_directory(work_dir: Path) -> Path:
    work_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=work_dir, prefix="run-"))
