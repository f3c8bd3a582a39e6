"""The monitors as people change them: each change in one transaction with its event and what follows from it.

`Watchlist` is the door; what a change is, is decided by whoever asks, from the row as it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import sqlalchemy as sa

from carapace_cron.database import Database
from carapace_cron.errors import Conflict, InvalidValue, QuotaExceeded
from carapace_cron.failpoints import failpoint
from carapace_cron.ledger import monitors
from carapace_cron.ledger.events import Event, insert_events
from carapace_cron.ledger.monitors import Watched
from carapace_cron.ledger.settling import Settled, Settling
from carapace_cron.model.monitor import LONGEST_SLUG, Monitor
from carapace_cron.monitors.alarm import Alarm
from carapace_cron.monitors.status import After

UNREADABLE_PAUSE = timedelta(hours=1)  # until a monitor that another version wrote is looked at again


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of a monitor at `at`. None = that part stays as it is."""

    at: datetime
    monitor: Monitor | None = None
    after: After | None = None
    alarm: Alarm | None = None
    event: Event | None = None


@dataclass(frozen=True, slots=True)
class Looked:
    """How many monitors were looked at, and when the next one is to be; None: nothing happens by itself."""

    count: int
    next_at: datetime | None


Decision = Callable[[Watched], Change]
"""From the monitor as it stands to what is to become of it; raises `Refused`. Only computes."""


class Watchlist:
    """All methods raise `Unavailable` when the database cannot be used; then nothing was changed."""

    def __init__(self, database: Database, on_settled: Callable[[Settled], None]) -> None:
        """`on_settled` hears after each commit what it did to monitors."""
        self._database = database
        self._on_settled = on_settled

    @failpoint("watchlist.add")
    async def add(
        self,
        monitor: Monitor,
        event: Event,
        *,
        most: int,
        unless: Callable[[Monitor], bool] | None = None,
        numbered: bool = False,
    ) -> tuple[Watched, bool]:
        """Keep a new monitor; or find the user's first that `unless` says is the same. Whether it is new.

        `numbered`: a slug that is taken gets a number. Raises `QuotaExceeded` when the tenant has `most`
        already, `Conflict` when the slug is taken, `InvalidValue` for a dependency that is none.
        """
        return await self._database.write(lambda c: _add(c, monitor, event, most, unless, numbered))

    @failpoint("watchlist.change")
    async def change(self, monitor_id: str, decide: Decision) -> Watched | None:
        """Change a monitor as `decide` says of it as it stands; None when there is none."""
        changed, settled = await self._database.write(lambda c: _change(c, monitor_id, decide))
        self._on_settled(settled)
        return changed

    @failpoint("watchlist.remove")
    async def remove(self, monitor_id: str, event: Event) -> Watched | None:
        """Remove a monitor with its history; as it was, None when there is none."""
        removed, settled = await self._database.write(lambda c: _remove(c, monitor_id, event))
        self._on_settled(settled)
        return removed

    @failpoint("watchlist.look")
    async def look(self, now: datetime, limit: int) -> Looked:
        """See to the monitors to which something happens by `now`, at most `limit`, the earliest first."""
        looked, settled = await self._database.write(lambda c: _look(c, now, limit))
        self._on_settled(settled)
        return looked

    async def get(self, monitor_id: str) -> Watched | None:
        return await self._database.read(lambda c: monitors.find(c, [monitor_id]).get(monitor_id))

    async def by_unique_key(self, key: str) -> Watched | None:
        """By what names it to those who may see and not ping it."""
        return await self._database.read(lambda c: monitors.find_by_unique_key(c, key))

    async def by_slug(self, tenant: str, user_id: str, slug: str) -> Watched | None:
        return await self._database.read(lambda c: monitors.find_by_slug(c, tenant, user_id, slug))

    async def of_user(self, tenant: str, user_id: str) -> list[Watched]:
        """All monitors of a user, in the order of their creation."""
        return await self._database.read(lambda c: monitors.of_user(c, tenant, user_id))

    async def count_by_status(self, tenant: str, user_id: str) -> dict[str, int]:
        """How many monitors of a user are up, down, …, as far as anybody looked."""
        return await self._database.read(lambda c: monitors.count_by_status(c, tenant, user_id))


