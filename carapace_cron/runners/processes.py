"""Which processes come from one, and which of them still live; as Linux tells it in ``/proc``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

_PROC = Path("/proc")
_DEAD = frozenset("ZX")  # states of proc(5): its end is only not collected yet


def descendants(pid: int) -> list[int]:
    """The processes that `pid` started, and those that they did; empty where the system does not tell."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        children = _children(waiting.pop())
        found += children
        waiting += children
    return found


def living(pids: Iterable[int]) -> list[int]:
    return [pid for pid in pids if _state(pid) not in _DEAD]


def _children(pid: int) -> list[int]:
    children: list[int] = []
    with contextlib.suppress(OSError):  # it has ended meanwhile
        for thread in (_PROC / str(pid) / "task").iterdir():
            children += map(int, (thread / "children").read_text().split())
    return children


def _state(pid: int) -> str:
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return "X"
