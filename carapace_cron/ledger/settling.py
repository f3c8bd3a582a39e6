"""What follows from changes of monitors, within their transaction: what is told of them, and what is kept.

`Settling` holds the monitors that one transaction changes. A change is given to `settle`: the alarm is
considered (``monitors/alarm.py`` decides), and what it says goes into the outbox. `keep` writes the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import sqlalchemy as sa

from carapace_cron.ids import unique_key
from carapace_cron.ledger.deliveries import forget_deliveries, insert_delivery
from carapace_cron.ledger.monitors import (
    Watched,
    dependents,
    find,
    insert,
    keep,
    redefine,
    remove,
    wake_dependents,
)
from carapace_cron.ledger.tables import to_micros
from carapace_cron.model.monitor import BODY_LIMIT, Flip, Health, Monitor, Ping
from carapace_cron.model.notice import MonitorNotice, MonitorNoticeEvent
from carapace_cron.monitors.alarm import Case, Saying, SayingEvent, consider
from carapace_cron.monitors.sentences import name_of, sentence
from carapace_cron.monitors.status import After, expected_at, redefined, shown, silence

KEPT_DELIVERIES = timedelta(days=30)  # of one monitor, once they have arrived or cannot


@dataclass(frozen=True, slots=True)
class Settled:
    """What a transaction did to monitors. `look_at`: the earliest at which something happens to one of them
    by itself; `told`: a notice waits in the outbox."""

    look_at: datetime | None = None
    told: bool = False


class Settling:
    """The monitors of these ids, for one transaction; writers take turns, so nobody else changes them."""

    def __init__(self, connection: sa.Connection, monitor_ids: Sequence[str]) -> None:
        self._connection = connection
        self._watched = find(connection, monitor_ids)
        self._touched: set[str] = set()
        self._flips: list[tuple[str, Flip]] = []
        self._well: dict[str, datetime] = {}  # those that are down no more
        self._told = False

    def __getitem__(self, monitor_id: str) -> Watched:
        return self._watched[monitor_id]

    def __contains__(self, monitor_id: str) -> bool:
        return monitor_id in self._watched

    def pass_time(self, monitor_id: str, until: datetime, now: datetime) -> None:
        """Silence until then has its consequences."""
        one = self[monitor_id]
        for after in silence(one.monitor, one.health, one.due, until):
            self.settle(monitor_id, now, after)

    def settle(
        self, monitor_id: str, now: datetime, after: After | None = None, ping: Ping | None = None
    ) -> None:
        """`after`: what became of the monitor; None: nothing, but its alarm may have something to say by now.
        `ping`: what told it."""
        one = self[monitor_id]
        health = one.health if after is None else after.health
        case = Case(one.monitor, health, one.due, now, maintenance=one.maintenance, quiet=one.quiet)
        verdict = consider(case, one.alarm, one.health, after)
        if verdict.said and self._parent_is_down(one.monitor, now):
            verdict = consider(replace(case, parent_is_down=True), one.alarm, one.health, after)
        for saying in verdict.said:
            self._tell(case, saying, after, ping)
        if after is not None:
            self._note_flip(monitor_id, after.flip, now)
        look_at = verdict.look_at
        if ping is not None and look_at is not None and one.look_at is not None and now < one.look_at:
            # It is looked at too early, once, and pings need not move its row in the index.
            look_at = min(look_at, one.look_at)
        self.replace(replace(one, health=health, alarm=verdict.alarm, look_at=look_at))

    def redefine(self, monitor: Monitor) -> None:
        """Give a monitor another definition, and the deadlines that follow from it. Raises as
        `monitors.redefine` does."""
        one = replace(self[monitor.id], monitor=monitor)
        one = one.with_health(redefined(monitor, one.health, one.due))
        redefine(self._connection, one)
        self.replace(one)

    def replace(self, one: Watched) -> None:
        self._watched[one.monitor.id] = one
        self._touched.add(one.monitor.id)

    def add(self, one: Watched) -> None:
        """A new monitor. Raises as `monitors.insert` does."""
        insert(self._connection, one)
        self.replace(one)

    def remove(self, monitor_id: str, now: datetime) -> None:
        """With its history. Those that depended on it do so no more."""
        del self._watched[monitor_id]
        self._touched.discard(monitor_id)
        children = dependents(self._connection, monitor_id)
        self._watched |= find(self._connection, [one for one in children if one not in self])
        remove(self._connection, monitor_id)
        for child_id in children:
            child = self[child_id].monitor
            others = tuple(one for one in child.depends_on if one != monitor_id)
            self.redefine(child.evolve(depends_on=others))
            self.settle(child_id, now)

    def keep(self) -> Settled:
        """Write down health and alarms, wake those that depended on what is well again."""
        touched = [self[monitor_id] for monitor_id in self._touched]
        keep(self._connection, touched, self._flips)
        looks = [one.look_at for one in touched if one.look_at is not None]
        if self._well:
            now = max(self._well.values())
            if wake_dependents(self._connection, list(self._well), now):
                looks.append(now)
        return Settled(min(looks, default=None), self._told)

    def _note_flip(self, monitor_id: str, flip: Flip | None, now: datetime) -> None:
        if flip is None:
            return
        self._flips.append((monitor_id, flip))
        if flip.before == "down":
            self._well[monitor_id] = now

    def _parent_is_down(self, monitor: Monitor, now: datetime) -> bool:
        """Those that this transaction changes count as they are by now."""
        parents = monitor.depends_on
        others = find(self._connection, [parent for parent in parents if parent not in self])
        known = [self[parent] for parent in parents if parent in self] + list(others.values())
        return any(parent.shown(now) == "down" for parent in known)

    def _tell(self, case: Case, saying: Saying, after: After | None, ping: Ping | None) -> None:
        forget_deliveries(self._connection, unique_key(case.monitor.id), case.now - KEPT_DELIVERIES)
        for notice in _notices(case, saying, after, ping):
            insert_delivery(self._connection, notice, case.now)
            self._told = True


def _notices(case: Case, saying: Saying, after: After | None, ping: Ping | None) -> Iterator[MonitorNotice]:
    """One for each channel: they have their own rows in the outbox, and fail apart from each other."""
    monitor, health = case.monitor, case.health
    key = unique_key(monitor.id)  # who reads a channel may not ping
    incident_id = f"{key}.{saying.incident}"
    for channel_id in saying.channels:
        yield MonitorNotice.model_construct(
            id=f"{incident_id}.{_which(saying, health)}.{channel_id}",
            tenant=monitor.tenant,
            user_id=monitor.user_id,
            channel_id=channel_id,
            event=_EVENTS[saying.event],
            monitor_id=key,
            monitor_name=name_of(monitor),
            incident_id=incident_id,
            status=shown(monitor, health, case.due, case.now),
            success=saying.event == "up",
            at=saying.at,
            since=saying.since,
            expected_at=_expected(case, after),
            last_ping_at=health.last_ping_at,
            failures_in_row=health.failures_in_row,
            duration_ms=None if after is None else after.duration_ms,
            tags=monitor.tags,
            reason=sentence(case, saying, after, None if ping is None else ping.exit_status),
            output="" if ping is None else ping.body[:BODY_LIMIT].decode("utf-8", "replace"),
        )


_EVENTS: dict[SayingEvent, MonitorNoticeEvent] = {
    "down": "monitor.down",
    "late": "monitor.late",
    "up": "monitor.up",
    "failure": "monitor.failure",
    "reminder": "monitor.reminder",
    "tooOften": "monitor.tooOften",
}


def _which(saying: Saying, health: Health) -> str:
    """What makes it one notice among those of its incident: an incident is told once as down, late and up."""
    if saying.event in ("down", "late", "up"):
        return saying.event
    return f"{saying.event}.{to_micros(saying.at)}.{health.pings}"


def _expected(case: Case, after: After | None) -> datetime | None:
    """When the next ping is due, or the one was that did not come."""
    if after is not None and after.failure == "timeout":
        return case.health.expected_after
    return expected_at(case.monitor, case.health, case.due)
