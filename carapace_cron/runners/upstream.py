"""What a run that another one started is told of it: an envelope that says that it holds data.

The same shape for all runners: an agent finds it in its metadata, a server in the body, a program on its
stdin. Nothing of it ever becomes a part of the command.
"""

from __future__ import annotations

import json
from typing import Any

from carapace_cron.ports.runner import Work


def upstream_envelope(work: Work) -> dict[str, Any]:
    """``{"upstream": {"type": "upstream_run", "untrusted": true, jobId, runId, status, scheduledFor, output,
    error, metadata}}``; empty for work that no other run started.

    An agent that reads it must take all of it for data: what a job fetched may hold sentences meant for
    the agent.
    """
    if work.upstream is None:
        return {}
    return {"upstream": {"type": "upstream_run", "untrusted": True, **work.upstream}}


def upstream_json(work: Work) -> bytes | None:
    """The envelope in UTF-8; None for work that no other run started."""
    envelope = upstream_envelope(work)
    return json.dumps(envelope, ensure_ascii=False).encode() if envelope else None
