"""The judge of chains finds what is wrong."""

from __future__ import annotations

from datetime import UTC, datetime

from crash.chain import Follower, ill_followed
from support.checker import Evidence, JobMade

NINE = datetime(2026, 11, 21, 9, tzinfo=UTC)
START = NINE.timestamp()


def follower() -> Follower:
    leader, job = (
        JobMade(id=name, created=NINE, due=lambda created, until: iter(()), channel="gateway")
        for name in ("leader", "job")
    )
    return Follower(job, leader, START + 1, START + 2)


def ended(run: str, at: float, *, status: str = "success") -> dict[str, object]:
    finished = round((START + at) * 1e6)
    return {"id": run, "job_id": "leader", "status": status, "finished_at": finished, "caused_by": None}


def started(cause: str) -> dict[str, object]:
    return ended(f"after {cause}", 9) | {"job_id": "job", "caused_by": cause}


def faults(*rows: dict[str, object]) -> list[str]:
    return list(ill_followed(follower(), Evidence(list(rows), [], [])))


def test_it_finds_nothing_where_each_success_started_one_run() -> None:
    rows = [ended("early", 0.5), ended("failed", 4, status="failure"), ended("a", 3), ended("b", 4)]
    assert faults(*rows, started("a"), started("b")) == []


def test_it_takes_either_of_a_success_while_the_follower_was_made() -> None:
    assert faults(ended("a", 1.5)) == faults(ended("a", 1.5), started("a")) == []


def test_it_says_what_was_not_started_started_twice_or_by_nothing() -> None:
    assert faults(ended("a", 3)) == ["the success of a started no run of job"]
    assert faults(ended("a", 3), started("a"), started("a")) == ["2 runs of job were started by a"]
    assert faults(ended("early", 0.5), started("early")) == ["1 runs of job were started by early"]
    assert faults(ended("a", 3, status="failure"), started("a")) == ["1 runs of job were started by a"]
