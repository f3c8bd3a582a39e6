"""Every use case of monitors, once: create, read, change, pause, resume, delete; acknowledge and snooze.

As with jobs: may the caller, is it sound, is it kept; only then is it answered. A monitor changes in the
transaction that looks at it, so a ping, the watchman and a person never overwrite each other.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from carapace_cron.clock import Clock
from carapace_cron.errors import Conflict, InvalidValue, NotFound
from carapace_cron.ids import is_monitor_id, is_unique_key, new_ping_secret, unique_key
from carapace_cron.ledger.events import Event
from carapace_cron.ledger.monitors import Watched
from carapace_cron.ledger.watch_history import KeptPing, WatchHistory
from carapace_cron.ledger.watchlist import Change, Watchlist
from carapace_cron.model.actor import Actor
from carapace_cron.model.monitor import Flip, Monitor, MonitorPolicy
from carapace_cron.model.record import instant_text
from carapace_cron.monitors import status
from carapace_cron.monitors.alarm import acknowledged
from carapace_cron.ports.channel import ChannelRules
from carapace_cron.schedule import parse
from carapace_cron.schedule.errors import shown
from carapace_cron.schedule.zone import load_zone
from carapace_cron.services.access import may_see, require, user_of
from carapace_cron.services.monitor_drafts import (
    asked_on_ping,
    changed,
    definition,
    draft,
    patched,
    same_in,
)
from carapace_cron.services.paging import check_page
from carapace_cron.services.schedules import naming

MAX_PAGE = 1_000
MAX_PINGS = 1_000
LONGEST_SNOOZE = timedelta(days=366)


@dataclass(frozen=True, slots=True)
class Made:
    """A monitor that was asked for. Not `is_new`: it was there already."""

    watched: Watched
    is_new: bool


@dataclass(frozen=True, slots=True)
class Target:
    """Whom a ping to a slug is for. `created`: the ping made it."""

    monitor_id: str
    created: bool = False


@dataclass(frozen=True, slots=True)
class MonitorPage:
    """`next_cursor` asks for the page behind this one; None on the last."""

    items: Sequence[Watched]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class PingPage:
    """`next_cursor` asks for the page behind this one; None on the last."""

    items: Sequence[KeptPing]
    next_cursor: int | None


class MonitorDesk:
    """All methods raise `Refused` for what the caller can mend, and then have changed nothing; and
    `Unavailable` when the ledger is away."""

    def __init__(
        self,
        watchlist: Watchlist,
        history: WatchHistory,
        clock: Clock,
        *,
        channels: ChannelRules,
        max_monitors_per_tenant: int,
    ) -> None:
        self._watchlist = watchlist
        self._history = history
        self._clock = clock
        self._channels = channels
        self._most = max_monitors_per_tenant

    def now(self) -> datetime:
        """For doors: the instant at which what they show holds."""
        return self._clock.now()

    async def list(
        self, actor: Actor, user_id: str | None = None, *, tags: Sequence[str] = (), slug: str | None = None
    ) -> list[Watched]:
        """The monitors of a user, in the order of their creation; those that have all `tags`, and `slug`."""
        require(actor, "monitors:read")
        found = await self._watchlist.of_user(actor.tenant, user_of(actor, user_id))
        return [
            one
            for one in found
            if set(tags) <= set(one.monitor.tags) and slug in (None, one.monitor.slug)
        ]

    async def page(
        self,
        actor: Actor,
        user_id: str | None = None,
        *,
        tags: Sequence[str] = (),
        limit: int = MAX_PAGE,
        cursor: str | None = None,
    ) -> MonitorPage:
        """As `list`, at most `limit`; those behind the one whose unique key `cursor` is."""
        if not 1 <= limit <= MAX_PAGE:
            raise InvalidValue(f"bad limit {limit}: expected 1–{MAX_PAGE}", field="limit")
        found = await self.list(actor, user_id, tags=tags)
        behind = 0
        if cursor is not None:
            keys = [unique_key(one.monitor.id) for one in found]
            if cursor not in keys:
                raise InvalidValue("bad cursor: give the nextCursor of the page before", field="cursor")
            behind = keys.index(cursor) + 1
        items = found[behind : behind + limit]
        more = len(found) > behind + limit
        return MonitorPage(items, unique_key(items[-1].monitor.id) if more else None)

    async def get(self, actor: Actor, monitor_id: str) -> Watched:
        require(actor, "monitors:read")
        return await self._find(actor, monitor_id)

    async def create(
        self,
        actor: Actor,
        data: Any,
        user_id: str | None = None,
        *,
        unique: Sequence[str] = (),
        numbered: bool = False,
    ) -> Made:
        """Keep a new monitor. `data`: fields by their names on the wire (camelCase).

        `unique`: names of fields; where the user has a monitor with the same values in all of them, that one
        is answered as it is, and none is made. `numbered`: a slug that is taken gets a number instead of a
        `Conflict`.
        """
        require(actor, "monitors")
        user = user_of(actor, user_id)
        now = self._clock.now()
        policy = self._checked(actor.tenant, draft(data), now)
        monitor = _new(actor, user, policy, now)
        same = same_in(unique, policy) if unique else None
        watched, is_new = await self._add(actor, monitor, unless=same, numbered=numbered)
        return Made(watched, is_new)

    async def update(
        self, actor: Actor, monitor_id: str, updates: Any, *, if_revision: int | None = None
    ) -> Watched:
        """Change a definition by JSON Merge Patch (RFC 7396): null sets a field back to its default."""
        require(actor, "monitors")
        before = await self._find_own(actor, monitor_id)
        # What will not do is refused before the ledger is held up for it.
        self._checked(actor.tenant, draft(patched(before.monitor, updates)), self._clock.now())

        def change(one: Watched) -> Change:
            now = self._clock.now()
            if if_revision is not None and one.monitor.revision != if_revision:
                revision = f"revision {one.monitor.revision}, not {if_revision}"
                raise Conflict(f"the monitor is at {revision}: read it again", field="ifRevision")
            policy = self._checked(actor.tenant, draft(patched(one.monitor, updates)), now)
            return _redefinition(actor, one.monitor, definition(policy), now)

        return await self._change(before.monitor.id, change)

    async def pause(self, actor: Actor, monitor_id: str) -> Watched:
        """Nothing is expected of it until it is resumed. Pausing a paused one changes nothing."""
        require(actor, "monitors")
        return await self._switch(actor, monitor_id, _paused, "monitor.paused")

    async def resume(self, actor: Actor, monitor_id: str) -> Watched:
        """As new, until its next ping. Raises `Conflict` when it is not paused."""
        require(actor, "monitors")

        def resumed(one: Watched, now: datetime) -> status.After:
            if one.health.status != "paused":
                raise Conflict(f"the monitor is {one.shown(now)}, not paused: there is nothing to resume")
            return status.resumed(one.health, now)

        return await self._switch(actor, monitor_id, resumed, "monitor.resumed")

    async def delete(self, actor: Actor, monitor_id: str) -> Watched:
        """Gone with its history; as it was."""
        require(actor, "monitors")
        before = await self._find_own(actor, monitor_id)
        event = _event(actor, before.monitor, "monitor.deleted", before.monitor, None, self._clock.now())
        removed = await self._watchlist.remove(before.monitor.id, event)
        if removed is None:
            raise _none_such(monitor_id)
        return removed

    async def acknowledge(self, actor: Actor, monitor_id: str) -> Watched:
        """Somebody sees to it: no more reminders and failures of this incident are told, but its end is.

        Acknowledging it again changes nothing. Raises `Conflict` when there is no incident.
        """
        require(actor, "monitors")
        found = await self._find(actor, monitor_id)
        now = self._clock.now()

        def change(one: Watched) -> Change:
            if not one.alarm.is_down:
                raise Conflict(f"the monitor is {one.shown(now)}: there is no incident to acknowledge")
            if one.alarm.acknowledged_at is not None:
                return Change(now)
            event = _event(actor, one.monitor, "monitor.acknowledged", None, None, now)
            return Change(now, alarm=acknowledged(one.alarm, actor.user, now), event=event)

        return await self._change(found.monitor.id, change)

    async def snooze(self, actor: Actor, monitor_id: str, until: datetime | None) -> Watched:
        """Nobody is told anything before `until`; None ends a snooze. What still holds then is told then."""
        require(actor, "monitors")
        before = await self._find(actor, monitor_id)
        now = self._clock.now()
        if until is not None and not now < until <= now + LONGEST_SNOOZE:
            expected = f"expected an instant after {instant_text(now)}, at most a year ahead"
            raise InvalidValue(f"bad until {instant_text(until)}: {expected}", field="until")
        return await self._change(
            before.monitor.id,
            lambda one: _redefinition(actor, one.monitor, {"snoozed_until": until}, now, "monitor.snoozed"),
        )

    async def sign(self, actor: Actor, monitor_id: str, required: bool) -> str | None:
        """From now on only signed pings count; the secret that signs them, made anew. Not `required`: any
        ping counts again; None. Raises `Conflict` for one that follows a job: nobody else pings it."""
        require(actor, "monitors")
        before = await self._find_own(actor, monitor_id)
        secret = new_ping_secret() if required else None

        def change(one: Watched) -> Change:
            was_signed = one.monitor.ping_secret is not None
            change = _redefinition(actor, one.monitor, {"ping_secret": secret}, self._clock.now())
            if change.event is None:
                return change
            told = replace(change.event, before={"signed": was_signed}, after={"signed": required})
            return replace(change, event=told)

        await self._change(before.monitor.id, change)
        return secret

    async def pings(
        self, actor: Actor, monitor_id: str, *, limit: int = 50, cursor: int | None = None
    ) -> PingPage:
        """Newest first."""
        require(actor, "monitors:read")
        check_page(limit, cursor, most=MAX_PINGS)
        one = await self._find(actor, monitor_id)
        found = await self._history.pings(one.monitor.id, before=cursor, limit=limit + 1)
        return PingPage(found[:limit], found[limit - 1].n if len(found) > limit else None)

    async def ping_body(self, actor: Actor, monitor_id: str, n: int) -> bytes:
        """The body of a ping, as it was sent, up to the limit. Raises `NotFound`, also when it had none."""
        require(actor, "monitors:read")
        one = await self._find(actor, monitor_id)
        body = await self._history.ping_body(one.monitor.id, n) if 0 < n < 2**31 else None
        if not body:
            raise NotFound(f"ping {str(n)[:20]} has no body, or is not kept any more", field="n")
        return body

    async def flips(
        self, actor: Actor, monitor_id: str, *, since: datetime | None = None, until: datetime | None = None
    ) -> Sequence[Flip]:
        """Newest first; those from `since` on, before `until`."""
        require(actor, "monitors:read")
        one = await self._find(actor, monitor_id)
        return await self._history.flips(one.monitor.id, since=since, until=until)

    async def exists(self, monitor_id: str) -> bool:
        """Whether there is such a monitor, whosever. No actor: who knows the id may ping it."""
        return is_monitor_id(monitor_id) and await self._watchlist.get(monitor_id) is not None

    async def ping_target(
        self, actor: Actor, slug: str, *, create: bool = False, asked: Mapping[str, str] | None = None
    ) -> Target | None:
        """The monitor of the actor that has this slug; None when there is none and `create` is not asked.

        `asked`: the query parameters of a ping that creates, which say what the monitor is to be like (see
        `asked_on_ping`). However many ask at once, one monitor is made. Raises `InvalidValue` for a slug or
        parameter that is off, `QuotaExceeded`; then nothing was made.
        """
        require(actor, "ping")
        found = await self._watchlist.by_slug(actor.tenant, actor.user, slug)
        if found is not None:
            return Target(found.monitor.id)
        if not create:
            return None
        now = self._clock.now()
        policy = self._checked(actor.tenant, asked_on_ping(slug, asked or {}), now)
        try:
            watched, _ = await self._add(actor, _new(actor, actor.user, policy, now))
        except Conflict:  # another ping was quicker
            made = await self._watchlist.by_slug(actor.tenant, actor.user, slug)
            return None if made is None else Target(made.monitor.id)
        return Target(watched.monitor.id, created=True)

    async def _find(self, actor: Actor, monitor_id: str) -> Watched:
        """The monitor, if it exists for the caller. A foreign and an unknown id get the same answer. Its
        unique key will do, too."""
        one: Watched | None = None
        if is_monitor_id(monitor_id):
            one = await self._watchlist.get(monitor_id)
        elif is_unique_key(monitor_id):
            one = await self._watchlist.by_unique_key(monitor_id)
        if one is None or not may_see(actor, one.monitor.tenant, one.monitor.user_id):
            raise _none_such(monitor_id)
        return one

    async def _find_own(self, actor: Actor, monitor_id: str) -> Watched:
        """The monitor, if the caller may change it. Raises `Conflict` for one that follows a job."""
        one = await self._find(actor, monitor_id)
        if one.monitor.job_id is not None:
            message = f"this monitor follows the job {one.monitor.job_id}: change the job instead"
            raise Conflict(message, field="monitorId")
        return one

    def _checked(self, tenant: str, policy: MonitorPolicy, now: datetime) -> MonitorPolicy:
        """The policy, if each field of it will do. Raises `InvalidValue`, naming the first that will not."""
        _check_rhythm(policy, now)
        self._check_channels(policy.channels, tenant, "channels")
        for one in policy.reminders:
            self._check_channels(one.channels, tenant, "reminders")
        return policy

    def _check_channels(self, channel_ids: Sequence[str], tenant: str, field: str) -> None:
        for channel_id in channel_ids:
            try:
                self._channels.check(channel_id, tenant)
            except InvalidValue as error:
                raise InvalidValue(str(error), field=field) from error

    async def _add(
        self,
        actor: Actor,
        monitor: Monitor,
        unless: Callable[[Monitor], bool] | None = None,
        numbered: bool = False,
    ) -> tuple[Watched, bool]:
        event = _event(actor, monitor, "monitor.created", None, monitor, monitor.created_at)
        return await self._watchlist.add(monitor, event, most=self._most, unless=unless, numbered=numbered)

    async def _switch(
        self, actor: Actor, monitor_id: str, turn: Callable[[Watched, datetime], status.After], action: str
    ) -> Watched:
        now = self._clock.now()

        def change(one: Watched) -> Change:
            after = turn(one, now)
            event = None if after.flip is None else _event(actor, one.monitor, action, None, None, now)
            return Change(now, after=after, event=event)

        found = await self._find_own(actor, monitor_id)
        return await self._change(found.monitor.id, change)

    async def _change(self, monitor_id: str, decide: Callable[[Watched], Change]) -> Watched:
        changed = await self._watchlist.change(monitor_id, decide)
        if changed is None:  # deleted meanwhile
            raise _none_such(monitor_id)
        return changed


def _check_rhythm(policy: MonitorPolicy, now: datetime) -> None:
    if policy.schedule is None:
        load_zone(policy.timezone)
        return
    with naming("schedule"):
        schedule = parse(policy.schedule, policy.timezone, anchor=now)
    if schedule.next_after(now) is None:
        message = f'bad schedule "{shown(policy.schedule)}": never due after {instant_text(now)}'
        raise InvalidValue(f"{message}; expected a later instant", field="schedule")


def _new(actor: Actor, user: str, policy: MonitorPolicy, now: datetime) -> Monitor:
    return Monitor(
        **definition(policy),
        id=str(uuid.uuid4()),
        tenant=actor.tenant,
        user_id=user,
        created_at=now,
        updated_at=now,
        updated_by=actor.user,
    )


def _redefinition(
    actor: Actor,
    before: Monitor,
    values: Mapping[str, Any],
    now: datetime,
    action: str = "monitor.updated",
) -> Change:
    if all(getattr(before, name) == value for name, value in values.items()):
        return Change(now)
    revision = before.revision + 1
    after = before.evolve(**values, revision=revision, updated_at=now, updated_by=actor.user)
    event = _event(actor, after, action, before, after, now)
    return Change(now, monitor=after, event=event)


def _event(
    actor: Actor,
    monitor: Monitor,
    action: str,
    before: Monitor | None,
    after: Monitor | None,
    now: datetime,
) -> Event:
    old, new = changed(before, after)
    return Event(
        at=now,
        tenant=monitor.tenant,
        user_id=monitor.user_id,
        actor=actor.user,
        action=action,
        subject=monitor.id,
        before=old or None,
        after=new or None,
    )


def _paused(one: Watched, now: datetime) -> status.After:
    return status.paused(one.health, now)


def _none_such(monitor_id: str) -> NotFound:
    message = f'no monitor "{shown(monitor_id)}": list your monitors to see their ids'
    return NotFound(message, field="monitorId")
