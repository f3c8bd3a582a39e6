"""Whatever happens to a monitor: nothing is told twice, nothing is lost, and nobody need look in between."""

from __future__ import annotations

from typing import Any, Literal

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support.monitor_watch import Watch

from carapace_cron.monitors.alarm import AT_REST

WINDOWS = st.sampled_from([[], [{"from": "12:30", "until": "14:00"}], [{"from": "13:05", "until": "13:20"}]])


class AlarmMachine(RuleBasedStateMachine):
    """Two of them: one is looked at when its alarm asks for it, the other every minute as well."""

    @initialize(
        failures=st.sampled_from([1, 1, 2]),
        rate=st.sampled_from([None, None, {"failures": 2, "of": 3}]),
        reminders=st.sampled_from([[], [600], [600, 1500]]),
        min_interval=st.sampled_from([None, 600]),
        maintenance=WINDOWS,
        quiet=WINDOWS,
        max_run=st.sampled_from([None, 3000]),
    )
    def begin(
        self,
        failures: int,
        rate: dict[str, int] | None,
        reminders: list[int],
        min_interval: int | None,
        maintenance: list[Any],
        quiet: list[Any],
        max_run: int | None,
    ) -> None:
        fields: dict[str, Any] = {
            "notify": ("down", "late", "up", "failure", "tooOften"),
            "failures_before_alert": failures,
            "failure_rate": rate,
            "reminders": [{"everySeconds": seconds} for seconds in reminders],
            "min_interval_seconds": min_interval,
            "maintenance": maintenance,
            "quiet": quiet,
            "max_run_seconds": max_run,
        }
        self.minute = 0
        self.watch = Watch(**fields)
        self.eager = Watch(eager=True, **fields)

    @rule(kind=st.sampled_from(["success", "success", "fail", "start"]))
    def ping(self, kind: Literal["success", "fail", "start"]) -> None:
        for watch in (self.watch, self.eager):
            watch.ping(kind, self.minute)

    @rule(passed=st.sampled_from([1, 5, 20, 60, 75]))
    def pass_time(self, passed: int) -> None:
        self.minute += passed
        for watch in (self.watch, self.eager):
            watch.until(self.minute)

    @rule(minutes=st.sampled_from([3, 40]))
    def snooze(self, minutes: int) -> None:
        for watch in (self.watch, self.eager):
            watch.snooze(self.minute, self.minute + minutes)

    @rule()
    def parent_goes_down_or_up(self) -> None:
        for watch in (self.watch, self.eager):
            watch.parent_is_down = not watch.parent_is_down
            if not watch.parent_is_down:
                watch.look(self.minute)

    @rule()
    def acknowledge(self) -> None:
        for watch in (self.watch, self.eager):
            if watch.alarm.is_down:
                watch.acknowledge(self.minute)

    @rule()
    def pause(self) -> None:
        for watch in (self.watch, self.eager):
            watch.pause(self.minute)

    @invariant()
    def it_says_when_to_look_at_it(self) -> None:
        assert self.watch.told() == self.eager.told()
        assert self.watch.alarm == self.eager.alarm

    @invariant()
    def an_incident_is_told_once_as_late_once_as_down_and_its_end_once(self) -> None:
        told: dict[Any, list[str]] = {}
        for _, saying in self.watch.heard:
            told.setdefault(saying.incident, []).append(saying.event)
        for events in told.values():
            story = [event for event in events if event in ("late", "down", "up")]
            assert story in ([], ["late"], ["down"], ["late", "down"], ["late", "up"], ["down", "up"],
                             ["late", "down", "up"])  # fmt: skip
            assert "reminder" not in events or story[0] == "down" or story[:2] == ["late", "down"]

    @invariant()
    def what_people_heard_last_is_the_case_unless_something_mutes_it(self) -> None:
        alarm = self.watch.alarm
        muted = self.watch.muted()
        if not muted:
            # Well again while it was muted, and late or failed by now: its end is told when it is well again.
            is_well = self.watch.day.health.status == "up" and not self.watch.late()
            assert (alarm.told == "down") == alarm.is_down or (alarm.told == "down" and not is_well)
            assert alarm.told != "late" or self.watch.day.health.status != "new"
        if alarm == AT_REST:
            assert self.watch.day.health.status != "down" or not self.watch.failing()


TestAlarmMachine = AlarmMachine.TestCase
TestAlarmMachine.settings = settings(
    max_examples=100, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