def _add(
    connection: sa.Connection,
    monitor: Monitor,
    event: Event,
    most: int,
    unless: Callable[[Monitor], bool] | None,
    numbered: bool,
) -> tuple[Watched, bool]:
    if unless is not None:
        for one in monitors.of_user(connection, monitor.tenant, monitor.user_id):
            if unless(one.monitor):
                return one, False
    if monitors.count(connection, monitor.tenant) >= most:
        raise QuotaExceeded(f"the tenant has {most} monitors, the most it may have: delete some first")
    if numbered:
        monitor = monitor.evolve(slug=_free_slug(connection, monitor))
    _check_dependencies(connection, monitor)
    watched = Watched(monitor)
    with _taken_slugs(monitor):
        monitors.insert(connection, watched)
    insert_events(connection, [event])
    return watched, True


def _change(
    connection: sa.Connection, monitor_id: str, decide: Decision
) -> tuple[Watched | None, Settled]:
    settling = Settling(connection, [monitor_id])
    if monitor_id not in settling:
        return None, Settled()
    change = decide(settling[monitor_id])
    if change.monitor is not None:
        _check_dependencies(connection, change.monitor)
        with _taken_slugs(change.monitor):
            settling.redefine(change.monitor)
    if change.alarm is not None:
        settling.replace(replace(settling[monitor_id], alarm=change.alarm))
    settling.settle(monitor_id, change.at, change.after)
    insert_events(connection, [] if change.event is None else [change.event])
    return settling[monitor_id], settling.keep()


def _remove(connection: sa.Connection, monitor_id: str, event: Event) -> tuple[Watched | None, Settled]:
    settling = Settling(connection, [monitor_id])
    if monitor_id not in settling:
        return None, Settled()
    removed = settling[monitor_id]
    settling.remove(monitor_id, event.at)
    insert_events(connection, [event])
    return removed, settling.keep()


def _look(connection: sa.Connection, now: datetime, limit: int) -> tuple[Looked, Settled]:
    """One handled after the other; those that cannot be read are put off."""
    due = monitors.to_look_at(connection, now, limit)
    settling = Settling(connection, due)
    for monitor_id in due:
        if monitor_id in settling:
            settling.pass_time(monitor_id, now, now)
            settling.settle(monitor_id, now)
    monitors.put_off(connection, [one for one in due if one not in settling], now + UNREADABLE_PAUSE)
    settled = settling.keep()
    return Looked(len(due), monitors.next_look(connection)), settled


def _check_dependencies(connection: sa.Connection, monitor: Monitor) -> None:
    """Raises `InvalidValue` unless each is another monitor of the user, and none of them depends on this."""
    parents = monitors.find(connection, monitor.depends_on)
    for parent_id in monitor.depends_on:
        parent = parents.get(parent_id)
        if parent is None or not _same_user(parent.monitor, monitor):
            message = f'bad dependsOn "{parent_id[:40]}": expected the id of another monitor of the same user'
            raise InvalidValue(message, field="dependsOn")
        if monitor.id in monitors.ancestors(connection, parent_id):
            message = f'bad dependsOn "{parent_id}": that monitor depends on this one; expected no circle'
            raise InvalidValue(message, field="dependsOn")


def _same_user(one: Monitor, other: Monitor) -> bool:
    return (one.tenant, one.user_id) == (other.tenant, other.user_id)


def _free_slug(connection: sa.Connection, monitor: Monitor) -> str:
    """Its slug, or the first of slug-2, slug-3 … that nobody has."""
    slug, number = monitor.slug, 1
    while slug and monitors.find_by_slug(connection, monitor.tenant, monitor.user_id, slug):
        number += 1
        ending = f"-{number}"
        slug = monitor.slug[: LONGEST_SLUG - len(ending)] + ending
    return slug


@contextmanager
def _taken_slugs(monitor: Monitor) -> Iterator[None]:
    """A slug that another monitor of the user has is a `Conflict`."""
    try:
        yield
    except sa.exc.IntegrityError as error:
        message = f'another monitor has the slug "{monitor.slug}": take another slug, or change that monitor'
        raise Conflict(message, field="slug") from error
