"""How many jobs a tenant may have. Those that are being made count: many at once must not slip through."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from carapace_cron.errors import QuotaExceeded
from carapace_cron.job_store import JobStore


class JobQuota:
    """Room for the jobs of each tenant, up to `max_jobs_per_tenant`."""

    def __init__(self, store: JobStore, max_jobs_per_tenant: int) -> None:
        self._store = store
        self._most = max_jobs_per_tenant
        self._making: Counter[str] = Counter()  # by tenant

    @contextmanager
    def room_for_one(self, tenant: str) -> Iterator[None]:
        """Hold the room for a job while it is made. Raises `QuotaExceeded` when there is none."""
        if self._store.count(tenant) + self._making[tenant] >= self._most:
            message = f"the tenant has {self._most} jobs, the most it may have: delete some first"
            raise QuotaExceeded(message)
        self._making[tenant] += 1
        try:
            yield
        finally:
            self._making[tenant] -= 1
