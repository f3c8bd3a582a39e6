"""A job that the successes of another start: once each, however often the gateway dies meanwhile."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from support.checker import Evidence, JobMade, instant_of
from support.gateway_process import GatewayProcess
from support.workload import RETRY


@dataclass(frozen=True)
class Follower:
    """Made, in seconds since 1970, from `asked` to `made`; what its leader ended before does not count."""

    job: JobMade
    leader: JobMade
    asked: float
    made: float


async def follow(gateway: GatewayProcess, leader: JobMade, url: str) -> Follower:
    draft = {
        "name": "follower",
        "schedule": "never",
        "command": f"{url}/quick",
        "channelId": "gateway",
        "overlap": "queue",
        "retry": RETRY,
        "after": [{"jobId": leader.id, "when": "success"}],
    }
    asked = time.time()
    said = await gateway.call("carapace.cron.create", data=draft)
    job = JobMade(
        id=said["id"],
        created=datetime.fromisoformat(said["createdAt"]),
        due=lambda created, until: iter(()),
        channel="gateway",
        path="/quick",
        overlap="queue",
        max_attempts=leader.max_attempts,
    )
    return Follower(job, leader, asked, time.time())


def made(follower: Follower, seen: Evidence) -> JobMade:
    """For the checker: what is due of it is what `ill_followed` judges."""
    instants = [
        instant_of(row["scheduled_for"]) for row in seen.runs if row["job_id"] == follower.job.id
    ]
    return replace(follower.job, due=lambda created, until: iter(instants))


def ill_followed(follower: Follower, seen: Evidence) -> Iterator[str]:
    """Where a success of the leader has no run, or more than one, or a run has no such success."""
    started = Counter(row["caused_by"] for row in seen.runs if row["job_id"] == follower.job.id)
    ends = {
        row["id"]: row["finished_at"] / 1e6
        for row in seen.runs
        if row["job_id"] == follower.leader.id and row["status"] == "success"
    }
    for run, count in started.items():
        if count > 1 or ends.get(run, 0.0) < follower.asked:
            yield f"{count} runs of {follower.job.id} were started by {run}"
    for run, ended in ends.items():
        if ended > follower.made and run not in started:
            yield f"the success of {run} started no run of {follower.job.id}"
