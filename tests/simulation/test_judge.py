"""The judge can be trusted only if it finds what is wrong: each promise broken by hand, one at a time."""

from __future__ import annotations

import ast
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from .case import Wall, instants
from .judge import SETTLED, judge
from .witness import START, Arrival, Command, Evidence, Trouble, WorkLine

JOB_ID = "job_1764547200000_0123456789abcdefghij"
POLICY = {
    "name": "job 1",
    "schedule": "*/30 * * * * *",
    "command": "sim ok 1 #1",
    "channelId": "ops",
    "overlap": "skip",
    "catchUp": "latest",
    "catchUpWindowSeconds": 300,
    "timeoutSeconds": 60,
    "notify": "always",
    "retry": {"maxAttempts": 2, "initialSeconds": 5, "factor": 1},
}

Break = Callable[[Evidence], Any]


def run_id(second: int) -> str:
    return f"run_{second:026d}"


def text(second: float) -> str:
    return (START + timedelta(seconds=second)).isoformat().replace("+00:00", "Z")


def view(**changes: Any) -> dict[str, Any]:
    """The job as the API answers it."""
    job = {"id": JOB_ID, "enabled": True, "cronExpression": POLICY["schedule"], "createdAt": text(1.2)}
    return job | {"name": "job 1", "command": POLICY["command"]} | changes


def command(kind: str, at: float, **about: Any) -> Command:
    following = (at + 0.5) // 30 * 30 + 30
    answer = view(nextExecutionAt=text(following))
    made = Command(at, kind, "job 1", "a", about.pop("data", {}), at + 0.5, "done", answer)
    for name, value in about.items():
        setattr(made, name, value)
    return made


def run(second: int, status: str, ended: float, attempt: int = 1, **about: Any) -> dict[str, Any]:
    return {
        "id": run_id(second),
        "jobId": JOB_ID,
        "scheduledFor": text(second),
        "status": status,
        "trigger": "schedule",
        "reason": None,
        "attempt": attempt,
        "finishedAt": text(ended),
        "deadlineAt": None,
        "causedBy": None,
        "output": f"{run_id(second)} {attempt} #1" if attempt else None,
        **about,
    }


def work(second: int, attempt: int, begin: float, end: float, how: str) -> list[WorkLine]:
    about = ("a", "a.1", JOB_ID, run_id(second), attempt, float(second), "schedule", "sim ok 1 #1")
    return [WorkLine(begin, "begin", "", *about), WorkLine(end, "end", how, *about)]


def as_promised() -> Evidence:
    """Four instants: two runs, the second at its second attempt; one that is skipped for it, one that is
    missed as the database is away."""
    seen = Evidence(gateways=["a"], calm_since=170, quiet_since=150, ended_at=200, is_whole=True)
    seen.commands = [command("create", 1, data=POLICY), command("pause", 140)]
    seen.works = [
        *work(30, 1, 30.1, 31, "success"),
        *work(60, 1, 60.1, 61, "failure"),
        *work(60, 2, 66.2, 95, "success"),
    ]
    busy = f"the run for {text(60)} ({run_id(60)}) had not ended"
    late = f"20 s late, and the job's catchUp is none: no gateway was running, {'its ledger was away'}"
    seen.runs = [
        run(30, "success", 31),
        run(60, "success", 95, attempt=2),
        run(90, "skipped", 90.1, attempt=0, reason=busy),
        run(120, "missed", 140, attempt=0, reason=late),
    ]
    seen.troubles = [Trouble("no database", 118, 138)]
    for number, (second, event) in enumerate([(30, "ended"), (60, "ended"), (120, "missed")], start=1):
        about = {"id": number, "runId": run_id(second), "channelId": "ops", "error": None}
        wire = "run.missed" if event == "missed" else "run.completed"
        seen.deliveries.append(about | {"event": wire, "state": "delivered"})
        arrival = ("a", "ops", f"{run_id(second)}.{event}", run_id(second), wire, "success", True)
        seen.arrivals.append(Arrival(100.0 + number, *arrival))
    seen.jobs = [view()]
    return seen


