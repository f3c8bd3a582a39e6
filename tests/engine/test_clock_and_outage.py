"""What an outage and a moved clock do together: each was found by the simulation."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from carapace_cron.errors import Unavailable
from carapace_cron.ledger.planning import JobPlan, Planned

from .conftest import Engine, minutes


async def test_an_instant_that_comes_again_after_an_outage_has_its_record(engine: Engine) -> None:
    """The ledger is away at 09:02, then the clock is set back: 09:02 is to come once more."""
    job = engine.add("* * * * *")
    real, away = engine.runs.record_due, True

    async def record_due(plans: Sequence[JobPlan], now: datetime) -> list[Planned]:
        if away:
            raise Unavailable("the ledger is away")
        return await real(plans, now)

    engine.start()
    await engine.clock.advance(90)
    engine.runs.record_due = record_due  # type: ignore[method-assign]
    await engine.clock.advance(30.2)
    engine.clock.step(-timedelta(seconds=7))
    away = False
    await engine.clock.advance(70)
    assert minutes([run.scheduled_for for run in await engine.all_runs(job)]) == ["09:01", "09:02", "09:03"]
