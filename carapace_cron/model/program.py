"""What an operator adds to the `shell` kind: one program, and which arguments it may get."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from carapace_cron.model.record import Record


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"expected a regular expression, but {error}") from error
    return pattern


Pattern = Annotated[str, Field(max_length=1_000), AfterValidator(_compiles)]
MEBIBYTE = 1_048_576


class ProgramLimits(Record):
    """What one run of a program may use; the kernel enforces it (setrlimit(2)), per process."""

    memory_bytes: int = Field(512 * MEBIBYTE, ge=MEBIBYTE)  # address space
    cpu_seconds: int = Field(300, ge=1)
    file_bytes: int = Field(64 * MEBIBYTE, ge=0)  # of one file that it writes
    open_files: int = Field(128, ge=8)
    processes: int = Field(512, ge=1)  # counted over everything that the gateway's system user runs


class ProgramRule(Record):
    """``name`` in a job's command starts the program at `path`, if every argument matches.

    A pattern must match a whole argument. The first patterns are for the first arguments, one each, all
    required; `more_arguments` is for each argument after them, and without it there may be none.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")
    path: str = Field(pattern=r"^/[^\x00-\x1f\x7f]*$")  # absolute; it is not searched for
    arguments: tuple[Pattern, ...] = Field((), max_length=64)
    more_arguments: Pattern | None = None
    limits: ProgramLimits = ProgramLimits()

    def takes(self, arguments: tuple[str, ...]) -> bool:
        """
        >>> rule = ProgramRule(name="dump", path="/opt/dump", arguments=("[a-z]+",), more_arguments="-[qv]")
        >>> [rule.takes(given) for given in (("db",), ("db", "-v", "-q"), (), ("db; rm",), ("db", "--all"))]
        [True, True, False, False, False]
        """
        patterns = [*self.arguments, *[self.more_arguments] * (len(arguments) - len(self.arguments))]
        return len(patterns) == len(arguments) and all(
            pattern is not None and re.fullmatch(pattern, argument) is not None
            for pattern, argument in zip(patterns, arguments, strict=True)
        )
