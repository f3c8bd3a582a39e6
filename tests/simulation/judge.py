"""The judge of a story: it reads what an outside witness saw and the last answers of the API, and no code of
ours. See `case` for what it makes of that first.

Every check answers a list of sentences, one a fault; an empty list is what the promises ask for.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from .case import Case, Job, View, clock_text, instants, seconds_of
from .witness import Command, Evidence, WorkLine

GOOD = frozenset({"success", "degraded"})
BAD = frozenset({"failure", "timeout"})
ENDED = GOOD | BAD | {"cancelled"}
NOT_RUN = frozenset({"skipped", "missed"})
OF_THE_SCHEDULE = ("schedule", "catchUp")

SOON = 12.0  # a start this late is on time: the product's 10 s, and a little for the way
LEASE = 60.0
LATENCY = 2.0  # of a call that goes well, there and back, and of a step after it
STOPPED_WITHIN = 30.0  # from the answer to a cancel until the work has stopped
SETTLED_WITHIN = 30.0  # by then a gateway has paused or deleted a job that is to be
LONGEST_IDLE = 200.0  # while something waits: a retry waits for 80 s, and a clock may be behind by 100 s
LEAST_BEGUN = 0.8  # of the runs that had an attempt
LOST_CLAIMS = 1  # besides those: of few runs, one whose claim was never answered is many
REASON_RUN = re.compile(r"run_[0-9a-v]{26}")
REACH = re.compile(r"like every instant from then until (?P<last>\S+Z):")
SUPERSEDED = re.compile(r"superseded by the instant at (?P<by>\S+Z),")
SETTLED = "the job was paused, changed or deleted before this instant could start"
DEADLINE = re.compile(r"its deadline, (?P<at>\S+Z), passed before it (could start|was tried again)")
TOO_LATE = re.compile(r"(?P<late>\d+) s late, outside the catch-up window of (?P<window>[0-9.e+]+) s")


def judge(seen: Evidence) -> list[str]:
    """Every fault against the promises."""
    case = Case(seen)
    return [
        *(f"nobody caught: {trouble}" for trouble in seen.uncaught),
        *broken_answers(case),
        *instants_without_one_record(case),
        *ill_explained_runs(case),
        *ill_witnessed_works(case),
        *overlapping_works(case),
        *works_beyond_limits(case),
        *disobeyed_commands(case),
        *ill_asked_runs(case),
        *ill_chained_runs(case),
        *jobs_that_should_have_stopped(case),
        *ill_delivered_notices(case),
        *too_little_work(case),
        *runs_that_nobody_began(case),
    ]


def _name(job: Job, run: View) -> str:
    return f"{job.name}: {run['id']} for {clock_text(seconds_of(run['scheduledFor']))}"


# Promise 1: each due instant of an enabled job has exactly one record.


def instants_without_one_record(case: Case) -> Iterator[str]:
    unknown = {run["jobId"] for run in case.seen.runs} - case.by_id.keys()
    if len(unknown) > case.unheard_of:
        yield f"there are runs of jobs that nobody made: {sorted(unknown)}"
    for job in case.jobs.values():
        yield from _records_of(case, job)


def _records_of(case: Case, job: Job) -> Iterator[str]:
    scheduled = [run for run in job.runs if run["trigger"] in (*OF_THE_SCHEDULE, "backfill")]
    records = Counter(seconds_of(run["scheduledFor"]) for run in scheduled)
    stand_for = [reach for run in scheduled if (reach := _reach(run)) is not None]
    must, may = _due(case, job)
    may |= _backfilled(case, job)
    for at in sorted(must):
        if at not in records and not any(first <= at < last for first, last in stand_for):
            yield f"{job.name}: no record for {clock_text(at)}"
    for at, count in records.items():
        if count > 1:
            yield f"{job.name}: {count} records for {clock_text(at)}"
        if at not in may:
            yield f"{job.name}: a record for {clock_text(at)}, which was not due"


def _reach(run: View) -> tuple[float, float] | None:
    """The instants that a record stands for, from the first until before the last."""
    found = REACH.search(run["reason"] or "")
    return None if found is None else (seconds_of(run["scheduledFor"]), seconds_of(found["last"]))


def _due(case: Case, job: Job) -> tuple[set[float], set[float]]:
    """The instants that were due for sure, and those that may have been, by what was in force when."""
    must: set[float] = set()
    may: set[float] = set()
    over_at, last = _may_be_over_at(case, job), _last_of_max_runs(job)
    for schedule in job.schedules():
        until = case.wall.furthest(case.seen.ended_at)
        for wall in instants(schedule, job.created, case.wall.earliest - 1, until):
            passes = [one for one in case.wall.passes(wall) if one <= case.seen.ended_at]
            seen = _until_it_was_seen(case, wall, passes)
            in_time = bool(seen) and seen[-1] < over_at and wall <= last
            if in_time and all(_is_due_for_sure(case, job, wall, one) for one in seen):
                must.add(wall)
            if any(_may_be_due(job, wall, one) for one in passes):
                may.add(wall)
    return must, may


def _until_it_was_seen(case: Case, wall: float, passes: Sequence[float]) -> Sequence[float]:
    """Its passes up to the first that somebody saw for sure: each of them may be the one that counted."""
    first = next((number for number, one in enumerate(passes) if case.was_seen(wall, one)), None)
    return [] if first is None else passes[: first + 1]


def _is_due_for_sure(case: Case, job: Job, wall: float, at: float) -> bool:
    found = [one.may_be for one in job.periods if one.since <= at <= one.until]
    certain = all(job.is_due(definition, wall) for may_be in found for definition in may_be)
    return certain and case.is_news(job, wall, at)


def _may_be_due(job: Job, wall: float, at: float) -> bool:
    return any(job.is_due(definition, wall) for definition in job.definitions(at - 1, at + 1))


def _last_of_max_runs(job: Job) -> float:
    """The instant with which the job has had as many runs as it may."""
    ran = sorted(seconds_of(run["scheduledFor"]) for run in job.runs if _counts_for_max_runs(run))
    most = job.policy.get("maxRuns")
    return ran[most - 1] if most is not None and len(ran) >= most else float("inf")


def _counts_for_max_runs(run: View) -> bool:
    """What the schedule put in the queue, even if it came to its deadline there and was backfilled since."""
    in_the_queue = DEADLINE.search(run["reason"] or "") is not None
    ran_again = run["trigger"] == "backfill" and in_the_queue
    return ran_again or (run["trigger"] in OF_THE_SCHEDULE and (run["status"] not in NOT_RUN or in_the_queue))


def _may_be_over_at(case: Case, job: Job) -> float:
    """From when on the gateway may have paused or deleted the job by itself."""
    ends = [float("inf")]
    if job.policy.get("deleteAfterRun"):
        ends += [at for run in job.runs if _counts_as_done(run) for at in case.ended_at(run)[:1]]
    most = job.policy.get("pauseAfterFailures")
    if most is not None:
        bad = sorted(at for run in job.runs if run["status"] in BAD for at in case.ended_at(run)[:1])
        ends += bad[most - 1 : most]
    return min(ends)


def _counts_as_done(run: View) -> bool:
    """Whether it is a run after which a job with deleteAfterRun is deleted."""
    return run["trigger"] in (*OF_THE_SCHEDULE, "chain") and run["status"] not in NOT_RUN


def _backfilled(case: Case, job: Job) -> set[float]:
    """The instants that may have been asked for by a backfill."""
    found: set[float] = set()
    for command in job.commands:
        if command.kind == "backfill" and command.result != "refused":
            since, until = (seconds_of(command.data[name]) for name in ("since", "until"))
            definitions = job.definitions(command.at, command.answered_at or command.at + LEASE)
            for schedule in {one.schedule for one in definitions if one is not None}:
                asked = instants(schedule, job.created, since - 1, until)
                found.update(at for at in asked if since <= at < until)
    return found


# Each record has an end, and a reason that can be checked.


def ill_explained_runs(case: Case) -> Iterator[str]:
    for job in case.jobs.values():
        for run in job.runs:
            for fault in _ill_explained(case, job, run):
                yield f"{_name(job, run)} {fault}"


def _ill_explained(case: Case, job: Job, run: View) -> Iterator[str]:
    status, reason = run["status"], run["reason"]
    if status not in ENDED | NOT_RUN:
        yield f"has not ended: {status}"
        return
    if run["finishedAt"] is None:
        yield f"is {status} without an end"
    if _outlived_its_deadline(case, run):
        yield f"waited on after its deadline, until {run['finishedAt']}: {reason}"
    if status in NOT_RUN and (not reason or run["attempt"] or case.works.get(run["id"])):
        yield f"is {status} with reason {reason!r} after {run['attempt']} attempts"
    elif status == "skipped":
        yield from _ill_skipped(case, job, run)
    elif status == "missed":
        yield from _ill_missed(case, job, run)
    if status == "cancelled" and not reason:
        yield "is cancelled, and nobody says why"


def _ill_skipped(case: Case, job: Job, run: View) -> Iterator[str]:
    if job.policy["overlap"] != "skip":
        yield f"is skipped although overlap is {job.policy['overlap']}"
    named = REASON_RUN.search(run["reason"])
    other = None if named is None else case.runs.get(named[0])
    if other is None or other["jobId"] != run["jobId"] or not _was_alive(other):
        yield f"is skipped for what is no run of the job: {run['reason']}"
        return
    ended, skipped = case.ended_at(other), case.ended_at(run)
    if ended and skipped and ended[-1] < skipped[0] - LATENCY and not case.any_trouble(ended[-1], skipped[0]):
        yield f"is skipped for a run that had ended: {run['reason']}"


def _outlived_its_deadline(case: Case, run: View) -> bool:
    """Whether it stood in the queue although a gateway could have ended it, whatever it waited for."""
    if DEADLINE.search(run["reason"] or "") is None or run["deadlineAt"] is None:
        return False
    deadline, ended = seconds_of(run["deadlineAt"]), seconds_of(run["finishedAt"])
    if any(_was_read_before_a_step(case, at) for at in case.wall.passes(ended)):
        return False
    was_late = ended > deadline + SOON
    passes = case.wall.passes(deadline)
    end = case.works.get(run["id"], [None])[-1]  # it is not in the queue again before that is on record
    if end is not None and any(any(case.troubles(end.at, at + SOON, end.gateway)) for at in passes):
        return False
    return was_late and not any(case.troubled(at - 1, at + SOON) for at in passes)


def _was_read_before_a_step(case: Case, at: float) -> bool:
    """Whether a slow call may have read the clock then, and have arrived after that was moved."""
    slow = (one for name in case.seen.gateways for one in case.troubles(at, at, name))
    return any(case.wall.steps_within(at, one.until) for one in slow)


def _was_alive(run: View) -> bool:
    """Whether it stood in the queue, at least: one that came to its deadline there is missed."""
    return run["status"] not in NOT_RUN or DEADLINE.search(run["reason"] or "") is not None


def _ill_missed(case: Case, job: Job, run: View) -> Iterator[str]:
    due = seconds_of(run["scheduledFor"])
    passes = case.wall.passes(due)
    deadline = DEADLINE.search(run["reason"])
    if deadline is not None:
        if seconds_of(deadline["at"]) > seconds_of(run["finishedAt"]) or run["deadlineAt"] != deadline["at"]:
            yield f"is missed before its deadline: {run['reason']}"
    elif passes and not any(
        case.troubled(at - 1, at + SOON, job)
        or _is_over_by_itself(case, job, run, at)
        or _is_overtaken(job, run, at)
        for at in passes
    ):
        yield f"is missed although nothing was wrong: {run['reason']}"
    superseded = SUPERSEDED.search(run["reason"])
    if superseded is not None:
        by = seconds_of(superseded["by"])
        if by <= due or not any(seconds_of(one["scheduledFor"]) == by for one in job.runs):
            yield f"is missed for an instant that is none: {run['reason']}"
    late = TOO_LATE.search(run["reason"])
    if late is not None and (
        float(late["late"]) <= float(late["window"])
        or float(late["window"]) != job.policy["catchUpWindowSeconds"]
    ):
        yield f"is missed by an odd reckoning: {run['reason']}"


def _is_over_by_itself(case: Case, job: Job, run: View, at: float) -> bool:
    """Whether the gateway may have been about to pause or delete the job as an instant of it came."""
    return SETTLED in run["reason"] and at >= _may_be_over_at(case, job) - LATENCY


def _is_overtaken(job: Job, run: View, at: float) -> bool:
    """Whether a command of that very moment was carried out before the instant could be recorded."""
    return SETTLED in run["reason"] and any(abs(one.at - at) <= LATENCY for one in job.defining())


# Promises 1 and 3, as the works saw it.


def ill_witnessed_works(case: Case) -> Iterator[str]:
    begun = Counter((line.run_id, line.attempt) for line in case.seen.works if line.what == "begin")
    for (run_id, attempt), count in begun.items():
        if count > 1:
            yield f"attempt {attempt} of {run_id} was begun {count} times"
    for run_id, lines in case.works.items():
        run = case.runs.get(run_id)
        if run is None:
            yield f"{run_id} was begun, and is in no record"
        elif run["jobId"] in case.by_id:
            job = case.by_id[run["jobId"]]
            yield from (f"{_name(job, run)} {fault}" for fault in _ill_worked(case, job, run, lines))
    for job in case.jobs.values():
        for each in job.runs:
            for fault in _ill_ended(case, each):
                yield f"{_name(job, each)} {fault}"


def _ill_worked(case: Case, job: Job, run: View, lines: Sequence[WorkLine]) -> Iterator[str]:
    begins = [line for line in lines if line.what == "begin"]
    ends = {line.attempt: line for line in lines if line.what == "end"}
    most = job.policy["retry"]["maxAttempts"]
    if max(line.attempt for line in begins) > run["attempt"]:
        yield f"has {run['attempt']} attempts, and another was begun"
    if run["attempt"] > most:
        yield f"has {run['attempt']} attempts, {most} are allowed"
    for line in begins:
        if case.wall.furthest(line.at) < line.scheduled_for - 0.001:
            yield f"began early, at {line.at:.3f}"
    if len({line.command for line in begins}) > 1:
        yield "did one command, then another"
    for before, after in pairwise(begins):
        end = ends.get(before.attempt)
        if end is None or after.attempt != before.attempt + 1:
            continue
        if not _was_out_of_reach(case, before, end.at):  # else the ledger has it as lost, before it ended
            yield from _too_quick(case, job, end, after)
    yield from _past_timeout(case, job, begins, ends)
    if run["deadlineAt"] is not None:
        yield from _past_deadline(case, run, begins, ends)


def _too_quick(case: Case, job: Job, end: WorkLine, after: WorkLine) -> Iterator[str]:
    retry = job.policy["retry"]
    # By the wall or by the world: lost work ended long before its loss was found, and a clock steps between.
    gap = max(case.wall.shows(after.at) - case.wall.shows(end.at), after.at - end.at)
    least = min(retry["initialSeconds"] * retry["factor"] ** (end.attempt - 1), 3600)
    if gap < least - 0.001 and end.at <= after.at and not case.wall.steps_within(end.at, end.at + LEASE):
        yield f"was tried again after {gap:.3f} s, {least} s are asked for"


def _past_timeout(
    case: Case, job: Job, begins: Sequence[WorkLine], ends: Mapping[int, WorkLine]
) -> Iterator[str]:
    most = job.policy["timeoutSeconds"]
    for line in begins:
        end = ends.get(line.attempt)
        if end is None or any(case.troubles(line.at, end.at, line.gateway)):
            continue
        if end.at > line.at + most + SOON:
            yield f"worked for {end.at - line.at:.3f} s, timeoutSeconds is {most}"


def _past_deadline(
    case: Case, run: View, begins: Sequence[WorkLine], ends: Mapping[int, WorkLine]
) -> Iterator[str]:
    deadline = seconds_of(run["deadlineAt"])
    for line in begins:
        if case.wall.steps_within(line.at - LATENCY, line.at):
            continue
        late = case.wall.shows(line.at) - deadline
        if late > LATENCY and not any(case.troubles(line.at - LEASE, line.at, line.gateway)):
            yield f"began {late:.3f} s after its deadline"
        end = ends.get(line.attempt)
        if end is None or any(case.troubles(line.at, end.at, line.gateway)):
            continue
        if end.at > line.at + max(-late, 0) + LATENCY + SOON:
            yield f"worked for {end.at - line.at:.3f} s, begun {-late:.3f} s before its deadline"


def _ill_ended(case: Case, run: View) -> Iterator[str]:
    """The result on record is that of its last attempt, and of no earlier one."""
    ends = {line.attempt: line for line in case.works.get(run["id"], []) if line.what == "end"}
    last = ends.get(run["attempt"])
    if run["status"] in GOOD and (last is None or last.how != run["status"]):
        yield f"is a {run['status']}, and its last attempt was not"
    if run["output"] and run["output"].split()[:2] != [run["id"], str(run["attempt"])]:
        yield f"shows the output of another attempt: {run['output']}"
    for line in ends.values():
        overruled = line.how in GOOD and (run["status"] not in GOOD or line.attempt != run["attempt"])
        excused = any(case.troubles(line.at - LEASE, line.at + LEASE, line.gateway))
        if overruled and not excused and run["status"] != "cancelled":
            yield f"is a {run['status']} although attempt {line.attempt} went well"


def overlapping_works(case: Case) -> Iterator[str]:
    """No attempt overlaps another of its run, no run another of a job whose overlap is not allow."""
    for line, others in _each_begin(case):
        job = case.by_id[line.job_id]
        for other in others:
            serial = other.job_id == line.job_id and job.policy["overlap"] != "allow"
            if (serial or other.run_id == line.run_id) and not _was_out_of_reach(case, other, line.at):
                yield (
                    f"{job.name}: attempt {line.attempt} of {line.run_id} began at {line.at:.3f} "
                    f"during attempt {other.attempt} of {other.run_id}, begun at {other.at:.3f}"
                )


def _each_begin(case: Case) -> Iterator[tuple[WorkLine, Sequence[WorkLine]]]:
    """Each begin of a work, and what else was under way then."""
    under_way: dict[tuple[str, int, str], WorkLine] = {}
    for line in case.seen.works:
        same = line.run_id, line.attempt, line.process
        if line.what == "end":
            under_way.pop(same, None)
        elif line.job_id in case.by_id:
            yield line, list(under_way.values())
            under_way[same] = line


def _was_out_of_reach(case: Case, work: WorkLine, at: float) -> bool:
    """Whether a work's gateway was frozen for so long that its lease ran out, and nobody could stop it."""
    frozen = (one for one in case.troubles(work.at, at, work.gateway) if one.what == "frozen")
    return any(one.until - one.since > LEASE - 20 for one in frozen)


