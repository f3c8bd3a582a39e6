"""Monitors as the ledger keeps them: definition, health and alarm in one row, so that they never part.

`Watched` is that row. Every change of it goes through `keep`, in the transaction of its cause: a ping, the
passing of time, a person.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from pydantic import ValidationError

from carapace_cron.calendars import calendar_of
from carapace_cron.errors import InvalidValue
from carapace_cron.ids import unique_key
from carapace_cron.ledger.many import insert_many, update_many
from carapace_cron.ledger.statements import AnyRow, chunks, one_of
from carapace_cron.ledger.tables import dependencies, flips, from_micros, monitors, pings, to_micros
from carapace_cron.model.calendar import Blackout, CalendarPolicy
from carapace_cron.model.monitor import Flip, Health, Monitor, OpenRun, Shown
from carapace_cron.monitors.alarm import AT_REST, Alarm
from carapace_cron.monitors.status import Due, expected_at, shown
from carapace_cron.schedule import Schedule, parse
from carapace_cron.schedule.calendar import Calendar
from carapace_cron.schedule.excepting import excepting

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Watched:
    """Monitor, health and alarm. `look_at`: nothing happens by itself before then; None: nothing will."""

    monitor: Monitor
    health: Health = field(default_factory=Health)
    alarm: Alarm = AT_REST
    look_at: datetime | None = None

    def with_health(self, health: Health) -> Watched:
        return replace(self, health=health)

    @property
    def due(self) -> Due | None:
        """When pings are due by its schedule; None where the period counts."""
        one = self.monitor
        if one.schedule is None:
            return None
        return _due(one.schedule, one.timezone, one.created_at, one.calendar, one.start_at, one.end_at)

    @property
    def maintenance(self) -> Calendar | None:
        return _windows(self.monitor.maintenance, self.monitor.timezone)

    @property
    def quiet(self) -> Calendar | None:
        return _windows(self.monitor.quiet, self.monitor.timezone)

    @property
    def expected_at(self) -> datetime | None:
        """When the next ping is due; None when none is."""
        return expected_at(self.monitor, self.health, self.due)

    def shown(self, now: datetime) -> Shown:
        """Its status at `now`, whether or not somebody has written it down yet."""
        return shown(self.monitor, self.health, self.due, now)


@dataclass(frozen=True, slots=True)
class _Within:
    """The instants of a schedule that a job has: from `start_at` on, until `end_at`; None = no such bound."""

    schedule: Schedule
    start_at: datetime | None
    end_at: datetime | None

    def next_after(self, instant: datetime) -> datetime | None:
        if self.start_at is not None:
            instant = max(instant, self.start_at - timedelta(microseconds=1))
        at = self.schedule.next_after(instant)
        return None if at is None or (self.end_at is not None and at > self.end_at) else at


@lru_cache(maxsize=4_096)
def _due(
    text: str,
    zone: str,
    anchor: datetime,
    calendar: CalendarPolicy | None,
    start_at: datetime | None,
    end_at: datetime | None,
) -> Due:
    """Raises `ScheduleError`."""
    schedule = parse(text, zone, anchor=anchor.replace(microsecond=0))
    if calendar is not None and schedule.kind != "never":
        schedule = excepting(schedule, calendar_of(calendar, zone))
    return schedule if start_at is None and end_at is None else _Within(schedule, start_at, end_at)


def _windows(blackouts: tuple[Blackout, ...], zone: str) -> Calendar | None:
    return _calendar(blackouts, zone) if blackouts else None


@lru_cache(maxsize=1_024)
def _calendar(blackouts: tuple[Blackout, ...], zone: str) -> Calendar:
    return calendar_of(CalendarPolicy(blackouts=blackouts), zone)


def find(connection: sa.Connection, monitor_ids: Sequence[str]) -> dict[str, Watched]:
    """The monitors of these ids; those that do not exist, or that another version wrote, are left out."""
    return {
        one.monitor.id: one
        for chunk in chunks(monitor_ids)
        for one in _readable(connection.execute(_BY_ID, {"ids": chunk}))
    }


def find_by_slug(connection: sa.Connection, tenant: str, user_id: str, slug: str) -> Watched | None:
    rows = connection.execute(_BY_SLUG, {"tenant": tenant, "user": user_id, "slug": slug})
    return next(_readable(rows), None)


def find_by_unique_key(connection: sa.Connection, key: str) -> Watched | None:
    return next(_readable(connection.execute(_BY_UNIQUE_KEY, {"key": key})), None)


def of_user(connection: sa.Connection, tenant: str, user_id: str) -> list[Watched]:
    """All monitors of a user, in the order of their creation."""
    return list(_readable(connection.execute(_OF_USER, {"tenant": tenant, "user": user_id})))


def count(connection: sa.Connection, tenant: str) -> int:
    """Those of a tenant that are not our own jobs'."""
    query = sa.select(sa.func.count()).where(monitors.c.tenant == tenant, monitors.c.job_id.is_(None))
    return int(connection.execute(query).scalar_one())


