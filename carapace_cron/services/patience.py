"""Work on many jobs in which one that fails holds up no other, and all are tried again later."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator

from carapace_cron.errors import CarapaceError, Unavailable
from carapace_cron.model.text import counted

log = logging.getLogger(__name__)

JOBS_AT_ONCE = 8


class Patience:
    """Remembers how often each job failed since it last went well, so that those who fail come last."""

    def __init__(self) -> None:
        self._failures: Counter[str] = Counter()

    async def each(self, what: str, job_ids: Iterable[str], work: Callable[[str], Awaitable[None]]) -> None:
        """`work` on each job, a few at once. Failures are logged in one line, under the name `what`.

        All are tried, unless the store is away for as many as are worked on at once: a try can take half a
        minute then, so the rest is left for the next round, and comes first in it. Nothing is raised but a
        cancellation.
        """
        in_order = sorted(job_ids, key=self._failures.__getitem__)
        if not in_order:
            return
        waiting = iter(in_order)
        faults: list[Exception] = []
        await asyncio.gather(*(self._work_off(waiting, work, faults) for _ in range(JOBS_AT_ONCE)))
        _tell(what, faults)

    def forget(self, job_id: str) -> None:
        self._failures.pop(job_id, None)

    async def _work_off(
        self, waiting: Iterator[str], work: Callable[[str], Awaitable[None]], faults: list[Exception]
    ) -> None:
        for job_id in waiting:
            try:
                await work(job_id)
            except Exception as fault:  # noqa: BLE001  # of whatever kind: the other jobs go on, and `each` tells
                self._failures[job_id] += 1
                faults.append(fault)
                if isinstance(fault, Unavailable):
                    return
            else:
                self.forget(job_id)


def _tell(what: str, faults: list[Exception]) -> None:
    """In one line, whatever the number of jobs; one that nobody expected comes with its traceback."""
    unexpected = [fault for fault in faults if not isinstance(fault, CarapaceError)]
    for fault in unexpected[:1] or faults[:1]:
        log.log(
            logging.ERROR if unexpected else logging.WARNING,
            "%s waits for %s: %s",
            what, counted(len(faults), "job"), fault,
            exc_info=fault if unexpected else None,
            extra={"action": "upkeep"},
        )
