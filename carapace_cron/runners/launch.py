"""The keeper of one program: starts it within limits, and sees to it that nothing of it is left behind.

A program of its own, started by `runners/subprocess_run.py` as ``python -I -S launch.py <order>``; it
imports the standard library only. It stands between the gateway and the program because
- limits must hold before the program's first instruction, and code between fork and exec in a process
  with threads (`preexec_fn`) can deadlock;
- as the subreaper it inherits what the program leaves behind, daemons with a session of their own among
  them, and can end them all; a process group alone misses those;
- it notices that the gateway is gone, however it went: its stdin closes, and the program is stopped.
It ends as the program ended: with the same status, or by the same signal; and before that it reports, by a
pipe that the program does not inherit, how all of it ended; `by` is there if it was told to stop.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any

GRACE_SECONDS = 2.0  # between SIGTERM and SIGKILL

_PR_SET_PDEATHSIG = 1  # prctl(2)
_PR_SET_CHILD_SUBREAPER = 36


def main() -> None:
    order = json.loads(sys.argv[1])
    for descriptor in (order["stdin"], order["report"]):
        os.set_inheritable(descriptor, False)
    wake = _listen()
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    child = os.fork()
    if child == 0:
        _become(order)
    status = _wait(child, wake)
    left, by = _end_all(child, wake)
    if status is None:
        _report(order["report"], {"by": by, "exitStatus": os.waitstatus_to_exitcode(left)})
    else:
        _report(order["report"], {"exitStatus": os.waitstatus_to_exitcode(status)})
    _end_as(left if status is None else status)


def _listen() -> int:
    """A pipe that gets a byte for each SIGTERM and SIGCHLD, so that one select waits for all."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    return reader


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _become(order: dict[str, Any]) -> None:
    """In the child: take its own stdin and the limits, become the program."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.dup2(order["stdin"], 0)
    try:
        for name, limit in order["limits"].items():
            number = getattr(resource, name)
            resource.setrlimit(number, (_at_most(number, limit),) * 2)
        os.execve(order["argv"][0], order["argv"], order["env"])  # noqa: S606  # no shell is the point
    except (OSError, ValueError) as error:
        os.write(2, f"{order['argv'][0]} could not be started: {error}\n".encode())
    os._exit(127)


def _at_most(number: int, limit: int) -> int:
    hard = resource.getrlimit(number)[1]
    return limit if hard == resource.RLIM_INFINITY else min(limit, hard)


def _wait(child: int, wake: int) -> int | None:
    """How the program ended; None when it was told to stop, or the gateway is gone, before that."""
    while True:
        ready, _, _ = select.select([0, wake], [], [])
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        signals = _signals(wake) if wake in ready else b""
        if 0 in ready or signal.SIGTERM in signals or signal.SIGINT in signals:
            return None


def _signals(wake: int) -> bytes:
    with contextlib.suppress(BlockingIOError):
        return os.read(wake, 4096)
    return b""


def _end_all(child: int, wake: int) -> tuple[int, str]:
    """Stop whatever still runs and collect it: until the kernel says that no process of it is left.

    The answer is how `child` ended, if it is among it, and which signal was needed in the end."""
    deadline = time.monotonic() + GRACE_SECONDS
    status, by = 0, "SIGTERM"
    if _reap(child) is not None:
        os.killpg(0, signal.SIGTERM)  # this process has a handler
    while True:
        found = _reap(child)
        if found is None:
            return status, by
        status = found or status
        if time.monotonic() >= deadline:
            by = "SIGKILL"
            _kill_children()
        select.select([wake], [], [], 0.02)
        _signals(wake)


def _reap(child: int) -> int | None:
    """Collect one that has ended. None: there are no children at all; else the status of `child` or 0."""
    try:
        ended, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return status if ended == child else 0


def _kill_children() -> None:
    """SIGKILL for the children; theirs become ours when they are gone, and get it next time."""
    try:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    except FileNotFoundError:  # no such list here: the whole group, this process with it
        os.killpg(0, signal.SIGKILL)
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def _report(to: int, report: dict[str, Any]) -> None:
    if sys.platform == "linux":  # elsewhere what left the group is nobody's child here
        report["processesLeft"] = 0
    with contextlib.suppress(OSError):  # the gateway is gone
        os.write(to, json.dumps(report).encode())


def _end_as(status: int) -> None:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
