"""Run a command and tell a monitor that it runs, how it ended and what it printed last."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID, uuid4

from carapace_cron.cli.pings import Reporter
from carapace_cron.cli.wrapped import CannotStart, Command, Signals, open_standard_streams
from carapace_cron.errors import InvalidValue


def run_id(given: str | None) -> str:
    """The run id as monitors want it, a new one for None. Raises `InvalidValue`.

    >>> run_id("0B5C1D7E2F3A4B5C8D6E7F8091A2B3C4")
    '0b5c1d7e-2f3a-4b5c-8d6e-7f8091a2b3c4'
    """
    if given is None:
        return str(uuid4())
    try:
        return str(UUID(given))
    except ValueError as error:
        raise InvalidValue(f'bad --rid "{given}": expected a UUID', field="rid") from error


def run(arguments: Sequence[str], monitor: str, rid: str, *, tail_bytes: int, timeout_seconds: float) -> int:
    """The exit status of the command, whatever becomes of the pings; 127 or 126 when it cannot be started.

    `timeout_seconds`: how long it may take to tell the monitor of the end; the start is told while the
    command works already.
    """
    open_standard_streams()
    with Signals() as signals:
        try:
            command = Command.start(arguments, tail_bytes, signals)
        except CannotStart as error:
            _warn(str(error))
            reporter = Reporter(monitor, rid, timeout_seconds=timeout_seconds)
            _warn(reporter.ended(error.exit_status, str(error).encode(errors="surrogateescape")))
            return error.exit_status
        signals.forward_to(command)
        reporter = Reporter(monitor, rid, timeout_seconds=timeout_seconds)
        reporter.started()
        command.wait()
        _warn(*command.faults, reporter.ended(command.exit_status, bytes(command.tail.kept)))
        command.copy_rest()
        return command.exit_status


def _warn(*sentences: str | None) -> None:
    """On stderr; that nobody can read it must not matter."""
    for sentence in filter(None, sentences):
        with suppress(OSError):
            os.write(2, f"carapace-cron wrap: {sentence}\n".encode(errors="surrogateescape"))
