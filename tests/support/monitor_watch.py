"""A monitor with its alarm, looked at when the alarm asks for it: what people hear of it, and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from support.monitor_day import NOON, Day, minutes

from carapace_cron.calendars import calendar_of
from carapace_cron.model.calendar import Blackout, CalendarPolicy
from carapace_cron.model.monitor import Health, PingKind
from carapace_cron.monitors.alarm import AT_REST, Alarm, Case, Saying, acknowledged, consider
from carapace_cron.monitors.status import After, failing, is_late, silence


class Watch:
    """It is looked at when the alarm says so and never else; `eager`: every minute, too."""

    def __init__(self, *, eager: bool = False, **fields: Any) -> None:
        self.day = Day(**fields)
        self.eager = eager
        self.alarm: Alarm = AT_REST
        self.look_at: float | None = None
        self.minute = 0.0
        self.parent_is_down = False
        self.heard: list[tuple[float, Saying]] = []

    def ping(self, said: PingKind, at: float, **fields: Any) -> None:
        """Whoever pings after a deadline: the watchman was there before."""
        self.until(at)
        before = self.day.health
        self._consider(before, self.day.ping(said, at, **fields))

    def until(self, at: float) -> None:
        """Let time pass, with all the looks in it."""
        while (minute := self._next_look()) is not None and minute <= at:
            self.minute = minute
            self._look()
            assert self.look_at is None or self.look_at > self.minute, "it would be looked at for ever"
        self.minute = at

    def look(self, at: float) -> None:
        """As when a parent is well again, or a definition has changed."""
        self.until(at)
        self._look()

    def snooze(self, at: float, until: float) -> None:
        self.until(at)
        self.day.monitor = self.day.monitor.evolve(snoozed_until=NOON + timedelta(minutes=until))
        self._look()

    def acknowledge(self, at: float) -> None:
        self.until(at)
        self.alarm = acknowledged(self.alarm, "bob", NOON + timedelta(minutes=at))
        self._look()

    def pause(self, at: float) -> None:
        self.until(at)
        before = self.day.health
        self.day.pause(at)
        self._consider(before, self.day.afters[-1])

    def told(self) -> list[tuple[float, str]]:
        """(minute, what), as people heard it."""
        return [(at, saying.event) for at, saying in self.heard]

    def muted(self) -> bool:
        """Whether an alarm that has something to say would keep it."""
        trouble = consider(self._case(), replace(AT_REST, is_down=True, incident="1", since=NOON))
        return not trouble.said

    def failing(self) -> bool:
        return failing(self.day.monitor, self.day.health)

    def late(self) -> bool:
        case = self._case()
        return is_late(case.monitor, case.health, case.due, case.now)

    def _next_look(self) -> float | None:
        return self.minute + 1 if self.eager else self.look_at

    def _look(self) -> None:
        day = self.day
        now = NOON + timedelta(minutes=self.minute)
        for after in list(silence(day.monitor, day.health, day.due, now)):
            before = day.health
            day._take([after])
            self._consider(before, after)
        self._consider()

    def _consider(self, before: Health | None = None, after: After | None = None) -> None:
        verdict = consider(self._case(), self.alarm, before, after)
        self.alarm = verdict.alarm
        self.look_at = None if verdict.look_at is None else minutes(verdict.look_at)
        self.heard += [(self.minute, saying) for saying in verdict.said]

    def _case(self) -> Case:
        monitor = self.day.monitor
        now = NOON + timedelta(minutes=self.minute)
        maintenance, quiet = (_windows(some) for some in (monitor.maintenance, monitor.quiet))
        muted = {"maintenance": maintenance, "quiet": quiet}
        return Case(monitor, self.day.health, self.day.due, now, self.parent_is_down, **muted)


def _windows(blackouts: Sequence[Blackout]) -> Any:
    return calendar_of(CalendarPolicy(blackouts=tuple(blackouts)), "UTC") if blackouts else None
