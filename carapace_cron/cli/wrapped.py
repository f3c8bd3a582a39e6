"""A wrapped command as a process. Nothing is to be different for it from a run without `wrap`.

Its input is ours, what it prints goes where we print, open files are passed on, our signals are its signals.
"""

from __future__ import annotations

import errno
import os
import select
import selectors
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType

FORWARDED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
NOT_FOUND = 127  # with these a shell ends that cannot start a command
CANNOT_RUN = 126

_STDOUT = 1
_STDERR = 2
_CHUNK = 65_536  # bytes
_FULL_PIPE = 16  # chunks: 1 MiB, the most that a pipe holds

_REASONS = {
    errno.ENOENT: "there is no such command, or not the one that the first line of a script names",
    errno.EACCES: "it may not be executed: expected a file with execute permission",
    errno.ENOEXEC: "it is no program; a script begins with a line such as #!/bin/sh",
}


class CannotStart(Exception):
    """There is no process. `exit_status` is what a shell would say."""

    def __init__(self, sentence: str, exit_status: int) -> None:
        super().__init__(sentence)
        self.exit_status = exit_status


class Signals:
    """While this lasts, what would end us goes to the command instead, and a child's end wakes `woken`."""

    def __init__(self) -> None:
        self.came_late = False  # after the command's end
        self.woken, self._waker = os.pipe()  # can be read after each signal
        os.set_blocking(self._waker, False)
        self._command: Command | None = None
        self._early: list[int] = []  # came before there was a command

    def __enter__(self) -> Signals:
        # What is ignored stays so, for the command too: nohup works like that. But a child whose end is
        # ignored leaves no exit status.
        ours = [one for one in FORWARDED if signal.getsignal(one) is not signal.SIG_IGN]
        self._before = {one: signal.signal(one, self._on_signal) for one in ours}
        self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, _only_wake)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self.woken)
        os.close(self._waker)

    def forward_to(self, command: Command) -> None:
        self._command = command
        for number in self._early:
            command.forward(number)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if self._command is None:
            self._early.append(number)
        elif self._command.is_over:
            self.came_late = True
        else:
            self._command.forward(number)


class Command:
    """One process, and the last bytes of what it prints."""

    def __init__(
        self, process: subprocess.Popen[bytes], tail: Tail, signals: Signals, *, owns_group: bool
    ) -> None:
        self.tail = tail
        self.faults: list[str] = []
        self._process = process
        self._signals = signals
        self._owns_group = owns_group
        self._pipes = selectors.DefaultSelector()
        for pipe, outlet in ((process.stdout, _STDOUT), (process.stderr, _STDERR)):
            if pipe is not None:
                self._pipes.register(pipe, selectors.EVENT_READ, (pipe, outlet))

    @classmethod
    def start(cls, arguments: Sequence[str], tail_bytes: int, signals: Signals) -> Command:
        """Raises `CannotStart`. With 0 `tail_bytes` what it prints does not come through us at all."""
        pipe = subprocess.PIPE if tail_bytes else None
        owns_group = not _has_terminal()  # the shell of a terminal minds the group, which is then to be ours
        try:
            process = subprocess.Popen(  # noqa: S603  # the user's own command, with no shell between
                arguments,
                stdout=pipe,
                stderr=subprocess.STDOUT if pipe and _prints_to_one_place() else pipe,
                close_fds=False,  # locks, and sockets from systemd
                process_group=0 if owns_group else None,
            )
        except OSError as error:
            raise _cannot_start(arguments[0], error) from error
        return cls(process, Tail(tail_bytes), signals, owns_group=owns_group)

    @property
    def is_over(self) -> bool:
        return self._process.returncode is not None

    @property
    def exit_status(self) -> int:
        """Once it is over: 0 to 255; 128 + n when signal n ended it."""
        status: int = self._process.returncode
        return status if status >= 0 else 128 - status

    def forward(self, number: int) -> None:
        """Hand a signal on, to all of the command's group where it has one of its own."""
        with suppress(ProcessLookupError, PermissionError):  # it is gone, or runs as somebody else
            if self._owns_group:
                os.killpg(self._process.pid, number)
            elif number == signal.SIGTERM:  # the others come from the terminal, which tells the command too
                os.kill(self._process.pid, number)

    def wait(self) -> None:
        """Until the command has ended and all that it printed is passed on."""
        self._pipes.register(self._signals.woken, selectors.EVENT_READ)
        while self._process.poll() is None:
            self._copy()
        self._pipes.unregister(self._signals.woken)
        for _ in range(_FULL_PIPE):
            if not self._copy(seconds=0):
                break

    def copy_rest(self) -> None:
        """Pass on what others print that it left in the background, until they end or we are to."""
        self._pipes.register(self._signals.woken, selectors.EVENT_READ)
        while len(self._pipes.get_map()) > 1 and not self._signals.came_late:
            self._copy()

    def _copy(self, seconds: float | None = None) -> bool:
        """Wait (None: as long as it takes), and pass on a chunk of each pipe; False if there was none."""
        ready = self._pipes.select(seconds)
        for key, _ in ready:
            chunk = os.read(key.fd, _CHUNK)
            if key.data is None:
                continue  # we were only woken
            pipe, outlet = key.data
            if not self._passed_on(chunk, outlet):
                self._pipes.unregister(pipe)
                pipe.close()
        return bool(ready)

    def _passed_on(self, chunk: bytes, outlet: int) -> bool:
        """False when the pipe has ended at either side; the command then feels it as it would without us."""
        self.tail.add(chunk)
        try:
            _write(outlet, chunk)
        except BrokenPipeError:
            return False
        except OSError as error:
            self.faults = [f"not all that the command printed could be passed on: {error.strerror}"]
        return bool(chunk)


class Tail:
    """Takes any number of bytes and keeps the last `size`.

    >>> tail = Tail(3)
    >>> tail.add(b"abcd"); tail.add(b"e")
    >>> bytes(tail.kept)
    b'cde'
    """

    def __init__(self, size: int) -> None:
        self.kept = bytearray()
        self._size = size

    def add(self, chunk: bytes) -> None:
        self.kept += chunk
        del self.kept[: max(len(self.kept) - self._size, 0)]


def open_standard_streams() -> None:
    """Let what is closed of 0, 1 and 2 lead nowhere.

    Otherwise a pipe of ours would get the number, and what is read from it would be written into it.
    """
    descriptor = 0
    while descriptor <= _STDERR:
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)


def _only_wake(number: int, frame: FrameType | None) -> None:
    """Python writes into the wakeup pipe only for signals that have a handler."""


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _prints_to_one_place() -> bool:
    """Whether one pipe will do for both, which keeps their lines in order, as in ``2>&1`` and under cron."""
    return os.path.samestat(os.fstat(_STDOUT), os.fstat(_STDERR))


def _cannot_start(name: str, error: OSError) -> CannotStart:
    reason = _REASONS.get(error.errno or 0, error.strerror)
    status = NOT_FOUND if error.errno == errno.ENOENT else CANNOT_RUN
    return CannotStart(f'cannot start "{name}": {reason}', status)


def _write(descriptor: int, chunk: bytes) -> None:
    """All of it. What was left non-blocking by others is waited for."""
    rest = memoryview(chunk)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            select.select([], [descriptor], [])