def works_beyond_limits(case: Case) -> Iterator[str]:
    """Never more at work for a channel, or for the tenant, than the operator allows."""
    limits = case.seen.limits
    for line, others in _each_begin(case):
        at_work = [line, *(one for one in others if not _was_out_of_reach(case, one, line.at))]
        channel = case.by_id[line.job_id].policy["channelId"]
        of_channel = sum(case.by_id[one.job_id].policy["channelId"] == channel for one in at_work)
        if of_channel > limits.get(f"channel:{channel}", of_channel):
            yield f"{of_channel} works for channel {channel} at {line.at:.3f}: {line.run_id} is too many"
        if len(at_work) > limits.get("tenant", len(at_work)):
            yield f"{len(at_work)} works of the tenant at {line.at:.3f}: {line.run_id} is too many"


# Promise 2: what was answered is in force.


def broken_answers(case: Case) -> Iterator[str]:
    for command in case.seen.commands:
        if command.result == "broken":
            yield f"{command.kind} of {command.job} at {command.at:.3f} was answered with {command.answer}"


def disobeyed_commands(case: Case) -> Iterator[str]:
    yield from _odd_works(case)
    for command in case.seen.commands:
        if command.result == "done":
            if command.kind == "cancel":
                yield from _not_cancelled(case, command)
            if command.kind == "delete":
                yield from _not_deleted(case, command)
            if command.kind in ("create", "update", "resume", "restore"):
                yield from _lie_about_what_is_next(case, command)


