"""Which job may run after which: jobs that the caller sees, and never in a circle.

Judged by the definitions of all jobs, paused ones too, as those may be resumed. The ledger is the second
line: it leaves out a chain that closes a circle which two gateways made at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from weakref import WeakValueDictionary

from carapace_cron.errors import InvalidValue
from carapace_cron.job_store import JobStore
from carapace_cron.model.actor import Actor
from carapace_cron.model.job import Job, JobPolicy, Upstream
from carapace_cron.schedule.errors import shown
from carapace_cron.services.access import may_see

NAMED = 6  # jobs of a circle that a refusal names; a longer one is cut in the middle
NAME_LENGTH = 40


class Chains:
    """What a job may have in its `after`. Who brings a chain about holds `changing` from check to write."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # by tenant

    def changing(self, tenant: str, policy: JobPolicy) -> AbstractAsyncContextManager[None]:
        """Held from the check of a job's chain until it is kept: two at once must not close a circle."""
        if not policy.after:
            return nullcontext()
        return self._locks.setdefault(tenant, asyncio.Lock())

    def check(self, actor: Actor, after: Sequence[Upstream], before: Sequence[Upstream] = ()) -> None:
        """Raises `InvalidValue` for a job that the caller does not see, and for one that is named twice.

        Those of `before` may be gone: who changes something else need not look after them.
        """
        named: set[str] = set()
        known = {one.job_id for one in before}
        for number, one in enumerate(after):
            field, given = f"after.{number}.jobId", shown(one.job_id)
            if one.job_id in named:
                expected = 'name a job once, with the condition "end" for any end'
                raise InvalidValue(f'bad {field} "{given}": it is there twice; {expected}', field=field)
            if one.job_id not in known and self._seen(actor, one.job_id) is None:
                expected = "list your jobs to see their ids"
                raise InvalidValue(f'bad {field} "{given}": there is no such job; {expected}', field=field)
            named.add(one.job_id)

    def check_circle(self, actor: Actor, job: Job, after: Sequence[Upstream]) -> None:
        """Raises `InvalidValue`, naming the jobs, when a run of `job` would start another one in the end."""
        circle = self._circle(job.id, [one.job_id for one in after])
        if not circle:
            return
        first = _name(job)
        others = [*(self._named(actor, one) for one in circle[1:-1]), first]
        if len(others) > NAMED:
            others = [*others[: NAMED // 2], f"{len(others) - NAMED} others", *others[-NAMED // 2 :]]
        told = ", which runs after ".join(others)
        expected = "one run would start the next for ever; leave one of them out"
        raise InvalidValue(f"bad after: {first} runs after {told}: {expected}", field="after")

    def warnings(self, policy: JobPolicy) -> list[str]:
        """A sentence for each job that this one runs after, and that is not there any more."""
        return [
            f"the job {one.job_id}, which it runs after, was deleted: restore it, or leave it out of after"
            for one in policy.after
            if not self._store.holds(one.job_id)
        ]

    def _seen(self, actor: Actor, job_id: str) -> Job | None:
        """The job, if there is one and the caller sees it."""
        job = self._store.get(job_id)
        return job if job is not None and may_see(actor, job.tenant, job.user_id) else None

    def _circle(self, job_id: str, after: Sequence[str]) -> list[str]:
        """The shortest way from a job, over those that it would run after, back to it; empty = none."""
        came_from = dict.fromkeys(after, job_id)
        waiting = deque(came_from)
        while waiting and job_id not in came_from:
            here = waiting.popleft()
            fresh = [one for one in self._store.upstreams_of(here) if one not in came_from]
            came_from.update(dict.fromkeys(fresh, here))
            waiting.extend(fresh)
        return _way_back(job_id, came_from) if job_id in came_from else []

    def _named(self, actor: Actor, job_id: str) -> str:
        job = self._seen(actor, job_id)
        return "a job of another user" if job is None else _name(job)


def _name(job: Job) -> str:
    return f'"{job.name[:NAME_LENGTH]}" ({job.id})'


def _way_back(job_id: str, came_from: Mapping[str, str]) -> list[str]:
    """From a job back to itself.

    >>> _way_back("a", {"b": "a", "x": "a", "c": "b", "a": "c"})
    ['a', 'b', 'c', 'a']
    """
    way = [job_id, came_from[job_id]]
    while way[-1] != job_id:
        way.append(came_from[way[-1]])
    return way[::-1]