def test_it_finds_nothing_where_all_is_as_promised() -> None:
    assert judge(as_promised()) == []


def change_work(seen: Evidence, number: int, **changes: Any) -> None:
    line = seen.works[number]
    seen.works[number] = WorkLine(**{**vars(line), **changes})


def overlap_the_next(seen: Evidence) -> None:
    """The first run's end comes late, in the middle of the second run."""
    change_work(seen, 1, at=60.5)
    in_order(seen)


def ask_for(seen: Evidence, kind: str, at: float, **about: Any) -> None:
    seen.commands.append(command(kind, at, **about))
    seen.commands.sort(key=lambda one: one.at)


def each(*breaks: Break) -> Break:
    """All of them, one after the other."""
    return lambda seen: [one(seen) for one in breaks]


def in_order(seen: Evidence) -> None:
    seen.works.sort(key=lambda line: line.at)


BROKEN: dict[str, tuple[Break, str]] = {
    "an error that nobody caught": (lambda seen: seen.uncaught.append("boom"), "nobody caught: boom"),
    "an answer that is none": (
        lambda seen: ask_for(seen, "run", 20, result="broken", answer="KeyError()", data={"key": "k"}),
        "was answered with KeyError()",
    ),
    "an instant without a record": (lambda seen: seen.runs.pop(2), "no record for 09:01:30"),
    "an instant with two": (
        lambda seen: seen.runs.append({**seen.runs[3], "id": run_id(5)}),
        "2 records for 09:02:00",
    ),
    "a record of no instant": (
        lambda seen: seen.runs[3].update(scheduledFor=text(121)),
        "a record for 09:02:01, which was not due",
    ),
    "a record of a time before the job": (
        lambda seen: seen.runs.append(run(0, "missed", 140, attempt=0, reason="late")),
        "a record for 09:00:00, which was not due",
    ),
    "a record of a time when it was paused": (
        lambda seen: seen.runs.append(run(150, "success", 151)),
        "a record for 09:02:30, which was not due",
    ),
    "a run of nobody's": (
        lambda seen: seen.runs[3].update(jobId="job_b"),
        "there are runs of jobs that nobody made: ['job_b']",
    ),
    "a run without an end": (lambda seen: seen.runs[0].update(status="running"), "has not ended: running"),
    "a miss without a reason": (lambda seen: seen.runs[3].update(reason=None), "missed with reason None"),
    "a miss when all was well": (lambda seen: seen.troubles.clear(), "although nothing was wrong"),
    "a miss that another gateway could have seen to": (
        each(lambda seen: setattr(seen.troubles[0], "gateway", "a"), lambda seen: seen.gateways.append("b")),
        "although nothing was wrong",
    ),
    "a miss for an instant that is none": (
        lambda seen: seen.runs[3].update(reason=f"superseded by the instant at {text(125)}, as it asks"),
        "missed for an instant that is none",
    ),
    "a miss within the window": (
        lambda seen: seen.runs[3].update(reason="20 s late, outside the catch-up window of 300 s: no"),
        "missed by an odd reckoning",
    ),
    "a run that waits on after its deadline": (
        each(
            lambda seen: seen.troubles.clear(),
            lambda seen: seen.runs[3].update(
                reason=f"its deadline, {text(125)}, passed before it could start", deadlineAt=text(125)
            ),
        ),
        f"waited on after its deadline, until {text(140)}",
    ),
    "a skip for a run that had ended": (
        lambda seen: seen.runs[2].update(reason=f"the run ({run_id(30)}) had not ended"),
        "skipped for a run that had ended",
    ),
    "a skip for nothing": (
        lambda seen: seen.runs[2].update(reason=f"the run ({run_id(7)}) had not ended"),
        "skipped for what is no run of the job",
    ),
    "a skip that the job did not ask for": (
        lambda seen: setattr(seen.commands[0], "data", {**POLICY, "overlap": "queue"}),
        "is skipped although overlap is queue",
    ),
    "a cancellation by nobody": (
        lambda seen: seen.runs[0].update(status="cancelled"),
        "is cancelled, and nobody says why",
    ),
    "an attempt that is begun twice": (
        lambda seen: seen.works.extend(work(30, 1, 31.5, 31.7, "success")),
        f"attempt 1 of {run_id(30)} was begun 2 times",
    ),
    "a run that is in no record": (
        lambda seen: seen.works.extend(work(45, 1, 45.1, 45.2, "success")),
        f"{run_id(45)} was begun, and is in no record",
    ),
    "an attempt more than is on record": (
        lambda seen: seen.works.extend(work(30, 2, 36.5, 37, "success")),
        "has 1 attempts, and another was begun",
    ),
    "an attempt more than is allowed": (lambda seen: seen.runs[1].update(attempt=3), "2 are allowed"),
    "a start before its time": (lambda seen: change_work(seen, 0, at=29.9), "began early, at 29.900"),
    "another command at the second try": (
        lambda seen: change_work(seen, 4, command="sim ok 1 #9"),
        "did one command, then another",
    ),
    "a retry that is too quick": (
        lambda seen: change_work(seen, 4, at=62.0),
        "was tried again after 1.000 s, 5 s are asked for",
    ),
    "a success that did not happen": (
        lambda seen: change_work(seen, 1, how="failure"),
        "is a success, and its last attempt was not",
    ),
    "the output of an attempt that was given up": (
        lambda seen: seen.runs[1].update(output=f"{run_id(60)} 1 #1"),
        "shows the output of another attempt",
    ),
    "a success that is not believed": (
        lambda seen: seen.runs[0].update(status="failure", output=""),
        "is a failure although attempt 1 went well",
    ),
    "a retry during the attempt before": (
        each(lambda seen: change_work(seen, 3, at=67.0), in_order),
        f"attempt 2 of {run_id(60)} began at 66.200 during attempt 1 of {run_id(60)}",
    ),
    "two runs of a job at once": (overlap_the_next, f"of {run_id(60)} began at 60.100 during attempt 1 of"),
    "a command that is not in force": (
        lambda seen: change_work(seen, 0, command="sim ok 1 #0"),
        "did sim ok 1 #0 at 30.100",
    ),
    "a command that is no longer in force": (
        lambda seen: ask_for(
            seen,
            "update",
            20,
            data={"command": "sim ok 1 #2"},
            answer=view(command="sim ok 1 #2", nextExecutionAt=text(30)),
        ),
        "did sim ok 1 #1 at 30.100, not one of ['sim ok 1 #2']",
    ),
    "a lie about what is next": (
        lambda seen: seen.commands[0].answer.update(nextExecutionAt=text(60)),
        "says that the next is 09:01:00: it is 09:00:30",
    ),
    "a run that was asked for and is not there": (
        lambda seen: ask_for(seen, "run", 20, data={"key": "k"}, answer={"id": "run_k"}),
        "the run run_k that was asked for is in no record",
    ),
    "two runs of one key": (
        each(
            lambda seen: ask_for(seen, "run", 30, data={"key": "k"}, answer={"id": run_id(30)}),
            lambda seen: ask_for(seen, "run", 60, data={"key": "k"}, answer={"id": run_id(60)}),
        ),
        "k made two runs",
    ),
    "a run by hand that nobody asked for": (
        lambda seen: seen.runs.append(run(20, "success", 21, trigger="manual")),
        "1 runs by hand, 0 were asked for",
    ),
    "a cancelled run that begins again": (
        lambda seen: ask_for(seen, "cancel", 62, job=run_id(60)),
        "was cancelled at 62.500, and begun at 66.200",
    ),
    "a cancelled run that goes on": (
        each(
            lambda seen: ask_for(seen, "cancel", 61.9, job=run_id(60)),
            lambda seen: change_work(seen, 4, at=62.0),
        ),
        "was cancelled at 62.400, and went on as success",
    ),
    "a deleted job that goes on": (
        lambda seen: ask_for(seen, "delete", 40),
        "was deleted at 40.500, and begun at 60.100",
    ),
    "a job that goes on although it failed too often": (
        each(
            lambda seen: setattr(seen.commands[0], "data", {**POLICY, "pauseAfterFailures": 1}),
            lambda seen: seen.runs[0].update(status="failure"),
            lambda seen: seen.troubles.clear(),
        ),
        f"{run_id(90)} for 09:01:30 came due although the job had failed as often as it may",
    ),
    "a result that is never told": (lambda seen: seen.deliveries.pop(1), "and nobody is told"),
    "a result that is told to nobody's ears": (
        lambda seen: setattr(seen.commands[0], "data", {**POLICY, "notify": "never"}),
        "is told although notify is never",
    ),
    "a miss that is never told": (lambda seen: seen.deliveries.pop(2), "nobody is told of 1 missed"),
    "a result that never came": (lambda seen: seen.arrivals.pop(1), "and never came"),
    "a result that still waits": (lambda seen: seen.deliveries[1].update(state="waiting"), "still waits"),
    "a result that was given up": (
        lambda seen: seen.deliveries[1].update(state="undeliverable", error="no"),
        "was given up: no",
    ),
    "a message about nothing": (
        lambda seen: seen.arrivals.append(Arrival(1, "a", "ops", "x.ended", "x", "run.completed", "", True)),
        "run.completed of x arrived, and is in no record",
    ),
    "results out of order": (lambda seen: seen.arrivals.reverse(), "came before"),
    "a run that nobody begins": (
        each(
            lambda seen: seen.runs.append(run(135, "cancelled", 460, trigger="manual", attempt=0)),
            lambda seen: setattr(seen, "ended_at", 500),
        ),
        f"{run_id(135)} waited until 460.000, and nothing worked for 200 s",
    ),
    "a work that is not stopped": (
        each(lambda seen: change_work(seen, 5, at=140), lambda seen: seen.troubles.clear()),
        "worked for 73.800 s, timeoutSeconds is 60",
    ),
    "nothing at all": (lambda seen: seen.works.clear(), "only 0 attempts"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_it_finds(broken: str) -> None:
    breaking, sentence = BROKEN[broken]
    seen = as_promised()
    breaking(seen)
    assert sentence in "\n".join(judge(seen))


EXCUSED: dict[str, Break] = {
    "a notice that came twice": lambda seen: seen.arrivals.append(seen.arrivals[0]),
    "an instant that came while a command was on its way": each(
        lambda seen: ask_for(seen, "pause", 89.8),
        lambda seen: ask_for(seen, "resume", 91),
        lambda seen: seen.runs.pop(2),
    ),
    "an instant of a pause that may be": each(
        lambda seen: ask_for(seen, "pause", 80, result="unsure", answered_at=82),
        lambda seen: seen.runs.pop(2),
    ),
    "an instant that came in a pause, by a leap that was taken back, and once more after it": each(
        lambda seen: vars(seen.commands[1]).update(at=125, answered_at=125.5),
        lambda seen: ask_for(seen, "resume", 140),
        lambda seen: seen.clock.extend([(130, 30), (132, 0)]),
        lambda seen: seen.troubles.append(Trouble("clock", 129, 137)),
        lambda seen: setattr(seen, "ended_at", 170),
    ),
    "an instant after the end of a pause in which a backfill failed": each(
        lambda seen: setattr(seen.commands[0], "data", {**POLICY, "pauseAfterFailures": 1}),
        lambda seen: ask_for(seen, "pause", 26, data={"until": text(45)}),
        lambda seen: ask_for(
            seen, "backfill", 32, data={"since": text(29), "until": text(31)}, answer={"instants": []}
        ),
        lambda seen: seen.runs[0].update(trigger="backfill", status="failure", finishedAt=text(35)),
        lambda seen: change_work(seen, 0, at=34, trigger="backfill"),
        lambda seen: change_work(seen, 1, at=35, trigger="backfill", how="failure"),
        lambda seen: vars(seen.commands[-1]).update(at=110, answered_at=110.5),
        lambda seen: [some.pop() for some in (seen.runs, seen.deliveries, seen.arrivals, seen.troubles)],
    ),
    "an instant that came as the job was to be paused for its failures": each(
        lambda seen: setattr(seen.commands[0], "data", {**POLICY, "pauseAfterFailures": 1}),
        lambda seen: change_work(seen, 5, at=120, how="failure"),
        lambda seen: seen.runs[1].update(status="failure", finishedAt=text(120)),
        lambda seen: seen.runs[3].update(finishedAt=text(120), reason=SETTLED),
        lambda seen: seen.troubles.clear(),
    ),
    "an instant that was overtaken by a pause of that moment": each(
        lambda seen: vars(seen.commands[1]).update(at=120.02, answered_at=120.1),
        lambda seen: seen.runs[3].update(finishedAt=text(120.05), reason=SETTLED),
        lambda seen: seen.troubles.clear(),
    ),
    "an end of a job of whose runs the last came to its deadline in the queue": each(
        lambda seen: setattr(seen.commands[0], "data", {**POLICY, "maxRuns": 3, "overlap": "queue"}),
        lambda seen: seen.runs.pop(3),
        lambda seen: seen.runs[2].update(
            status="missed",
            reason=f"its deadline, {text(90)}, passed before it could start",
            deadlineAt=text(90),
        ),
        lambda seen: seen.deliveries[2].update(runId=run_id(90)),
        lambda seen: seen.arrivals.pop(2),
        lambda seen: seen.arrivals.append(
            Arrival(103.0, "a", "ops", "x", run_id(90), "run.missed", "missed", True)
        ),
    ),
    "an overlap with a gateway that was frozen": each(
        lambda seen: seen.troubles.append(Trouble("frozen", 60.2, 140, "a")),
        lambda seen: change_work(seen, 3, at=67.0),
        in_order,
    ),
    "a retry soon after the end of what was lost with a gateway that was frozen": each(
        lambda seen: seen.troubles.append(Trouble("frozen", 60.2, 140, "a")),
        lambda seen: change_work(seen, 3, at=64.0),
    ),
}


@pytest.mark.parametrize("excused", EXCUSED)
def test_it_takes(excused: str) -> None:
    seen = as_promised()
    EXCUSED[excused](seen)
    assert judge(seen) == []


SCHEDULES: dict[str, list[int]] = {
    "* * * * *": [60, 120, 180],
    "*/2 * * * *": [120],
    "0,7,30,44 * * * *": [],
    "*/20 * * * * *": [40, 60, 80, 100, 120, 140, 160, 180],
    "every 40s": [42, 82, 122, 162],
    "every 90s": [92, 182],
}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_it_knows_what_is_due(schedule: str) -> None:
    """Between 09:00:21 and 09:03:02, of a job that was made at 09:00:02."""
    assert list(instants(schedule, 2, 21, 182)) == SCHEDULES[schedule]


def test_it_knows_what_the_wall_shows_and_when() -> None:
    """Set back by a minute after 100 s, set forward by an hour after 200 s."""
    wall = Wall([(0, 0), (100, -60), (200, 3540)])
    assert [wall.shows(at) for at in (50, 100, 199, 200)] == [50, 40, 139, 3740]
    assert wall.passes(90) == [90, 150]
    assert wall.passes(2000) == [200]
    assert wall.passes(3750) == [210]
    assert [wall.furthest(at) for at in (90, 120, 180)] == [90, 100, 120]


def test_it_knows_no_code_of_ours() -> None:
    for name in ("judge.py", "case.py", "witness.py"):
        for node in ast.walk(ast.parse((Path(__file__).parent / name).read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0 or node.module in ("case", "witness"), node.module
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [one.name for one in node.names] if isinstance(node, ast.Import) else []
            assert not [one for one in modules if one.startswith("carapace")]
