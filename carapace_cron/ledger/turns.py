"""Whose turn it is: among those with equally much at work, who had none for longest goes first.

Without it a tenant whose name comes first would win every tie, and with one slot that is every claim.
"""

from __future__ import annotations

import itertools


class Turns:
    """The last turns of tenants and lanes, as this process gave them; forgotten at its end.

    >>> turns = Turns()
    >>> turns.note("acme/alice")
    >>> turns.last("acme"), turns.last("acme/alice"), turns.last("other/charlie")
    (1, 1, 0)
    """

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        self._numbers = itertools.count(1)

    def note(self, lane: str) -> None:
        """A run of this lane was started."""
        self._last[lane] = self._last[tenant_of(lane)] = next(self._numbers)

    def last(self, name: str) -> int:
        """The number of the last turn of a tenant or a lane: higher is later, 0 is none yet."""
        return self._last.get(name, 0)


def lane(tenant: str, user_id: str) -> str:
    """The queue that a run stands in. Slots are dealt out over tenants first, then over the users of each.

    >>> lane("acme", "alice")
    'acme/alice'
    """
    return f"{tenant}/{user_id}"


def tenant_of(lane: str) -> str:
    """
    >>> tenant_of("acme/alice")
    'acme'
    """
    return lane.partition("/")[0]
