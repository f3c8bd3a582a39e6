"""Which runner does a command: the first that claims it, in the order in which they were registered."""

from __future__ import annotations

from collections.abc import Sequence

from carapace_cron.errors import InvalidValue
from carapace_cron.model.job import HttpRequest
from carapace_cron.ports.runner import Runner


class Runners:
    """The runners of this gateway, the built-in ones and those of plugins."""

    def __init__(self, runners: Sequence[Runner]) -> None:
        self._runners = tuple(runners)

    def kinds(self) -> tuple[str, ...]:
        """The kinds of commands that run here, each once, in order."""
        return tuple(dict.fromkeys(runner.kind for runner in self._runners))

    def for_command(self, command: str) -> Runner:
        """The runner that claims `command`. Raises `InvalidValue`, field ``command``, when none does."""
        for runner in self._runners:
            if runner.claims(command):
                return runner
        fault = f'unknown kind of command "{_start(command)}": expected {self._examples()}'
        raise InvalidValue(fault, field="command")

    def check(self, command: str, http: HttpRequest | None) -> None:
        """Raise `Refused` for a command, or HTTP settings, that would not be run; no I/O."""
        runner = self.for_command(command)
        if http is not None and runner.kind != "http":
            fault = f"http settings do not fit a command of kind {runner.kind}: leave them out, or give a URL"
            raise InvalidValue(fault, field="http")
        runner.check(command, http)

    def _examples(self) -> str:
        """One example a kind; a plugin's runner that has none is named by its kind."""
        examples = dict.fromkeys(str(getattr(runner, "example", runner.kind)) for runner in self._runners)
        return ", or ".join(examples) or "nothing, since no runner is registered"


def _start(command: str) -> str:
    shown = command.encode("unicode_escape", "backslashreplace").decode()
    return shown if len(shown) <= 40 else shown[:39] + "…"