def _odd_works(case: Case) -> Iterator[str]:
    """Each work does what was in force for its instant, or what came later."""
    for line in case.seen.works:
        job, run = case.by_id.get(line.job_id), case.runs.get(line.run_id)
        if job is None or run is None or line.what != "begin":
            continue
        since = 0.0
        if line.trigger in OF_THE_SCHEDULE:
            since = next(iter(case.wall.passes(line.scheduled_for)), 0.0)
        elif line.trigger == "chain" and run["causedBy"] in case.runs:
            since = next(iter(case.ended_at(case.runs[run["causedBy"]])), LATENCY) - LATENCY
        known = {one.command for one in job.definitions(since, line.at) if one is not None}
        if line.command not in known:
            yield f"{job.name}: {line.run_id} did {line.command} at {line.at:.3f}, not one of {sorted(known)}"


def _not_cancelled(case: Case, command: Command) -> Iterator[str]:
    assert command.answered_at is not None
    run = case.runs.get(command.job)
    if run is None:
        yield f"{command.job} was cancelled, and is in no record"
        return
    lines = case.works.get(command.job, [])
    for line in lines:
        late = line.what == "begin" and line.at > command.answered_at + LATENCY
        if late and not any(case.troubles(command.answered_at, line.at, line.gateway)):
            yield f"{command.job} was cancelled at {command.answered_at:.3f}, and begun at {line.at:.3f}"
    ends = [line.at for line in lines if line.what == "end"]
    went_on = ends and max(ends) > command.answered_at + STOPPED_WITHIN
    if run["status"] != "cancelled" and went_on and not case.troubled(command.answered_at, max(ends)):
        yield f"{command.job} was cancelled at {command.answered_at:.3f}, and went on as {run['status']}"


