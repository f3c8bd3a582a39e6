"""Puts each change of a job in force in the ledger, after the store took it and before it is answered.

First what came due under the definition before gets its record, then the new one is in force; a crash
between any two steps is completed by the next start, which finds the definition before in the ledger.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from pydantic import ValidationError

from carapace_cron.errors import Unavailable
from carapace_cron.ledger.history import Progress
from carapace_cron.ledger.in_force import InForce
from carapace_cron.ledger.statements import chunks
from carapace_cron.model.job import Job

log = logging.getLogger(__name__)

JOBS_PER_WRITE = 200


class Settles(Protocol):
    """The part of the scheduler that this needs."""

    async def settle(self, job_id: str, *, before: int) -> None: ...


class Register:
    """All methods raise `Unavailable` when the ledger is away; `catch_up` does then what was left undone."""

    def __init__(self, in_force: InForce, scheduler: Settles) -> None:
        self._in_force = in_force
        self._scheduler = scheduler
        self._undone: dict[str, list[Job]] = {}  # oldest first: each is put in force in its turn

    async def confirm(self, job: Job, is_news: bool) -> None:
        """Put a job in force as it is now. Not `is_news`: only if that is still undone."""
        if not is_news and job.id not in self._undone:
            return
        if is_news:
            self._undone.setdefault(job.id, []).append(job)
        await self._complete(job.id)

    async def catch_up(self) -> None:
        for job_id in list(self._undone):
            await self._complete(job_id)

    async def take_over(
        self,
        job_ids: Sequence[str],
        job_of: Callable[[str], Job | None],
        progress: Mapping[str, Progress],
    ) -> None:
        """Put in force what this ledger does not know yet: of a bucket that it adopts, or of a version that
        kept no definitions. Such jobs are no news, but in a ledger that has others a new one is: its maker
        was killed before it got here."""
        known = [job_id for job_id in job_ids if job_id in progress]
        new = [job_id for job_id in job_ids if job_id not in progress]
        for some, told in ((known, False), (new, bool(progress))):
            for ids in chunks(some, JOBS_PER_WRITE):
                jobs = [job for job_id in ids if (job := job_of(job_id)) is not None]
                self._warn(await self._in_force.put(jobs, told=told))

    async def definition_before(self, job_id: str) -> Job | None:
        """The definition that the ledger has in force; None when it has none that can be read."""
        body = await self._in_force.definition(job_id)
        try:
            return None if body is None else Job.model_validate_json(body)
        except ValidationError:
            return None

    async def _complete(self, job_id: str) -> None:
        while waiting := self._undone.get(job_id):
            job = waiting[0]
            try:
                await self._scheduler.settle(job_id, before=job.revision)
                self._warn(await self._in_force.put([job]))
            except Unavailable as error:
                log.warning("job %s waits to be in force: %s", job_id, error, extra={"action": "in_force"})
                raise
            if waiting and waiting[0] is job:  # else somebody else has done the same meanwhile
                del waiting[0]
        self._undone.pop(job_id, None)

    def _warn(self, circular: Sequence[str]) -> None:
        for job_id in circular:
            message = "job %s starts after no other: its chain would run in a circle"
            log.error(message, job_id, extra={"action": "in_force"})
