"""Which leases nobody renews any more, where several gateways work on one ledger and no two clocks agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

T = TypeVar("T")


class LeaseWatch(Generic[T]):
    """A lease that stays as it is for `seconds` has nobody who renews it.

    The seconds are those of our own monotonic clock. What a lease says (`T`), such as its end, is compared
    with itself only: it was written by another gateway's wall clock, and either clock may have stepped
    since. It takes a while longer to see that a gateway is gone; no gateway that works is taken for one.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._seen: dict[str, tuple[T, float]] = {}  # what is held → its lease, and since when it is that

    def run_out(self, held: Mapping[str, T], *, asked_at: float, answered_at: float) -> list[str]:
        """Of what is held, that whose leases ran out. `held`: such as run id → until when it is said to be
        held, of all that are worked on, as the ledger had it between the two monotonic instants."""
        before, self._seen = self._seen, {}
        for key, lease in held.items():
            last = before.get(key)
            self._seen[key] = last if last is not None and last[0] == lease else (lease, answered_at)
        return [key for key, (_, since) in self._seen.items() if asked_at - since > self._seconds]