def _not_deleted(case: Case, command: Command) -> Iterator[str]:
    assert command.answered_at is not None
    job = case.jobs[command.job]
    back = [one.at for one in job.commands if one.kind == "restore" and one.at >= command.at]
    for line in case.seen.works:
        late = command.answered_at + LATENCY < line.at < min(back, default=float("inf"))
        begins = line.job_id == job.id and line.what == "begin" and late
        if begins and not any(case.troubles(command.answered_at, line.at, line.gateway)):
            yield f"{job.name} was deleted at {command.answered_at:.3f}, and begun at {line.at:.3f}"


def _lie_about_what_is_next(case: Case, command: Command) -> Iterator[str]:
    """`nextExecutionAt` is the first instant after some moment of the call."""
    assert command.answered_at is not None
    answer, job = command.answer, case.jobs[command.job]
    said = answer.get("nextExecutionAt")
    if not answer["enabled"] or case.wall.goes_back_before(command.answered_at):
        return
    since, until = case.wall.shows(command.at), case.wall.shows(command.answered_at)
    after = instants(answer["cronExpression"], job.created, until, until + 2 * 3600)
    first = next((at for at in after if at <= job.end_at), None)
    possible = {*instants(answer["cronExpression"], job.created, since, until), first}
    next_at = None if said is None else seconds_of(said)
    if next_at not in possible and not (next_at is None and "maxRuns" in job.policy):
        told = "none" if next_at is None else clock_text(next_at)
        true = "none" if first is None else clock_text(first)
        yield f"{job.name}: {command.kind} at {command.at:.3f} says that the next is {told}: it is {true}"


