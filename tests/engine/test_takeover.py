"""Gateways that share a ledger take over the attempts of one that is gone, and of no other."""

from __future__ import annotations

from datetime import timedelta

from carapace_cron.executor import LEASE
from carapace_cron.ledger.claiming import Claim
from carapace_cron.ledger.planning import empty_plan

from .conftest import Engine


async def claim(engine: Engine, owner: str) -> Claim:
    now = engine.clock.now()
    claimed = await engine.runs.claim(owner=owner, slots=1, now=now, lease_until=now + LEASE)
    (claim,) = claimed.claims
    return claim


async def test_an_attempt_that_began_meanwhile_is_not_taken_for_the_one_that_was_lost(engine: Engine) -> None:
    """Two gateways find that one is gone; the first of them has tried the run again by the time at which the
    second asks what it was."""
    job = engine.add("0 10 * * *", retry={"maxAttempts": 3, "initialSeconds": 0})
    await engine.runs.start_now(empty_plan(job), "k", engine.clock.now())
    lost = await claim(engine, "a gateway that is gone")
    held = await engine.runs.leases()
    assert await engine.runs.claims_of(held) == [lost]
    await engine.runs.record_ends([engine.executor._lost(lost, engine.clock.now())])
    engine.clock.step(timedelta(seconds=1))
    again = await claim(engine, "the first")
    assert again.attempt == 2
    assert await engine.runs.claims_of(held) == []
    assert await engine.runs.claims_of(await engine.runs.leases()) == [again]
