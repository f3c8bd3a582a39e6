"""What pings and silence make of a monitor: the machine of Healthchecks line by line, and what is ours."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support.monitor_day import NOON, OTHER_RID, RID, Day, minutes

from carapace_cron.model.monitor import Health, PingKind, Status
from carapace_cron.monitors import status

STATUSES: dict[Status, list[tuple[str, float]]] = {  # how to get there by minute 0
    "new": [],
    "up": [("success", 0)],
    "down": [("fail", 0)],
    "paused": [("pause", 0)],
}


def day_in(status: Status, **fields: Any) -> Day:
    day = Day(**fields)
    for what, at in STATUSES[status]:
        if what == "pause":
            day.pause(at)
        else:
            day.ping(what, at)  # type: ignore[arg-type]  # the table's words are kinds of pings
    assert day.health.status == status
    day.flips.clear()
    return day


class TestHealthchecksMachine:
    """Each line of its table: from, event, to, and the flip."""

    @pytest.mark.parametrize(
        ("before", "said", "after", "reason"),
        [
            ("new", "success", "up", "ping"),
            ("new", "fail", "down", "fail"),
            ("new", "start", "new", None),
            ("new", "log", "new", None),
            ("new", "ign", "new", None),
            ("up", "success", "up", None),
            ("up", "fail", "down", "fail"),
            ("up", "start", "up", None),
            ("up", "log", "up", None),
            ("down", "success", "up", "ping"),
            ("down", "fail", "down", None),
            ("down", "start", "down", None),
            ("down", "log", "down", None),
            ("paused", "success", "up", "ping"),
            ("paused", "fail", "down", "fail"),
            ("paused", "start", "paused", None),
            ("paused", "log", "paused", None),
        ],
    )
    def test_a_ping_leads_from_one_status_to_another(
        self, before: Status, said: PingKind, after: Status, reason: str | None
    ) -> None:
        day = day_in(before)
        day.ping(said, 5)
        assert day.health.status == after
        assert day.told() == ([] if reason is None else [(5, before, after, reason)])

    @pytest.mark.parametrize("before", STATUSES)
    def test_every_ping_counts_and_an_ignored_one_does_no_more(self, before: Status) -> None:
        day = day_in(before)
        health = day.health
        day.ping("ign", 5)
        assert day.health == Health(**{**_fields(health), "pings": health.pings + 1})

    def test_it_is_late_when_its_period_is_over_and_down_when_its_grace_is(self) -> None:
        day = day_in("up")
        assert [day.shown(at) for at in (59.99, 60, 69.99, 70)] == ["up", "late", "late", "down"]
        day.until(69.99)
        assert day.told() == []

    def test_a_flip_is_dated_at_the_deadline_however_late_it_is_noticed(self) -> None:
        day = day_in("up")
        day.until(500)
        assert day.told() == [(70, "up", "down", "timeout")]

    def test_a_success_within_the_grace_is_in_time(self) -> None:
        day = day_in("up")
        day.ping("success", 69)
        assert day.told() == [] and day.shown(69) == "up"
        assert minutes(day.health.deadline) == 139

    def test_a_ping_after_the_deadline_comes_after_the_flip(self) -> None:
        day = day_in("up")
        day.ping("success", 90)
        assert day.told() == [(70, "up", "down", "timeout"), (90, "down", "up", "ping")]

    @pytest.mark.parametrize("before", ["new", "up", "paused"])
    def test_a_start_pulls_the_deadline_to_its_own_grace(self, before: Status) -> None:
        day = day_in(before)
        day.ping("start", 5)
        day.until(14.9)
        assert day.told() == []
        day.until(15)
        assert day.told() == [(15, before, "down", "run")]

    def test_a_start_while_down_waits_for_nothing(self) -> None:
        day = day_in("down")
        day.ping("start", 5)
        assert day.health.started and day.shown(6) == "down"

    def test_a_pause_ends_all_waiting(self) -> None:
        day = day_in("up")
        day.ping("start", 1)
        day.pause(2)
        day.until(10_000)
        assert day.told() == [(2, "up", "paused", "pause")] and day.health.runs == ()
        day.pause(3)
        assert len(day.flips) == 1

    def test_a_resume_makes_it_new(self) -> None:
        day = day_in("paused")
        day.resume(5)
        assert day.told() == [(5, "paused", "new", "resume")]
        assert day.health.last_ping_at is None and day.health.deadline is None
        day.resume(6)
        assert len(day.flips) == 1

    def test_a_pause_that_only_a_person_ends_ignores_every_ping(self) -> None:
        day = day_in("paused", manual_resume=True)
        for said in ("success", "fail", "start", "log"):
            assert day.ping(said, 5).kind == "ign"  # type: ignore[arg-type]  # as above
        assert day.told() == [] and day.health.pings == 4

    def test_only_post_counts_where_the_others_are_filtered(self) -> None:
        day = day_in("new", post_only=True)
        assert [day.ping("success", 1, method=method).kind for method in ("GET", "HEAD")] == ["ign", "ign"]
        assert day.ping("success", 1, method="POST").kind == "success"


def _fields(health: Health) -> dict[str, Any]:
    return {name: getattr(health, name) for name in Health.__slots__}


FILTER: dict[str, Any] = {
    "filter_body": True,
    "failure_keywords": "FAILED, error:",
    "success_keywords": "done,ok",
    "start_keywords": "begin",
}


class TestBodyFilter:
    """Keywords decide: failure before success before start, in the case in which they are written."""

    @pytest.mark.parametrize(
        ("body", "kind"),
        [
            (b"all done", "success"),
            (b"done, but FAILED", "fail"),
            (b"begin, done", "success"),
            (b"begin", "start"),
            (b"Done", "ign"),
            (b"", "ign"),
            (b"\xff\xfe error: \x80", "fail"),
        ],
    )
    def test_it_reads_the_body_whatever_bytes_are_in_it(self, body: bytes, kind: PingKind) -> None:
        assert Day(**FILTER).ping("success", 1, body=body).kind == kind

    def test_it_overrules_the_address(self) -> None:
        assert Day(**FILTER).ping("fail", 1, body=b"done").kind == "success"

    def test_what_has_no_keyword_may_be_a_failure(self) -> None:
        assert Day(**FILTER, fail_by_default=True).ping("success", 1, body=b"?").kind == "fail"

    def test_a_note_stays_a_note(self) -> None:
        assert Day(**FILTER).ping("log", 1, body=b"done").kind == "log"

    def test_no_keyword_at_all_is_found_nowhere(self) -> None:
        day = Day(filter_body=True, success_keywords=" , ")
        assert day.ping("success", 1, body=b"anything, at all").kind == "ign"


class TestRuns:
    """`running → success | failed`, each run by its id."""

    @pytest.mark.parametrize("rid", ["", RID])
    def test_start_and_end_of_one_id_have_a_duration(self, rid: str) -> None:
        day = Day()
        day.ping("start", 0, rid=rid)
        assert day.ping("success", 1.5, rid=rid).duration_ms == 90_000
        assert day.health.last_duration_ms == 90_000 and not day.health.started

    def test_an_end_of_another_run_has_no_duration_and_leaves_the_first_alone(self) -> None:
        day = Day()
        day.ping("start", 0, rid=RID)
        assert day.ping("success", 1, rid=OTHER_RID).duration_ms is None
        assert [run.rid for run in day.health.runs] == [RID]

    @pytest.mark.parametrize("said", ["success", "fail"])
    def test_an_end_without_an_id_ends_them_all(self, said: PingKind) -> None:
        day = Day()
        day.ping("start", 0, rid=RID)
        day.ping("start", 1, rid=OTHER_RID)
        day.ping(said, 2)
        assert day.health.runs == ()

    def test_a_second_start_starts_the_clock_anew(self) -> None:
        day = Day()
        day.ping("start", 0)
        day.ping("start", 5)
        assert day.ping("success", 6).duration_ms == 60_000

    def test_an_end_after_three_days_is_not_the_end_of_that_start(self) -> None:
        day = Day(max_run_seconds=10 * 86_400)
        day.ping("start", 0)
        assert day.ping("success", 72 * 60 + 1).duration_ms is None

    def test_a_clock_set_back_makes_no_negative_duration(self) -> None:
        day = Day()
        day.ping("start", 5)
        assert day.ping("success", 4).duration_ms == 0

    def test_what_the_job_says_of_its_duration_counts(self) -> None:
        day = Day()
        day.ping("start", 0)
        assert day.ping("success", 1, took_ms=4711).duration_ms == 4711

    def test_the_one_of_many_that_hangs_is_found(self) -> None:
        day = Day(period_seconds=86_400)
        day.ping("start", 0, rid=RID)
        for minute in (2, 4, 6):
            day.ping("start", minute, rid=OTHER_RID)
            day.ping("success", minute + 1, rid=OTHER_RID)
        day.until(20)
        assert day.told()[-1] == (10, "up", "down", "run")
        assert [(run.rid, run.overdue) for run in day.health.runs] == [(RID, True)]

    def test_a_late_end_of_an_overdue_run_is_welcome(self) -> None:
        day = day_in("up")
        day.ping("start", 1, rid=RID)
        assert day.ping("success", 30, rid=RID).duration_ms == 29 * 60_000
        assert day.told() == [(11, "up", "down", "run"), (30, "down", "up", "ping")]

    def test_an_overdue_run_makes_it_down_once(self) -> None:
        day = day_in("up", period_seconds=86_400)
        day.ping("start", 1, rid=RID)
        day.ping("success", 20, rid=OTHER_RID)
        day.until(1000)
        assert day.told() == [(11, "up", "down", "run"), (20, "down", "up", "ping")]

    def test_the_oldest_of_very_many_is_no_longer_watched(self) -> None:
        day = Day()
        for number in range(150):
            day.ping("start", 0, rid=str(number))
        assert len(day.health.runs) == 100 and day.health.runs[0].rid == "50"


class TestTimeOfARun:
    """With a longest time of its own a start ends the wait for the next ping; the grace is for the start."""

    def test_it_may_take_longer_than_the_grace(self) -> None:
        day = day_in("up", max_run_seconds=7200)
        day.ping("start", 65)
        assert day.shown(70) == "up", "it has begun in time"
        day.ping("success", 180)
        assert day.told() == []

    def test_a_start_too_late_is_told_as_silence(self) -> None:
        day = day_in("up", max_run_seconds=7200)
        day.ping("start", 71)
        assert day.told() == [(70, "up", "down", "timeout")]

    def test_it_may_take_as_long_as_that_and_no_longer(self) -> None:
        day = day_in("up", max_run_seconds=7200)
        day.ping("start", 60)
        day.until(179.9)
        assert day.told() == []
        day.until(180)
        assert day.told() == [(180, "up", "down", "run")]

    def test_signs_of_life_extend_a_run_without_a_longest_time(self) -> None:
        day = day_in("up", heartbeat_seconds=300)
        day.ping("start", 60, rid=RID)
        for minute in range(64, 300, 4):
            day.ping("log", minute, rid=RID)
        assert day.told() == []
        day.until(400)
        assert day.told() == [(301, "up", "down", "run")]

    def test_signs_of_life_do_not_extend_the_longest_time(self) -> None:
        day = day_in("up", heartbeat_seconds=300, max_run_seconds=600)
        day.ping("start", 60)
        day.ping("log", 64)
        day.ping("log", 68)
        day.until(100)
        assert day.told() == [(70, "up", "down", "run")]

    def test_a_note_of_another_run_is_no_sign_of_life(self) -> None:
        day = day_in("up", heartbeat_seconds=300)
        day.ping("start", 60, rid=RID)
        day.ping("log", 64, rid=OTHER_RID)
        day.until(66)
        assert day.told() == [(65, "up", "down", "run")]

    def test_a_run_that_is_heard_of_again_is_watched_again(self) -> None:
        day = day_in("up", heartbeat_seconds=300, period_seconds=86_400)
        day.ping("start", 60, rid=RID)
        day.ping("log", 70, rid=RID)
        assert day.health.started
        day.ping("success", 71, rid=OTHER_RID)
        day.until(80)
        assert day.told() == [
            (65, "up", "down", "run"), (71, "down", "up", "ping"), (75, "up", "down", "run"),
        ]  # fmt: skip

    def test_after_a_run_that_took_too_long_silence_counts_from_there(self) -> None:
        """Not from the ping before it: the hours in which it worked were no silence."""
        day = day_in("up", max_run_seconds=4 * 3600, failures_before_alert=3)
        day.ping("start", 60)
        day.until(360)
        assert [minutes(after.at) for after in day.afters if after.failure] == [300]
        day.until(1000)
        assert [minutes(after.at) for after in day.afters if after.failure] == [300, 370, 430]


class TestFailures:
    """They are counted run by run; silence goes on to count until there are enough for an alert."""

    def failures(self, day: Day) -> list[tuple[float, str]]:
        return [(minutes(after.at), after.failure) for after in day.afters if after.failure]

    def test_silence_is_a_failure_for_each_time_that_passes_until_there_are_enough(self) -> None:
        day = day_in("up", failures_before_alert=3)
        day.until(10_000)
        assert self.failures(day) == [(70, "timeout"), (130, "timeout"), (190, "timeout")]
        assert day.told() == [(70, "up", "down", "timeout")]
        assert day.health.failures_in_row == 3 and day.health.deadline is None

    def test_silence_after_a_failure_counts_with_it(self) -> None:
        day = day_in("down", failures_before_alert=2)
        day.until(10_000)
        assert self.failures(day) == [(0, "fail"), (70, "timeout")]

    def test_silence_counts_for_the_rate(self) -> None:
        day = Day(failure_rate={"failures": 2, "of": 4})
        for minute in (0, 30, 60, 90):
            day.ping("success", minute)
        day.until(10_000)
        assert self.failures(day) == [(160, "timeout"), (220, "timeout")]
        assert day.health.ends == "ssssff"

    def test_a_schedule_counts_its_instants(self) -> None:
        day = day_in("up", schedule="0 3 * * *", failures_before_alert=2)
        day.until(NOON + timedelta(days=10))
        assert [after.at for after in day.afters if after.failure] == [
            datetime(2026, 11, 22, 3, 10, tzinfo=UTC),
            datetime(2026, 11, 23, 3, 10, tzinfo=UTC),
        ]

    def test_a_success_ends_the_row(self) -> None:
        day = day_in("up", failures_before_alert=3)
        day.until(70)
        day.ping("success", 75)
        assert day.health.failures_in_row == 0 and minutes(day.health.deadline) == 145

    def test_a_run_that_took_too_long_and_then_fails_is_one_failure(self) -> None:
        day = day_in("up", failures_before_alert=2)
        day.ping("start", 1, rid=RID)
        day.ping("fail", 20, rid=RID)
        assert self.failures(day) == [(11, "run")]
        assert day.health.failures_in_row == 1 and day.health.ends == "sf"

    def test_a_failure_that_comes_late_is_the_one_that_was_missed(self) -> None:
        day = day_in("up", failures_before_alert=3)
        day.ping("fail", 75)
        assert self.failures(day) == [(70, "timeout")]
        day.ping("fail", 80)
        assert self.failures(day) == [(70, "timeout"), (80, "fail")]

    def test_an_overdue_run_that_fails_after_a_success_is_news(self) -> None:
        day = day_in("up", period_seconds=86_400)
        day.ping("start", 1, rid=RID)
        day.ping("success", 20, rid=OTHER_RID)
        day.ping("fail", 30, rid=RID)
        assert self.failures(day) == [(11, "run"), (30, "fail")]
        assert day.health.status == "down"

    def test_only_the_newest_ends_are_remembered(self) -> None:
        day = Day()
        for minute in range(60):
            day.ping("fail" if minute % 2 else "success", minute)
        assert day.health.ends == "sf" * 25

    def test_silence_that_nobody_expects_an_end_of_comes_to_one(self) -> None:
        """A monitor that was told of one run, and never again of anything."""
        day = Day(failures_before_alert=3)
        day.ping("start", 0)
        day.until(10**6)
        assert self.failures(day) == [(10, "run"), (80, "timeout"), (140, "timeout")]


class TestSchedules:
    """The next ping is due at the schedule's next instant; clocks that change move it as they move a job."""

    def test_a_schedule_that_has_come_to_its_end_expects_nothing(self) -> None:
        day = day_in("up", schedule="at 2026-11-21T13:00:00Z")
        day.ping("success", 60)
        assert day.health.deadline is None
        day.until(10**6)
        assert day.told() == []

    @pytest.mark.parametrize(
        ("last_ping", "deadline"),
        [
            # Europe/Berlin: 2026-03-29 02:00 → 03:00. 02:30 does not exist; the instant after the gap counts.
            (datetime(2026, 3, 28, 1, 35, tzinfo=UTC), datetime(2026, 3, 29, 1, 10, tzinfo=UTC)),
            # the day after: 02:30 CEST
            (datetime(2026, 3, 29, 1, 5, tzinfo=UTC), datetime(2026, 3, 30, 0, 40, tzinfo=UTC)),
            # 2026-10-25 03:00 → 02:00. 02:30 comes twice; only the first, 00:30 UTC, counts.
            (datetime(2026, 10, 24, 0, 31, tzinfo=UTC), datetime(2026, 10, 25, 0, 40, tzinfo=UTC)),
            (datetime(2026, 10, 25, 0, 31, tzinfo=UTC), datetime(2026, 10, 26, 1, 40, tzinfo=UTC)),
        ],
    )
    def test_a_fixed_time_over_changes_of_the_clock(self, last_ping: datetime, deadline: datetime) -> None:
        day = Day(schedule="30 2 * * *", timezone="Europe/Berlin")
        day.ping("success", last_ping)
        assert day.health.deadline == deadline

    def test_a_period_is_elapsed_time_over_changes_of_the_clock(self) -> None:
        day = Day(period_seconds=86_400, timezone="Europe/Berlin")
        day.ping("success", datetime(2026, 3, 28, 12, tzinfo=UTC))
        assert day.health.deadline == datetime(2026, 3, 29, 12, 10, tzinfo=UTC)

    def test_without_any_rhythm_it_is_every_day(self) -> None:
        day = Day(period_seconds=None)
        day.ping("success", 0)
        assert minutes(day.health.deadline) == 24 * 60 + 10


