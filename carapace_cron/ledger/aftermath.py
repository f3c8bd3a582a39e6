"""What somebody in this process wants to hear of once a transaction is committed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import sqlalchemy as sa

from carapace_cron.ledger.settling import Settled

T = TypeVar("T")


@dataclass(slots=True)
class Aftermath:
    """Of one transaction, gathered by what works on its connection.

    `ended_between`: ids of runs that ended between two attempts, as no attempt's end tells of them;
    `settled`: what became of the monitors of jobs.
    """

    ended_between: list[str] = field(default_factory=list)
    settled: Settled = field(default_factory=Settled)

    def add(self, settled: Settled) -> None:
        """Something else became of monitors."""
        looks = [at for at in (self.settled.look_at, settled.look_at) if at is not None]
        self.settled = Settled(min(looks, default=None), self.settled.told or settled.told)


def gathered(
    connection: sa.Connection, work: Callable[[sa.Connection, Aftermath], T]
) -> tuple[T, Aftermath]:
    """What `work` answers, and its aftermath: a new one each time, as work on a database may be run twice."""
    aftermath = Aftermath()
    return work(connection, aftermath), aftermath
