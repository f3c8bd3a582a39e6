"""A monitor on a day of its own: its health is told by pings and by time, as the ledger would."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from carapace_cron.model.monitor import Flip, Health, Monitor, Ping, PingKind, Shown
from carapace_cron.monitors import status
from carapace_cron.schedule import Schedule, parse

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
RID = "0a1b2c3d-0000-4000-8000-000000000001"
OTHER_RID = "0a1b2c3d-0000-4000-8000-000000000002"


def a_monitor(**fields: Any) -> Monitor:
    """Every hour, with ten minutes of grace."""
    given: dict[str, Any] = {
        "id": "7e3f0000-0000-4000-8000-0000000000aa",
        "tenant": "acme",
        "user_id": "alice",
        "name": "Backup",
        "grace_seconds": 600,
        "channels": ("ops",),
        "created_at": NOON,
        "updated_at": NOON,
    }
    rhythm = {} if "schedule" in fields else {"period_seconds": 3600}
    return Monitor.model_validate(given | rhythm | fields)


class Day:
    """One monitor. `at` is minutes after noon wherever it is a number."""

    def __init__(self, **fields: Any) -> None:
        self.monitor = a_monitor(**fields)
        self.health = Health()
        self.flips: list[Flip] = []
        self.afters: list[status.After] = []

    @property
    def due(self) -> Schedule | None:
        monitor = self.monitor
        if monitor.schedule is None:
            return None
        return parse(monitor.schedule, monitor.timezone, anchor=monitor.created_at)

    def ping(self, said: PingKind, at: float | datetime, **fields: Any) -> status.After:
        ping = Ping(_instant(at), said, **fields)
        self.until(ping.at)
        after = status.pinged(self.monitor, self.health, self.due, ping)
        self._take([after])
        return after

    def until(self, at: float | datetime) -> None:
        """Let time pass, as the watchman would notice."""
        self._take(status.silence(self.monitor, self.health, self.due, _instant(at)))

    def pause(self, at: float) -> None:
        self._take([status.paused(self.health, _instant(at))])

    def resume(self, at: float) -> None:
        self._take([status.resumed(self.health, _instant(at))])

    def shown(self, at: float | datetime) -> Shown:
        return status.shown(self.monitor, self.health, self.due, _instant(at))

    def told(self) -> list[tuple[float, str, str, str]]:
        """The flips, with their minute."""
        return [(minutes(flip.at), flip.before, flip.after, flip.reason) for flip in self.flips]

    def _take(self, afters: Iterable[status.After]) -> None:
        for after in afters:
            self.health = after.health
            self.afters.append(after)
            if after.flip is not None:
                self.flips.append(after.flip)


def _instant(at: float | datetime) -> datetime:
    return at if isinstance(at, datetime) else NOON + timedelta(minutes=at)


def minutes(at: datetime | None) -> float:
    assert at is not None
    return (at - NOON) / timedelta(minutes=1)
