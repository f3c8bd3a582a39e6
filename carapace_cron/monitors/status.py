"""What a ping, or silence, makes of a monitor: decided here, from its record and the clock; kept elsewhere.

    ping                  expected       deadline
      │──── period ──────────│──── grace ────│
      up                    late            down, dated at the deadline

The machine contains that of Healthchecks (its models.py, ``Check.ping`` and ``get_status``, 2026-08). Where
ours differs: every run that began is watched by its id, not only the newest; a run may have a longest time
of its own, and signs of life that move its deadline.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from carapace_cron.model.monitor import (
    Flip,
    FlipReason,
    Health,
    Monitor,
    OpenRun,
    Ping,
    PingKind,
    Shown,
    Status,
)

DEFAULT_PERIOD = timedelta(days=1)
REMEMBERED_ENDS = 50
MOST_OPEN_RUNS = 100  # of one monitor; the oldest is no longer watched when one more begins
LONGEST_RUN = timedelta(hours=72)  # an end later than that is not taken for the end of that start


class Due(Protocol):
    """The part of a schedule that this needs."""

    def next_after(self, instant: datetime) -> datetime | None: ...


@dataclass(frozen=True, slots=True)
class After:
    """What became of a monitor. `kind`: what the ping meant after all; None: no ping, time passed."""

    health: Health
    flip: Flip | None = None
    kind: PingKind | None = None
    duration_ms: int | None = None  # of the run that ended


def expected_at(monitor: Monitor, health: Health, due: Due | None) -> datetime | None:
    """When the next ping is due; None when none is. `due`: the parsed schedule; None: the period counts."""
    if health.status != "up" or health.last_ping_at is None:
        return None
    if due is not None:
        return due.next_after(health.last_ping_at)
    period = DEFAULT_PERIOD if monitor.period_seconds is None else timedelta(seconds=monitor.period_seconds)
    return health.last_ping_at + period


def shown(monitor: Monitor, health: Health, due: Due | None, now: datetime) -> Shown:
    """The status as it is at `now`, whether or not somebody has written it down yet."""
    if health.status in ("up", "new", "paused") and health.deadline is not None and health.deadline <= now:
        return "down"
    expected = expected_at(monitor, health, due)
    return "late" if expected is not None and expected <= now else health.status


def pinged(monitor: Monitor, before: Health, due: Due | None, ping: Ping) -> After:
    """What one ping makes of a monitor. Silence until then has been judged by `passed` already."""
    kind = _meaning(monitor, before, ping)
    counted = replace(before, pings=before.pings + 1)
    match kind:
        case "start":
            after = After(replace(counted, runs=_begun(before.runs, ping)), kind=kind)
        case "success" | "fail":
            after = _ended(counted, ping, kind)
        case "log":
            after = After(replace(counted, runs=_alive(before.runs, ping)), kind=kind)
        case _:
            return After(counted, kind="ign")
    return replace(after, health=_with_deadline(monitor, after.health, due))


def passed(monitor: Monitor, before: Health, due: Due | None, now: datetime) -> After:
    """What the time until `now` makes of a monitor: nothing, or down, dated at the deadline."""
    if before.deadline is None or before.deadline > now or before.status == "down":
        return After(before)
    at = before.deadline
    runs = tuple(replace(run, overdue=_run_deadline(monitor, run) <= at) for run in before.runs)
    reason: FlipReason = "run" if runs != before.runs else "timeout"
    down = replace(
        before,
        status="down",
        runs=runs,
        failures_in_row=before.failures_in_row + 1,
        ends=(before.ends + "f")[-REMEMBERED_ENDS:],
    )
    return After(_with_deadline(monitor, down, due), Flip(at, before.status, "down", reason))


def paused(before: Health, now: datetime) -> After:
    """Somebody asked: nothing is expected any more."""
    if before.status == "paused":
        return After(before)
    after = replace(before, status="paused", runs=(), deadline=None)
    return After(after, Flip(now, before.status, "paused", "pause"))


def resumed(before: Health, now: datetime) -> After:
    """Somebody asked: as new, until the next ping."""
    if before.status != "paused":
        return After(before)
    after = replace(before, status="new", last_ping_at=None, runs=(), deadline=None, failures_in_row=0)
    return After(after, Flip(now, "paused", "new", "resume"))


def redefined(monitor: Monitor, before: Health, due: Due | None) -> Health:
    """The health under a definition that has changed: its deadline is another."""
    return _with_deadline(monitor, before, due)


def _meaning(monitor: Monitor, before: Health, ping: Ping) -> PingKind:
    if before.status == "paused" and monitor.manual_resume:
        return "ign"
    if monitor.post_only and ping.method != "POST":
        return "ign"
    if not monitor.filter_body or ping.said == "log":
        return ping.said
    text = ping.body.decode("utf-8", "replace")
    keywords: tuple[tuple[str, PingKind], ...] = (
        (monitor.failure_keywords, "fail"),
        (monitor.success_keywords, "success"),
        (monitor.start_keywords, "start"),
    )
    for words, kind in keywords:
        if any(word.strip() in text for word in words.split(",") if word.strip()):
            return kind
    return "fail" if monitor.fail_by_default else "ign"


def _begun(runs: tuple[OpenRun, ...], ping: Ping) -> tuple[OpenRun, ...]:
    """A second start of the same run starts its clock anew."""
    others = tuple(run for run in runs if run.rid != ping.rid)
    return (*others, OpenRun(ping.rid, ping.at, ping.at))[-MOST_OPEN_RUNS:]


def _alive(runs: tuple[OpenRun, ...], ping: Ping) -> tuple[OpenRun, ...]:
    return tuple(replace(run, sign_at=ping.at) if run.rid == ping.rid else run for run in runs)


def _ended(before: Health, ping: Ping, kind: PingKind) -> After:
    begun = next((run for run in before.runs if run.rid == ping.rid), None)
    took = None if begun is None else ping.at - begun.started_at
    duration_ms = None if took is None or took > LONGEST_RUN else max(took // timedelta(milliseconds=1), 0)
    # Without an id nobody can tell which run has ended: none is taken to be at work any more.
    runs = tuple(run for run in before.runs if run.rid != ping.rid) if ping.rid else ()
    failed = kind == "fail"
    status: Status = "down" if failed else "up"
    health = replace(
        before,
        status=status,
        last_ping_at=ping.at,
        last_duration_ms=duration_ms,
        runs=runs,
        failures_in_row=before.failures_in_row + 1 if failed else 0,
        ends=(before.ends + ("f" if failed else "s"))[-REMEMBERED_ENDS:],
    )
    flip = None
    if status != before.status:
        flip = Flip(ping.at, before.status, status, "fail" if failed else "ping")
    return After(health, flip, kind, duration_ms)


def _with_deadline(monitor: Monitor, health: Health, due: Due | None) -> Health:
    """When silence makes it down: the first of its own deadline and those of the runs that have begun."""
    if health.status == "down":
        return replace(health, deadline=None)
    ends = [_run_deadline(monitor, run) for run in health.runs if not run.overdue]
    expected = expected_at(monitor, health, due)
    if expected is not None:
        ends.append(expected + timedelta(seconds=monitor.grace_seconds))
    return replace(health, deadline=min(ends, default=None))


def _run_deadline(monitor: Monitor, run: OpenRun) -> datetime:
    longest = monitor.grace_seconds if monitor.max_run_seconds is None else monitor.max_run_seconds
    ends = run.started_at + timedelta(seconds=longest)
    if monitor.heartbeat_seconds is None:
        return ends
    sign = run.sign_at + timedelta(seconds=monitor.heartbeat_seconds)
    return sign if monitor.max_run_seconds is None else min(ends, sign)
