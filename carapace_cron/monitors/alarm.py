"""Who is to be told what of a monitor, and when: decided here, apart from its health.

An incident begins when there are enough failures for an alert, or earlier with a late ping that was told; it
ends when the monitor is well. What people have heard of it is kept beside what is the case, and `consider`
brings the two together: at once, or when what mutes the alarm is over. So a mute can lose nothing and repeat
nothing; failures within an incident belong to it, and its end is told once.

    failure   failure            success
       │── incident ────────────────│
      down     (failure)  reminder  up

| while | is held back |
|---|---|
| snoozed, in maintenance, or a monitor that it depends on is down | everything |
| in quiet hours | `late` and reminders |
| acknowledged | reminders and `failure` |
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol

from carapace_cron.model.monitor import Health, Monitor, MonitorEvent
from carapace_cron.monitors.status import After, Due, expected_at, failing, is_late

MOST_MUTES = 100  # snoozes and windows in a row that are looked through for the end of a mute

SayingEvent = Literal[MonitorEvent, "reminder"]


class Windows(Protocol):
    """The part of a calendar that this needs; whole Unix seconds."""

    def excluded_until(self, at: int) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Alarm:
    """What people have heard of a monitor. As made: nothing, and there is nothing to hear."""

    incident: str = ""  # the name of the incident, of which there is one more each time; empty: there is none
    since: datetime | None = None  # when it began
    is_down: bool = False  # there were enough failures for an alert, and it is not well since
    down_at: datetime | None = None  # when it came to that; after a `late` that is not `since`
    told: Literal["", "late", "down"] = ""  # the gravest that they have heard of this incident
    told_at: datetime | None = None  # when they heard of the down; reminders count from it
    reminded_at: datetime | None = None  # reminders due until then were said, or fell into the time before
    acknowledged_at: datetime | None = None
    acknowledged_by: str | None = None
    too_often: bool = False  # the last end came too soon, and that was told


AT_REST = Alarm()


@dataclass(frozen=True, slots=True)
class Saying:
    """One thing to be told, to each of `channels`. `at`: when it happened; `since`: when the incident did."""

    event: SayingEvent
    at: datetime
    incident: str
    since: datetime
    channels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`look_at`: when something happens by itself; None: nothing will."""

    alarm: Alarm
    said: tuple[Saying, ...]
    look_at: datetime | None


@dataclass(frozen=True, slots=True)
class Case:
    """A monitor as the alarm sees it, at one instant."""

    monitor: Monitor
    health: Health
    due: Due | None
    now: datetime
    parent_is_down: bool = False
    maintenance: Windows | None = None
    quiet: Windows | None = None


def consider(case: Case, alarm: Alarm, before: Health | None = None, after: After | None = None) -> Verdict:
    """What is to be told now, and when to look again. `after`: what just became of the monitor, whose health
    was `before`; None: time passed, a definition changed, or what muted the alarm is over."""
    noted = _noted(case, alarm, after)
    muted_until = _muted_until(case)
    if case.parent_is_down or muted_until is not None:
        return Verdict(noted, (), _first(case.health.deadline, muted_until))
    said: list[Saying] = []
    told = _reconciled(case, noted, said)
    if before is not None and after is not None:
        told = _with_too_often(case, told, before, after, said)
        _say_failure(case, told, after, said)
    look_at = _first(case.health.deadline, _late_at(case, told), _remind_at(case, told))
    return Verdict(told, tuple(said), look_at)


def acknowledged(alarm: Alarm, by: str, now: datetime) -> Alarm:
    """Somebody sees to the incident."""
    return replace(alarm, acknowledged_at=now, acknowledged_by=by)


def _noted(case: Case, alarm: Alarm, after: After | None) -> Alarm:
    """The incident as it is now, whatever people heard of it."""
    if after is not None and after.flip is not None and after.flip.reason in ("pause", "resume"):
        return AT_REST
    if alarm.is_down and _is_well(case):
        over = replace(alarm, is_down=False)
        return over if alarm.told else replace(AT_REST, too_often=alarm.too_often)
    if not alarm.is_down and case.health.status == "down" and failing(case.monitor, case.health):
        at = case.now if after is None else after.at
        return replace(_begun(case, alarm, at), is_down=True, down_at=at)
    return alarm


def _begun(case: Case, alarm: Alarm, at: datetime) -> Alarm:
    """With an incident, which began `at` if it did not before. Two pings may come at one instant: so their
    number is in its name."""
    if alarm.incident:
        return alarm
    return replace(alarm, incident=f"{int(at.timestamp() * 1_000_000)}.{case.health.pings}", since=at)


def _is_well(case: Case) -> bool:
    """Up, and if the alert is by rate, below it: else the next failure would begin another incident."""
    below = case.monitor.failure_rate is None or not failing(case.monitor, case.health)
    return case.health.status == "up" and below


