"""Runs that wait for a limit: held when they come due and it is full, let go when there is room.

A run is held by one label, the first of its own whose limit is full; it is in nobody's queue meanwhile.
Whoever leaves room lets another go: a run of that label that ended, one that was to start and is cancelled,
and one that may use the room no longer as another of its labels holds it. What was let go is looked at by
the next claim like any other, which may hold it anew.

Plain functions on a connection, inside the writer's transaction; `ledger/runs.py` is the door to them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa

from carapace_cron.ledger.statements import AnyRow
from carapace_cron.ledger.tables import QUEUED, RUNNING, runs
from carapace_cron.ledger.turns import Turns, tenant_of

LONGEST_WAIT = timedelta(days=2)  # twice what `retry.maxSeconds` may be: clocks of gateways differ


def working(connection: sa.Connection) -> Counter[str]:
    """How many runs work now, by label."""
    rows = connection.execute(sa.select(runs.c.labels).where(RUNNING)).scalars()
    return Counter(label for labels in rows for label in labels.split())


def first_full(labels: Sequence[str], at_work: Mapping[str, int], limits: Mapping[str, int]) -> str | None:
    """The first of a run's labels that leaves it no room; None when it may start.

    >>> first_full(["channel:ops", "tag:db"], Counter({"tag:db": 1}), {"tag:db": 1})
    'tag:db'
    """
    return next((one for one in labels if one in limits and at_work[one] >= limits[one]), None)


def hold(
    connection: sa.Connection,
    rows: Sequence[tuple[AnyRow, str]],
    at_work: Mapping[str, int],
    limits: Mapping[str, int],
    now: datetime,
    turns: Turns,
) -> None:
    """Let each run wait for its label; the room that it leaves at its other labels goes to others."""
    connection.execute(_HOLD, [{"sequence_": row.sequence, "by": label} for row, label in rows])
    others = Counter(one for row, label in rows for one in row.labels.split() if one != label)
    room = {one: limits[one] - at_work[one] for one in others if one in limits}
    release(connection, {one: min(others[one], most) for one, most in room.items() if most > 0}, now, turns)


def release_after(
    connection: sa.Connection, labels: Iterable[str], now: datetime, turns: Turns | None = None
) -> None:
    """Let go as many runs as have made room. `labels`: of each run that made it, as the ledger has them."""
    release(connection, Counter(label for one in labels for label in one.split()), now, turns or Turns())


def release(connection: sa.Connection, room: Mapping[str, int], now: datetime, turns: Turns) -> None:
    """Let so many runs of each label go, by turns over tenants and their lanes; in a lane the oldest."""
    if not room:
        return
    for label in held_labels(connection) & room.keys():
        _release(connection, label, room[label], now, turns, set())


def release_idle(connection: sa.Connection, limits: Mapping[str, int], now: datetime, turns: Turns) -> int:
    """Let more runs go where a limit leaves room that nobody takes; how many. Those that had been let go may
    wait for their tenant's limit, or behind other runs of their lane: of each such lane one waits already."""
    if not limits or not (held := held_labels(connection)):
        return 0
    at_work = working(connection)
    room = {label: limits[label] - at_work[label] for label in held if label in limits}
    return sum(
        _release(connection, label, most, now, turns, _lanes_let_go(connection, label, now))
        for label, most in room.items()
        if most > 0
    )


def _release(
    connection: sa.Connection, label: str, most: int, now: datetime, turns: Turns, but_lanes: set[str]
) -> int:
    """Up to `most` of the label, none of some lanes; how many went."""
    taken = Counter[str]()
    for released in range(most):
        firsts = connection.execute(_FIRST_OF_EACH_LANE, {"label": label}).all()
        able = [row for row in firsts if row.lane not in but_lanes]
        if not able:
            return released
        _release_next(connection, able, taken, now, turns)
    return most


def _lanes_let_go(connection: sa.Connection, label: str, now: datetime) -> set[str]:
    """Where a run of that label is due and nothing holds it."""
    has_label = (" " + runs.c.labels + " ").contains(f" {label} ", autoescape=True)
    query = sa.select(runs.c.lane).where(QUEUED, runs.c.available_at <= now, has_label).distinct()
    return set(connection.execute(query).scalars())


def held_labels(connection: sa.Connection) -> set[str]:
    """The labels that runs wait for."""
    return set(connection.execute(_HELD_LABELS).scalars())


def _release_next(
    connection: sa.Connection, firsts: Sequence[AnyRow], taken: Counter[str], now: datetime, turns: Turns
) -> None:
    def turn(row: AnyRow) -> tuple[int, int, int, int, int]:
        tenant = tenant_of(row.lane)
        return taken[tenant], turns.last(tenant), taken[row.lane], turns.last(row.lane), row.sequence

    first = min(firsts, key=turn)
    taken.update((first.lane, tenant_of(first.lane)))
    connection.execute(_RELEASE, {"sequence_": first.sequence, "at": now})


def release_all(connection: sa.Connection, now: datetime) -> None:
    """Let every run go that waits for a limit: the limits may be others since."""
    connection.execute(
        sa.update(runs).where(runs.c.held_by.is_not(None)).values(held_by=None, available_at=now)
    )


def release_far(connection: sa.Connection, now: datetime) -> int:
    """Let runs go that were put off by a clock that was far ahead; how many.

    A retry waits a day at most, a start an hour; only what is caught up after an outage may have to wait for
    longer, and then its instant is past.
    """
    late = sa.and_(runs.c.trigger == "catchUp", runs.c.attempt == 0, runs.c.scheduled_for <= now)
    far = sa.update(runs).where(QUEUED, runs.c.available_at > now + LONGEST_WAIT, ~late)
    return connection.execute(far.values(available_at=now)).rowcount


def _first_of_each_lane() -> sa.Select[tuple[str, int]]:
    """By skipping from lane to lane in the index: a thousand runs of one user cost no more than one."""
    held = runs.c.held_by == sa.bindparam("label")
    first = sa.select(sa.func.min(runs.c.lane).label("lane")).where(held).cte("lanes", recursive=True)
    following = sa.select(sa.func.min(runs.c.lane)).where(held, runs.c.lane > first.c.lane)
    lanes = first.union_all(sa.select(following.scalar_subquery()).where(first.c.lane.is_not(None)))
    oldest = sa.select(sa.func.min(runs.c.sequence)).where(held, runs.c.lane == lanes.c.lane).correlate(lanes)
    return sa.select(lanes.c.lane, oldest.scalar_subquery().label("sequence")).where(
        lanes.c.lane.is_not(None)
    )


_FIRST_OF_EACH_LANE = _first_of_each_lane()
_HELD_LABELS = sa.select(runs.c.held_by).where(runs.c.held_by.is_not(None)).distinct()
_HOLD = (
    sa.update(runs)
    .where(runs.c.sequence == sa.bindparam("sequence_"))
    .values(held_by=sa.bindparam("by"), available_at=None)
)
_RELEASE = (
    sa.update(runs)
    .where(runs.c.sequence == sa.bindparam("sequence_"))
    .values(held_by=None, available_at=sa.bindparam("at"))
)