def count_by_status(connection: sa.Connection, tenant: str, user_id: str) -> dict[str, int]:
    of_user_ = (monitors.c.tenant == tenant, monitors.c.user_id == user_id)
    query = sa.select(monitors.c.status, sa.func.count()).where(*of_user_).group_by(monitors.c.status)
    return {row[0]: row[1] for row in connection.execute(query)}


def insert(connection: sa.Connection, one: Watched) -> None:
    """Raises `IntegrityError` when another monitor of the user has its slug."""
    made = {"created_at": one.monitor.created_at}
    connection.execute(sa.insert(monitors), [_definition_values(one.monitor) | _state_values(one) | made])
    _depend(connection, one.monitor)


def keep(connection: sa.Connection, some: Sequence[Watched], made: Sequence[tuple[str, Flip]]) -> None:
    """Write down health and alarm of `some`, and the flips that were made: (monitor id, flip)."""
    update_many(connection, monitors, "id", [{"id": one.monitor.id} | _state_values(one) for one in some])
    insert_many(connection, flips, [_flip_values(monitor_id, flip) for monitor_id, flip in made])


def wake_dependents(connection: sa.Connection, parent_ids: Sequence[str], now: datetime) -> bool:
    """What muted the monitors that depend on these is over: have them looked at. Whether there are any."""
    woken = 0
    for chunk in chunks(sorted(parent_ids)):
        woken += connection.execute(_WAKE, {"ids": chunk, "now": now}).rowcount
    return woken > 0


def redefine(connection: sa.Connection, one: Watched) -> None:
    """Write down a definition that has changed, with the health under it. Raises as `insert` does."""
    values = _definition_values(one.monitor) | _state_values(one)
    connection.execute(sa.update(monitors).where(monitors.c.id == one.monitor.id).values(**values))
    connection.execute(sa.delete(dependencies).where(dependencies.c.monitor_id == one.monitor.id))
    _depend(connection, one.monitor)


def remove(connection: sa.Connection, monitor_id: str) -> None:
    """The monitor with all that hangs on it."""
    for column in (pings.c.monitor_id, flips.c.monitor_id, dependencies.c.monitor_id, monitors.c.id):
        connection.execute(sa.delete(column.table).where(column == monitor_id))


def dependents(connection: sa.Connection, parent_id: str) -> list[str]:
    """The ids of the monitors that depend on one."""
    return list(connection.execute(_DEPENDENTS, {"parent": parent_id}).scalars())


def ancestors(connection: sa.Connection, monitor_id: str) -> set[str]:
    """The monitor itself and all that it depends on, however indirectly."""
    found: set[str] = set()
    frontier = {monitor_id}
    while frontier:
        found |= frontier
        frontier = set(connection.execute(_PARENTS, {"ids": sorted(frontier)}).scalars()) - found
    return found


def _depend(connection: sa.Connection, monitor: Monitor) -> None:
    rows = [{"monitor_id": monitor.id, "parent_id": parent} for parent in monitor.depends_on]
    if rows:
        connection.execute(sa.insert(dependencies), rows)


def to_look_at(connection: sa.Connection, now: datetime, limit: int) -> list[str]:
    """The ids of those to which something happens by itself by `now`, the earliest first."""
    query = sa.select(monitors.c.id).where(monitors.c.look_at <= now).order_by(monitors.c.look_at)
    return list(connection.execute(query.limit(limit)).scalars())


def next_look(connection: sa.Connection) -> datetime | None:
    """When the next of those is."""
    query = sa.select(monitors.c.look_at).where(monitors.c.look_at.is_not(None))
    return connection.execute(query.order_by(monitors.c.look_at).limit(1)).scalar()


def put_off(connection: sa.Connection, monitor_ids: Sequence[str], until: datetime) -> None:
    """Look at these no sooner: nobody can read them."""
    for chunk in chunks(monitor_ids):
        connection.execute(sa.update(monitors).where(monitors.c.id.in_(chunk)).values(look_at=until))


def _readable(rows: Iterable[AnyRow]) -> Iterator[Watched]:
    """Those that this version can read; of the others it says so, and they stop nobody."""
    for row in rows:
        try:
            one = _watched(row)
            _ = one.due, one.maintenance, one.quiet
        except (ValidationError, InvalidValue) as error:
            sentence = "monitor %s cannot be read by this version and is left as it is: %s"
            log.error(sentence, row.id, type(error).__name__, extra={"action": "monitor_unreadable"})
        else:
            yield one