def _reconciled(case: Case, alarm: Alarm, said: list[Saying]) -> Alarm:
    """Nothing mutes the alarm: let people hear what is the case."""
    late = is_late(case.monitor, case.health, case.due, case.now)
    if alarm.is_down and alarm.told != "down":
        _say(case, alarm, said, "down", alarm.down_at or alarm.since)
        return replace(alarm, told="down", told_at=case.now)
    if alarm.is_down:
        return _reminded(case, alarm, said)
    if alarm.told and case.health.status == "up" and not late:
        _say(case, alarm, said, "up", _well_at(case, alarm))
        return replace(AT_REST, too_often=alarm.too_often)
    expected = expected_at(case.monitor, case.health, case.due)
    wanted = "late" in case.monitor.notify and _quiet_until(case, case.now) is None
    if late and expected is not None and not alarm.told and wanted:
        begun = _begun(case, alarm, expected)
        _say(case, begun, said, "late", expected)
        return replace(begun, told="late")
    return alarm


def _well_at(case: Case, alarm: Alarm) -> datetime:
    """When the incident ended: with the ping since then, or now, with a definition that has changed."""
    last = case.health.last_ping_at
    return case.now if last is None or (alarm.since is not None and last < alarm.since) else last


def _reminded(case: Case, alarm: Alarm, said: list[Saying]) -> Alarm:
    """Those whose reminder is due, all in one saying."""
    if alarm.acknowledged_at is not None or _quiet_until(case, case.now) is not None:
        return alarm
    channels = [channels for at, channels in _reminders(case, alarm) if at <= case.now]
    if not channels:
        return alarm
    each_once = dict.fromkeys(channel for some in channels for channel in some)
    said.append(Saying("reminder", case.now, alarm.incident, alarm.since or case.now, tuple(each_once)))
    return replace(alarm, reminded_at=case.now)


def _reminders(case: Case, alarm: Alarm) -> Iterator[tuple[datetime, tuple[str, ...]]]:
    """When each reminder is next due, and to whom. The end of a snooze reminds, too."""
    if alarm.told_at is None:
        return
    until = max(alarm.told_at, alarm.reminded_at or alarm.told_at)
    for one in case.monitor.reminders:
        every = timedelta(seconds=one.every_seconds)
        passed = (until - alarm.told_at) // every
        yield alarm.told_at + every * (passed + 1), one.channels or case.monitor.channels
    snoozed = case.monitor.snoozed_until
    if snoozed is not None and snoozed > until:
        yield snoozed, case.monitor.channels


def _with_too_often(case: Case, alarm: Alarm, before: Health, after: After, said: list[Saying]) -> Alarm:
    """Of ends that come too soon after one another, the first is told."""
    least = case.monitor.min_interval_seconds
    if least is None or after.kind not in ("success", "fail") or before.last_ping_at is None:
        return alarm
    too_soon = after.at - before.last_ping_at < timedelta(seconds=least)
    if too_soon and not alarm.too_often:
        _say(case, alarm, said, "tooOften", after.at)
    return replace(alarm, too_often=too_soon)


def _say_failure(case: Case, alarm: Alarm, after: After, said: list[Saying]) -> None:
    """Each failure but the one that is told as down already."""
    is_news = after.failure is not None and alarm.acknowledged_at is None
    if is_news and not any(one.event == "down" for one in said):
        _say(case, alarm, said, "failure", after.at)


def _say(case: Case, alarm: Alarm, said: list[Saying], event: MonitorEvent, at: datetime | None) -> None:
    """If it is asked for. What belongs to no incident has no end that could be told: so all of its kind is
    one, and a service that opens something for each incident opens one, not one each time."""
    if event in case.monitor.notify:
        happened, incident = at or case.now, alarm.incident or event
        said.append(Saying(event, happened, incident, alarm.since or happened, case.monitor.channels))


def _late_at(case: Case, alarm: Alarm) -> datetime | None:
    """When it is to be told that the ping is late."""
    expected = expected_at(case.monitor, case.health, case.due)
    if "late" not in case.monitor.notify or alarm.told or alarm.is_down or expected is None:
        return None
    if expected > case.now:
        return expected
    late = is_late(case.monitor, case.health, case.due, case.now)
    return _quiet_until(case, case.now) if late else None


def _remind_at(case: Case, alarm: Alarm) -> datetime | None:
    if not alarm.is_down or alarm.acknowledged_at is not None:
        return None
    due = min((at for at, _ in _reminders(case, alarm)), default=None)
    if due is None:
        return None
    at = max(due, case.now)
    return _quiet_until(case, at) or at


def _muted_until(case: Case) -> datetime | None:
    """When snooze and maintenance are over; None when there is neither."""
    at = case.now
    for _ in range(MOST_MUTES):
        later = _excluded_until(case.maintenance, at)
        if case.monitor.snoozed_until is not None and case.monitor.snoozed_until > at:
            later = case.monitor.snoozed_until
        if later is None:
            break
        at = later
    return at if at > case.now else None


def _quiet_until(case: Case, at: datetime) -> datetime | None:
    """When the quiet hours that `at` lies in are over; None when it lies in none."""
    return _excluded_until(case.quiet, at)


def _excluded_until(windows: Windows | None, at: datetime) -> datetime | None:
    until = None if windows is None else windows.excluded_until(int(at.timestamp()))
    return None if until is None else datetime.fromtimestamp(until, UTC)


def _first(*instants: datetime | None) -> datetime | None:
    return min((instant for instant in instants if instant is not None), default=None)