# What was asked for, by a person or by the end of another run.


def ill_asked_runs(case: Case) -> Iterator[str]:
    keys: dict[tuple[str, str], str] = {}
    asked: Counter[str] = Counter()
    for command in case.seen.commands:
        if command.kind != "run" or command.result == "refused":
            continue
        key = command.job, command.data["key"]
        if key not in keys:
            asked[command.job] += 1
            keys[key] = ""
        if command.result == "done":
            if command.answer["id"] not in case.runs:
                yield f"{command.job}: the run {command.answer['id']} that was asked for is in no record"
            if keys[key] not in ("", command.answer["id"]):
                yield f"{command.job}: {key[1]} made two runs"
            keys[key] = command.answer["id"]
    for job in case.jobs.values():
        manual = sum(run["trigger"] == "manual" for run in job.runs)
        if manual > asked[job.name]:
            yield f"{job.name}: {manual} runs by hand, {asked[job.name]} were asked for"
        yield from _not_backfilled(case, job)


def _not_backfilled(case: Case, job: Job) -> Iterator[str]:
    """Each instant that a backfill was said to run has its run."""
    by_instant = (run for run in job.runs if run["trigger"] not in ("manual", "chain"))
    runs = {seconds_of(run["scheduledFor"]): run for run in by_instant}
    for command in job.commands:
        if command.kind != "backfill" or command.result != "done":
            continue
        for one in command.answer["instants"]:
            at = seconds_of(one["at"])
            if at not in runs or (one["fate"] != "leave" and runs[at]["status"] in NOT_RUN):
                yield f"{job.name}: {clock_text(at)} was to be backfilled, and has no run"
    if not any(command.kind == "backfill" and command.result != "refused" for command in job.commands):
        for run in job.runs:
            if run["trigger"] == "backfill":
                yield f"{_name(job, run)} is a backfill that nobody asked for"


