"""Commands of a few plain words: ``echo``, ``date``, ``pwd``, ``whoami``, and what the operator adds.

There is no shell, and for the four not even a process: ``docs/decisions/shell-in-process.md`` says why.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from carapace_cron.clock import Clock
from carapace_cron.errors import ConfigurationError, Refused
from carapace_cron.model.job import HttpRequest
from carapace_cron.model.program import ProgramRule
from carapace_cron.model.run import Outcome, bounded
from carapace_cron.model.untrusted import clean
from carapace_cron.ports.runner import Work
from carapace_cron.runners.shell_grammar import (
    ShellCommand,
    bad_command,
    check_echo,
    check_nothing,
    date_format,
    format_date,
    parse_shell_command,
)
from carapace_cron.runners.subprocess_run import Ended, run_program
from carapace_cron.runners.upstream import upstream_json

SERVICE_USER = "carapace-cron"

_Arguments = tuple[str, ...]
_BUILT_IN: dict[str, Callable[[_Arguments], object]] = {  # what checks the arguments; raises InvalidValue
    "echo": check_echo,
    "date": date_format,
    "pwd": check_nothing,
    "whoami": check_nothing,
}
_FIRST_NAME = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)


class ShellRunner:
    """Does the four commands itself, and starts the operator's programs."""

    kind = "shell"

    def __init__(
        self,
        programs: Sequence[ProgramRule],
        *,
        work_dir: Path,
        clock: Clock,
        service_user: str = SERVICE_USER,
    ) -> None:
        """`work_dir`: what pwd says; programs run in an empty directory below it. `service_user`: whoami.

        Raises `ConfigurationError` for a program that is given twice, or is not there to be run.
        """
        self._programs = _by_name(programs)
        self._work_dir = work_dir
        self._clock = clock
        self._service_user = service_user
        self.example = f"one of {', '.join([*_BUILT_IN, *self._programs])}, such as echo hello"

    def claims(self, command: str) -> bool:
        first = _FIRST_NAME.match(command)
        return first is not None and (first[0] in _BUILT_IN or first[0] in self._programs)

    def check(self, command: str, http: HttpRequest | None) -> None:
        parsed = parse_shell_command(command)
        if parsed.name in _BUILT_IN:
            _BUILT_IN[parsed.name](parsed.arguments)
            return
        rule = self._programs.get(parsed.name)
        if rule is None:
            raise bad_command(f'"{parsed.name[:60]}" is no command here: expected {self.example}')
        if not rule.takes(parsed.arguments):
            raise bad_command(f"{rule.name} does not take these arguments: ask the operator which it takes")

    async def run(self, work: Work) -> Outcome:
        try:
            self.check(work.command, None)
        except Refused as error:
            return Outcome("failure", error=str(error), permanent=True)
        parsed = parse_shell_command(work.command)
        if parsed.name in _BUILT_IN:
            return Outcome("success", output=bounded(clean(self._answer(parsed))))
        stdin = upstream_json(work) or b""
        return await self._run_program(self._programs[parsed.name], parsed.arguments, stdin)

    def _answer(self, command: ShellCommand) -> str:
        """What the command would print, without the line break at the end."""
        if command.name == "echo":
            return " ".join(command.arguments)
        if command.name == "date":
            return format_date(date_format(command.arguments), self._clock.now())
        return str(self._work_dir) if command.name == "pwd" else self._service_user

    async def _run_program(self, rule: ProgramRule, arguments: _Arguments, stdin: bytes) -> Outcome:
        try:
            ended = await run_program(rule, arguments, self._work_dir, stdin=stdin)
        except OSError as error:
            reason = error.strerror or "the system refused"
            return Outcome("failure", error=f"{rule.name} could not be started: {reason}")
        return _outcome(rule, ended)


def _by_name(programs: Sequence[ProgramRule]) -> dict[str, ProgramRule]:
    named: dict[str, ProgramRule] = {}
    for rule in programs:
        if rule.name in _BUILT_IN or rule.name in named:
            raise ConfigurationError(f'program "{rule.name}" is there already: give it another name')
        if not Path(rule.path).is_file() or not os.access(rule.path, os.X_OK):
            fault = f'program "{rule.name}": expected {rule.path} to be an executable file'
            raise ConfigurationError(fault)
        named[rule.name] = rule
    return named


def _outcome(rule: ProgramRule, ended: Ended) -> Outcome:
    output = bounded(clean(ended.output))
    metadata: dict[str, Any] = {"exitStatus": ended.exit_status} if ended.exit_status >= 0 else {}
    if ended.truncated:
        metadata["truncated"] = True
    if ended.exit_status == 0:
        return Outcome("success", output=output, metadata=metadata)
    error = f"{rule.name} {_how(ended.exit_status)}"
    return Outcome("failure", output=output, error=error, metadata=metadata)


def _how(exit_status: int) -> str:
    """
    >>> _how(3), _how(-9)
    ('exited with status 3', 'was killed by signal 9 (SIGKILL)')
    """
    if exit_status >= 0:
        return f"exited with status {exit_status}"
    try:
        return f"was killed by signal {-exit_status} ({signal.Signals(-exit_status).name})"
    except ValueError:
        return f"was killed by signal {-exit_status}"
