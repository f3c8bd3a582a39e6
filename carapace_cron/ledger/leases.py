"""Which leases nobody renews any more, where several gateways work on one ledger and no two clocks agree."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime


class LeaseWatch:
    """A lease that stays as it is for `seconds` has nobody who renews it.

    The seconds are those of our own monotonic clock. What a lease says of its end is compared with itself
    only: it was written by another gateway's wall clock, and either clock may have stepped since. It takes
    a while longer to see that a gateway is gone; no gateway that works is taken for one.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._seen: dict[str, tuple[datetime, float]] = {}  # run id → its lease, and since when it is that

    def run_out(self, held: Mapping[str, datetime], *, asked_at: float, answered_at: float) -> list[str]:
        """The runs whose leases ran out. `held`: run id → until when it is said to be held, of all that are
        worked on, as the ledger had it between the two monotonic instants."""
        before, self._seen = self._seen, {}
        for run_id, until in held.items():
            last = before.get(run_id)
            self._seen[run_id] = last if last is not None and last[0] == until else (until, answered_at)
        return [run_id for run_id, (_, since) in self._seen.items() if asked_at - since > self._seconds]
