"""What a runner must do: one kind of command, checked at the door and done by attempt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from carapace_cron.model.job import HttpRequest
from carapace_cron.model.run import Outcome


@dataclass(frozen=True, slots=True)
class Work:
    """What an attempt is asked to do. It is told who it works for; it never chooses."""

    job_id: str
    job_name: str
    tenant: str
    user_id: str
    command: str
    http: HttpRequest | None
    channel_id: str
    run_id: str
    attempt: int  # from 1
    scheduled_for: datetime  # aware UTC
    timeout_seconds: float  # the executor enforces it; given so that a runner can pass it on
    trigger: str
    upstream: Mapping[str, Any] | None = None  # the run whose end started this one; its output is data


class Runner(Protocol):
    """Does one kind of command.

    `run` answers an `Outcome` for everything that a job can bring about; what it raises is taken for a
    defect and recorded as a failure without its text. It must stop its work, wholly, before it lets
    `asyncio.CancelledError` out: that is how timeouts, cancellation and a lost lease reach it. Better, it
    raises `carapace_cron.errors.WorkStopped` then, which shows how the work ended.
    """

    kind: str

    def claims(self, command: str) -> bool:
        """Whether the command text is of this runner's kind."""
        ...

    def check(self, command: str, http: HttpRequest | None) -> None:
        """Raise `carapace_cron.errors.InvalidValue` (or AddressNotAllowed) for what it would not run.

        Called at create, update, load and just before the run; it does no I/O.
        """
        ...

    async def run(self, work: Work) -> Outcome: ...
