"""What callers see of the records: the shapes of the original extension, and what came since."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from carapace_cron.ids import job_monitor_id
from carapace_cron.model.job import Job
from carapace_cron.model.record import instant_text
from carapace_cron.model.run import Run
from carapace_cron.services.board import Standing

_INTERNAL = {"write_id", "earlier_write_ids", "deleted_at", "scheduled_since", "tenant"}
_FIRST = ("id", "userId", "name", "description", "cronExpression", "command", "channelId", "enabled")
_STANDING = {
    "execution_count",
    "failure_count",
    "last_executed_at",
    "last_status",
    "last_error",
    "next_execution_at",
}


def job_view(job: Job, standing: Standing, next_at: datetime | None) -> dict[str, Any]:
    """A job on the wire. What is not set is left out; `nextExecutionAt` is left out when nothing is due."""
    fields = job.model_dump(mode="json", by_alias=True, exclude_none=True, exclude=_INTERNAL | _STANDING)
    fields["cronExpression"] = job.schedule
    view = {name: fields.pop(name) for name in _FIRST if name in fields} | fields
    view["executionCount"] = standing.execution_count
    view["failureCount"] = standing.failure_count
    if standing.last_executed_at is not None:
        view["lastExecutedAt"] = instant_text(standing.last_executed_at)
        view["lastStatus"] = standing.last_status
    if standing.last_error is not None:
        view["lastError"] = standing.last_error
    if job.monitor is not None:
        view["monitorId"] = job_monitor_id(job.id)
    if next_at is not None:
        view["nextExecutionAt"] = instant_text(next_at)
    return view


def run_view(run: Run) -> dict[str, Any]:
    """A run on the wire: every name is there, null where there is nothing to say."""
    return run.model_dump(mode="json", by_alias=True, exclude={"tenant"})
