"""What is said to a channel about a run, or about runs that were missed, and the record that it was said."""

from __future__ import annotations

from typing import Literal

from carapace_cron.model.record import Instant, Record

DeliveryState = Literal[
    "waiting",  # not sent yet, or to be tried again
    "delivered",
    "undeliverable",  # given up; the error says why
]


class Notice(Record):
    """One message about the end of a run, instants that were missed, or a job that was paused for failing.

    Its texts are data: a channel escapes them for its service.

    `id` is the idempotency key: the same notice sent twice carries the same id.
    """

    id: str
    tenant: str
    user_id: str
    channel_id: str
    event: Literal["run.completed", "run.missed", "job.paused"] = "run.completed"
    job_id: str
    job_name: str
    run_id: str
    status: str  # a RunState
    success: bool
    scheduled_for: Instant
    finished_at: Instant
    attempt: int = 0
    duration_ms: int = 0
    output: str = ""
    error: str | None = None

    @property
    def title(self) -> str:
        return f"{self.job_name}: {'paused' if self.event == 'job.paused' else self.status}"

    @property
    def text(self) -> str:
        """The message for people, in the words of the original extension."""
        if self.success:
            body = f"Cron job {self.job_id} executed successfully in {self.duration_ms}ms."
            return f"{body}\n\nOutput:\n{self.output}" if self.output else body
        if self.event == "job.paused":
            return f"Cron job {self.job_id} is paused.\n\n{self.error}"
        if self.event == "run.missed":
            return f"Cron job {self.job_id} did not run.\n\n{self.error}"
        body = f"Cron job {self.job_id} failed after {self.duration_ms}ms."
        return f"{body}\n\nError:\n{self.error}" if self.error else body


class Delivery(Record):
    """One notice on its way to one channel. `sequence` orders the deliveries of a channel."""

    sequence: int
    notice: Notice
    state: DeliveryState = "waiting"
    tries: int = 0
    next_try_at: Instant
    error: str | None = None
    created_at: Instant
    finished_at: Instant | None = None
