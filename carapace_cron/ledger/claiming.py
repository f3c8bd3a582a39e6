"""Who works on which run: claims with a lease, dealt out fairly over tenants and users.

Plain functions on a connection, inside the writer's transaction; `ledger/runs.py` is the door to them.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from carapace_cron.ledger import holding
from carapace_cron.ledger.aftermath import Aftermath
from carapace_cron.ledger.ending import Expired, expire
from carapace_cron.ledger.job_monitors import hear_starts
from carapace_cron.ledger.statements import SAME_DEFINITION, AnyRow, chunks, one_of
from carapace_cron.ledger.tables import QUEUED, RUNNING, attempts, definitions, runs
from carapace_cron.ledger.turns import Turns, lane, tenant_of
from carapace_cron.model.limits import NO_LIMITS, Limits
from carapace_cron.model.record import instant_text


@dataclass(frozen=True, slots=True)
class Claim:
    """An attempt that `owner` may make of a run, as long as it holds the lease."""

    run_id: str
    job_id: str
    tenant: str
    user_id: str
    definition: bytes
    scheduled_for: datetime
    trigger: str
    attempt: int  # from 1
    owner: str
    started_at: datetime  # of this attempt
    deadline_at: datetime | None = None  # the attempt is stopped then
    upstream: Mapping[str, Any] | None = None  # the run whose end started this one, with its output

    @property
    def lane(self) -> str:
        return lane(self.tenant, self.user_id)


@dataclass(frozen=True, slots=True)
class Claimed:
    """The claims, and when to ask again: `more` = now, else at `next_at` (None = when something changes).

    `cancelled`: of the runs that `owner` works on, those that somebody wants stopped, and why.
    """

    claims: list[Claim]
    more: bool
    next_at: datetime | None
    cancelled: Mapping[str, str]
    expired: Sequence[Expired] = ()


HELD_AT_ONCE = 100  # runs that a claim sets aside for a full limit before others get their turn
LATE_AT_ONCE = 100  # runs whose deadline has passed that a claim ends before others get their turn


@dataclass(frozen=True, slots=True)
class Renewal:
    """`lost`: no longer ours, stop the work. `cancelled`: run id → why somebody asked to stop it."""

    lost: frozenset[str]
    cancelled: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Lane:
    """`ready`: its runs that are due, counted only as far as it matters. `next_at`: when the next one is."""

    name: str
    ready: int
    next_at: datetime | None


def claim(
    connection: sa.Connection,
    *,
    owner: str,
    slots: int,
    now: datetime,
    lease_until: datetime,
    aftermath: Aftermath,
    limits: Limits = NO_LIMITS,
    turns: Turns | None = None,
) -> Claimed:
    """Take up to `slots` runs that are due; each gets a new attempt. 0 slots: only look.

    Runs whose deadline has passed end first, whatever they wait for. Of the due ones that are looked at,
    those for which a limit leaves no room are held until there is some.
    """
    turns = turns or Turns()
    cancelled = connection.execute(_CANCELLED, {"owner": owner}).all()
    expired, deadline = _end_late(connection, now, aftermath)
    lanes = _lanes(connection, slots, now)
    ready = {one.name: one.ready for one in lanes if one.ready}
    shares = fair_shares(ready, _running(connection), slots, limits.per_tenant, turns)
    due = _sorted_out(connection, shares, now, limits)
    if due.take:
        _start(connection, due.take, {"owner": owner, "until": lease_until, "now": now})
        hear_starts(connection, due.take, now, aftermath)
    if due.hold:
        holding.hold(connection, due.hold, due.at_work, limits.by_label, now, turns)
    released = 0
    if len(due.take) < slots:  # who was let go may have no room elsewhere: others may have
        released = holding.release_idle(connection, limits.by_label, now, turns)
    upstreams = _upstreams(connection, [row.caused_by for row in due.take if row.caused_by is not None])
    waiting = [one.next_at for one in lanes if one.next_at is not None]
    changed = bool(due.hold or released) or len(expired) == LATE_AT_ONCE
    return Claimed(
        [_claim(row, owner, row.attempt + 1, now, upstreams.get(row.caused_by)) for row in due.take],
        more=changed or len(due.take) == slots < sum(ready.values()),
        next_at=min(waiting if deadline is None else [*waiting, deadline], default=None),
        cancelled={row.id: row.cancel_reason for row in cancelled},
        expired=expired,
    )


def _end_late(
    connection: sa.Connection, now: datetime, aftermath: Aftermath
) -> tuple[list[Expired], datetime | None]:
    """End queued runs whose deadline has passed; those, and when the next one of the others does."""
    first = connection.execute(_NEXT_DEADLINE).scalar()
    if first is None or first > now:
        return [], first
    late = connection.execute(_LATE, {"now": now, "most": LATE_AT_ONCE}).all()
    return expire(connection, late, now, aftermath), connection.execute(_NEXT_DEADLINE).scalar()


@dataclass(slots=True)
class _Due:
    """What becomes of due runs: they start, or wait for a limit. `at_work`: label → runs, with these."""

    take: list[AnyRow] = field(default_factory=list)
    hold: list[tuple[AnyRow, str]] = field(default_factory=list)
    at_work: Counter[str] = field(default_factory=Counter)


def _sorted_out(connection: sa.Connection, shares: Mapping[str, int], now: datetime, limits: Limits) -> _Due:
    by_label = limits.by_label
    due = _Due(at_work=holding.working(connection) if by_label and shares else Counter())
    for name, share in shares.items():
        room = share
        for row in _first_of(connection, name, share + HELD_AT_ONCE if by_label else share, now):
            if room == 0:
                break
            labels = row.labels.split() if by_label else []
            full = holding.first_full(labels, due.at_work, by_label)
            if full is not None:
                due.hold.append((row, full))
                continue
            due.at_work.update(labels)
            due.take.append(row)
            room -= 1
    return due


def _start(connection: sa.Connection, rows: Sequence[AnyRow], lease: Mapping[str, Any]) -> None:
    for chunk in chunks([row.sequence for row in rows]):
        connection.execute(_START_RUNS, {"sequences": chunk, **lease})
        connection.execute(_START_ATTEMPTS, {"sequences": chunk, "now": lease["now"]})


def _upstreams(connection: sa.Connection, run_ids: Sequence[str]) -> dict[str | None, dict[str, Any]]:
    """run id → what a run that it started is told of it."""
    return {
        row.id: {
            "jobId": row.job_id,
            "runId": row.id,
            "status": row.status,
            "scheduledFor": instant_text(row.scheduled_for),
            "output": row.output,
            "error": row.error,
            "metadata": row.details or {},
        }
        for chunk in chunks(run_ids)
        for row in connection.execute(_UPSTREAMS, {"ids": chunk})
    }


def fair_shares(
    ready: Mapping[str, int],
    running: Mapping[str, int],
    slots: int,
    per_tenant: int | None = None,
    turns: Turns | None = None,
) -> dict[str, int]:
    """How many of `slots` each lane gets: one at a time to the tenant, and in it the user, that has least;
    of several, to the one that had no turn for longest. In the order in which they got their first.

    `ready`, `running`: lane → runs. Lanes are named ``<tenant>/<user>``. `per_tenant`: runs that one tenant
    may have at work; None = no limit.

    >>> fair_shares({"a/x": 1000, "a/y": 1000, "b/z": 1}, {}, 4)
    {'a/x': 2, 'b/z': 1, 'a/y': 1}
    >>> fair_shares({"a/x": 9, "b/z": 9}, {"a/x": 3}, 4)
    {'b/z': 3, 'a/x': 1}
    >>> fair_shares({"a/x": 9, "b/z": 9}, {"a/x": 1}, 8, per_tenant=2)
    {'b/z': 2, 'a/x': 1}
    """
    turns = turns or Turns()
    of_tenant = Counter[str]()
    for name, count in running.items():
        of_tenant[tenant_of(name)] += count
    queue: dict[str, list[tuple[int, int, str]]] = {}
    for name in ready:
        place = (running.get(name, 0), turns.last(name), name)
        heapq.heappush(queue.setdefault(tenant_of(name), []), place)
    tenants = [(of_tenant[tenant], turns.last(tenant), tenant) for tenant in queue]
    heapq.heapify(tenants)
    shares = Counter[str]()
    while slots and tenants:
        load, turn, tenant = heapq.heappop(tenants)
        if per_tenant is not None and load >= per_tenant:
            continue
        busy, last, name = heapq.heappop(queue[tenant])
        shares[name] += 1
        slots -= 1
        if shares[name] < ready[name]:
            heapq.heappush(queue[tenant], (busy + 1, last, name))
        if queue[tenant]:
            heapq.heappush(tenants, (load + 1, turn, tenant))
    return dict(shares)


def renew(connection: sa.Connection, *, owner: str, run_ids: Sequence[str], until: datetime) -> Renewal:
    """Hold on to runs that are worked on; tells which are lost and which somebody wants stopped."""
    query = sa.select(runs.c.id, runs.c.cancel_reason).where(
        RUNNING,
        runs.c.lease_owner == owner,
        one_of(runs.c.id, "ids"),
    )
    ours: dict[str, str | None] = {}
    for chunk in chunks(run_ids):
        ours.update((row.id, row.cancel_reason) for row in connection.execute(query, {"ids": chunk}))
    if ours:
        connection.execute(_EXTEND, [{"run": run, "until": until} for run in ours])
    cancelled = {run: reason for run, reason in ours.items() if reason is not None}
    return Renewal(frozenset(run_ids) - frozenset(ours), cancelled)


def abandoned(connection: sa.Connection, *, now: datetime, owner: str) -> list[Claim]:
    """Attempts of all other owners, however fresh their lease, and those of `owner` whose lease ran out: for
    a ledger that only one process can hold open."""
    return _at_work(connection, (runs.c.lease_owner != owner) | (runs.c.lease_until < now))


def leases(connection: sa.Connection) -> dict[str, datetime]:
    """run id → until when its lease is said to hold, of all runs that are worked on, whoever does."""
    rows = connection.execute(sa.select(runs.c.id, runs.c.lease_until).where(RUNNING))
    return {row.id: row.lease_until for row in rows}


def claims_of(connection: sa.Connection, held: Mapping[str, datetime]) -> list[Claim]:
    """The attempts under way by these leases: run id → until when it was said to hold. Where another gateway
    has taken the run over meanwhile, the attempt that works on it now is not the one that was looked at."""
    lease = sa.tuple_(runs.c.id, runs.c.lease_until)
    leases = list(held.items())
    return [one for chunk in chunks(leases) for one in _at_work(connection, lease.in_(chunk))]


def _at_work(connection: sa.Connection, condition: sa.ColumnElement[bool]) -> list[Claim]:
    query = (
        sa.select(runs, definitions.c.body, attempts.c.started_at.label("attempt_started_at"))
        .join(definitions, SAME_DEFINITION)
        .join(attempts, (attempts.c.run_id == runs.c.id) & (attempts.c.number == runs.c.attempt))
        .where(RUNNING, condition)
    )
    return [
        _claim(row, row.lease_owner, row.attempt, row.attempt_started_at, None)
        for row in connection.execute(query)
    ]


def _lanes(connection: sa.Connection, slots: int, now: datetime) -> list[_Lane]:
    """Each lane in which something waits: by skipping from one to the next in the index, so that a
    thousand waiting runs of one user cost no more than one."""
    rows = connection.execute(_LANES, {"now": now, "most": slots + 1})  # one more tells that there is more
    return [_Lane(row.lane, row.ready, row.next_at) for row in rows]


def _lane_query() -> sa.Select[tuple[str, int, datetime | None]]:
    first = sa.select(sa.func.min(runs.c.lane).label("lane")).where(QUEUED).cte("lanes", recursive=True)
    following = sa.select(sa.func.min(runs.c.lane)).where(QUEUED, runs.c.lane > first.c.lane)
    lanes = first.union_all(sa.select(following.scalar_subquery()).where(first.c.lane.is_not(None)))
    now = sa.bindparam("now", type_=runs.c.available_at.type)
    due = (
        sa.select(sa.literal(1).label("one"))
        .where(QUEUED, runs.c.lane == lanes.c.lane, runs.c.available_at <= now)
        .limit(sa.bindparam("most"))
        .correlate(lanes)
        .subquery()
    )
    next_at = sa.select(sa.func.min(runs.c.available_at)).where(
        QUEUED, runs.c.lane == lanes.c.lane, runs.c.available_at > now
    )
    return sa.select(
        lanes.c.lane,
        sa.select(sa.func.count()).select_from(due).scalar_subquery().label("ready"),
        next_at.correlate(lanes).scalar_subquery().label("next_at"),
    ).where(lanes.c.lane.is_not(None))


_LANES = _lane_query()


def _running(connection: sa.Connection) -> dict[str, int]:
    return {row[0]: row[1] for row in connection.execute(_RUNNING)}


def _first_of(connection: sa.Connection, name: str, count: int, now: datetime) -> Sequence[AnyRow]:
    return connection.execute(_FIRST_OF_LANE, {"lane": name, "now": now, "count": count}).all()


_RUNNING = sa.select(runs.c.lane, sa.func.count()).where(RUNNING).group_by(runs.c.lane)
_NOW = sa.bindparam("now", type_=runs.c.available_at.type)
_FIRST_OF_LANE = (
    sa.select(runs, definitions.c.body)
    .join(definitions, SAME_DEFINITION)
    .where(
        QUEUED,
        runs.c.lane == sa.bindparam("lane"),
        runs.c.available_at <= _NOW,
        runs.c.deadline_at.is_(None) | (runs.c.deadline_at > _NOW),
    )
    .order_by(runs.c.available_at)
    .limit(sa.bindparam("count"))
)
_STARTED = one_of(runs.c.sequence, "sequences")
_START_RUNS = (
    sa.update(runs)
    .where(_STARTED)
    .values(
        status="running",
        attempt=runs.c.attempt + 1,
        lease_owner=sa.bindparam("owner"),
        lease_until=sa.bindparam("until"),
        started_at=sa.func.coalesce(runs.c.started_at, _NOW),
    )
)
_START_ATTEMPTS = sa.insert(attempts).from_select(
    ["run_id", "number", "state", "owner", "started_at"],
    sa.select(runs.c.id, runs.c.attempt, sa.literal("running"), runs.c.lease_owner, _NOW).where(_STARTED),
)
_NEXT_DEADLINE = sa.select(sa.func.min(runs.c.deadline_at)).where(QUEUED, runs.c.deadline_at.is_not(None))
_LATE = (
    sa.select(runs)
    .where(QUEUED, runs.c.deadline_at <= _NOW)
    .order_by(runs.c.deadline_at)
    .limit(sa.bindparam("most"))
)
_UPSTREAMS = (
    sa.select(
        runs.c.id,
        runs.c.job_id,
        runs.c.status,
        runs.c.scheduled_for,
        attempts.c.output,
        attempts.c.error,
        attempts.c.metadata.label("details"),
    )
    .join(attempts, (attempts.c.run_id == runs.c.id) & (attempts.c.number == runs.c.attempt))
    .where(one_of(runs.c.id, "ids"))
)
_CANCELLED = sa.select(runs.c.id, runs.c.cancel_reason).where(
    RUNNING,
    runs.c.lease_owner == sa.bindparam("owner"),
    runs.c.cancel_reason.is_not(None),
)
_EXTEND = sa.update(runs).where(runs.c.id == sa.bindparam("run")).values(lease_until=sa.bindparam("until"))


def _claim(
    row: AnyRow, owner: str, attempt: int, started_at: datetime, upstream: Mapping[str, Any] | None
) -> Claim:
    return Claim(
        run_id=row.id,
        job_id=row.job_id,
        tenant=row.tenant,
        user_id=row.user_id,
        definition=row.body,
        scheduled_for=row.scheduled_for,
        trigger=row.trigger,
        attempt=attempt,
        owner=owner,
        started_at=started_at,
        deadline_at=row.deadline_at,
        upstream=upstream,
    )
