"""Pings: kept durably, many at once, each with what it made of its monitor in the same transaction.

`record_pings` works on a connection, inside the writer's transaction; `Pings` is the door to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from carapace_cron.database import Database
from carapace_cron.failpoints import failpoint
from carapace_cron.ledger.many import insert_many
from carapace_cron.ledger.ping_names import Name, resolve
from carapace_cron.ledger.settling import Settled, Settling
from carapace_cron.ledger.tables import flips, pings
from carapace_cron.model.monitor import BODY_LIMIT, Ping
from carapace_cron.model.ping_proof import Proof
from carapace_cron.monitors.status import After, pinged

KEPT_PINGS = 1_000  # of one monitor, the newest
KEPT_FLIPS = timedelta(days=93)  # as Healthchecks: three months of downtime can be told
PRUNE_EVERY = 100  # pings of one monitor
USER_AGENT_LIMIT = 200


@dataclass(frozen=True, slots=True)
class Arrival:
    """A ping and the monitor that it is for: its id, or how the address names it."""

    to: str | Name
    ping: Ping
    proof: Proof | None = None  # None: it is not signed


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of an arrival; None in its place: there is no such monitor."""

    monitor_id: str
    n: int
    after: After


class Unsigned:
    """In place of `Recorded`: the monitor takes signed pings only, and this one is not, or not well."""


UNSIGNED = Unsigned()

Answer = Recorded | Unsigned | None


class Pings:
    """Raises `Unavailable` when the database cannot be used; then nothing was kept, as far as is known."""

    def __init__(self, database: Database, on_settled: Callable[[Settled], None]) -> None:
        """`on_settled` hears after each commit what it did to monitors."""
        self._database = database
        self._on_settled = on_settled

    @failpoint("pings.record")
    async def record(self, arrivals: Callable[[], Sequence[Arrival]]) -> list[Answer]:
        """Keep pings in their order, all in one transaction; an answer each, None = no such monitor.

        `arrivals` is asked in the writer's thread when their turn has come, perhaps twice.
        """
        answers, settled = await self._database.write(lambda c: record_pings(c, arrivals()))
        self._on_settled(settled)
        return answers


def record_pings(
    connection: sa.Connection, arrivals: Sequence[Arrival], *, of_jobs: bool = False
) -> tuple[list[Answer], Settled]:
    """Keep pings in their order; an answer each. `of_jobs`: they come from the runs of our own jobs, whose
    monitors are there for nobody else."""
    ids = _monitor_ids(connection, arrivals)
    settling = Settling(connection, list(set(ids) - {""}))
    answers = [_taken(settling, to, one, of_jobs) for to, one in zip(ids, arrivals, strict=True)]
    pairs = zip(arrivals, answers, strict=True)
    rows = [_row(one, answer) for one, answer in pairs if isinstance(answer, Recorded)]
    insert_many(connection, pings, rows)
    _prune(connection, answers)
    return answers, settling.keep()


def _monitor_ids(connection: sa.Connection, arrivals: Sequence[Arrival]) -> list[str]:
    """For each arrival the monitor that it is for; empty where the name is nobody's."""
    found = resolve(connection, {one.to for one in arrivals if isinstance(one.to, Name)})
    return [one.to if isinstance(one.to, str) else found.get(one.to, "") for one in arrivals]


def _taken(settling: Settling, monitor_id: str, arrival: Arrival, of_jobs: bool) -> Answer:
    """First the silence until the ping, then the ping: a late one comes after the flip of its lateness."""
    ping = arrival.ping
    if monitor_id not in settling:
        return None
    monitor = settling[monitor_id].monitor
    if monitor.job_id is not None and not of_jobs:
        return None
    secret = monitor.ping_secret
    if secret is not None and (arrival.proof is None or not arrival.proof.holds(secret, ping.at)):
        return UNSIGNED
    settling.pass_time(monitor_id, ping.at, ping.at)
    one = settling[monitor_id]
    after = pinged(one.monitor, one.health, one.due, ping)
    settling.settle(monitor_id, ping.at, after, ping)
    return Recorded(monitor_id, after.health.pings, after)


def _row(arrival: Arrival, recorded: Recorded) -> dict[str, Any]:
    ping, after = arrival.ping, recorded.after
    return {
        "monitor_id": recorded.monitor_id,
        "n": recorded.n,
        "at": ping.at,
        "kind": after.kind,
        "rid": ping.rid,
        "exit_status": ping.exit_status,
        "duration_ms": after.duration_ms,
        "scheme": ping.scheme,
        "method": ping.method,
        "remote_address": ping.remote_address,
        "user_agent": ping.user_agent[:USER_AGENT_LIMIT],
        "body": ping.body[:BODY_LIMIT] or None,
    }


def _prune(connection: sa.Connection, answers: Sequence[Answer]) -> None:
    """Now and then, remove what is older than the newest pings of a monitor, and its oldest flips."""
    for one in answers:
        if isinstance(one, Recorded) and _is_pruned_at(one.monitor_id, one.n):
            connection.execute(_OLD, {"monitor": one.monitor_id, "last": one.n - KEPT_PINGS})
            connection.execute(_OLD_FLIPS, {"monitor": one.monitor_id, "last": one.after.at - KEPT_FLIPS})


def _is_pruned_at(monitor_id: str, n: int) -> bool:
    """Each monitor at its own numbers: those that are pinged in step would all be pruned in one transaction,
    and everybody would wait for it."""
    return (n + int(monitor_id[:8], 16)) % PRUNE_EVERY == 0


_OLD = sa.delete(pings).where(
    pings.c.monitor_id == sa.bindparam("monitor"), pings.c.n <= sa.bindparam("last")
)
_OLD_FLIPS = sa.delete(flips).where(
    flips.c.monitor_id == sa.bindparam("monitor"), flips.c.at < sa.bindparam("last")
)
