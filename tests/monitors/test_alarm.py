"""Who is told what of a monitor, and when: one incident a cause, and mutes that lose and repeat nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from support.monitor_day import NOON, OTHER_RID, RID, minutes
from support.monitor_watch import Watch

from carapace_cron.model.monitor import PingKind
from carapace_cron.monitors.alarm import AT_REST

EVERYTHING = ("down", "late", "up", "failure", "tooOften")
HOURLY: dict[str, Any] = {"reminders": [{"everySeconds": 3600}]}


def daily(begin: str, until: str) -> list[dict[str, str]]:
    return [{"from": begin, "until": until}]


class TestIncidents:
    def test_a_cause_is_told_once_and_its_end_once(self) -> None:
        watch = Watch()
        watch.ping("success", 0)
        for at in (5, 10, 15):
            watch.ping("fail", at)
            watch.ping("start", at + 1)
        watch.ping("success", 20)
        watch.ping("success", 30)
        assert watch.told() == [(5, "down"), (20, "up")]

    def test_silence_is_told_at_its_deadline(self) -> None:
        watch = Watch()
        watch.ping("success", 0)
        watch.until(10_000)
        assert watch.told() == [(70, "down")]

    def test_the_first_ping_of_all_is_no_recovery(self) -> None:
        watch = Watch(notify=EVERYTHING)
        watch.ping("success", 0)
        watch.ping("success", 30)
        assert watch.told() == []

    def test_all_that_is_told_of_an_incident_bears_its_beginning(self) -> None:
        watch = Watch(notify=EVERYTHING, **HOURLY)
        watch.ping("success", 0)
        watch.ping("fail", 5)
        watch.ping("fail", 10)
        watch.ping("success", 90)
        watch.ping("fail", 100)
        assert [(saying.event, minutes(saying.since)) for _, saying in watch.heard] == [
            ("down", 5), ("failure", 5), ("reminder", 5), ("up", 5), ("down", 100),
        ]  # fmt: skip

    def test_only_what_is_asked_for_is_told(self) -> None:
        heard = {}
        for event in EVERYTHING:
            watch = Watch(notify=(event,), min_interval_seconds=1000)
            watch.ping("success", 0)
            watch.ping("success", 65)
            watch.ping("fail", 70)
            watch.ping("fail", 75)
            watch.ping("success", 80)
            heard[event] = watch.told()
        assert heard == {
            "down": [(70, "down")],
            "late": [(60, "late")],
            "up": [(80, "up")],
            "failure": [(70, "failure"), (75, "failure")],
            "tooOften": [(70, "tooOften")],
        }

    def test_a_pause_ends_an_incident_in_silence(self) -> None:
        watch = Watch(**HOURLY)
        watch.ping("success", 0)
        watch.ping("fail", 5)
        watch.pause(10)
        watch.until(10_000)
        watch.ping("success", 10_001)
        assert watch.told() == [(5, "down")] and watch.alarm == AT_REST

    def test_failures_are_told_each_if_asked_for(self) -> None:
        watch = Watch(notify=("down", "up", "failure"))
        for at in (1, 2, 3):
            watch.ping("fail", at)
        assert watch.told() == [(1, "down"), (2, "failure"), (3, "failure")]


class TestConditions:
    def test_so_many_in_a_row(self) -> None:
        watch = Watch(failures_before_alert=3)
        pings: list[tuple[PingKind, int]] = [
            ("fail", 1), ("fail", 2), ("success", 3), ("fail", 4), ("fail", 5), ("fail", 6),
        ]  # fmt: skip
        for said, at in pings:
            watch.ping(said, at)
        watch.ping("success", 7)
        assert watch.told() == [(6, "down"), (7, "up")]

    def test_a_job_that_dies_is_told_however_many_failures_it_takes(self) -> None:
        watch = Watch(failures_before_alert=3)
        watch.ping("success", 0)
        watch.until(10_000)
        assert watch.told() == [(190, "down")]

    def test_a_rate_ends_its_incident_when_it_is_low_again(self) -> None:
        """Not with the next success: the failure after it would begin another."""
        watch = Watch(failure_rate={"failures": 2, "of": 4})
        pings: list[PingKind] = ["success", "fail", "success", "fail", "success", "fail", "success"]
        for number, said in enumerate(pings):
            watch.ping(said, number)
        assert watch.told() == [(3, "down")]
        watch.ping("success", 7)
        assert watch.told() == [(3, "down"), (7, "up")]

    def test_a_run_that_hangs_beside_others_that_end_is_told(self) -> None:
        watch = Watch(period_seconds=86_400)
        watch.ping("success", 0)
        watch.ping("start", 1, rid=RID)
        watch.ping("success", 5, rid=OTHER_RID)
        watch.ping("success", 20, rid=OTHER_RID)
        assert watch.told() == [(11, "down"), (20, "up")]

    def test_a_stricter_condition_is_met_at_once(self) -> None:
        watch = Watch(failures_before_alert=3)
        watch.ping("fail", 1)
        watch.day.monitor = watch.day.monitor.evolve(failures_before_alert=1)
        watch.look(2)
        assert watch.told() == [(2, "down")]

    def test_what_belongs_to_no_incident_is_one_for_each_kind(self) -> None:
        """Nothing tells of its end: a service that opens something for each must not open one each time."""
        watch = Watch(notify=EVERYTHING, failures_before_alert=3, min_interval_seconds=600)
        for number in range(3):
            watch.ping("fail", 30 * number)
            watch.ping("success", 30 * number + 20)
        assert watch.told() == [(0, "failure"), (30, "failure"), (60, "failure")]
        assert {saying.incident for _, saying in watch.heard} == {"failure"}
        watch.ping("success", 81)
        watch.ping("success", 120)
        watch.ping("success", 121)
        told = [saying for _, saying in watch.heard if saying.event == "tooOften"]
        assert len(told) == 2 and {saying.incident for saying in told} == {"tooOften"}

    def test_too_often_is_told_with_the_first_that_comes_too_soon(self) -> None:
        watch = Watch(notify=("tooOften",), min_interval_seconds=600)
        for at in (0, 5, 8, 30, 35):
            watch.ping("success", at)
        assert watch.told() == [(5, "tooOften"), (35, "tooOften")]


class TestLate:
    def test_it_is_told_at_its_time_and_taken_back(self) -> None:
        watch = Watch(notify=EVERYTHING)
        watch.ping("success", 0)
        watch.ping("success", 65)
        assert watch.told() == [(60, "late"), (65, "up")]

    def test_it_becomes_a_down_of_the_same_incident(self) -> None:
        watch = Watch(notify=("late", "down", "up"))
        watch.ping("success", 0)
        watch.ping("success", 100)
        assert watch.told() == [(60, "late"), (70, "down"), (100, "up")]
        assert {saying.since for _, saying in watch.heard} == {NOON + timedelta(minutes=60)}
        assert [minutes(saying.at) for _, saying in watch.heard] == [60, 70, 100]

    def test_its_down_is_dated_at_the_deadline_however_late_it_is_told(self) -> None:
        watch = Watch(notify=("late", "down"), maintenance=daily("13:05", "14:00"))
        watch.ping("success", 0)
        watch.until(500)
        assert watch.told() == [(60, "late"), (120, "down")]
        assert [minutes(saying.at) for _, saying in watch.heard] == [60, 70]

    def test_a_definition_that_changes_takes_it_back_at_once(self) -> None:
        watch = Watch(notify=("late", "up"))
        watch.ping("success", 0)
        watch.until(62)
        watch.day.monitor = watch.day.monitor.evolve(period_seconds=7200)
        watch.look(65)
        assert watch.told() == [(60, "late"), (65, "up")]
        assert minutes(watch.heard[-1][1].at) == 65

    def test_a_run_that_has_begun_in_its_own_time_is_not_late(self) -> None:
        watch = Watch(notify=("late",), max_run_seconds=7200)
        watch.ping("success", 0)
        watch.ping("start", 55)
        watch.ping("success", 110)
        assert watch.told() == []

    def test_each_time_it_is_late_is_an_incident(self) -> None:
        watch = Watch(notify=("late",))
        for at in (0, 65, 130):
            watch.ping("success", at)
        assert watch.told() == [(60, "late"), (125, "late")]


class TestReminders:
    def test_they_come_while_it_is_down(self) -> None:
        watch = Watch(**HOURLY)
        watch.ping("fail", 0)
        watch.ping("success", 150)
        watch.until(210)
        assert watch.told() == [(0, "down"), (60, "reminder"), (120, "reminder"), (150, "up")]

    def test_each_has_its_rhythm_and_its_channels(self) -> None:
        watch = Watch(
            channels=("ops", "mail"),
            reminders=[
                {"everySeconds": 3600, "channels": ["ops"]},
                {"everySeconds": 7200, "channels": ["boss"]},
            ],
        )
        watch.ping("fail", 0)
        watch.until(125)
        assert [(at, saying.channels) for at, saying in watch.heard] == [
            (0, ("ops", "mail")), (60, ("ops",)), (120, ("ops", "boss")),
        ]  # fmt: skip

    def test_an_acknowledgement_ends_them_and_the_failures_but_not_the_end(self) -> None:
        watch = Watch(notify=EVERYTHING, **HOURLY)
        watch.ping("fail", 0)
        watch.acknowledge(61)
        watch.ping("fail", 100)
        watch.ping("success", 300)
        watch.ping("fail", 301)
        assert watch.told() == [(0, "down"), (60, "reminder"), (300, "up"), (301, "down")]

    def test_of_those_that_were_missed_one_is_said(self) -> None:
        watch = Watch(**HOURLY)
        watch.ping("fail", 0)
        watch.look_at = None  # nobody watches
        watch.look(250)
        watch.until(305)
        assert watch.told() == [(0, "down"), (250, "reminder"), (300, "reminder")]


class TestMutes:
    """What mutes the alarm loses nothing and repeats nothing."""

    def test_what_still_holds_when_maintenance_is_over_is_told_then(self) -> None:
        watch = Watch(maintenance=daily("12:30", "14:00"))
        watch.ping("success", 0)
        watch.until(500)
        assert watch.told() == [(120, "down")]

    def test_what_came_and_went_within_is_never_told(self) -> None:
        watch = Watch(maintenance=daily("12:30", "14:00"), notify=EVERYTHING, min_interval_seconds=7200)
        watch.ping("success", 0)
        watch.ping("fail", 75)
        watch.ping("success", 80)
        watch.until(130)
        assert watch.told() == []

    def test_a_recovery_within_is_told_when_it_is_over(self) -> None:
        watch = Watch(maintenance=daily("12:30", "14:00"), **HOURLY)
        watch.ping("fail", 25)
        watch.ping("success", 100)
        watch.until(160)
        assert watch.told() == [(25, "down"), (120, "up")]

    def test_a_trouble_after_a_trouble_is_no_news_if_nobody_heard_that_it_was_over(self) -> None:
        watch = Watch(maintenance=daily("12:30", "14:00"))
        watch.ping("fail", 25)
        watch.ping("success", 40)
        watch.until(500)
        assert watch.told() == [(25, "down")]

    def test_a_snooze_ends_with_a_reminder_if_it_is_still_down(self) -> None:
        watch = Watch()
        watch.ping("fail", 0)
        watch.snooze(10, 100)
        watch.until(500)
        assert watch.told() == [(0, "down"), (100, "reminder")]

    def test_a_snooze_before_the_trouble_holds_it_back(self) -> None:
        watch = Watch()
        watch.ping("success", 0)
        watch.snooze(10, 100)
        watch.until(500)
        assert watch.told() == [(100, "down")]

    def test_an_end_that_nobody_heard_of_is_told_when_it_is_well_for_good(self) -> None:
        """It failed again before the snooze was over, but not often enough for an alert of its own."""
        watch = Watch(failures_before_alert=2)
        watch.ping("fail", 1)
        watch.ping("fail", 2)
        watch.snooze(10, 60)
        watch.ping("success", 20)
        watch.ping("fail", 30)
        watch.until(70)
        assert watch.told() == [(2, "down")]
        watch.ping("success", 80)
        assert watch.told() == [(2, "down"), (80, "up")]

    def test_a_snooze_ends_in_silence_if_all_is_well(self) -> None:
        watch = Watch()
        watch.ping("success", 0)
        watch.snooze(10, 50)
        watch.ping("success", 55)
        assert watch.told() == []

    def test_snooze_and_maintenance_one_after_the_other_are_one_mute(self) -> None:
        watch = Watch(maintenance=daily("13:00", "14:00"))
        watch.ping("success", 0)
        watch.snooze(10, 65)
        watch.until(500)
        assert watch.told() == [(120, "down")]

    def test_while_a_parent_is_down_nobody_is_told_of_its_children(self) -> None:
        watch = Watch(notify=EVERYTHING, **HOURLY)
        watch.ping("success", 0)
        watch.parent_is_down = True
        watch.until(500)
        assert watch.told() == [] and watch.day.told()[-1] == (70, "up", "down", "timeout")
        watch.parent_is_down = False
        watch.look(501)
        assert watch.told() == [(501, "down")]

    def test_quiet_hours_hold_back_late_and_reminders_alone(self) -> None:
        watch = Watch(quiet=daily("12:30", "15:00"), notify=EVERYTHING, grace_seconds=1800, **HOURLY)
        watch.ping("success", 0)
        watch.ping("fail", 95)
        watch.ping("success", 100)
        watch.until(175)
        assert watch.told() == [(90, "down"), (100, "up")]
        watch.until(185)
        assert watch.told()[2:] == [(180, "late")]

    def test_reminders_of_quiet_hours_are_one_at_their_end(self) -> None:
        watch = Watch(quiet=daily("12:30", "16:00"), **HOURLY)
        watch.ping("fail", 10)
        watch.until(260)
        assert watch.told() == [(10, "down"), (240, "reminder"), (250, "reminder")]


@pytest.mark.parametrize("channels", [(), ("ops", "mail")])
def test_everybody_who_is_named_is_told(channels: tuple[str, ...]) -> None:
    watch = Watch(channels=channels)
    watch.ping("fail", 0)
    assert watch.heard[0][1].channels == channels
