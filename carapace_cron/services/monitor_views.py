"""What callers see of monitors, their pings and their flips."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from carapace_cron.ids import unique_key
from carapace_cron.ledger.monitors import Watched
from carapace_cron.ledger.watch_history import KeptPing
from carapace_cron.model.actor import Actor
from carapace_cron.model.monitor import Flip, Health
from carapace_cron.model.record import instant_text
from carapace_cron.monitors.alarm import Alarm
from carapace_cron.services.access import name_for

_KEPT_BACK = {"tenant", "ping_secret"}
_FIRST = ("id", "userId", "name", "slug")


def monitor_view(actor: Actor, one: Watched, now: datetime) -> dict[str, Any]:
    """A monitor on the wire, as it is at `now`. What is not set is left out."""
    fields = one.monitor.model_dump(mode="json", by_alias=True, exclude_none=True, exclude=_KEPT_BACK)
    fields["id"] = name_for(actor, one.monitor.id)
    fields["dependsOn"] = [name_for(actor, parent_id) for parent_id in one.monitor.depends_on]
    if one.monitor.ping_secret is not None:
        fields["signed"] = True
    view = {name: fields.pop(name) for name in _FIRST} | fields
    health = one.health
    view |= {"status": one.shown(now), "started": health.started, "pings": health.pings}
    instants = {
        "lastPingAt": health.last_ping_at,
        "expectedAt": one.expected_at,
        "deadlineAt": health.deadline,
    }
    view |= {name: instant_text(at) for name, at in instants.items() if at is not None}
    if health.last_duration_ms is not None:
        view["lastDurationMs"] = health.last_duration_ms
    view["failuresInRow"] = health.failures_in_row
    view["openRuns"] = _open_runs(health)
    if one.alarm.incident:
        view["incident"] = _incident(one.monitor.id, one.alarm)
    return view


def _open_runs(health: Health) -> list[dict[str, Any]]:
    return [
        {
            "rid": run.rid,
            "startedAt": instant_text(run.started_at),
            "lastSignAt": instant_text(run.sign_at),
            "overdue": run.overdue,
        }
        for run in health.runs
    ]


def _incident(monitor_id: str, alarm: Alarm) -> dict[str, Any]:
    """The incident that is not over. `told`: the gravest that was told of it, empty = nothing yet."""
    view: dict[str, Any] = {"id": f"{unique_key(monitor_id)}.{alarm.incident}", "told": alarm.told}
    instants = {"since": alarm.since, "toldAt": alarm.told_at, "acknowledgedAt": alarm.acknowledged_at}
    view |= {name: instant_text(at) for name, at in instants.items() if at is not None}
    return view if alarm.acknowledged_by is None else view | {"acknowledgedBy": alarm.acknowledged_by}


def ping_view(ping: KeptPing) -> dict[str, Any]:
    """A ping on the wire: every name is there, null where there is nothing to say."""
    return {
        "n": ping.n,
        "at": instant_text(ping.at),
        "kind": ping.kind,
        "rid": ping.rid,
        "exitStatus": ping.exit_status,
        "durationMs": ping.duration_ms,
        "scheme": ping.scheme,
        "method": ping.method,
        "remoteAddress": ping.remote_address,
        "userAgent": ping.user_agent,
        "bodyBytes": ping.body_bytes,
    }


def flip_view(flip: Flip) -> dict[str, Any]:
    return {"at": instant_text(flip.at), "before": flip.before, "after": flip.after, "reason": flip.reason}
