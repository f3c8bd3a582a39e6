"""What is said to a channel about a job or a monitor, and the record that it was said.

Its texts are data: a channel escapes them for its service.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Discriminator, TypeAdapter

from carapace_cron.model.record import Instant, Record

DeliveryState = Literal[
    "waiting",  # not sent yet, or to be tried again
    "delivered",
    "undeliverable",  # given up; the error says why
]


class Notice(Record):
    """One message about the end of a run, instants that were missed, or a job that was paused for failing;
    or about nothing, to see whether it arrives (``channel.test``).

    `id` is the idempotency key: the same notice sent twice carries the same id.
    """

    id: str
    tenant: str
    user_id: str  # whose job it is
    channel_id: str  # where the notice goes
    event: Literal["run.completed", "run.missed", "job.paused", "channel.test"] = "run.completed"
    job_id: str
    job_name: str
    run_id: str  # of missed instants the last one's; of a test only a word
    status: str  # a RunState
    success: bool  # whether this is good news
    scheduled_for: Instant  # the instant that the run was for
    finished_at: Instant  # when it ended, or was found to be missed
    attempt: int = 0  # the last one, counted from 1; 0: there was none
    duration_ms: int = 0  # of that attempt
    output: str = ""  # of that attempt, bounded as in its record
    error: str | None = None  # why it did not go well; of a pause, why that is

    @property
    def topic(self) -> str:
        """What the notices of one trouble share, and of two do not: the job."""
        return self.job_id

    @property
    def title(self) -> str:
        if self.event == "channel.test":
            return self.job_name
        return f"{self.job_name}: {'paused' if self.event == 'job.paused' else self.status}"

    @property
    def happened_at(self) -> datetime:
        return self.finished_at

    @property
    def text(self) -> str:
        """The message for people, in the words of the original extension."""
        with_output = self.success and self.output
        return f"{self.summary}\n\nOutput:\n{self.output}" if with_output else self.summary

    @property
    def summary(self) -> str:
        """What happened, without the output."""
        if self.event == "channel.test":
            return f"A test of the channel {self.channel_id}, asked for by {self.user_id}. All is well."
        if self.success:
            return f"Cron job {self.job_id} executed successfully in {self.duration_ms}ms."
        if self.event == "job.paused":
            return f"Cron job {self.job_id} is paused.\n\n{self.error}"
        if self.event == "run.missed":
            return f"Cron job {self.job_id} did not run.\n\n{self.error}"
        body = f"Cron job {self.job_id} failed after {self.duration_ms}ms."
        return f"{body}\n\nError:\n{self.error}" if self.error else body


MonitorNoticeEvent = Literal[
    "monitor.down",  # there were enough failures for an alert
    "monitor.late",  # its ping is due and did not come yet
    "monitor.up",  # well again
    "monitor.failure",  # one more failure
    "monitor.reminder",  # still down
    "monitor.tooOften",  # its runs follow each other too soon
]


class MonitorNotice(Record):
    """One message about a monitor. `id` is the idempotency key, as of any notice."""

    id: str
    tenant: str
    user_id: str
    channel_id: str
    event: MonitorNoticeEvent
    monitor_id: str  # its unique key: whoever reads this may not ping it
    monitor_name: str  # its slug or its unique key where it has none
    incident_id: str  # the same for all that is told of one incident
    status: str  # a Shown
    success: bool  # whether this is good news
    at: Instant  # when it happened, however late it is told
    since: Instant  # when the incident began
    expected_at: Instant | None = None  # when a ping is, or was, due
    last_ping_at: Instant | None = None
    failures_in_row: int = 0
    duration_ms: int | None = None  # of the run that ended
    tags: tuple[str, ...] = ()
    reason: str  # a sentence of ours
    output: str = ""  # what the ping had in its body

    @property
    def topic(self) -> str:
        """What the notices of one trouble share, and of two do not: the incident."""
        return self.incident_id

    @property
    def title(self) -> str:
        return f"{self.monitor_name}: {_TITLES[self.event]}"

    @property
    def happened_at(self) -> datetime:
        return self.at

    @property
    def summary(self) -> str:
        """What happened, without the output."""
        return self.reason

    @property
    def text(self) -> str:
        """The message for people."""
        return f"{self.reason}\n\nOutput:\n{self.output}" if self.output else self.reason


_TITLES = {
    "monitor.down": "down",
    "monitor.late": "late",
    "monitor.up": "up",
    "monitor.failure": "failed",
    "monitor.reminder": "still down",
    "monitor.tooOften": "too often",
}

AnyNotice = Annotated[Notice | MonitorNotice, Discriminator("event")]
NOTICES: TypeAdapter[Notice | MonitorNotice] = TypeAdapter(AnyNotice)
"""Reads a notice as it was kept."""


class Delivery(Record):
    """One notice on its way to one channel. `sequence` orders the deliveries of a channel. `courier`: who
    took it last; None: nobody has since its last try, or there is only one."""

    sequence: int
    notice: AnyNotice
    state: DeliveryState = "waiting"
    tries: int = 0  # so far
    next_try_at: Instant  # not before it; means nothing once it is not waiting
    courier: str | None = None
    error: str | None = None  # of the last try; None: there was none, or it went well
    created_at: Instant
    finished_at: Instant | None = None  # when it was delivered, or given up
