"""What a ping, or silence, makes of a monitor: decided here, from its record and the clock; kept elsewhere.

    ping                  expected       deadline
      │──── period ──────────│──── grace ────│
      up                    late            down, dated at the deadline

The machine contains that of Healthchecks (its models.py, ``Check.ping`` and ``get_status``, 2026-08). Where
ours differs: every run that began is watched by its id, not only the newest; a run may have a longest time
of its own, and signs of life that move its deadline, and then a start ends the wait for the next ping;
silence goes on to count as failures until there are enough of them for an alert.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal, Protocol

from carapace_cron.model.monitor import (
    Flip,
    Health,
    Monitor,
    OpenRun,
    Ping,
    PingKind,
    Shown,
    Status,
)

Failure = Literal["fail", "timeout", "run"]
"""A ping said so; no ping came in time; a run did not end in time."""

DEFAULT_PERIOD = timedelta(days=1)
REMEMBERED_ENDS = 50
MOST_OPEN_RUNS = 100  # of one monitor; the oldest is no longer watched when one more begins
LONGEST_RUN = timedelta(hours=72)  # an end later than that is not taken for the end of that start


class Due(Protocol):
    """The part of a schedule that this needs."""

    def next_after(self, instant: datetime) -> datetime | None: ...


@dataclass(frozen=True, slots=True)
class After:
    """What became of a monitor at `at`. `kind`: what the ping meant after all; None: no ping, time passed.

    `failure`: why one more failure was counted; None: none was.
    """

    health: Health
    at: datetime
    flip: Flip | None = None
    kind: PingKind | None = None
    duration_ms: int | None = None  # of the run that ended
    failure: Failure | None = None


_AWAITING = ("up", "new")  # of a new one, only if it is our own job's: nobody else has promised anything


def expected_at(monitor: Monitor, health: Health, due: Due | None) -> datetime | None:
    """When the next ping is due; None when none is. `due`: the parsed schedule; None: the period counts."""
    return _awaited(monitor, health, due) if health.status in _AWAITING else None


def shown(monitor: Monitor, health: Health, due: Due | None, now: datetime) -> Shown:
    """The status as it is at `now`, whether or not somebody has written it down yet."""
    if health.status == "down" or (health.deadline is not None and health.deadline <= now):
        return "down"
    return "late" if is_late(monitor, health, due, now) else health.status


def is_late(monitor: Monitor, health: Health, due: Due | None, now: datetime) -> bool:
    """Whether a ping is due and in its grace. A run that is given its own time has begun in time."""
    expected = None if _at_work(monitor, health) else expected_at(monitor, health, due)
    return expected is not None and expected <= now


def failing(monitor: Monitor, health: Health) -> bool:
    """Whether there were as many failures as it takes for an alert, in a row or by their rate."""
    if monitor.failure_rate is None:
        return health.failures_in_row >= monitor.failures_before_alert
    return health.ends[-monitor.failure_rate.of :].count("f") >= monitor.failure_rate.failures


def pinged(monitor: Monitor, before: Health, due: Due | None, ping: Ping) -> After:
    """What one ping makes of a monitor. Silence until then has been judged by `silence` already."""
    kind = _meaning(monitor, before, ping)
    counted = replace(before, pings=before.pings + 1)
    match kind:
        case "start":
            after = After(replace(counted, runs=_begun(before.runs, ping)), ping.at, kind=kind)
        case "success" | "fail":
            after = _ended(monitor, counted, due, ping, kind)
        case "log":
            after = After(_noted(monitor, counted, ping), ping.at, kind=kind)
        case _:
            return After(counted, ping.at, kind="ign")
    health = after.health if monitor.job_id is None else _answered(before, after.health, ping)
    return replace(after, health=_with_deadline(monitor, health, due))


def silence(monitor: Monitor, before: Health, due: Due | None, now: datetime) -> Iterator[After]:
    """What the time until `now` makes of a monitor: each deadline that has passed is a failure, and the
    first of them makes it down. There is an end to them: enough for an alert, and no run left to wait for."""
    health = before
    while health.deadline is not None and health.deadline <= now:
        after = _overrun(monitor, health, due, health.deadline)
        health = after.health
        yield after


def paused(before: Health, now: datetime) -> After:
    """Somebody asked: nothing is expected any more, nor of a run that began in a pause."""
    after = replace(before, status="paused", runs=(), deadline=None, expected_after=None)
    flip = None if before.status == "paused" else Flip(now, before.status, "paused", "pause")
    return After(after, now, flip)


def resumed(before: Health, now: datetime) -> After:
    """Somebody asked: as new, until the next ping."""
    if before.status != "paused":
        return After(before, now)
    after = replace(
        before,
        status="new",
        last_ping_at=None,
        expected_after=None,
        runs=(),
        deadline=None,
        failures_in_row=0,
        ends="",
    )
    return After(after, now, Flip(now, "paused", "new", "resume"))


def awaiting(monitor: Monitor, before: Health, due: Due | None, since: datetime | None) -> Health:
    """Of our own job: its instants after `since` are awaited, whether or not it ever ran; None: none are."""
    after = None if since is None else max(since, before.expected_after or since)
    return _with_deadline(monitor, replace(before, expected_after=after), due)


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


def _noted(monitor: Monitor, before: Health, ping: Ping) -> Health:
    """A note: a sign of life, or word that the run is given up."""
    if not ping.gives_up:
        return replace(before, runs=_alive(monitor, before.runs, ping))
    return replace(before, runs=tuple(run for run in before.runs if run.rid != ping.rid))


def _answered(before: Health, after: Health, ping: Ping) -> Health:
    """Our own job says which instant it answers, if any are awaited; whoever else pings, answers all that
    were due until then."""
    awaited = before.expected_after
    if awaited is not None and ping.due_at is not None:
        awaited = max(awaited, ping.due_at)
    return replace(after, expected_after=awaited)


def _begun(runs: tuple[OpenRun, ...], ping: Ping) -> tuple[OpenRun, ...]:
    """A second start of the same run starts its clock anew."""
    others = tuple(run for run in runs if run.rid != ping.rid)
    return (*others, OpenRun(ping.rid, ping.at, ping.at))[-MOST_OPEN_RUNS:]


def _alive(monitor: Monitor, runs: tuple[OpenRun, ...], ping: Ping) -> tuple[OpenRun, ...]:
    """A sign of life; a run that was overdue for want of one is watched again."""
    heard = (replace(run, sign_at=ping.at) if run.rid == ping.rid else run for run in runs)
    return tuple(
        replace(run, overdue=_run_deadline(monitor, run) <= ping.at) if run.rid == ping.rid else run
        for run in heard
    )


def _ended(monitor: Monitor, before: Health, due: Due | None, ping: Ping, kind: PingKind) -> After:
    begun = next((run for run in before.runs if run.rid == ping.rid), None)
    duration_ms = _duration_ms(begun, ping)
    # Without an id nobody can tell which run has ended: none is taken to be at work any more.
    runs = tuple(run for run in before.runs if run.rid != ping.rid) if ping.rid else ()
    failed = kind == "fail" and not _counted(monitor, before, due, begun, ping)
    status: Status = "down" if kind == "fail" else "up"
    in_row, ends = 0, _one_more(before.ends, "s")
    if kind == "fail":
        in_row, ends = before.failures_in_row + failed, _one_more(before.ends, "f" if failed else "")
    health = replace(
        before,
        status=status,
        last_ping_at=ping.at,
        last_duration_ms=duration_ms,
        expected_after=ping.at,
        runs=runs,
        failures_in_row=in_row,
        ends=ends,
    )
    flip = None
    if status != before.status:
        flip = Flip(ping.at, before.status, status, "fail" if kind == "fail" else "ping")
    return After(health, ping.at, flip, kind, duration_ms, "fail" if failed else None)


def _duration_ms(begun: OpenRun | None, ping: Ping) -> int | None:
    if ping.took_ms is not None:
        return ping.took_ms
    took = None if begun is None else ping.at - begun.started_at
    return None if took is None or took > LONGEST_RUN else max(took // timedelta(milliseconds=1), 0)


def _counted(monitor: Monitor, before: Health, due: Due | None, begun: OpenRun | None, ping: Ping) -> bool:
    """Whether the run that this failure ends was counted as one already: it took too long, or silence was
    heard in its place."""
    if before.status != "down" or before.failures_in_row == 0:
        return False
    if begun is not None:
        return begun.overdue
    if monitor.job_id is not None:
        heard = before.expected_after
        return ping.due_at is not None and heard is not None and ping.due_at <= heard
    if before.expected_after is None or before.expected_after == before.last_ping_at:
        return False
    following = _awaited(monitor, before, due)
    return following is None or ping.at < following


def _overrun(monitor: Monitor, before: Health, due: Due | None, at: datetime) -> After:
    """A deadline has passed: of runs, else of the next ping."""
    runs = tuple(
        replace(run, overdue=run.overdue or _run_deadline(monitor, run) <= at) for run in before.runs
    )
    reason: Failure = "run" if runs != before.runs else "timeout"
    health = replace(
        before,
        status="down",
        runs=runs,
        expected_after=_after_run(monitor, before, at) if reason == "run" else _awaited(monitor, before, due),
        failures_in_row=before.failures_in_row + 1,
        ends=_one_more(before.ends, "f"),
    )
    flip = None if before.status == "down" else Flip(at, before.status, "down", reason)
    return After(_with_deadline(monitor, health, due), at, flip, failure=reason)


def _after_run(monitor: Monitor, before: Health, at: datetime) -> datetime | None:
    """Since when a ping is awaited once a run took too long: from then on, if none was while it worked."""
    if monitor.job_id is not None and before.expected_after is None:
        return None
    if before.expected_after is None or _at_work(monitor, before):
        return at
    return before.expected_after


def _one_more(ends: str, end: str) -> str:
    return (ends + end)[-REMEMBERED_ENDS:]


def _with_deadline(monitor: Monitor, health: Health, due: Due | None) -> Health:
    """When something is over: the time of the next ping, or of a run that has begun."""
    ends = [_run_deadline(monitor, run) for run in health.runs if not run.overdue]
    is_awaited = health.status in _AWAITING or (health.status == "down" and not failing(monitor, health))
    expected = _awaited(monitor, health, due) if is_awaited and not _at_work(monitor, health) else None
    if expected is not None:
        ends.append(expected + timedelta(seconds=monitor.grace_seconds))
    return replace(health, deadline=min(ends, default=None))


def _awaited(monitor: Monitor, health: Health, due: Due | None) -> datetime | None:
    if health.expected_after is None:
        return None
    if due is not None:
        return due.next_after(health.expected_after)
    period = DEFAULT_PERIOD if monitor.period_seconds is None else timedelta(seconds=monitor.period_seconds)
    return health.expected_after + period


def _at_work(monitor: Monitor, health: Health) -> bool:
    """Whether a run is at work that is given its own time: then no ping is awaited but those of the run."""
    own_time = monitor.max_run_seconds is not None or monitor.heartbeat_seconds is not None
    return own_time and health.started


def _run_deadline(monitor: Monitor, run: OpenRun) -> datetime:
    longest = monitor.grace_seconds if monitor.max_run_seconds is None else monitor.max_run_seconds
    ends = run.started_at + timedelta(seconds=longest)
    if monitor.heartbeat_seconds is None:
        return ends
    sign = run.sign_at + timedelta(seconds=monitor.heartbeat_seconds)
    return sign if monitor.max_run_seconds is None else min(ends, sign)