@lru_cache(maxsize=4_096)
def _monitor(body: bytes) -> Monitor:
    return Monitor.model_validate_json(body)


def _watched(row: AnyRow) -> Watched:
    health = Health(
        status=row.status,
        pings=row.pings,
        last_ping_at=row.last_ping_at,
        last_duration_ms=row.last_duration_ms,
        expected_after=row.expected_after,
        runs=tuple(_open_run(*one) for one in row.open_runs or ()),
        failures_in_row=row.failures_in_row,
        ends=row.ends,
        deadline=row.deadline,
    )
    return Watched(_monitor(row.body), health, _alarm(row.alarm), row.look_at)


def _alarm(kept: dict[str, Any] | None) -> Alarm:
    """Without what only a later version knows."""
    if kept is None:
        return AT_REST
    values: dict[str, Any] = {
        name: from_micros(value) if name in _INSTANTS else value
        for name, value in kept.items()
        if name in _ALARM
    }
    return Alarm(**values)


def _alarm_values(alarm: Alarm) -> dict[str, Any] | None:
    """What differs from an alarm at rest; None: nothing does."""
    if alarm == AT_REST:
        return None
    kept = {name: getattr(alarm, name) for name in _ALARM if getattr(alarm, name) != getattr(AT_REST, name)}
    return {name: to_micros(value) if name in _INSTANTS else value for name, value in kept.items()}


_ALARM = tuple(one.name for one in fields(Alarm))
_INSTANTS = frozenset(("since", "down_at", "told_at", "reminded_at", "acknowledged_at"))


def _open_run(rid: str, started: int, sign: int, overdue: bool) -> OpenRun:
    return OpenRun(rid, from_micros(started), from_micros(sign), overdue)


def _definition_values(monitor: Monitor) -> dict[str, Any]:
    return {
        "id": monitor.id,
        "tenant": monitor.tenant,
        "user_id": monitor.user_id,
        "slug": monitor.slug,
        "unique_key": unique_key(monitor.id),
        "job_id": monitor.job_id,
        "revision": monitor.revision,
        "body": monitor.model_dump_json(by_alias=True, exclude_none=True).encode(),
    }


def _state_values(one: Watched) -> dict[str, Any]:
    health = one.health
    runs = [[run.rid, to_micros(run.started_at), to_micros(run.sign_at), run.overdue] for run in health.runs]
    return {
        "status": health.status,
        "pings": health.pings,
        "last_ping_at": health.last_ping_at,
        "last_duration_ms": health.last_duration_ms,
        "expected_after": health.expected_after,
        "open_runs": runs or None,
        "failures_in_row": health.failures_in_row,
        "ends": health.ends,
        "deadline": health.deadline,
        "alarm": _alarm_values(one.alarm),
        "look_at": one.look_at,
    }


_STATE = (
    "status",
    "pings",
    "last_ping_at",
    "last_duration_ms",
    "expected_after",
    "open_runs",
    "failures_in_row",
    "ends",
    "deadline",
    "alarm",
    "look_at",
)


def _flip_values(monitor_id: str, flip: Flip) -> dict[str, Any]:
    return {
        "monitor_id": monitor_id,
        "at": flip.at,
        "before": flip.before,
        "after": flip.after,
        "reason": flip.reason,
    }


_WATCHED = (monitors.c.id, monitors.c.body, *(monitors.c[name] for name in _STATE))
_BY_ID = sa.select(*_WATCHED).where(one_of(monitors.c.id, "ids"))
_OF_USER = (
    sa.select(*_WATCHED)
    .where(monitors.c.tenant == sa.bindparam("tenant"), monitors.c.user_id == sa.bindparam("user"))
    .order_by(monitors.c.created_at, monitors.c.id)
)
_BY_UNIQUE_KEY = sa.select(*_WATCHED).where(monitors.c.unique_key == sa.bindparam("key"))
_BY_SLUG = sa.select(*_WATCHED).where(
    monitors.c.tenant == sa.bindparam("tenant"),
    monitors.c.user_id == sa.bindparam("user"),
    monitors.c.slug == sa.bindparam("slug"),
    monitors.c.slug != sa.literal_column("''"),  # only so does the database see that its partial index fits
)
_PARENTS = sa.select(dependencies.c.parent_id).where(one_of(dependencies.c.monitor_id, "ids"))
_DEPENDENTS = sa.select(dependencies.c.monitor_id).where(
    dependencies.c.parent_id == sa.bindparam("parent")
)
_WAKE = (
    sa.update(monitors)
    .where(
        monitors.c.id.in_(
            sa.select(dependencies.c.monitor_id).where(one_of(dependencies.c.parent_id, "ids"))
        )
    )
    .values(look_at=sa.bindparam("now", type_=monitors.c.look_at.type))
)
