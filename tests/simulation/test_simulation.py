"""Stories of gateways in trouble, one a seed, each judged from the outside. See ``docs/testing.md``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .kept_seeds import KEPT_SEEDS
from .story import FAULTS, Plan, Told, replay_command, tell, too_little_happened

SEEDS = 500
SEEDS_A_TEST = 10


def complaint(told: Told) -> str:
    faults = "\n  ".join(told.faults[:20])
    return f"{told.plan}\n  {faults}\nsee it again: {replay_command(told.plan.seed)}"


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_A_TEST))
def test_no_story_breaks_a_promise(first: int) -> None:
    begins, simulated_seconds = 0, 0.0
    for seed in range(first, first + SEEDS_A_TEST):
        told = tell(seed)
        assert not told.faults, complaint(told)
        begins += told.begins
        simulated_seconds += told.simulated_seconds
    assert not too_little_happened(begins, simulated_seconds)


@pytest.mark.parametrize("seed", KEPT_SEEDS)
def test_what_was_found_once_is_found_no_more(seed: int) -> None:
    told = tell(seed)
    assert not told.faults, f"{KEPT_SEEDS[seed]}: {complaint(told)}"


def test_every_fault_has_its_stories() -> None:
    plans = [Plan.of(seed) for seed in range(SEEDS)]
    counts = {fault: sum(fault in plan.faults for plan in plans) for plan in plans for fault in plan.faults}
    assert counts.keys() == FAULTS.keys()
    assert min(counts.values()) >= SEEDS / 50
    assert sum(plan.gateways == 2 for plan in plans) >= SEEDS / 2


def time_line(seed: int, hash_seed: int) -> str:
    """The story as another process tells it, whose sets of texts have another order."""
    here = Path(__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": f"{here.parent}:{here}", "PYTHONHASHSEED": str(hash_seed)}
    command = [sys.executable, "-m", "simulation.story", str(seed), "--verbose"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize("seed", [2, 3])
def test_a_seed_tells_the_same_story_in_any_process(seed: int) -> None:
    first, second = (time_line(seed, hash_seed) for hash_seed in (1, 2))
    assert first.count("\n") > 20
    assert first == second


def test_a_seed_tells_the_same_story_twice() -> None:
    first, second = tell(4), tell(4)
    assert first.lines == second.lines
    assert first.evidence.works == second.evidence.works
    assert first.evidence.arrivals == second.evidence.arrivals
    assert first.evidence.runs == second.evidence.runs
