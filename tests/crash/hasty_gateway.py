"""The gateway program itself, with its long waits cut short: what takes hours or a minute happens in seconds.

No setting does this, for nobody who runs a gateway would want it. Run as the program, it takes the same
arguments as ``carapace-cron``.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from types import ModuleType

from carapace_cron import executor, house
from carapace_cron.channels import hands
from carapace_cron.cli.main import main
from carapace_cron.engines import PATIENCE, postgresql_engine
from carapace_cron.services import upkeep

LEASE_SECONDS = 3
HEARTBEAT_SECONDS = LEASE_SECONDS / 4
TAKEOVER_SECONDS = 4.5
STOPPED_WRITER_SECONDS = 1.0  # how long one that was stopped in a transaction can hold up the others


def cut(module: ModuleType, name: str, value: object) -> None:
    assert hasattr(module, name), f"{module.__name__} has no {name} any more"
    setattr(module, name, value)


if __name__ == "__main__":
    cut(executor, "LEASE", timedelta(seconds=LEASE_SECONDS))
    cut(executor, "HEARTBEAT_SECONDS", HEARTBEAT_SECONDS)
    cut(executor, "TAKEOVER_SECONDS", TAKEOVER_SECONDS)
    cut(executor, "LATEST_CLAIM_SECONDS", LEASE_SECONDS / 2)
    hasty = {**PATIENCE, "idle_in_transaction_session_timeout": round(STOPPED_WRITER_SECONDS * 1000)}
    cut(house, "postgresql_engine", partial(postgresql_engine, patience=hasty))
    cut(hands, "TAKEOVER_SECONDS", TAKEOVER_SECONDS)
    cut(upkeep, "ROUND_SECONDS", 0.5)
    cut(upkeep, "PRUNE_SECONDS", 1.0)
    cut(upkeep, "FIRST_PRUNE_SECONDS", 1.0)
    cut(upkeep, "TOMBSTONE_DAYS", 3 / 86_400)
    main()
