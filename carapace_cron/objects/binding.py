"""One bucket, one ledger: two gateways with ledgers of their own would each run every job of the bucket."""

from __future__ import annotations

import json
import logging
from datetime import datetime

from carapace_cron.errors import ConfigurationError, Unavailable
from carapace_cron.ids import random_text
from carapace_cron.model.record import instant_text
from carapace_cron.ports.object_store import Conflict, ObjectStore, Stored, StoredObject

log = logging.getLogger(__name__)

KEY = "cron/ledger.json"


async def bind_to_ledger(
    objects: ObjectStore, ledger_id: str, host: str, now: datetime, *, adopt: bool
) -> None:
    """Write down that the ledger `ledger_id` runs the jobs of this store, or see that it says so.

    Raises `ConfigurationError` when another ledger does; with `adopt` that one is replaced.
    """
    found = await objects.get(KEY)
    owner = None if found is None else _owner(found)
    if owner is not None and owner.get("ledgerId") == ledger_id:
        return
    if owner is not None and not adopt:
        raise ConfigurationError(
            f"the jobs of this bucket are run by the ledger of the gateway on {owner.get('host', '?')} since "
            f"{owner.get('since', '?')}; a second gateway with a ledger of its own would run each job twice. "
            "Stop that one for good, then start this one once with CARAPACE_CRON_ADOPT_BUCKET=1"
        )
    document = {"ledgerId": ledger_id, "host": host, "since": instant_text(now), "writeId": random_text()}
    body = json.dumps(document).encode()
    if found is None:
        outcome = await objects.put(KEY, body, if_absent=True)
    else:
        log.warning("taking over a bucket from another ledger", extra={"action": "adopt_bucket"})
        outcome = await objects.put(KEY, body, if_match=found.etag)
    if isinstance(outcome, Conflict):
        if await new_owner(objects, ledger_id) is None:
            return  # a gateway that shares the ledger was quicker
        raise ConfigurationError("another gateway took this bucket a moment ago: stop one of the two")
    if not isinstance(outcome, Stored):
        raise Unavailable(f"the bucket could not be marked as this gateway's own: {outcome.reason}")


async def new_owner(objects: ObjectStore, ledger_id: str) -> str | None:
    """The host of the ledger that has taken over this store; None while it is bound to `ledger_id`."""
    found = await objects.get(KEY)
    owner = {"ledgerId": ledger_id} if found is None else _owner(found)
    return None if owner.get("ledgerId") == ledger_id else str(owner.get("host", "?"))


def _owner(found: StoredObject) -> dict[str, str]:
    try:
        owner = json.loads(found.body)
    except ValueError:
        owner = None
    return owner if isinstance(owner, dict) else {"host": f"an unknown machine ({KEY} cannot be read)"}