class TestOurOwnJobs:
    """Their pings say which instant they answer; from the first one on each is awaited."""

    def day(self, **fields: Any) -> Day:
        day = Day(schedule="0 * * * *", job_id="job_1", max_run_seconds=7200, **fields)
        day.health = status.awaiting(day.monitor, day.health, day.due, NOON)
        return day

    def test_the_first_instant_is_awaited(self) -> None:
        day = self.day()
        assert [day.shown(at) for at in (59, 60, 70)] == ["new", "late", "down"]
        day.until(100)
        assert day.told() == [(70, "new", "down", "timeout")]

    def test_an_end_answers_its_own_instant_and_no_later_one(self) -> None:
        day = self.day()
        day.ping("start", 60, rid=RID, due_at=NOON + timedelta(minutes=60))
        day.ping("success", 125, rid=RID, due_at=NOON + timedelta(minutes=60))
        assert minutes(day.health.deadline) == 130, "the next was due at 120"

    def test_what_answers_no_instant_moves_no_deadline(self) -> None:
        day = self.day()
        day.ping("start", 61, rid=OTHER_RID)
        assert day.shown(65) == "new", "while it works nothing else is awaited"
        day.ping("success", 62, rid=OTHER_RID)
        assert minutes(day.health.deadline) == 70

    def test_a_run_that_is_given_up_is_waited_for_no_more(self) -> None:
        day = self.day()
        day.ping("start", 60, rid=RID, due_at=NOON + timedelta(minutes=60))
        day.ping("log", 65, rid=RID, due_at=NOON + timedelta(minutes=60), gives_up=True)
        assert not day.health.started and day.health.status == "new"
        assert minutes(day.health.deadline) == 130

    def test_nothing_is_awaited_of_a_job_that_is_over(self) -> None:
        day = self.day()
        day.health = status.awaiting(day.monitor, day.health, day.due, None)
        day.ping("start", 60, rid=RID, due_at=NOON + timedelta(minutes=60))
        day.until(180)
        assert day.told() == [(180, "new", "down", "run")] and day.health.deadline is None

    def test_a_missed_instant_that_was_heard_as_silence_is_one_failure(self) -> None:
        day = self.day(failures_before_alert=3)
        day.ping("fail", 75, due_at=NOON + timedelta(minutes=60))
        assert day.health.failures_in_row == 1
        day.ping("fail", 130, due_at=NOON + timedelta(minutes=120))
        assert day.health.failures_in_row == 2