def ill_chained_runs(case: Case) -> Iterator[str]:
    """One run of a follower for each end that it waits for, and none without."""
    for job in case.jobs.values():
        after = {one["jobId"]: one["when"] for one in job.policy.get("after", ())}
        chained = [run for run in job.runs if run["trigger"] == "chain"]
        causes = Counter(run["causedBy"] for run in chained)
        for run in chained:
            cause = case.runs.get(run["causedBy"])
            if cause is None or not _starts(after.get(cause["jobId"]), cause["status"]):
                yield f"{_name(job, run)} was started by {run['causedBy']}, which starts nothing here"
        yield from (f"{job.name}: {count} runs for {cause}" for cause, count in causes.items() if count > 1)
        for upstream, when in after.items():
            for end in case.by_id[upstream].runs if upstream in case.by_id else ():
                if _starts(when, end["status"]) and end["id"] not in causes and _waits(case, job, end):
                    yield f"{job.name}: no run although {end['id']} ended as {end['status']}"


def _starts(when: str | None, status: str) -> bool:
    kinds = {"success": GOOD, "failure": BAD, "end": GOOD | BAD}
    return when is not None and status in kinds[when]


def _waits(case: Case, job: Job, cause: View) -> bool:
    """Whether the follower was on for sure while the end of `cause` was recorded, as it was when nothing was
    wrong. One whose schedule comes to its end starts nothing any more, so nothing is expected of those."""
    if "maxRuns" in job.policy or "endAt" in job.policy:
        return False
    over_at = _may_be_over_at(case, job)
    for at in case.ended_at(cause):
        wall = case.wall.shows(at)
        troubled = case.any_trouble(at - LATENCY, at + LATENCY)
        since, until = at - LATENCY, at + LATENCY
        sure = all(job.is_on_for_sure(one, wall) for one in (since, at, until))
        changed = any(one.at <= until and since <= (one.answered_at or one.at) for one in job.defining())
        if troubled or changed or not sure or at >= over_at - LATENCY:
            return False
    return True


