"""The machine of a monitor against a model that knows no deadlines: it looks at every minute, one by one."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from support.monitor_day import NOON, OTHER_RID, RID, Day, minutes

RIDS = st.sampled_from(["", RID, OTHER_RID])
PERIOD = 60


@dataclass
class Work:
    """A run as the model sees it, in minutes."""

    began: int
    heard: int
    overdue: bool = False


@dataclass
class Model:
    """What the docs say, minute by minute. Every number is a minute, None: never."""

    grace: int
    longest: int | None
    heartbeat: int | None
    enough: int
    rate: tuple[int, int] | None
    minute: int = 0
    status: str = "new"
    waits_from: int | None = None
    ended: int | None = None
    instead: int | None = None  # of a failure that was counted without any ping: when that one was to come
    row: int = 0
    ends: list[str] = field(default_factory=list)
    work: dict[str, Work] = field(default_factory=dict)
    flips: list[tuple[int, str, str]] = field(default_factory=list)

    def tick(self) -> None:
        self.minute += 1
        busy = self._busy()
        late = [one for one in self.work.values() if not one.overdue and self._took_too_long(one)]
        if late:
            for one in late:
                one.overdue = True
            if busy or self.waits_from is None:
                self.waits_from = self.instead = self.minute
            self._fail()
        if self._waits() and self.waits_from == self.minute - PERIOD - self.grace:
            self.waits_from = self.instead = self.minute - self.grace
            self._fail()

    def end(self, kind: str, rid: str) -> None:
        begun = self.work.get(rid)
        known = False
        if kind == "fail" and self.status == "down" and self.row:
            if begun is not None:
                known = begun.overdue
            else:
                known = self.instead is not None and self.minute < self.instead + PERIOD
        self.work = {other: one for other, one in self.work.items() if rid and other != rid}
        self.waits_from = self.ended = self.minute
        self.instead = None
        if kind == "fail":
            if known:
                self._become("down")
            else:
                self._fail()
        else:
            self.row = 0
            self.ends.append("s")
            self._become("up")

    def start(self, rid: str) -> None:
        self.work.pop(rid, None)
        self.work[rid] = Work(self.minute, self.minute)

    def note(self, rid: str) -> None:
        if (one := self.work.get(rid)) is not None:
            one.heard = self.minute
            one.overdue = self._took_too_long(one)

    def pause(self) -> None:
        self.work, self.waits_from, self.instead = {}, None, None
        self._become("paused")

    def resume(self) -> None:
        if self.status == "paused":
            self.work, self.waits_from, self.ended, self.instead = {}, None, None, None
            self.row, self.ends = 0, []
            self._become("new")

    def shown(self) -> str:
        due = self.waits_from is not None and self.minute >= self.waits_from + PERIOD
        return "late" if self.status == "up" and due and not self._busy() else self.status

    def _fail(self) -> None:
        self.row += 1
        self.ends.append("f")
        self._become("down")

    def _become(self, status: str) -> None:
        if status != self.status:
            self.flips.append((self.minute, self.status, status))
        self.status = status

    def _busy(self) -> bool:
        own_time = self.longest is not None or self.heartbeat is not None
        return own_time and any(not one.overdue for one in self.work.values())

    def _waits(self) -> bool:
        if self._busy():
            return False
        return self.status == "up" or (self.status == "down" and not self._is_enough())

    def _is_enough(self) -> bool:
        if self.rate is None:
            return self.row >= self.enough
        return self.ends[-self.rate[1] :].count("f") >= self.rate[0]

    def _took_too_long(self, one: Work) -> bool:
        silent = self.heartbeat is not None and self.minute >= one.heard + self.heartbeat
        if self.longest is None and self.heartbeat is not None:
            return silent
        return silent or self.minute >= one.began + (self.grace if self.longest is None else self.longest)


class MonitorMachine(RuleBasedStateMachine):
    @initialize(
        grace=st.sampled_from([1, 10, 90]),
        longest=st.sampled_from([None, None, 5, 100]),
        heartbeat=st.sampled_from([None, None, 4]),
        enough=st.sampled_from([1, 1, 3]),
        rate=st.sampled_from([None, None, (2, 4)]),
    )
    def begin(
        self,
        grace: int,
        longest: int | None,
        heartbeat: int | None,
        enough: int,
        rate: tuple[int, int] | None,
    ) -> None:
        seconds: dict[str, Any] = {"grace_seconds": grace * 60, "period_seconds": PERIOD * 60}
        if longest is not None:
            seconds["max_run_seconds"] = longest * 60
        if heartbeat is not None:
            seconds["heartbeat_seconds"] = heartbeat * 60
        if rate is not None:
            seconds["failure_rate"] = {"failures": rate[0], "of": rate[1]}
        self.day = Day(**seconds, failures_before_alert=enough)
        self.model = Model(grace, longest, heartbeat, enough, rate)

    @rule(kind=st.sampled_from(["success", "success", "fail"]), rid=RIDS)
    def end(self, kind: Literal["success", "fail"], rid: str) -> None:
        self.day.ping(kind, self.model.minute, rid=rid)
        self.model.end(kind, rid)

    @rule(rid=RIDS)
    def start(self, rid: str) -> None:
        self.day.ping("start", self.model.minute, rid=rid)
        self.model.start(rid)

    @rule(rid=RIDS)
    def note(self, rid: str) -> None:
        self.day.ping("log", self.model.minute, rid=rid)
        self.model.note(rid)

    @rule(passed=st.sampled_from([1, 3, 5, 10, 55, 60, 200]), noticed=st.booleans())
    def pass_time(self, passed: int, noticed: bool) -> None:
        """`noticed`: the watchman looks; else the next ping finds out what was in between."""
        for _ in range(passed):
            self.model.tick()
        if noticed:
            self.day.until(self.model.minute)

    @rule()
    def pause(self) -> None:
        self.day.until(self.model.minute)
        self.day.pause(self.model.minute)
        self.model.pause()

    @rule()
    def resume(self) -> None:
        self.day.until(self.model.minute)
        self.day.resume(self.model.minute)
        self.model.resume()

    @invariant()
    def it_shows_what_is_the_case_whether_or_not_somebody_looked(self) -> None:
        assert self.day.shown(self.model.minute) == self.model.shown()

    @invariant()
    def both_tell_the_same_story(self) -> None:
        seen = Day()
        seen.monitor, seen.health, seen.flips = self.day.monitor, self.day.health, list(self.day.flips)
        seen.until(self.model.minute)
        assert [(minutes(one.at), one.before, one.after) for one in seen.flips] == self.model.flips
        assert (seen.health.failures_in_row, seen.health.ends) == (
            self.model.row, "".join(self.model.ends[-50:]),
        )  # fmt: skip
        assert {run.rid: run.overdue for run in seen.health.runs} == {
            rid: one.overdue for rid, one in self.model.work.items()
        }
        deadline = seen.health.deadline
        assert deadline is None or deadline > NOON + timedelta(minutes=self.model.minute)


TestMonitorMachine = MonitorMachine.TestCase
TestMonitorMachine.settings = settings(
    max_examples=150, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
