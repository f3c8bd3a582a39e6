"""The monitors as people change them: each change in one transaction with its event and what follows from it.

`Watchlist` is the door; what a change is, is decided by whoever asks, from the row as it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import sqlalchemy as sa

from carapace_cron.database import Database
from carapace_cron.errors import Conflict, InvalidValue, QuotaExceeded
from carapace_cron.failpoints import failpoint
from carapace_cron.ledger import monitors
from carapace_cron.ledger.events import Event, insert_events
from carapace_cron.ledger.monitors import Watched
from carapace_cron.model.monitor import LONGEST_SLUG, Monitor
from carapace_cron.monitors.status import After, redefined


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of a monitor. None = that part stays as it is."""

    monitor: Monitor | None = None
    after: After | None = None
    event: Event | None = None


Decision = Callable[[Watched], Change]
"""From the monitor as it stands to what is to become of it; raises `Refused`. Only computes."""


class Watchlist:
    """All methods raise `Unavailable` when the database cannot be used; then nothing was changed."""

    def __init__(self, database: Database) -> None:
        self._database = database

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
        return await self._database.write(lambda c: _change(c, monitor_id, decide))

    @failpoint("watchlist.remove")
    async def remove(self, monitor_id: str, event: Event) -> Watched | None:
        """Remove a monitor with its history; as it was, None when there is none."""
        return await self._database.write(lambda c: _remove(c, monitor_id, event))

    async def get(self, monitor_id: str) -> Watched | None:
        return await self._database.read(lambda c: monitors.find(c, [monitor_id]).get(monitor_id))

    async def by_slug(self, tenant: str, user_id: str, slug: str) -> Watched | None:
        return await self._database.read(lambda c: monitors.find_by_slug(c, tenant, user_id, slug))

    async def of_user(self, tenant: str, user_id: str) -> list[Watched]:
        """All monitors of a user, in the order of their creation."""
        return await self._database.read(lambda c: monitors.of_user(c, tenant, user_id))


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


def _change(connection: sa.Connection, monitor_id: str, decide: Decision) -> Watched | None:
    before = monitors.find_to_change(connection, [monitor_id]).get(monitor_id)
    if before is None:
        return None
    change = decide(before)
    watched = before if change.after is None else before.with_health(change.after.health)
    if change.monitor is not None:
        watched = replace(watched, monitor=change.monitor)
        watched = watched.with_health(redefined(watched.monitor, watched.health, watched.due))
        _check_dependencies(connection, watched.monitor)
        with _taken_slugs(watched.monitor):
            monitors.redefine(connection, watched)
    flips = [] if change.after is None or change.after.flip is None else [(monitor_id, change.after.flip)]
    monitors.keep(connection, [watched], flips)
    insert_events(connection, [] if change.event is None else [change.event])
    return watched


def _remove(connection: sa.Connection, monitor_id: str, event: Event) -> Watched | None:
    before = monitors.find_to_change(connection, [monitor_id]).get(monitor_id)
    if before is None:
        return None
    for child in monitors.find_to_change(connection, monitors.dependents(connection, monitor_id)).values():
        others = tuple(one for one in child.monitor.depends_on if one != monitor_id)
        monitors.redefine(connection, replace(child, monitor=child.monitor.evolve(depends_on=others)))
    monitors.remove(connection, monitor_id)
    insert_events(connection, [event])
    return before


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