def jobs_that_should_have_stopped(case: Case) -> Iterator[str]:
    """What a job asked the gateway to do with it by itself: to end it, to pause it, to delete it."""
    for job in case.jobs.values():
        most = job.policy.get("maxRuns")
        ran = sum(_counts_for_max_runs(run) for run in job.runs)
        if most is not None and ran > most:
            yield f"{job.name}: {ran} runs, maxRuns is {most}"
        if job.policy.get("deleteAfterRun"):
            yield from _not_deleted_after_run(case, job)
        if job.policy.get("pauseAfterFailures"):
            yield from _not_paused(case, job)


def _not_deleted_after_run(case: Case, job: Job) -> Iterator[str]:
    done = [at for run in job.runs if _counts_as_done(run) and run["attempt"] for at in case.ended_at(run)]
    changes = [one.at for one in job.defining() if one.kind != "create"]
    is_there = any(view["id"] == job.id for view in case.seen.jobs)
    if done and max(done) < case.seen.calm_since and not changes and is_there:
        yield f"{job.name} had its run, and is not deleted"


def _not_paused(case: Case, job: Job) -> Iterator[str]:
    """After so many failures in a row it is paused, until somebody changes it."""
    ends = sorted(
        (at, run["status"])
        for run in job.runs
        if run["status"] in GOOD | BAD
        for at in case.ended_at(run)[:1]
    )
    changes = [at for one in job.defining() for at in (one.at, one.answered_at or one.at)]
    ends_of_pauses = [seconds_of(one.data["until"]) for one in job.defining() if "until" in one.data]
    changes += [at for wall in ends_of_pauses for at in case.wall.passes(wall)]
    in_a_row, most = 0, job.policy["pauseAfterFailures"]
    for (at, status), (following, _) in pairwise([*ends, (case.seen.quiet_since, "")]):
        in_a_row = in_a_row + 1 if status in BAD else 0
        if any(at - LATENCY <= one <= following for one in changes):
            in_a_row = 0
        if in_a_row >= most:
            until = min([one for one in changes if one > at], default=case.seen.quiet_since)
            yield from _due_though_failing(case, job, at + SETTLED_WITHIN, until)
            return


def _due_though_failing(case: Case, job: Job, since: float, until: float) -> Iterator[str]:
    if case.any_trouble(since - SETTLED_WITHIN, until):
        return
    for run in job.runs:
        passes = case.wall.passes(seconds_of(run["scheduledFor"]))
        if run["trigger"] in OF_THE_SCHEDULE and any(since < at < until for at in passes):
            yield f"{_name(job, run)} came due although the job had failed as often as it may"


# Promise 4: each result arrives, in order, or is shown as undeliverable.


def ill_delivered_notices(case: Case) -> Iterator[str]:
    notices = {_notice(one): one for one in case.seen.deliveries}
    arrived: dict[str, list[str]] = defaultdict(list)
    refused = {_told(one.run_id, one.event) for one in case.seen.arrivals if one.failure == "permanent"}
    for one in case.seen.arrivals:
        notice = _told(one.run_id, one.event)
        if notice not in notices:
            yield f"{one.channel}: {notice} arrived, and is in no record"
        if one.has_it:
            arrived[one.channel].append(notice)
    for notice, delivery in notices.items():
        channel, error = delivery["channelId"], delivery.get("error")
        if delivery["state"] == "waiting":
            yield f"{channel}: {notice} still waits: {error}"
        if delivery["state"] == "delivered" and notice not in arrived[channel]:
            yield f"{channel}: {notice} is said to be delivered, and never came"
        too_old = case.wall.goes_on_a_day and "24 hours" in (error or "")
        if delivery["state"] == "undeliverable" and notice not in refused and not too_old:
            yield f"{channel}: {notice} was given up: {error}"
    yield from _out_of_order(case, arrived)
    for job in case.jobs.values():
        yield from _untold(job, notices)


def _notice(delivery: View) -> str:
    return _told(delivery["runId"], delivery["event"])


def _told(run_id: str, event: str) -> str:
    return f"{event} of {run_id}"


def _out_of_order(case: Case, arrived: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for channel, notices in arrived.items():
        first = list(dict.fromkeys(notices))
        in_order = sorted(case.seen.deliveries, key=lambda one: one["id"])
        sent = [_notice(one) for one in in_order if one["channelId"] == channel and _notice(one) in first]
        for got, expected in zip(first, sent, strict=False):
            if got != expected:
                yield f"{channel}: {got} came before {expected}"
                break


def _untold(job: Job, notices: Mapping[str, Any]) -> Iterator[str]:
    notify = job.policy["notify"]
    for run in job.runs:
        told = _told(run["id"], "run.completed") in notices
        good = run["status"] in GOOD
        ended = run["status"] in GOOD | BAD
        if ended and not told and (notify == "always" or (notify == "failure" and not good)):
            yield f"{_name(job, run)} ended as {run['status']}, and nobody is told"
        if told and (notify == "never" or (notify == "failure" and good)):
            yield f"{_name(job, run)} is told although notify is {notify}"
    missed = [run for run in job.runs if run["status"] == "missed" and "busy" not in (run["reason"] or "")]
    settled = [run for run in missed if SETTLED in (run["reason"] or "")]
    # In the name of one instant, which may have been backfilled since, or ran before a clock was set back.
    is_told = any(_told(run["id"], "run.missed") in notices for run in job.runs)
    if len(missed) > len(settled) and notify != "never" and not is_told:
        yield f"{job.name}: nobody is told of {len(missed)} missed instants"


# A record of work is not work: what those who work have seen must nearly add up to it.


def too_little_work(case: Case) -> Iterator[str]:
    """Of the runs that had an attempt and were not cancelled nearly each has begun."""
    done = sum(line.what == "begin" for line in case.seen.works)
    due = sum(run["status"] in GOOD | BAD and run["attempt"] > 0 for run in case.seen.runs)
    if done + LOST_CLAIMS < due * LEAST_BEGUN:
        yield f"only {done} attempts of {due} runs in {case.seen.quiet_since / 60:.0f} minutes"


def runs_that_nobody_began(case: Case) -> Iterator[str]:
    """In the calm at the end something works as long as anything waits. What still waits is deleted then."""
    for run in case.seen.runs:
        ended = case.ended_at(run)[-1:] if run["status"] == "cancelled" else []
        for at in ended:
            is_late = at > case.seen.quiet_since + LONGEST_IDLE
            if is_late and not any(at - LONGEST_IDLE < line.at < at for line in case.seen.works):
                yield f"{run['id']} waited until {at:.3f}, and nothing worked for {LONGEST_IDLE:g} s"
